//! Every network of the registry: against PyTorch, under every method, on both backends.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use sora::{
    gradient::{TrainPass, input_gradient, train_gradient},
    loss::cross_entropy,
    method::{Extras, METHODS, Place, StepContext, StepSettings, TrainBatch},
    model::{Model, ModelConfig, NETWORKS, NetworkOptions, Shape, Shortcut, network},
    nn::{Backend, BnMode, HostTensor, Spec},
    noise::Noise,
};

use crate::{
    methods::{SIDE, batch, threat},
    support::{Golden, host, path},
};

/// `count` numbers in [-1, 1) that are a function of `name` and `seed`; `values` of
/// scripts/golden/models.py.
fn values(name: &str, count: usize, seed: u32) -> impl Iterator<Item = f64> {
    let bytes = name.bytes().chain(seed.to_le_bytes());
    let state = bytes
        .fold(2_166_136_261u32, |state, byte| (state ^ u32::from(byte)).wrapping_mul(16_777_619));
    (0..count as u32).map(move |i| {
        let mut h = i.wrapping_mul(2_654_435_761).wrapping_add(state);
        for (shift, factor) in [(16, 0x7FEB_352D), (15, 0x846C_A68Bu32)] {
            h = (h ^ (h >> shift)).wrapping_mul(factor);
        }
        f64::from(h ^ (h >> 16)) / 2f64.powi(31) - 1.0
    })
}

/// The value of a parameter or buffer, by its name and shape; `weight` of scripts/golden/models.py.
fn weight(spec: &Spec, seed: u32) -> HostTensor {
    let name = spec.name.as_str();
    let fan_in = spec.shape.iter().skip(1).product::<usize>() as f64;
    let value = |u: f64| {
        if name.ends_with("running_var") {
            1.0 + 0.3 * u
        } else if name.ends_with("running_mean") {
            0.2 * u
        } else if ["bias", "cls_token", "pos_embed", "positional_emb"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            0.3 * u
        } else if name.ends_with("bn3.weight") {
            0.2 + 0.06 * u
        } else if spec.shape.len() == 1 {
            1.0 + 0.3 * u
        } else {
            u * (3.0 / fan_in).sqrt()
        }
    };
    let data = values(name, spec.len(), seed).map(|u| value(u) as f32).collect();
    HostTensor { name: spec.name.clone(), shape: spec.shape.clone(), data }
}

/// A model whose values are those of the golden file.
pub fn filled(config: ModelConfig, seed: u32) -> Model {
    let mut model = Model::init(config, 0, &Device::flex()).unwrap();
    let specs = model.params.specs().iter().chain(model.buffers.specs());
    let tensors: BTreeMap<_, _> =
        specs.map(|spec| (spec.name.clone(), weight(spec, seed))).collect();
    model.load(&tensors, "golden values").unwrap();
    model
}

pub fn pixels(name: &str, dims: [usize; 4], seed: u32) -> Tensor<4> {
    let data: Vec<f32> = values(name, dims.iter().product(), seed)
        .map(|u| if name == "x" { (u + 1.0) / 2.0 } else { u } as f32)
        .collect();
    Tensor::from_data(TensorData::new(data, dims), &Device::flex())
}

/// The network, the seed and the f32/f64 gap of a golden file.
fn case(golden: &Golden) -> (ModelConfig, u32, f32) {
    let number = |key: &str| golden.settings.get(key).map(|text| text.parse::<usize>().unwrap());
    let named = |key: &str| {
        golden.settings.get(key).map(|text| serde_json::from_value(text.clone().into()).unwrap())
    };
    let (channels, size) = (number("channels").unwrap_or(3), number("size").unwrap());
    let options = NetworkOptions {
        activation: golden
            .settings
            .get("activation")
            .map(|text| serde_json::from_value(text.clone().into()).unwrap()),
        stem: named("stem"),
        patch: number("patch"),
        shortcut: golden.settings.get("shortcut").map(|name| name.parse().unwrap()),
        ..Default::default()
    };
    let config = ModelConfig {
        name: golden.settings["model"].clone(),
        width: number("width").unwrap(),
        shape: Shape { channels, height: size, width: size, classes: 10 },
        mean: [0.49, 0.48, 0.45][..channels].to_vec(),
        std: [0.25, 0.24, 0.26][..channels].to_vec(),
        options,
        onnx: None,
    };
    (config, number("seed").unwrap() as u32, golden.settings["gap"].parse().unwrap())
}

fn by_name<T>(specs: &[Spec], values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut named: Vec<_> = specs.iter().map(|spec| &spec.name).zip(values).collect();
    named.sort_by_key(|(name, _)| *name);
    named.into_iter().map(|(_, value)| value).collect()
}

fn norm(tensor: &Tensor<1>) -> f32 {
    host(tensor).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32
}

/// FNV-1a of the names and shapes of a state dict.
fn state_hash(model: &Model) -> String {
    let mut lines: Vec<_> = model
        .params
        .specs()
        .iter()
        .chain(model.buffers.specs())
        .map(|spec| {
            format!(
                "{}:{}\n",
                spec.name,
                spec.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
            )
        })
        .collect();
    lines.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
    let hash = lines.concat().bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    format!("{hash:016x}")
}

fn agrees(golden: &Golden, model: &mut Model, seed: u32, tolerance: f32) {
    let Shape { channels, height, width, .. } = model.config.shape;
    let n = 6;
    let (x, direction) = (
        pixels("x", [n, channels, height, width], seed),
        pixels("direction", [n, channels, height, width], seed),
    );
    let labels: Vec<i32> = (0..n as i32).map(|i| (7 * i + 3) % 10).collect();
    let labels = || Tensor::from_data(labels.as_slice(), &Device::flex());
    let grid = (height / 16).max(1);
    let first = |grad: Tensor<4>| -> Vec<f32> {
        let all = host(&grad.slice([0..2, 0..channels, 0..height, 0..width]));
        let rows =
            all.chunks(width).enumerate().filter(|(row, _)| (row % height).is_multiple_of(grid));
        rows.flat_map(|(_, row)| row.iter().step_by(grid).copied()).collect()
    };

    for (mode, name) in [(BnMode::Eval, "eval"), (BnMode::Train, "train")] {
        let attack =
            input_gradient(model, x.clone(), mode, |logits| cross_entropy(logits, labels()));
        golden.check(&format!("logits_{name}"), &host(&attack.logits), tolerance);
        golden.check(&format!("input_grad_{name}"), &first(attack.grad), tolerance);
        let (_, along) =
            model.forward_along(&model.params.frozen(), x.clone(), direction.clone(), mode);
        golden.check(&format!("along_{name}"), &host(&along), tolerance);
    }
    let train = train_gradient(model, x.clone(), labels());
    golden.check("input_grad_train", &first(train.input), tolerance);
    golden.check(
        "grad_norms",
        &by_name(model.params.specs(), train.params.iter().map(norm)),
        tolerance,
    );

    let mut pass = TrainPass::new(model, x.clone(), 0.0);
    let (logits, along) = pass.forward_along(x, direction, BnMode::Train);
    let half = along.square().mean() * 0.5;
    let second = pass.finish(half, logits);
    golden.check(
        "along_grad_norms",
        &by_name(model.params.specs(), second.params.iter().map(norm)),
        2.0 * tolerance,
    );

    model.absorb(train.stats);
    if golden.has("buffer_norms") {
        golden.check(
            "buffer_norms",
            &by_name(model.buffers.specs(), model.buffers.values().iter().map(norm)),
            tolerance,
        );
    }
}

fn golden_networks() -> Vec<String> {
    let mut found: Vec<_> = std::fs::read_dir(path("crates/sora/tests/golden"))
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .strip_suffix(".safetensors")
                .map(str::to_owned)
        })
        .filter(|name| name.starts_with("net_"))
        .collect();
    found.sort();
    found
}

#[test]
fn every_network_agrees_with_pytorch_on_both_backends() {
    let mut seen = std::collections::BTreeSet::new();
    for file in golden_networks() {
        let golden = Golden::load(&file);
        let (config, seed, gap) = case(&golden);
        seen.insert(config.name.clone());
        let mut model = filled(config, seed);
        assert_eq!(
            state_hash(&model),
            golden.settings["state"],
            "{file}: names and shapes are PyTorch's"
        );
        assert!(
            gap < 2e-5,
            "{file}: f32 and f64 differ by {gap}, too much to hold anything against"
        );
        let tolerance = 1e-4;
        for backend in [Backend::Engine, Backend::Burn] {
            let mut model = model.clone();
            model.set_backend(backend).unwrap();
            agrees(&golden, &mut model, seed, tolerance);
        }
        model.params = model.params.zeros_like();
    }
    assert!(
        NETWORKS.iter().all(|info| seen.contains(info.name)),
        "a golden file for every network: {seen:?}"
    );
}

/// A network as narrow as it may be, for images that it takes.
fn tiny(name: &str, options: NetworkOptions) -> Model {
    let info = network(name).unwrap();
    let width = match name {
        "vit-tiny" | "vit-small" => 12,
        "senet18" => 16,
        "cct-7-3x1" => 8,
        _ if info.default_width < 64 => 4,
        _ => 2,
    };
    let side = if name.starts_with("vgg") { 32 } else { SIDE };
    let config = ModelConfig {
        name: name.into(),
        width,
        shape: Shape { channels: 3, height: side, width: side, classes: 10 },
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
        options,
        onnx: None,
    };
    Model::init(config, 1, &Device::flex()).unwrap()
}

/// A batch of the size that `model` takes.
fn batch_for(model: &Model, n: usize) -> TrainBatch {
    let small = batch(n);
    let times = model.config.shape.height / SIDE;
    if times == 1 {
        return small;
    }
    TrainBatch { x: small.x.repeat(&[1, 1, times, times]), ..small }
}

#[test]
fn every_network_trains_under_every_method() {
    for network in NETWORKS {
        // The deep ones are made of the blocks of the shallow ones; for them a few methods do,
        // which between them take every kind of pass.
        let deep = ["101", "152", "34-10", "70-16"].iter().any(|end| network.name.ends_with(end));
        let (batch, start) = (
            batch_for(&tiny(network.name, NetworkOptions::default()), 4),
            tiny(network.name, NetworkOptions::default()),
        );
        for info in METHODS
            .iter()
            .filter(|info| !deep || ["sora", "gradalign", "trades"].contains(&info.name))
        {
            let mut model = start.clone();
            let mut method = info.build(&(info.options)().unwrap(), threat(info.norms[0])).unwrap();
            let mut noise = Noise::training(1, 0, 0, batch.ids.clone(), &Device::flex());
            let settings = StepSettings {
                threat: threat(info.norms[0]),
                attack_bn: info.attack_bn,
                place: Place::default(),
                extras: Extras::default(),
            };
            let mut cx = StepContext::new(&mut model, &mut noise, settings);
            let out = method.step(&mut cx, &batch).unwrap();
            let what = format!("{} with {}", info.name, network.name);
            let metrics = out.metrics.wait().unwrap();
            assert!(metrics.loss.is_finite(), "{what}: {metrics:?}");
            let moved = out.gradients.iter().filter(|gradient| norm(gradient) > 0.0).count();
            assert!(
                2 * moved > out.gradients.len(),
                "{what}: {moved} of {} weights have a gradient",
                out.gradients.len()
            );
            assert!(out.gradients.iter().all(|gradient| norm(gradient).is_finite()), "{what}");
        }
    }
}

#[test]
fn dropout_is_drawn_anew_in_each_training_pass_and_never_in_evaluation() {
    for name in ["wideresnet-28-10", "vit-tiny", "cct-7-3x1"] {
        let mut model = tiny(name, NetworkOptions { dropout: 0.5, ..Default::default() });
        let x = batch_for(&model, 4).x;
        let logits =
            |model: &Model, mode| host(&model.forward(&model.params.frozen(), x.clone(), mode).0);
        model.begin_step(3, 7);
        let (first, second) = (logits(&model, BnMode::Train), logits(&model, BnMode::Train));
        assert_ne!(first, second, "{name}: two passes of a step draw different masks");
        model.begin_step(3, 7);
        assert_eq!(
            logits(&model, BnMode::Train),
            first,
            "{name}: a step that is repeated draws the same masks"
        );
        model.begin_step(3, 8);
        assert_ne!(logits(&model, BnMode::Train), first, "{name}: another step draws others");
        assert_eq!(
            logits(&model, BnMode::Eval),
            logits(&tiny(name, NetworkOptions::default()), BnMode::Eval),
            "{name}"
        );
        model.begin_step(3, 7);
        model.set_backend(Backend::Burn).unwrap();
        crate::support::assert_close(name, &logits(&model, BnMode::Train), &first, 1e-4);
    }
}

#[test]
fn options_that_a_network_does_not_take_and_images_that_do_not_fit_are_refused() {
    let shape = |side| Shape { channels: 3, height: side, width: side, classes: 10 };
    let resolve =
        |name: &str, options| network(name).unwrap().resolve(options, shape(32)).map(drop);
    let dropout = NetworkOptions { dropout: 0.1, ..Default::default() };
    let patch = NetworkOptions { patch: Some(4), ..Default::default() };
    let config = |name: &str, width, side, options| {
        let config = ModelConfig {
            name: name.into(),
            width,
            shape: shape(side),
            mean: vec![0.5; 3],
            std: vec![0.25; 3],
            options,
            onnx: None,
        };
        Model::init(config, 0, &Device::flex()).map(drop)
    };
    for (result, part) in [
        (
            resolve("resnet18", dropout),
            "dropout: the network resnet18 has no such option; it takes `activation`, `stem`",
        ),
        (resolve("vgg16-bn", patch), "patch: the network"),
        (resolve("vit-tiny", NetworkOptions { dropout: 1.0, ..Default::default() }), "below 1"),
        (
            resolve("vit-tiny", NetworkOptions { dropout: f32::NAN, ..Default::default() }),
            "below 1",
        ),
        (config("vgg16-bn", 2, 16, NetworkOptions::default()), "too small"),
        (config("vit-tiny", 64, 32, NetworkOptions::default()), "multiple of 3"),
        (
            config("vit-tiny", 12, 32, NetworkOptions { patch: Some(5), ..Default::default() }),
            "patch 5: images",
        ),
        (
            config("vit-tiny", 12, 32, NetworkOptions { patch: Some(0), ..Default::default() }),
            "patch 0: images",
        ),
        (config("cct-7-3x1", 8, 96, NetworkOptions::default()), "at most 64x64"),
        (config("cct-7-3x1", 6, 32, NetworkOptions::default()), "multiple of 4"),
        (config("mnist-cnn", 4, 2, NetworkOptions::default()), "too small"),
        (config("wideresnet-28-10", 4096, 32, NetworkOptions::default()), "million parameters"),
    ] {
        let error = result.expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn parameter_counts_are_those_of_the_literature() {
    let count = |name: &str, side, classes| {
        let info = network(name).unwrap();
        info.parameters(
            info.default_width,
            Shape { channels: 3, height: side, width: side, classes },
        )
        .unwrap()
    };
    // torchvision's and timm's own figures.
    for (name, side, classes, parameters) in [
        ("resnet18", 32, 1000, 11_689_512 - 3 * 64 * (49 - 9)),
        ("resnet50", 32, 1000, 25_557_032 - 3 * 64 * (49 - 9)),
        ("resnet152", 32, 1000, 60_192_808 - 3 * 64 * (49 - 9)),
        ("vgg16-bn", 224, 1000, 138_365_992),
        ("vit-tiny", 224, 1000, 5_717_416),
        ("vit-small", 224, 1000, 22_050_664),
        ("wideresnet-28-10", 32, 10, 36_479_194),
        ("wideresnet-34-10", 32, 10, 46_160_474),
        ("preact-resnet18", 32, 10, 11_172_170),
    ] {
        assert_eq!(count(name, side, classes), parameters, "{name}");
    }
}

#[test]
fn a_description_from_before_there_were_options_still_loads() {
    let old = concat!(
        r#"{"name":"preact-resnet18","width":4,"shape":{"channels":3,"height":8,"width":8,"#,
        r#""classes":10},"mean":[0.5,0.5,0.5],"std":[0.25,0.25,0.25]}"#
    );
    let config: ModelConfig = serde_json::from_str(old).unwrap();
    assert_eq!(config, crate::support::small_model(0, 3, 8).config);
    let x = pixels("x", [2, 3, 8, 8], 0);
    let logits = |shortcut| {
        let options = NetworkOptions { shortcut, ..config.options };
        let model =
            Model::init(ModelConfig { options, ..config.clone() }, 3, &Device::flex()).unwrap();
        host(&model.logits(x.clone()))
    };
    let [old, activated, input] =
        [None, Some(Shortcut::Activated), Some(Shortcut::Input)].map(logits);
    assert_eq!(old, activated, "what there was before there was a choice");
    assert_ne!(old, input);
    let new = network("preact-resnet18").unwrap().resolve(config.options, config.shape).unwrap();
    assert_eq!(new.shortcut, Some(Shortcut::Input), "a new run takes the literature's");
}
