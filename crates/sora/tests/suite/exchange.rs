//! Networks that leave and come back: files of this program, of PyTorch, and files that are
//! neither.

use std::{fs, path::Path};

use burn::tensor::Device;
use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use sora::{
    exchange::{ImportOptions, import, to_onnx},
    files::to_safetensors,
    model::{Model, NETWORKS, NetworkOptions, Shape, Shortcut},
    nn::HostTensor,
};

use crate::{
    models::{filled, pixels},
    support::{host, path, small_model},
};

const MEAN: [f32; 3] = [0.5; 3];
const STD: [f32; 3] = [0.25; 3];

fn options(model: &str) -> ImportOptions {
    ImportOptions {
        model: Some(model.into()),
        image: Some([8, 8]),
        network: NetworkOptions {
            shortcut: model.starts_with("preact").then_some(Shortcut::Activated),
            ..Default::default()
        },
        fallback: Some([MEAN.to_vec(), STD.to_vec()]),
        ..Default::default()
    }
}

/// Writes `tensors` as safetensors and imports them.
fn through_file(
    dir: &Path,
    tensors: &[HostTensor],
    options: &ImportOptions,
) -> Result<sora::exchange::Imported, String> {
    let file = dir.join("weights.safetensors");
    fs::write(&file, to_safetensors(tensors, Default::default()).unwrap()).unwrap();
    import(&file, options, "sora", &Device::flex())
        .map(|(imported, _)| imported)
        .map_err(|e| e.to_string())
}

fn logits(model: &Model) -> Vec<f32> {
    let Shape { channels, height, width, .. } = model.config.shape;
    host(&model.logits(pixels("x", [4, channels, height, width], 1)))
}

#[test]
fn weights_are_found_under_the_prefixes_and_names_of_other_programs() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(small_model(1, 3, 8).config, 3);
    let own = model.to_host().unwrap();
    let named = |rename: &dyn Fn(&str) -> String| -> Vec<HostTensor> {
        own.iter().map(|t| HostTensor { name: rename(&t.name), ..t.clone() }).collect()
    };
    let buffer = |name: &str, value: f32| HostTensor {
        name: name.into(),
        shape: vec![1, 3, 1, 1],
        data: vec![value; 3],
    };
    for prefix in [
        "",
        "module.",
        "state_dict.",
        "state_dict.module.",
        "model_state_dict.",
        "model.",
        "net.",
        "net.module.",
        "1.",
    ] {
        let imported = through_file(
            dir.path(),
            &named(&|name| format!("{prefix}{name}")),
            &options("preact-resnet18"),
        )
        .unwrap();
        assert_eq!((imported.prefix.as_str(), imported.model.config.width), (prefix, 4));
        assert_eq!(logits(&imported.model), logits(&model), "{prefix}");
        assert_eq!(imported.normalisation, "of the data set");
    }
    // An optimizer's or an average's copy beside the network, and a wrapper's normalisation.
    let mut both = named(&|name| format!("state_dict.1.{name}"));
    both.extend(own.iter().map(|t| HostTensor {
        name: format!("ema.1.{}", t.name),
        data: vec![0.5; t.data.len()],
        ..t.clone()
    }));
    both.extend([buffer("state_dict.0.mean", 0.4), buffer("state_dict.0.std", 0.2)]);
    let imported = through_file(dir.path(), &both, &options("preact-resnet18")).unwrap();
    assert_eq!(imported.prefix, "state_dict.1.");
    assert_eq!((imported.model.config.mean[0], imported.model.config.std[0]), (0.4, 0.2));
    assert_eq!(imported.normalisation, "from the file's normalisation layer");
    let given =
        ImportOptions { normalisation: Some([vec![0.1], vec![0.3]]), ..options("preact-resnet18") };
    assert_eq!(through_file(dir.path(), &both, &given).unwrap().model.config.mean, [0.1; 3]);
    // The CIFAR literature's names of a ResNet.
    let config =
        sora::model::ModelConfig { name: "resnet18".into(), ..small_model(1, 3, 8).config };
    let resnet = filled(config, 3);
    let tensors: Vec<HostTensor> = resnet
        .to_host()
        .unwrap()
        .into_iter()
        .map(|t| HostTensor {
            name: t.name.replace("downsample", "shortcut").replace("fc.", "linear."),
            ..t
        })
        .collect();
    assert_eq!(
        logits(&through_file(dir.path(), &tensors, &options("resnet18")).unwrap().model),
        logits(&resnet)
    );
}

#[test]
fn what_is_missing_unexpected_or_misshaped_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let own = small_model(1, 3, 8).to_host().unwrap();
    let mut tensors: Vec<HostTensor> =
        own.iter().filter(|t| !t.name.starts_with("bn.")).cloned().collect();
    tensors.push(HostTensor { name: "extra.weight".into(), shape: vec![1], data: vec![0.0] });
    for tensor in tensors.iter_mut().filter(|t| t.name == "layer1.0.bn1.bias") {
        (tensor.shape, tensor.data) = (vec![5], vec![0.0; 5]);
    }
    let error = through_file(dir.path(), &tensors, &options("preact-resnet18")).unwrap_err();
    for part in [
        "4 missing (bn.",
        "1 unexpected (extra.weight)",
        "1 misshaped (layer1.0.bn1.bias [5] instead of [4])",
        "`allow_unexpected`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains('\n'));
    let mut tensors = own.clone();
    tensors.push(HostTensor { name: "extra.weight".into(), shape: vec![1], data: vec![0.0] });
    assert!(through_file(dir.path(), &tensors, &options("preact-resnet18")).is_err());
    let tolerant = ImportOptions { allow_unexpected: true, ..options("preact-resnet18") };
    assert_eq!(through_file(dir.path(), &tensors, &tolerant).unwrap().left, ["extra.weight"]);
    for (options, part) in [
        (options("vit-tiny"), "no weights of vit-tiny"),
        (
            ImportOptions { classes: Some(100), ..options("preact-resnet18") },
            "10 classes; the data set has 100",
        ),
        (ImportOptions { fallback: None, ..options("preact-resnet18") }, "`mean` and `std`"),
        (
            ImportOptions {
                normalisation: Some([vec![0.5; 2], vec![0.5; 2]]),
                ..options("preact-resnet18")
            },
            "2 means",
        ),
        (
            ImportOptions {
                network: NetworkOptions {
                    dropout: 0.1,
                    shortcut: Some(Shortcut::Activated),
                    ..Default::default()
                },
                ..options("preact-resnet18")
            },
            "dropout: the network",
        ),
    ] {
        let error = through_file(dir.path(), &own, &options).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let mut infinite = own.clone();
    infinite[0].data[0] = f32::NAN;
    assert!(
        through_file(dir.path(), &infinite, &options("preact-resnet18"))
            .unwrap_err()
            .contains("NaN")
    );
}

#[test]
fn half_precision_comes_in_as_single() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(small_model(1, 3, 8).config, 3);
    let own = model.to_host().unwrap();
    let file = dir.path().join("half.safetensors");
    let bytes: Vec<Vec<u8>> = own
        .iter()
        .map(|t| t.data.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect())
        .collect();
    let views = own
        .iter()
        .zip(&bytes)
        .map(|(t, b)| (t.name.as_str(), TensorView::new(Dtype::BF16, t.shape.clone(), b).unwrap()));
    fs::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
    let (imported, _) =
        import(&file, &options("preact-resnet18"), "sora", &Device::flex()).unwrap();
    let found = imported.model.to_host().unwrap();
    for (a, b) in found.iter().zip(&own) {
        assert!(
            a.data
                .iter()
                .zip(&b.data)
                .all(|(a, b)| *a == f32::from_bits(b.to_bits() & 0xFFFF_0000)),
            "{}",
            a.name
        );
    }
}

/// Files that torch.save wrote (scripts/golden/checkpoints.py): the golden weights of the small
/// network in every layout.
#[test]
fn checkpoints_that_pytorch_wrote_hold_the_same_weights() {
    let expected = filled(
        sora::model::ModelConfig {
            name: "mnist-cnn".into(),
            width: 2,
            ..small_model(1, 1, 8).config
        },
        5,
    );
    for (file, prefix) in [
        ("bare.pt", ""),
        ("module.pt", "state_dict.module."),
        ("model_state_dict.pth", "model_state_dict."),
        ("legacy.pt", "net."),
        ("normalised.pt", "model."),
        ("optimizer.pt", "state_dict."),
        ("half.pt", ""),
        // Modules saved whole, in both formats; the old one names their classes outside the pickle.
        ("whole.pt", ""),
        ("whole_legacy.pt", ""),
        // Not row by row: transposed, and with the channels last.
        ("turned.pt", ""),
        // Subclasses of dict, a deque, keys that are tuples, sparse, complex, quantised and float8
        // tensors, an optimizer and a set beside the weights.
        ("beside.pt", "state_dict."),
        ("average.pt", "model."),
        // The same tensors under two names.
        ("alias.pt", "best."),
    ] {
        let file = path("crates/sora/tests/golden/checkpoints").join(file);
        let (imported, _) = import(&file, &options_gray(), "sora", &Device::flex())
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(imported.prefix, prefix, "{}", file.display());
        let tolerance = if file.ends_with("half.pt") { 2e-3 } else { 0.0 };
        for (a, b) in imported.model.to_host().unwrap().iter().zip(expected.to_host().unwrap()) {
            assert!(
                a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() <= tolerance),
                "{}: {}",
                file.display(),
                a.name
            );
        }
        if file.ends_with("normalised.pt") {
            assert_eq!((imported.model.config.mean[0], imported.model.config.std[0]), (0.25, 0.75));
        }
    }
}

fn options_gray() -> ImportOptions {
    ImportOptions { fallback: Some([vec![0.5], vec![0.25]]), ..options("mnist-cnn") }
}

#[test]
fn a_copy_beside_the_weights_is_named_and_chosen_by_its_prefix() {
    let file = |name: &str| path("crates/sora/tests/golden/checkpoints").join(name);
    let take = |name: &str, prefix: Option<&str>| {
        let options = ImportOptions { prefix: prefix.map(String::from), ..options_gray() };
        import(&file(name), &options, "sora", &Device::flex()).map(|(imported, _)| imported)
    };
    let first = |imported: &sora::exchange::Imported| imported.model.to_host().unwrap()[0].data[0];
    let imported = take("average.pt", None).unwrap();
    assert_eq!(
        (imported.prefix.as_str(), imported.copies.as_slice()),
        ("model.", &["EMA.".into()][..])
    );
    let average = take("average.pt", Some("EMA")).unwrap();
    assert_eq!((average.prefix.as_str(), first(&average)), ("EMA.", 0.5));

    let error = take("best.pt", None).unwrap_err().to_string();
    for part in ["more than once", "'best' and 'state_dict'", "`prefix`"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(first(&take("best.pt", Some("best.")).unwrap()), 0.5);
    assert_ne!(first(&take("best.pt", Some("state_dict")).unwrap()), 0.5);
    let error = take("best.pt", Some("last")).unwrap_err().to_string();
    assert!(error.contains("no weights of mnist-cnn under that `prefix`"), "{error}");
}

#[test]
fn a_network_that_is_not_named_is_found_and_a_wrong_one_is_set_right() {
    let dir = tempfile::tempdir().unwrap();
    for (name, width) in [
        ("resnet18", 4),
        ("wideresnet-28-10", 4),
        ("dm-wideresnet-28-10", 4),
        ("dm-preact-resnet18", 4),
    ] {
        let config =
            sora::model::ModelConfig { name: name.into(), width, ..small_model(1, 3, 8).config };
        let own = filled(config, 3).to_host().unwrap();
        let free = ImportOptions { model: None, ..options("") };
        let imported = through_file(dir.path(), &own, &free).unwrap();
        assert_eq!(imported.model.config.name, name);
        for wrong in ["resnet34", "senet18", "vit-tiny"] {
            let error = through_file(dir.path(), &own, &options(wrong)).unwrap_err();
            assert!(error.contains(&format!("it fits {name} of width {width}")), "{error}");
        }
    }
    let nothing = [HostTensor { name: "x".into(), shape: vec![1], data: vec![0.0] }];
    let error = through_file(dir.path(), &nothing, &ImportOptions { model: None, ..options("") })
        .unwrap_err();
    assert!(error.contains("fits no network") && error.contains("`model`"), "{error}");
}

#[test]
fn a_preact_resnet_of_another_program_wants_its_shortcut_named() {
    let dir = tempfile::tempdir().unwrap();
    let own = small_model(1, 3, 8).to_host().unwrap();
    let asked = |shortcut| ImportOptions {
        network: NetworkOptions { shortcut, ..Default::default() },
        ..options("preact-resnet18")
    };
    let error = through_file(dir.path(), &own, &asked(None)).unwrap_err();
    assert!(error.contains("`shortcut`: input") && error.contains("activated"), "{error}");
    let [input, activated] = [Shortcut::Input, Shortcut::Activated]
        .map(|shortcut| through_file(dir.path(), &own, &asked(Some(shortcut))).unwrap().model);
    assert_ne!(logits(&input), logits(&activated));
    assert_eq!(input.config.options.shortcut, Some(Shortcut::Input), "the description carries it");
}

#[test]
fn a_mean_and_a_deviation_that_are_no_pair_before_the_network_are_no_normalisation() {
    let dir = tempfile::tempdir().unwrap();
    let own = small_model(1, 3, 8).to_host().unwrap();
    let shaped = |extra: &[(&str, f32)], shape: &[usize]| {
        let mut all = own.clone();
        all.extend(extra.iter().map(|(name, value)| HostTensor {
            name: (*name).into(),
            shape: shape.to_vec(),
            data: vec![*value; shape.iter().product()],
        }));
        through_file(dir.path(), &all, &options("preact-resnet18"))
    };
    let with = |extra: &[(&str, f32)]| shaped(extra, &[3]);
    for extra in [[("head.mean", 0.4), ("tail.std", 0.2)], [("head.mean", 0.4), ("head.std", 0.2)]]
    {
        let imported = with(&extra).unwrap();
        assert_eq!(imported.model.config.mean, MEAN, "{extra:?}");
    }
    let imported = with(&[("normalize.mean", 0.4), ("normalize.std", 0.2)]).unwrap();
    assert_eq!(imported.model.config.mean, [0.4; 3]);
    // One value stands for every channel, as a tensor of one value or of no dimension.
    for shape in [&[1][..], &[], &[1, 1, 1, 1]] {
        let imported = shaped(&[("normalize.mean", 0.4), ("normalize.std", 0.2)], shape).unwrap();
        assert_eq!(imported.model.config.std, [0.2; 3], "{shape:?}");
    }
    let error = shaped(&[("normalize.mean", 0.4), ("normalize.std", 0.2)], &[4]).unwrap_err();
    assert!(error.contains("normalize.mean with 4 values"), "{error}");
    // For pixels of 0..255: said, and divided.
    let imported = with(&[("mean", 127.5), ("std", 51.0)]).unwrap();
    assert_eq!((imported.model.config.mean[0], imported.model.config.std[0]), (0.5, 0.2));
    assert!(imported.normalisation.contains("0..255"), "{}", imported.normalisation);
    let error = with(&[("mean", 127.5), ("std", 0.2)]).unwrap_err();
    assert!(error.contains("neither"), "{error}");
}

/// A small file that claims a wide network must not cost the memory of one.
#[test]
fn a_description_that_claims_more_than_the_file_holds_is_refused_first() {
    let small = small_model(1, 3, 8);
    let tensors = small.to_host().unwrap().into_iter().map(|t| (t.name.clone(), t)).collect();
    let claimed = sora::model::ModelConfig { width: 4096, ..small.config };
    let started = std::time::Instant::now();
    let error =
        Model::from_tensors(claimed, &tensors, "file", &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("has shape [4, 3, 3, 3], expected [4096, 3, 3, 3]"), "{error}");
    assert!(started.elapsed().as_secs() < 5, "nothing of that size was made");
}

/// A pickle that would run a command in Python, or a bomb: refused or read as names, never run.
#[test]
fn hostile_pickles_run_nothing_and_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("it_ran");
    let command = format!("touch {}", mark.display());
    let global = format!("\u{0}cos\nsystem\n(S'{command}'\ntR.").into_bytes();
    let mut system = vec![0x80, 2];
    system.extend(&global[1..]);
    let nested: Vec<u8> = [vec![0x80, 2], vec![b']'; 100_000], vec![b'.']].concat();
    let mut laughs = vec![0x80, 2, b']'];
    for k in 0..60u8 {
        laughs.extend([b'q', k, b'h', k, b'h', k, 0x86]);
    }
    laughs.push(b'.');
    let mut long = vec![0x80, 4, 0x8d];
    long.extend(u64::MAX.to_le_bytes());
    let tall = [vec![0x80, 2, b'B'], vec![0xff; 4], vec![b'.']].concat();
    let header = |len: u64| [&len.to_le_bytes()[..], b"{"].concat();
    for (k, bytes) in [
        system,
        nested,
        laughs,
        long,
        tall,
        header(99_999_999),
        header(0),
        header(u64::MAX),
        vec![],
        vec![0x80],
        b"PK\x03\x04".to_vec(),
    ]
    .into_iter()
    .enumerate()
    {
        let file = dir.path().join(format!("{k}.pt"));
        fs::write(&file, &bytes).unwrap();
        let error = import(&file, &options("preact-resnet18"), "sora", &Device::flex())
            .map(|_| ())
            .unwrap_err();
        assert!(error.kind() == sora::error::ErrorKind::Input, "{k}: {error}");
        assert!(!error.to_string().contains('\n'), "{k}: {error}");
    }
    assert!(!mark.exists(), "nothing in a pickle is run");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any change to a file gives an error or weights, never a panic, and never more memory than
    /// the file is worth.
    #[test]
    fn damaged_checkpoints_are_refused_or_read(
        which in 0..10usize,
        cut in 0.0f64..1.0,
        spots in proptest::collection::vec((0.0f64..1.0, any::<u8>()), 0..6),
    ) {
        let names = [
            "bare.pt",
            "module.pt",
            "model_state_dict.pth",
            "legacy.pt",
            "normalised.pt",
            "optimizer.pt",
            "bare.safetensors",
            "beside.pt",
            "whole_legacy.pt",
            "turned.pt",
        ];
        let mut bytes = fs::read(path("crates/sora/tests/golden/checkpoints").join(names[which])).unwrap();
        for (at, byte) in spots {
            let at = (at * bytes.len() as f64) as usize;
            bytes[at] = byte;
        }
        if cut < 0.5 {
            bytes.truncate((2.0 * cut * bytes.len() as f64) as usize);
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("damaged");
        fs::write(&file, &bytes).unwrap();
        if let Err(error) = import(&file, &options_gray(), "sora", &Device::flex()) {
            prop_assert!(error.kind() == sora::error::ErrorKind::Input, "{error}");
            prop_assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

#[test]
fn onnx_names_every_weight_once() {
    for info in NETWORKS.iter().filter(|info| !info.name.contains('1') || info.name.ends_with("18"))
    {
        let side = if info.name.starts_with("vgg") { 32 } else { 8 };
        let width = if info.default_width % 12 == 0 { 12 } else { 8 };
        let config = sora::model::ModelConfig {
            name: info.name.into(),
            width,
            shape: Shape { channels: 3, height: side, width: side, classes: 10 },
            mean: MEAN.to_vec(),
            std: STD.to_vec(),
            options: NetworkOptions::default(),
            onnx: None,
        };
        let model = Model::init(config, 0, &Device::flex()).unwrap();
        let bytes = to_onnx(&model, &[]).unwrap();
        let floats = model.params.num_elements() + model.buffers.num_elements();
        assert!(
            bytes.len() >= 4 * floats,
            "{}: {} bytes for {floats} values",
            info.name,
            bytes.len()
        );
        assert!(bytes.len() < 4 * floats + 200_000, "{}: a weight is there twice", info.name);
    }
}
