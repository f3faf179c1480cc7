//! The data sets known by name: metadata, official addresses, published sizes and checksums.
//!
//! Where the checksums come from: SHA-256 and sizes of the MNIST family, CIFAR and SVHN are those recorded by TensorFlow
//! Datasets (`url_checksums/`), and agree with those in other public loaders (dlipr, torchvision's prototype datasets,
//! MLDatasets.jl, GoMLX) and, for CIFAR, with the MD5 on the authors' page; MD5 of MedMNIST are those of the MedMNIST
//! package; MD5 and size of Tiny ImageNet are those used by the public PyTorch loaders.

use crate::augment::{Augment, Crop};
use crate::info::{Checksum, Info, Reader, Source};

/// CIFAR-10 channel statistics used throughout the robustness literature.
const CIFAR10_MEAN: [f64; 3] = [0.4914, 0.4822, 0.4465];
const CIFAR10_STD: [f64; 3] = [0.2471, 0.2435, 0.2616];
const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const FASHION: [&str; 10] = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
const CIFAR10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const CIFAR100: &str = "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly \
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin \
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man \
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree \
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail \
    snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout \
    tulip turtle wardrobe whale willow_tree wolf woman worm";
const ORGANS: &[&str] = &[
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
];

/// Every registered data set, in the order in which they are listed to people.
pub fn registry() -> Vec<Info> {
    let mut all = vec![synthetic(), fashion_mnist(), mnist(), cifar10(), cifar100(), svhn()];
    all.extend(MEDMNIST.iter().map(medmnist));
    all.extend([tiny_imagenet(), imagenet100(), folder()]);
    all
}

/// The registered set of that name.
pub fn find(name: &str) -> Option<Info> {
    registry().into_iter().find(|info| info.name == name)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|s| (*s).to_owned()).collect()
}

fn sha256(file: &str, base: &str, size: u64, hex: &str) -> Source {
    Source { file: file.to_owned(), url: format!("{base}{file}"), size: Some(size), checksum: Checksum::Sha256(hex.to_owned()) }
}

fn pad_crop_flip(pad: usize) -> Augment {
    Augment { crop: Crop::Pad(pad), flip: true, rotate: 0.0 }
}

fn synthetic() -> Info {
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
        package: None,
        augment: Augment::NONE,
        reader: Reader::Synthetic,
    }
}

fn mnist_family(name: &str, title: &str, classes: &[&str], licence: &str, homepage: &str) -> Info {
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
        package: None,
        augment: Augment::NONE,
        reader: Reader::Idx,
    }
}

fn fashion_mnist() -> Info {
    // The authors' repository; the same bytes as on their plain-HTTP storage, but over TLS.
    let base = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/";
    Info {
        sources: vec![
            sha256("train-images-idx3-ubyte.gz", base, 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            sha256("train-labels-idx1-ubyte.gz", base, 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            sha256("t10k-images-idx3-ubyte.gz", base, 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            sha256("t10k-labels-idx1-ubyte.gz", base, 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ],
        package: Some("dataset-fashion-mnist".into()),
        ..mnist_family("fashion-mnist", "Fashion-MNIST", &FASHION, "MIT", "https://github.com/zalandoresearch/fashion-mnist")
    }
}

fn mnist() -> Info {
    // The original host refuses downloads; this is the mirror that torchvision uses.
    let base = "https://ossci-datasets.s3.amazonaws.com/mnist/";
    Info {
        sources: vec![
            sha256("train-images-idx3-ubyte.gz", base, 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            sha256("train-labels-idx1-ubyte.gz", base, 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            sha256("t10k-images-idx3-ubyte.gz", base, 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            sha256("t10k-labels-idx1-ubyte.gz", base, 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ],
        ..mnist_family("mnist", "MNIST", &DIGITS, "CC BY-SA 3.0", "http://yann.lecun.com/exdb/mnist/")
    }
}

fn cifar10() -> Info {
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
        package: None,
        augment: pad_crop_flip(4),
        reader: Reader::Cifar10,
    }
}

fn cifar100() -> Info {
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
        reader: Reader::Cifar100,
        ..cifar10()
    }
}

fn svhn() -> Info {
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
            sha256("train_32x32.mat", base, 182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
            sha256("test_32x32.mat", base, 64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
        ],
        // Digits are not symmetric: no flip.
        augment: Augment { crop: Crop::Pad(4), flip: false, rotate: 0.0 },
        reader: Reader::None("MATLAB .mat".into()),
        ..cifar10()
    }
}

struct Med {
    name: &'static str,
    title: &'static str,
    channels: usize,
    train: usize,
    test: usize,
    size: Option<u64>,
    md5: &'static str,
    classes: &'static [&'static str],
}

/// The single-label sets of MedMNIST v2 in 28x28 (ChestMNIST is multi-label and so no classification task of this program).
#[rustfmt::skip]
const MEDMNIST: [Med; 11] = [
    Med { name: "pathmnist", title: "PathMNIST", channels: 3, train: 89_996, test: 7_180, size: Some(205_615_438),
        md5: "a8b06965200029087d5bd730944a56c1", classes: &["adipose", "background", "debris", "lymphocytes", "mucus",
        "smooth muscle", "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium"] },
    Med { name: "dermamnist", title: "DermaMNIST", channels: 3, train: 7_007, test: 2_005, size: None,
        md5: "0744692d530f8e62ec473284d019b0c7", classes: &["actinic keratoses and intraepithelial carcinoma",
        "basal cell carcinoma", "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
        "vascular lesions"] },
    Med { name: "octmnist", title: "OCTMNIST", channels: 1, train: 97_477, test: 1_000, size: None,
        md5: "c68d92d5b585d8d81f7112f81e2d0842", classes: &["choroidal neovascularization", "diabetic macular edema",
        "drusen", "normal"] },
    Med { name: "pneumoniamnist", title: "PneumoniaMNIST", channels: 1, train: 4_708, test: 624, size: None,
        md5: "28209eda62fecd6e6a2d98b1501bb15f", classes: &["normal", "pneumonia"] },
    Med { name: "retinamnist", title: "RetinaMNIST", channels: 3, train: 1_080, test: 400, size: None,
        md5: "bd4c0672f1bba3e3a89f0e4e876791e4", classes: &["grade 0", "grade 1", "grade 2", "grade 3", "grade 4"] },
    Med { name: "breastmnist", title: "BreastMNIST", channels: 1, train: 546, test: 156, size: None,
        md5: "750601b1f35ba3300ea97c75c52ff8f6", classes: &["malignant", "normal, benign"] },
    Med { name: "bloodmnist", title: "BloodMNIST", channels: 3, train: 11_959, test: 3_421, size: None,
        md5: "7053d0359d879ad8a5505303e11de1dc", classes: &["basophil", "eosinophil", "erythroblast",
        "immature granulocytes", "lymphocyte", "monocyte", "neutrophil", "platelet"] },
    Med { name: "tissuemnist", title: "TissueMNIST", channels: 1, train: 165_466, test: 47_280, size: None,
        md5: "ebe78ee8b05294063de985d821c1c34b", classes: &["collecting duct, connecting tubule",
        "distal convoluted tubule", "glomerular endothelial cells", "interstitial endothelial cells", "leukocytes",
        "podocytes", "proximal tubule segments", "thick ascending limb"] },
    Med { name: "organamnist", title: "OrganAMNIST", channels: 1, train: 34_581, test: 17_778, size: None,
        md5: "866b832ed4eeba67bfb9edee1d5544e6", classes: ORGANS },
    Med { name: "organcmnist", title: "OrganCMNIST", channels: 1, train: 13_000, test: 8_268, size: None,
        md5: "0afa5834fb105f7705a7d93372119a21", classes: ORGANS },
    Med { name: "organsmnist", title: "OrganSMNIST", channels: 1, train: 13_940, test: 8_829, size: None,
        md5: "e5c39f1af030238290b9557d9503af9d", classes: ORGANS },
];

fn medmnist(set: &Med) -> Info {
    let file = format!("{}.npz", set.name);
    Info {
        name: set.name.into(),
        title: set.title.into(),
        classes: strings(set.classes),
        num_classes: set.classes.len(),
        channels: set.channels,
        height: 28,
        width: 28,
        train: set.train,
        test: set.test,
        mean: vec![],
        std: vec![],
        licence: if set.name == "dermamnist" { "CC BY-NC 4.0" } else { "CC BY 4.0" }.into(),
        homepage: "https://medmnist.com".into(),
        sources: vec![Source {
            url: format!("https://zenodo.org/records/10519652/files/{file}?download=1"),
            file,
            size: set.size,
            checksum: Checksum::Md5(set.md5.into()),
        }],
        package: None,
        augment: Augment { crop: Crop::None, flip: true, rotate: 10.0 },
        reader: Reader::Npz,
    }
}

fn tiny_imagenet() -> Info {
    Info {
        name: "tiny-imagenet".into(),
        title: "Tiny ImageNet (the validation images serve as test split)".into(),
        classes: vec![],
        num_classes: 200,
        channels: 3,
        height: 64,
        width: 64,
        train: 100_000,
        test: 10_000,
        mean: vec![],
        std: vec![],
        licence: "ImageNet terms of access: non-commercial research".into(),
        homepage: "http://cs231n.stanford.edu/".into(),
        sources: vec![Source {
            file: "tiny-imagenet-200.zip".into(),
            url: "http://cs231n.stanford.edu/tiny-imagenet-200.zip".into(),
            size: Some(248_100_043),
            checksum: Checksum::Md5("90528d7ca1a48142e341f4ef8d21d0de".into()),
        }],
        package: None,
        augment: pad_crop_flip(8),
        reader: Reader::None("a zip of JPEG files with its own validation list".into()),
    }
}

fn imagenet100() -> Info {
    Info {
        name: "imagenet100".into(),
        title: "ImageNet-100 (100 classes of ILSVRC 2012)".into(),
        num_classes: 100,
        height: 224,
        width: 224,
        train: 0,
        test: 5_000,
        mean: IMAGENET_MEAN.to_vec(),
        std: IMAGENET_STD.to_vec(),
        homepage: "https://www.image-net.org/download.php".into(),
        // ImageNet may not be redistributed: there is no public address to fetch it from.
        sources: vec![],
        augment: Augment { crop: Crop::Resized { min_scale: 0.08 }, flip: true, rotate: 0.0 },
        reader: Reader::None("a selection of ImageNet's JPEG files, to be had from image-net.org with an account".into()),
        ..tiny_imagenet()
    }
}

fn folder() -> Info {
    Info {
        name: "folder".into(),
        title: "Your own images: folder:PATH with PATH/train/CLASS/*.png|jpg and PATH/test/CLASS/*.png|jpg".into(),
        classes: vec![],
        num_classes: 0,
        channels: 0,
        height: 0,
        width: 0,
        train: 0,
        test: 0,
        mean: vec![],
        std: vec![],
        licence: "yours".into(),
        homepage: "your disk".into(),
        sources: vec![],
        package: None,
        augment: pad_crop_flip(4),
        reader: Reader::Folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rows_are_well_formed() {
        let all = registry();
        let names: HashSet<_> = all.iter().map(|i| &i.name).collect();
        assert_eq!(names.len(), all.len());
        for info in &all {
            assert!(info.classes.is_empty() || info.classes.len() == info.num_classes, "{}", info.name);
            assert_eq!(info.classes.iter().collect::<HashSet<_>>().len(), info.classes.len(), "{}", info.name);
            assert!(info.mean.is_empty() || info.mean.len() == info.channels, "{}", info.name);
            assert_eq!(info.mean.len(), info.std.len(), "{}", info.name);
            for source in &info.sources {
                let digits = match &source.checksum {
                    Checksum::Sha256(_) => 64,
                    Checksum::Md5(_) => 32,
                };
                let hex = source.checksum.hex();
                assert_eq!(hex.len(), digits, "{}", source.file);
                assert!(hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{}", source.file);
                assert!(source.url.contains(&source.file));
                assert!(!source.file.contains(['/', '\\']));
            }
            assert!(!info.how_to_get().is_empty());
        }
    }

    #[test]
    fn names_of_the_command_line_contract_are_there() {
        for name in
            ["fashion-mnist", "mnist", "cifar10", "cifar100", "svhn", "pathmnist", "tiny-imagenet", "imagenet100", "folder", "synthetic"]
        {
            assert!(find(name).is_some(), "{name}");
        }
        assert_eq!(find("cifar100").unwrap().classes.len(), 100);
    }
}
