//! Tests of the additions to any method (clipping, accumulation, averaging, warm-up), and of the
//! methods that make several updates per batch.

use std::{fs, path::Path};

use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use sora::{
    config::TrainConfig,
    data::Augment,
    gradient::{TrainPass, input_gradient, train_gradient},
    loss::cross_entropy,
    method::{
        self, Base, DataInfo, Elle, Extras, METHODS, Passes, Place, StepContext, StepSettings,
    },
    nn::{Backend, BnMode, Init, Spec, TensorSet},
    noise::Noise,
    optim::{Accumulated, Clipped, Optimizer, OptimizerKind, Rates, Sgd},
    threat::{Norm, Threat},
};
use sora_rng::{Key, Purpose, fill_uniform};

use crate::{
    cli::{sora, stderr, train_short},
    resume::same,
    support::{Golden, SIDE, assert_close, batch, golden_model, host, path, small_model, threat},
};

fn params(values: &[f32]) -> TensorSet {
    let spec = Spec { name: "p".into(), shape: vec![values.len()], init: Init::Constant(0.0) };
    let mut params = TensorSet::init(vec![spec], 0, &Device::flex());
    params.set(0, vector(values));
    params
}

fn vector(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(values, &Device::flex())
}

#[test]
fn momentum_cycles_by_default_and_stays_constant_in_old_runs() {
    let resolve = TrainConfig::from_toml;
    let new = resolve("").unwrap();
    assert!(new.cycle_momentum);
    let peak = new.rates().at(50, 100);
    assert!((peak.lr - 0.2).abs() < 1e-7 && (peak.momentum - 0.8).abs() < 1e-7, "{peak:?}");

    // The config.toml of a run made before momentum moved, resumed and used for a new run.
    let file: String = toml::to_string(&new)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("cycle_momentum"))
        .map(|line| format!("{line}\n"))
        .collect();
    let again = resolve(&format!("{file}\n[provenance]\ncommit = \"x\"\n")).unwrap();
    for config in [again, resolve("cycle_momentum = false").unwrap()] {
        assert_eq!(config.rates().at(50, 100).momentum, 0.9);
    }
    for wrong in
        ["schedule = \"cosine\"\ncycle_momentum = true", "milestones = [3]", "lr_min = 0.5"]
    {
        assert!(resolve(wrong).is_err(), "{wrong}");
    }
    assert!(!resolve("schedule = \"cosine\"\nlr_min = 0.001").unwrap().cycle_momentum);
}

#[test]
fn an_old_runs_method_keeps_the_form_that_it_had() {
    let resolve = |text: &str| TrainConfig::from_toml(text).unwrap();
    let variant = |config: &TrainConfig| {
        config.options.iter().find(|(key, _)| *key == "variant").map(|(_, value)| value.to_string())
    };
    let options = "method = \"elle\"\n[options]\nlambda = 500.0\n";
    let new = resolve(options);
    let old = resolve(&format!("{options}[provenance]\ncommit = \"x\"\n"));
    assert_eq!(variant(&new).as_deref(), Some("\"official\""));
    assert_eq!(variant(&old).as_deref(), Some("\"reference\""));
    let elle: Elle = old.options.parse("elle").unwrap();
    assert_eq!((elle.base, elle.lambda), (Base::FgsmRs, 500.0));
    assert_eq!(variant(&resolve("[provenance]\ncommit = \"x\"\n")), None, "sora has one form");
}

#[test]
fn the_references_radius_counts_in_l2_training_alone() {
    let with = |text: &str| TrainConfig::from_toml(text);
    let config = with("norm = \"l2\"\nepsilon = 0.5\nepsilon_convention = \"reference\"").unwrap();
    assert_eq!(config.threat().epsilon, 0.5, "what evaluations use");
    for (channels, radius) in [(1, 0.5), (3, 0.866_025_4)] {
        assert!((config.training_threat(channels).epsilon - radius).abs() < 1e-6);
    }
    assert!(with("epsilon_convention = \"reference\"").is_err(), "in l-inf the two are the same");
    assert_eq!(with("norm = \"l2\"\nepsilon = 0.5").unwrap().training_threat(3).epsilon, 0.5);
}

#[test]
fn clipping_scales_a_long_gradient_and_leaves_a_short_one() {
    for (gradient, expected) in [([3.0f32, 4.0], [1.0 - 0.6, 2.0 - 0.8]), ([0.3, 0.4], [0.7, 1.6])]
    {
        let mut p = params(&[1.0, 2.0]);
        let sgd = Sgd::new(&p, 0.0);
        Clipped::new(Box::new(sgd), 1.0).step(
            &mut p,
            vec![vector(&gradient)],
            Rates { lr: 1.0, momentum: 0.0 },
        );
        assert_close("clipped step", &host(&p.values()[0]), &expected, 1e-6);
    }
}

#[test]
fn accumulation_updates_with_the_mean_also_through_a_checkpoint() {
    let gradients = [[1.0f32, -2.0], [3.0, 0.0], [-1.0, 5.0], [0.5, 0.5]];
    let mut plain = params(&[1.0, 2.0]);
    let mut sgd = Sgd::new(&plain, 0.01);
    for pair in gradients.chunks(2) {
        sgd.step(
            &mut plain,
            vec![vector(&[(pair[0][0] + pair[1][0]) / 2.0, (pair[0][1] + pair[1][1]) / 2.0])],
            Rates { lr: 0.1, momentum: 0.9 },
        );
    }
    for reload in [None, Some(1), Some(2), Some(3)] {
        let mut p = params(&[1.0, 2.0]);
        let fresh = |p: &TensorSet| Accumulated::new(OptimizerKind::Sgd.build(p, 0.01), p, 2);
        let mut accumulated = fresh(&p);
        for (step, gradient) in gradients.iter().enumerate() {
            if reload == Some(step) {
                let state =
                    accumulated.state().unwrap().into_iter().map(|t| (t.name.clone(), t)).collect();
                accumulated = fresh(&p);
                accumulated.load_state(&state, "test").unwrap();
            }
            let before = host(&p.values()[0]);
            accumulated.step(&mut p, vec![vector(gradient)], Rates { lr: 0.1, momentum: 0.9 });
            assert_eq!(
                host(&p.values()[0]) == before,
                step % 2 == 0,
                "an update after every second step"
            );
        }
        assert_close("accumulated", &host(&p.values()[0]), &host(&plain.values()[0]), 1e-6);
    }
}

#[test]
fn epsilon_grows_linearly_to_its_value() {
    let config = TrainConfig::from_toml("epsilon_warmup = 2.0\nepochs = 4").unwrap();
    let found: Vec<f32> = [0, 4, 9, 19, 20, 39].map(|step| config.warm_up(step, 10)).to_vec();
    assert_close("warm-up", &found, &[0.05, 0.25, 0.5, 1.0, 1.0, 1.0], 1e-5);
    assert!(TrainConfig::from_toml("epsilon_warmup = 5.0\nepochs = 4").is_err());
}

#[test]
fn free_divides_the_default_epochs_by_its_replays() {
    let epochs =
        |more: &str| TrainConfig::from_toml(&format!("method = 'free'\n{more}")).unwrap().epochs;
    let found = (epochs(""), epochs("[options]\nreplays = 3"), epochs("epochs = 5"));
    assert_eq!(found, (4, 10, 5));
}

#[test]
fn methods_with_a_memory_state_it_and_refuse_augmentation_that_cannot_be_undone() {
    for (name, images) in [("atas", 1u64), ("fgsm-pgi", 2)] {
        let info = method::method(name).unwrap();
        assert_eq!(u64::from(info.stored_images), images);
        let built = info
            .build(&(info.options)().unwrap(), Threat { norm: Norm::Linf, epsilon: 0.1 })
            .unwrap();
        let data = |augment: &str| DataInfo {
            images: 50_000,
            shape: [3, 32, 32],
            augment: augment.parse::<Augment>().unwrap(),
        };
        assert_eq!(built.memory(&data("crop:4,flip")).unwrap(), images * 50_000 * 3072 * 4);
        for augment in ["resized-crop:0.08,flip", "flip,rotate:10"] {
            let error = built.memory(&data(augment)).unwrap_err().to_string();
            assert!(error.contains(augment) && error.contains("crop:4,flip"), "{error}");
        }
    }
}

/// The derivative carried forward through the layers is `<grad, direction>`; its weight gradient is
/// held against PyTorch's double backward in the golden step of GradAlign.
#[test]
fn the_derivative_along_a_direction_is_the_gradients() {
    let (n, side, device) = (6, 9, Device::flex());
    let image = |scale: f32, shift: f32| {
        let data: Vec<f32> = (0..n * 3 * side * side)
            .map(|i| scale * ((i * 37 % 101) as f32 / 101.0) + shift)
            .collect();
        Tensor::<4>::from_data(TensorData::new(data, [n, 3, side, side]), &device)
    };
    let (x, direction) = (image(1.0, 0.0), image(0.2, -0.1).powi_scalar(3) * 100.0);
    let labels = Tensor::from_data([0, 3, 9, 4, 4, 1], &device);
    for backend in [Backend::Engine, Backend::Burn] {
        let mut model = small_model(7, 3, side);
        model.set_backend(backend).unwrap();
        for mode in [BnMode::Train, BnMode::Eval] {
            let grad = input_gradient(&model, x.clone(), mode, |logits| {
                cross_entropy(logits, labels.clone())
            })
            .grad;
            let expected = (grad * direction.clone()).sum();
            let mut pass = TrainPass::new(&model, x.clone(), 0.0);
            let (logits, along) = pass.forward_along(x.clone(), direction.clone(), mode);
            let slope = softmax(logits, 1);
            let picked = along.clone().gather(1, labels.clone().reshape([n, 1]));
            let found = ((slope * along).sum_dim(1) - picked).mean().inner();
            assert_close(&format!("{backend:?} {mode:?}"), &host(&found), &host(&expected), 1e-4);
        }
    }
}

fn with_options(dir: &Path, name: &str, more: &[&str]) -> std::path::PathBuf {
    let run = dir.join(name);
    let output = train_short(&run, more);
    assert!(output.status.success(), "{name}: {}", stderr(&output));
    run
}

/// The same bits from a run as from one that goes on from its third checkpoint.
fn resumes(more: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let more: Vec<&str> =
        more.iter().chain(&["--checkpoint-steps", "1", "--keep", "100"]).copied().collect();
    let whole = with_options(dir.path(), "whole", &more);
    let broken = with_options(dir.path(), "broken", &more);
    let mut all = sora::run::checkpoint::list(&broken.join("checkpoints")).unwrap();
    for later in all.split_off(3) {
        fs::remove_dir_all(later).unwrap();
    }
    fs::remove_file(broken.join("model.safetensors")).unwrap();
    let output = sora(&["resume", broken.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    same(&whole, &broken);
}

#[test]
fn every_addition_at_once_resumes_to_the_same_bits() {
    resumes(&[
        "--label-smoothing",
        "0.1",
        "--awp",
        "0.005",
        "--ema",
        "0.9",
        "--clip-grad",
        "1",
        "--accumulate",
        "2",
        "--epsilon-warmup",
        "1",
    ]);
}

#[test]
fn methods_with_a_memory_resume_to_the_same_bits_under_augmentation() {
    for method in ["atas", "fgsm-pgi", "free"] {
        resumes(&["--method", method, "--augment", "crop:2,flip"]);
    }
}

/// Shows why GradAlign does not use a central difference of weight gradients: each ReLU that
/// switches between the two points adds its jump over 2 h, and where h is too small for that,
/// rounding dominates. The golden step of GradAlign compares the exact form with a double backward.
#[test]
fn a_difference_of_weight_gradients_is_no_double_backward() {
    let (batches, device) = (Golden::load("batches"), Device::flex());
    let model = golden_model(&batches, 3, 10, 10);
    let (x, labels) = (batches.image("x1"), batches.labels("y1"));
    let mut noise = vec![0.0; 8 * 300];
    fill_uniform(&mut noise, Key::new(1, Purpose::Synthetic), &(0..8).collect::<Vec<_>>());
    let noise = |scale: f32| {
        Tensor::<4>::from_data(TensorData::new(noise.clone(), [8, 3, 10, 10]), &device) * scale
            - scale / 2.0
    };
    let (x, direction) = (x + noise(16.0 / 255.0), noise(2.0).powi_scalar(3));

    let mut pass = TrainPass::new(&model, x.clone(), 0.0);
    let logits = pass.at_point();
    let (at, along) = pass.forward_along(x.clone(), direction.clone(), BnMode::Train);
    let picked = along.clone().gather(1, labels.clone().reshape([8, 1]));
    let derivative = ((softmax(at, 1) * along).sum_dim(1) - picked).mean();
    let exact = pass.finish(derivative, logits).params;

    let length = |tensors: &[Tensor<1>]| {
        tensors.iter().flat_map(host).map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
    };
    for h in [1e-2f32, 1e-3, 1e-4, 1e-5, 1e-6] {
        let at = |h: f32| {
            train_gradient(&model, x.clone() + direction.clone() * h, labels.clone()).params
        };
        let gap: Vec<_> = at(h)
            .into_iter()
            .zip(at(-h))
            .zip(&exact)
            .map(|((a, b), exact)| (a - b) / (2.0 * h) - exact.clone())
            .collect();
        let error = length(&gap) / length(&exact);
        println!("h {h:e}: error {error:.3} of the gradient");
        assert!(error > 1e-3, "h {h:e}: {error}");
    }
}

#[test]
fn the_documentation_lists_every_method_with_its_cost_and_options() {
    let text = fs::read_to_string(path("docs/method-options.md")).unwrap();
    for info in METHODS {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| {} |", info.name)))
            .unwrap_or_else(|| panic!("{}: no row", info.name));
        let Passes { forward, backward_input, backward_full } = info.passes;
        let mut parts = vec![
            format!(
                "| {forward}, {backward_input}, {backward_full} | {:.2} |",
                info.passes.relative_cost()
            ),
            info.source.to_owned(),
        ];
        for (key, value) in (info.options)().unwrap().iter() {
            parts.push(format!("`{key}={}`", value.to_string().trim_matches('"')));
        }
        for part in parts {
            assert!(row.contains(&part), "{}: no '{part}' in: {row}", info.name);
        }
    }
}

#[test]
fn weight_perturbation_goes_with_every_method_and_leaves_the_weights_alone() {
    let batch = batch(16);
    // LAP moves the weights on purpose.
    for info in METHODS.iter().filter(|info| info.name != "lap") {
        for &norm in info.norms {
            let model = small_model(2, 3, SIDE);
            let before: Vec<f32> = model.params.values().iter().flat_map(host).collect();
            let step = |awp: f32| {
                let mut method = info.build(&(info.options)().unwrap(), threat(norm)).unwrap();
                let mut noise = Noise::training(1, 0, 0, batch.ids.clone(), &Device::flex());
                let mut fresh = model.clone();
                let settings = StepSettings {
                    threat: threat(norm),
                    attack_bn: info.attack_bn,
                    place: Place::default(),
                    extras: Extras { awp, label_smoothing: 0.1 },
                };
                let mut cx = StepContext::new(&mut fresh, &mut noise, settings);
                let out = method.step(&mut cx, &batch).unwrap();
                let passes = cx.passes;
                let after: Vec<f32> = fresh.params.values().iter().flat_map(host).collect();
                assert_eq!(before, after, "{}: the weights come back to the bit", info.name);
                (out.metrics.wait().unwrap().loss, host(&out.delta), passes)
            };
            let (plain, perturbed) = (step(0.0), step(0.01));
            // A second set of forward and full backward passes; the attack is the same, the loss
            // that it climbs to is higher.
            assert_eq!(
                perturbed.2.forward,
                plain.2.forward + info.passes.backward_full,
                "{}",
                info.name
            );
            assert_eq!(perturbed.2.backward_full, 2 * info.passes.backward_full, "{}", info.name);
            assert_eq!(perturbed.1, plain.1, "{}", info.name);
            assert!(perturbed.0 > plain.0, "{} {norm}: {} and {}", info.name, perturbed.0, plain.0);
        }
    }
}

#[test]
fn a_method_cannot_take_the_name_of_another() {
    let error = method::register(METHODS[0]).unwrap_err().to_string();
    assert!(error.contains("'none'"), "{error}");
}
