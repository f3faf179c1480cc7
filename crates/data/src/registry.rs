//! The data sets known by name: metadata, official addresses, published sizes and checksums.
//!
//! Where the checksums come from: SHA-256 and sizes of the MNIST family, CIFAR and SVHN are those
//! recorded by TensorFlow Datasets (`url_checksums/`), and agree with those in other public loaders
//! (dlipr, torchvision's prototype datasets, MLDatasets.jl, GoMLX) and, for CIFAR, with the MD5 on
//! the authors' page, which also gives those of the Python archives; MD5 of MedMNIST are those of
//! the MedMNIST package (3.0.2); MD5 and size of Tiny ImageNet are those used by the public PyTorch
//! loaders; SHA-256 of the small Imagenette archive is recorded by TensorFlow Datasets and
//! FastAI.jl, the MD5 of the larger by torchvision.

use crate::augment::{Augment, Crop};
use crate::info::{Checksum, Info, Reader, Source};

/// CIFAR-10 channel statistics used throughout the robustness literature.
const CIFAR10_MEAN: [f64; 3] = [0.4914, 0.4822, 0.4465];
const CIFAR10_STD: [f64; 3] = [0.2471, 0.2435, 0.2616];
const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

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
const CIFAR100: &str = "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly \
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin \
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man \
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree \
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail \
    snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout \
    tulip turtle wardrobe whale willow_tree wolf woman worm";
/// In the order of their identifiers, n01440764 to n03888257.
const IMAGENETTE: [&str; 10] = [
    "tench",
    "English springer",
    "cassette player",
    "chain saw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "parachute",
];
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
    all.extend(MEDMNIST.iter().map(|set| medmnist(set, 0)));
    all.extend([
        tiny_imagenet(),
        imagenette(false),
        imagenette(true),
        imagenet100(),
        imagenet(),
        folder(),
        imagefolder(),
    ]);
    all
}

/// The registered set of that name. Besides those that [`registry`] lists: each MedMNIST set in a
/// larger size, such as `pathmnist-64`, `-128` and `-224`.
pub fn find(name: &str) -> Option<Info> {
    let larger = || {
        let (name, side) = name.rsplit_once('-')?;
        let size = MED_SIZES.iter().skip(1).position(|s| s.to_string() == side)? + 1;
        MEDMNIST.iter().find(|set| set.name == name).map(|set| medmnist(set, size))
    };
    registry().into_iter().find(|info| info.name == name).or_else(larger)
}

/// The set `info` in images of `size` pixels, where it is published in that size.
pub(crate) fn in_size(info: &Info, size: usize) -> Option<Info> {
    let set = MEDMNIST.iter().find(|set| set.name == info.name)?;
    Some(medmnist(set, MED_SIZES.iter().position(|&s| s == size)?))
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|s| (*s).to_owned()).collect()
}

fn md5(file: &str, base: &str, size: Option<u64>, hex: &str) -> Source {
    Source {
        file: file.to_owned(),
        url: format!("{base}{file}"),
        size,
        checksum: Checksum::Md5(hex.to_owned()),
    }
}

fn sha256(file: &str, base: &str, size: u64, hex: &str) -> Source {
    Source {
        file: file.to_owned(),
        url: format!("{base}{file}"),
        size: Some(size),
        checksum: Checksum::Sha256(hex.to_owned()),
    }
}

fn pad_crop_flip(pad: usize) -> Augment {
    Augment { crop: Crop::Pad(pad), flip: true, ..Augment::NONE }
}

fn resized_crop_flip() -> Augment {
    Augment { crop: Crop::Resized { min_scale: 0.08 }, flip: true, ..Augment::NONE }
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
        also: vec![],
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
        also: vec![],
        package: None,
        augment: Augment::NONE,
        reader: Reader::Idx,
    }
}

fn fashion_mnist() -> Info {
    // The authors' repository; the same bytes as on their plain-HTTP storage, but over TLS.
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

fn mnist() -> Info {
    // The original host refuses downloads; this is the mirror that torchvision uses.
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
        // Digits are not symmetric: no flip.
        augment: Augment { crop: Crop::Pad(4), ..Augment::NONE },
        reader: Reader::Mat,
        ..cifar10()
    }
}

struct Med {
    name: &'static str,
    title: &'static str,
    channels: usize,
    train: usize,
    test: usize,
    /// Of the files in the order of [`MED_SIZES`].
    md5: [&'static str; 4],
    classes: &'static [&'static str],
}

/// Sizes in which each MedMNIST set is published, the first without being asked for.
const MED_SIZES: [usize; 4] = [28, 64, 128, 224];

/// The 2-D sets of MedMNIST v2 (28x28) and MedMNIST+ (larger).
#[rustfmt::skip]
const MEDMNIST: [Med; 12] = [
    Med { name: "pathmnist", title: "PathMNIST", channels: 3, train: 89_996, test: 7_180, md5: ["a8b06965200029087d5bd730944a56c1",
        "55aa9c1e0525abe5a6b9d8343a507616", "ac42d08fb904d92c244187169d1fd1d9", "2c51a510bcdc9cf8ddb2af93af1eadec"],
        classes: &["adipose", "background", "debris", "lymphocytes", "mucus",
        "smooth muscle", "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium"] },
    Med { name: "chestmnist", title: "ChestMNIST", channels: 1, train: 78_468, test: 22_433, md5: ["02c8a6516a18b556561a56cbdd36c4a8",
        "9de6cd0b934ebb5b7426cfba5efbae16", "db107e5590b27930b62dbaf558aebee3", "45bd33e6f06c3e8cdb481c74a89152aa"],
        classes: &["no finding", "any of 14 findings"] },
    Med { name: "dermamnist", title: "DermaMNIST", channels: 3, train: 7_007, test: 2_005, md5: ["0744692d530f8e62ec473284d019b0c7",
        "b70a2f5635c6199aeaa28c31d7202e1f", "2defd784463fa5243564e855ed717de1", "8974907d8e169bef5f5b96bc506ae45d"],
        classes: &["actinic keratoses and intraepithelial carcinoma",
        "basal cell carcinoma", "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
        "vascular lesions"] },
    Med { name: "octmnist", title: "OCTMNIST", channels: 1, train: 97_477, test: 1_000, md5: ["c68d92d5b585d8d81f7112f81e2d0842",
        "e229e9440236b774d9f0dfef9d07bdaf", "0a97e76651ace45c5d943ee3f65b63ae", "abc493b6d529d5de7569faaef2773ba3"],
        classes: &["choroidal neovascularization", "diabetic macular edema",
        "drusen", "normal"] },
    Med { name: "pneumoniamnist", title: "PneumoniaMNIST", channels: 1, train: 4_708, test: 624, md5: ["28209eda62fecd6e6a2d98b1501bb15f",
        "8f4eceb4ccffa70c672198ea285246c6", "05b46931834c231683c68f40c47b2971", "d6a3c71de1b945ea11211b03746c1fe1"],
        classes: &["normal", "pneumonia"] },
    Med { name: "retinamnist", title: "RetinaMNIST", channels: 3, train: 1_080, test: 400, md5: ["bd4c0672f1bba3e3a89f0e4e876791e4",
        "afda852cc34dcda56f86ad2b2457dbcc", "e48e916a24454daf90583d4e6efb1a18", "eae7e3b6f3fcbda4ae613ebdcbe35348"],
        classes: &["grade 0", "grade 1", "grade 2", "grade 3", "grade 4"] },
    Med { name: "breastmnist", title: "BreastMNIST", channels: 1, train: 546, test: 156, md5: ["750601b1f35ba3300ea97c75c52ff8f6",
        "742edef2a1fd1524b2efff4bd7ba9364", "363e4b3f8d712e9b5de15470a2aaadf1", "b56378a6eefa9fed602bb16d192d4c8b"],
        classes: &["malignant", "normal, benign"] },
    Med { name: "bloodmnist", title: "BloodMNIST", channels: 3, train: 11_959, test: 3_421, md5: ["7053d0359d879ad8a5505303e11de1dc",
        "2b94928a2ae4916078ca51e05b6b800b", "adace1e0ed228fccda1f39692059dd4c", "b718ff6835fcbdb22ba9eacccd7b2601"],
        classes: &["basophil", "eosinophil", "erythroblast",
        "immature granulocytes", "lymphocyte", "monocyte", "neutrophil", "platelet"] },
    Med { name: "tissuemnist", title: "TissueMNIST", channels: 1, train: 165_466, test: 47_280, md5: ["ebe78ee8b05294063de985d821c1c34b",
        "123ece2eba09d0aa5d698fda57103344", "61b955355d7425a89687b06cca3ce0c2", "b077128c4a949f0a4eb01517f9037b9c"],
        classes: &["collecting duct, connecting tubule",
        "distal convoluted tubule", "glomerular endothelial cells", "interstitial endothelial cells", "leukocytes",
        "podocytes", "proximal tubule segments", "thick ascending limb"] },
    Med { name: "organamnist", title: "OrganAMNIST", channels: 1, train: 34_561, test: 17_778, md5: ["68e3f8846a6bd62f0c9bf841c0d9eacc",
        "2dcccc29b88e6da5a01161ef20cda288", "eeae80d0a227a8d099027e1b3cfd3b60", "50747347e05c87dd3aaf92c49f9f3170"],
        classes: ORGANS },
    Med { name: "organcmnist", title: "OrganCMNIST", channels: 1, train: 12_975, test: 8_216, md5: ["b9ceb9546e10131b32923c5bbeaea2b1",
        "3ce34a8724ea6f548e6db4744d03b6a9", "773c1f009daa3fe5d9a2a201b2a7ed94", "050f5e875dc056f6768abf94ec9995d1"],
        classes: ORGANS },
    Med { name: "organsmnist", title: "OrganSMNIST", channels: 1, train: 13_932, test: 8_827, md5: ["9ab87b696fb54e2a387ebe992d6ed5f1",
        "53a6d115339d874c25e309a994ff46d3", "ded0c5fa01a95dc4978b956f613e9b8e", "b354719e553fbbb2513d5533f52a4cb1"],
        classes: ORGANS },
];

/// The set in size number `size` of [`MED_SIZES`].
fn medmnist(set: &Med, size: usize) -> Info {
    let side = MED_SIZES[size];
    let (name, file) = match size {
        0 => (set.name.to_owned(), format!("{}.npz", set.name)),
        _ => (format!("{}-{side}", set.name), format!("{}_{side}.npz", set.name)),
    };
    Info {
        name,
        title: if size == 0 { set.title.into() } else { format!("{} in {side}x{side}", set.title) },
        classes: strings(set.classes),
        num_classes: set.classes.len(),
        channels: set.channels,
        height: side,
        width: side,
        train: set.train,
        test: set.test,
        mean: vec![],
        std: vec![],
        licence: if set.name == "dermamnist" { "CC BY-NC 4.0" } else { "CC BY 4.0" }.into(),
        homepage: "https://medmnist.com".into(),
        sources: vec![Source {
            url: format!("https://zenodo.org/records/10519652/files/{file}?download=1"),
            file,
            size: (set.name == "pathmnist" && size == 0).then_some(205_615_438),
            checksum: Checksum::Md5(set.md5[size].into()),
        }],
        also: vec![],
        package: None,
        augment: Augment { flip: true, rotate: 10.0, ..Augment::NONE },
        // Each image of ChestMNIST has any number of labels, and a classifier names one class.
        reader: if set.name == "chestmnist" { Reader::Findings } else { Reader::Npz },
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
        sources: vec![md5(
            "tiny-imagenet-200.zip",
            "http://cs231n.stanford.edu/",
            Some(248_100_043),
            "90528d7ca1a48142e341f4ef8d21d0de",
        )],
        also: vec![],
        package: None,
        augment: pad_crop_flip(8),
        reader: Reader::TinyImageNet,
    }
}

/// Imagenette version 2 (70/30 split), with the shorter side of the files 320 or, if `small`, 160
/// pixels.
fn imagenette(small: bool) -> Info {
    let base = "https://s3.amazonaws.com/fast-ai-imageclas/";
    let size = if small { 128 } else { 224 };
    Info {
        name: if small { "imagenette-160" } else { "imagenette" }.into(),
        title: format!(
            "Imagenette 2 ({} px files; 10 classes of ImageNet; the validation images serve as test split)",
            if small { 160 } else { 320 }
        ),
        classes: strings(&IMAGENETTE),
        num_classes: 10,
        height: size,
        width: size,
        train: 9_469,
        test: 3_925,
        mean: IMAGENET_MEAN.to_vec(),
        std: IMAGENET_STD.to_vec(),
        licence: "Apache 2.0 (the selection); ImageNet terms of access for the images".into(),
        homepage: "https://github.com/fastai/imagenette".into(),
        sources: vec![if small {
            sha256(
                "imagenette2-160.tgz",
                base,
                98_948_031,
                "88daccb09b6fce93f45e6c09ddeb269cce705549e6bff322092a2a5a11489863",
            )
        } else {
            // Public records differ in this file's SHA-256 (it was packed anew); the MD5 is
            // torchvision's.
            md5("imagenette2-320.tgz", base, None, "3df6f0d01a2c9592104656642f5e78a3")
        }],
        augment: resized_crop_flip(),
        reader: Reader::Imagenette,
        ..tiny_imagenet()
    }
}

fn imagenet100() -> Info {
    Info {
        name: "imagenet100".into(),
        title:
            "ImageNet-100 (100 classes of ILSVRC 2012; the validation images serve as test split)"
                .into(),
        classes: vec![],
        num_classes: 100,
        height: 224,
        width: 224,
        // There are several selections of 100 classes.
        train: 0,
        test: 5_000,
        mean: IMAGENET_MEAN.to_vec(),
        std: IMAGENET_STD.to_vec(),
        homepage: "https://www.image-net.org/download.php".into(),
        // ImageNet may not be redistributed: there is no public address to fetch it from.
        sources: vec![],
        augment: resized_crop_flip(),
        reader: Reader::ImageNet,
        ..tiny_imagenet()
    }
}

fn imagenet() -> Info {
    Info {
        name: "imagenet".into(),
        title: "ImageNet (ILSVRC 2012; the validation images serve as test split)".into(),
        num_classes: 1000,
        train: 1_281_167,
        test: 50_000,
        ..imagenet100()
    }
}

/// A set of one's own in ImageNet's form.
fn imagefolder() -> Info {
    Info {
        name: "imagefolder".into(),
        title:
            "Your own images of any size, decoded on demand: imagefolder:PATH with PATH/train/CLASS/*, PATH/val/CLASS/* or Parquet shards"
                .into(),
        num_classes: 0,
        train: 0,
        test: 0,
        licence: "yours".into(),
        homepage: "your disk".into(),
        reader: Reader::ImageFolder,
        ..imagenet100()
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
        also: vec![],
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
            assert!(
                info.classes.is_empty() || info.classes.len() == info.num_classes,
                "{}",
                info.name
            );
            assert_eq!(
                info.classes.iter().collect::<HashSet<_>>().len(),
                info.classes.len(),
                "{}",
                info.name
            );
            assert!(info.mean.is_empty() || info.mean.len() == info.channels, "{}", info.name);
            assert_eq!(info.mean.len(), info.std.len(), "{}", info.name);
            for source in info.sources.iter().chain(&info.also) {
                let digits = match &source.checksum {
                    Checksum::Sha256(_) => 64,
                    Checksum::Md5(_) => 32,
                };
                let hex = source.checksum.hex();
                assert_eq!(hex.len(), digits, "{}", source.file);
                assert!(
                    hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
                    "{}",
                    source.file
                );
                assert!(source.url.contains(&source.file));
                assert!(!source.file.contains(['/', '\\']));
            }
            assert!(!info.how_to_get().is_empty());
        }
    }

    #[test]
    fn names_of_the_command_line_contract_are_there() {
        for name in [
            "fashion-mnist",
            "mnist",
            "cifar10",
            "cifar100",
            "svhn",
            "pathmnist",
            "tiny-imagenet",
            "imagenet100",
            "folder",
            "synthetic",
        ] {
            assert!(find(name).is_some(), "{name}");
        }
        let large = find("organsmnist-224").unwrap();
        assert_eq!(
            (large.height, large.folder(), &*large.sources[0].file),
            (224, "organsmnist", "organsmnist_224.npz")
        );
        assert!(large.sources[0].url.contains("organsmnist_224.npz"));
        for none in ["pathmnist-28", "pathmnist-65", "cifar10-64", "pathmnist-"] {
            assert!(find(none).is_none(), "{none}");
        }
        assert_eq!(find("cifar100").unwrap().classes.len(), 100);
    }
}
