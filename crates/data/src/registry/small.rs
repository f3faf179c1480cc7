//! Sets of small images: drawn from the seed, the MNIST family, CIFAR, SVHN.

use super::parts::{md5, pad_crop_flip, sha256, strings};
use crate::augment::{Augment, Crop};
use crate::info::{Info, Reader};

/// CIFAR-10 channel statistics used throughout the robustness literature.
const CIFAR10_MEAN: [f64; 3] = [0.4914, 0.4822, 0.4465];
const CIFAR10_STD: [f64; 3] = [0.2471, 0.2435, 0.2616];
const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const FASHION: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];
const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const CIFAR100: &str = "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus \
     butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch \
     crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo \
     keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain \
     mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain \
     plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk \
     skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone \
     television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm";

pub(super) fn synthetic() -> Info {
    Info {
        name: "synthetic".into(),
        title: "Synthetic waves (drawn from the seed: no file, no network)".into(),
        classes: (0..10).map(|k| format!("wave-{k}")).collect(),
        num_classes: 10,
        channels: 3,
        height: 32,
        width: 32,
        train: 10_000,
        test: 2_000,
        mean: vec![],
        std: vec![],
        licence: "none needed".into(),
        homepage: "part of this program".into(),
        sources: vec![],
        also: vec![],
        package: None,
        augment: Augment::NONE,
        reader: Reader::Synthetic,
    }
}

pub(super) fn mnist_family(
    name: &str,
    title: &str,
    classes: &[&str],
    licence: &str,
    homepage: &str,
) -> Info {
    Info {
        name: name.into(),
        title: title.into(),
        classes: strings(classes),
        num_classes: 10,
        channels: 1,
        height: 28,
        width: 28,
        train: 60_000,
        test: 10_000,
        mean: vec![],
        std: vec![],
        licence: licence.into(),
        homepage: homepage.into(),
        sources: vec![],
        also: vec![],
        package: None,
        augment: Augment::NONE,
        reader: Reader::Idx,
    }
}

pub(super) fn fashion_mnist() -> Info {
    // The authors' repository has the same bytes as their plain-HTTP storage, but serves them over
    // TLS.
    let base =
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/";
    Info {
        sources: vec![
            sha256(
                "train-images-idx3-ubyte.gz",
                base,
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            sha256(
                "train-labels-idx1-ubyte.gz",
                base,
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            sha256(
                "t10k-images-idx3-ubyte.gz",
                base,
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            sha256(
                "t10k-labels-idx1-ubyte.gz",
                base,
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ],
        package: Some("dataset-fashion-mnist".into()),
        ..mnist_family(
            "fashion-mnist",
            "Fashion-MNIST",
            &FASHION,
            "MIT",
            "https://github.com/zalandoresearch/fashion-mnist",
        )
    }
}

pub(super) fn mnist() -> Info {
    // The original host refuses downloads; torchvision uses this mirror.
    let base = "https://ossci-datasets.s3.amazonaws.com/mnist/";
    Info {
        sources: vec![
            sha256(
                "train-images-idx3-ubyte.gz",
                base,
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            sha256(
                "train-labels-idx1-ubyte.gz",
                base,
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            sha256(
                "t10k-images-idx3-ubyte.gz",
                base,
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            sha256(
                "t10k-labels-idx1-ubyte.gz",
                base,
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ],
        ..mnist_family(
            "mnist",
            "MNIST",
            &DIGITS,
            "CC BY-SA 3.0",
            "http://yann.lecun.com/exdb/mnist/",
        )
    }
}

pub(super) fn cifar10() -> Info {
    Info {
        name: "cifar10".into(),
        title: "CIFAR-10".into(),
        classes: strings(&CIFAR10),
        num_classes: 10,
        channels: 3,
        height: 32,
        width: 32,
        train: 50_000,
        test: 10_000,
        mean: CIFAR10_MEAN.to_vec(),
        std: CIFAR10_STD.to_vec(),
        licence: "not stated by the authors (research use is customary)".into(),
        homepage: "https://www.cs.toronto.edu/~kriz/cifar.html".into(),
        sources: vec![sha256(
            "cifar-10-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        )],
        also: vec![md5(
            "cifar-10-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/",
            Some(170_498_071),
            "c58f30108f718f92721af3b95e74349a",
        )],
        package: None,
        augment: pad_crop_flip(4),
        reader: Reader::Cifar10,
    }
}

pub(super) fn cifar100() -> Info {
    Info {
        name: "cifar100".into(),
        title: "CIFAR-100 (fine labels)".into(),
        classes: CIFAR100.split_whitespace().map(str::to_owned).collect(),
        num_classes: 100,
        mean: vec![],
        std: vec![],
        sources: vec![sha256(
            "cifar-100-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        )],
        also: vec![md5(
            "cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/",
            None,
            "eb9058c3a382ffc7106e4002c42a8d85",
        )],
        reader: Reader::Cifar100,
        ..cifar10()
    }
}

pub(super) fn svhn() -> Info {
    let base = "http://ufldl.stanford.edu/housenumbers/";
    Info {
        name: "svhn".into(),
        title: "SVHN, cropped digits".into(),
        classes: strings(&DIGITS),
        train: 73_257,
        test: 26_032,
        mean: vec![],
        std: vec![],
        licence: "non-commercial use only".into(),
        homepage: base.into(),
        sources: vec![
            sha256(
                "train_32x32.mat",
                base,
                182_040_794,
                "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            ),
            sha256(
                "test_32x32.mat",
                base,
                64_275_384,
                "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            ),
        ],
        also: vec![],
        // A mirrored digit is not a digit, so the augmentation has no flip.
        augment: Augment { crop: Crop::Pad(4), ..Augment::NONE },
        reader: Reader::Mat,
        ..cifar10()
    }
}
