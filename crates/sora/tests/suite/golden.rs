//! Against PyTorch: values in `crates/sora/tests/golden`, made by `scripts/golden/make.py`, an
//! independent implementation.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor};
use sora::{
    data::AugmentDraw,
    gradient::{input_gradient, train_gradient},
    loss::cross_entropy,
    method::{self, Extras, Passes, Place, StepContext, StepSettings, TrainBatch},
    model::Model,
    nn::{BnMode, HostTensor, Spec, TensorSet},
    noise::Noise,
    optim::{OptimizerKind, RatePlan, Rates, Schedule},
    threat::{Norm, Threat},
    train::WeightAverage,
};

use crate::support::{Golden, assert_close, golden_model, host};

/// The agreement that the project promises.
const TOLERANCE: f32 = 1e-4;

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32
}

fn check_buffers(golden: &Golden, model: &Model) {
    let mut checked = 0;
    for tensor in model.buffers.to_host().unwrap() {
        golden.check(&format!("buffer.{}", tensor.name), &tensor.data, TOLERANCE);
        checked += 1;
    }
    assert_eq!(
        checked,
        golden.with_prefix("buffer.").count(),
        "every running statistic is checked"
    );
}

fn model_agrees(name: &str, channels: usize, height: usize, width: usize) {
    let golden = Golden::load(name);
    let (x, y) = (golden.image("x"), golden.labels("y"));
    let mut model = golden_model(&golden, channels, height, width);

    let eval =
        input_gradient(&model, x.clone(), BnMode::Eval, |logits| cross_entropy(logits, y.clone()));
    golden.check("logits_eval", &host(&eval.logits), TOLERANCE);
    golden.check("logits_eval", &host(&model.logits(x.clone())), TOLERANCE);
    golden.check("loss_eval", &host(&eval.loss), TOLERANCE);
    golden.check("input_grad_eval", &host(&eval.grad), TOLERANCE);
    assert!(eval.stats.is_empty(), "eval mode leaves the running statistics alone");

    let attack =
        input_gradient(&model, x.clone(), BnMode::Train, |logits| cross_entropy(logits, y.clone()));
    golden.check("input_grad_train", &host(&attack.grad), TOLERANCE);

    let train = train_gradient(&model, x, y);
    golden.check("logits_train", &host(&train.logits), TOLERANCE);
    golden.check("loss_train", &host(&train.loss), TOLERANCE);
    golden.check("input_grad_train", &host(&train.input), TOLERANCE);
    for (spec, gradient) in model.params.specs().iter().zip(&train.params) {
        let gradient = host(gradient);
        golden.check(&format!("grad_norm.{}", spec.name), &[norm(&gradient)], TOLERANCE);
        let key = format!("grad.{}", spec.name);
        if golden.has(&key) {
            golden.check(&key, &gradient, TOLERANCE);
        }
    }
    model.absorb(train.stats);
    check_buffers(&golden, &model);
}

#[test]
fn model_on_colour_images() {
    model_agrees("model", 3, 10, 10);
}

#[test]
fn model_on_grey_images_of_odd_size() {
    model_agrees("model_gray", 1, 7, 9);
}

#[test]
fn optimizers_over_several_steps() {
    let golden = Golden::load("sgd");
    let constant = [0.9; 6];
    for (name, kind, weight_decay, momentum) in [
        ("sgd", OptimizerKind::Sgd, 5e-4, constant.as_slice()),
        ("sgd-cyclic", OptimizerKind::Sgd, 5e-4, golden.values("momentum")),
        ("adam", OptimizerKind::Adam, 5e-4, constant.as_slice()),
        ("adamw", OptimizerKind::Adamw, 1e-2, constant.as_slice()),
    ] {
        let spec = Spec { name: "p".into(), shape: vec![5], init: sora::nn::Init::Constant(0.0) };
        let device = Device::flex();
        let mut params = TensorSet::init(vec![spec], 0, &device);
        params.set(0, Tensor::from_data(golden.values("start"), &device));
        let mut optimizer = kind.build(&params, weight_decay);
        for (step, (&lr, &momentum)) in golden.values("lr").iter().zip(momentum).enumerate() {
            let gradient = &golden.values("grads")[5 * step..5 * step + 5];
            let gradient = vec![Tensor::from_data(gradient, &device)];
            optimizer.step(&mut params, gradient, Rates { lr, momentum });
            assert_close(
                name,
                &host(&params.values()[0]),
                &golden.values(name)[5 * step..5 * step + 5],
                1e-6,
            );
        }
    }
}

#[test]
fn schedules_step_by_step() {
    let golden = Golden::load("schedules");
    let floored = |schedule| RatePlan { lr_min: Some(0.002), ..RatePlan::new(schedule, 0.2) };
    let milestones = vec![100.0 / 110.0, 105.0 / 110.0];
    for (name, plan) in [
        ("cyclic", RatePlan::new(Schedule::Cyclic, 0.2)),
        ("multistep", RatePlan::new(Schedule::Multistep, 0.2)),
        ("milestones", RatePlan { milestones, ..RatePlan::new(Schedule::Multistep, 0.2) }),
        ("cosine", RatePlan::new(Schedule::Cosine, 0.2)),
        ("cosine-floor", floored(Schedule::Cosine)),
        ("warmup-cosine", RatePlan::new(Schedule::WarmupCosine, 0.2)),
        ("constant", RatePlan::new(Schedule::Constant, 0.2)),
    ] {
        for (key, total) in totals(name) {
            let found: Vec<f32> = (0..total).map(|step| plan.at(step, total).lr).collect();
            golden.check(&key, &found, 1e-6);
        }
    }
    let cycled = RatePlan { momentum_at_peak: Some(0.8), ..RatePlan::new(Schedule::Cyclic, 0.2) };
    for (key, total) in totals("cyclic.momentum") {
        let found: Vec<f32> = (0..total).map(|step| cycled.at(step, total).momentum).collect();
        golden.check(&key, &found, 1e-6);
    }
}

/// A schedule's tensors and their numbers of steps.
fn totals(name: &str) -> [(String, u64); 2] {
    if name == "milestones" {
        return [(name.to_owned(), 110), (format!("{name}.odd"), 330)];
    }
    [(name.to_owned(), 40), (format!("{name}.odd"), 41)]
}

/// A case of `crates/sora/tests/golden/step_*`.
#[derive(Clone, Copy)]
struct Case {
    file: &'static str,
    method: &'static str,
    set: &'static [&'static str],
    /// Options whose value the file's settings give.
    from_settings: &'static [&'static str],
    extras: Extras,
    /// Epoch that the steps belong to.
    epoch: u64,
    /// The method's state before the first step, from the file.
    state: Option<fn(&Golden) -> Vec<HostTensor>>,
    /// Updates; 0 stands for 2.
    updates: usize,
    /// Updates on each batch; 0 stands for 1.
    replays: usize,
    /// Every update is on the first batch, as it was augmented.
    same_batch: bool,
    /// Decay of a weight average that is checked too; 0: none.
    ema: f32,
}

/// Whole training steps: perturbation, gradients, figures, state, updated weights and running
/// statistics.
fn steps_agree(case: Case) {
    let Case { file, method: method_name, .. } = case;
    let golden = Golden::load(&format!("step_{file}"));
    let batches = Golden::load("batches");
    let mut model = golden_model(&batches, 3, 10, 10);
    let norm_of = if golden.settings["norm"] == "l2" { Norm::L2 } else { Norm::Linf };
    let threat = Threat { norm: norm_of, epsilon: golden.settings["epsilon"].parse().unwrap() };
    let info = method::method(method_name).unwrap();
    let mut options = (info.options)().unwrap();
    case.set.iter().for_each(|pair| options.set(pair, method_name).unwrap());
    for key in case.from_settings {
        options.set(&format!("{key}={}", golden.settings[*key]), method_name).unwrap();
    }
    let mut method = info.build(&options, threat).unwrap();
    if let Some(state) = case.state {
        method
            .load_state(&state(&golden).into_iter().map(|t| (t.name.clone(), t)).collect())
            .unwrap();
    }
    let mut optimizer = OptimizerKind::Sgd.build(&model.params, 5e-4);
    let mut average = WeightAverage::new(&model, case.ema);
    let mut passes = Passes::default();

    let updates = if case.updates == 0 { 2 } else { case.updates };
    for t in 1..=updates {
        let b = if case.same_batch { 1 } else { 1 + (t - 1) / case.replays.max(1) };
        let x = if golden.has(&format!("x{t}")) {
            golden.image(&format!("x{t}"))
        } else {
            batches.image(&format!("x{b}"))
        };
        let batch = TrainBatch {
            x,
            labels: batches.labels(&format!("y{b}")),
            ids: (0..8).collect(),
            draws: augmented(&golden, t),
        };
        let mut noise = Noise::given(golden.draws(t), &Device::flex());
        let settings = StepSettings {
            threat,
            attack_bn: info.attack_bn_with(&options, threat).unwrap(),
            place: Place {
                epoch: case.epoch,
                epochs: 30,
                step: 2 * case.epoch + t as u64 - 1,
                steps: 60,
            },
            extras: case.extras,
        };
        let rates = Rates { lr: 0.05, momentum: 0.9 };
        let mut cx = StepContext::new(&mut model, &mut noise, settings);
        cx.velocity = optimizer.velocity(rates);
        let out = method.step(&mut cx, &batch).unwrap();
        passes += cx.passes;
        golden.check(&format!("delta{t}"), &host(&out.delta), TOLERANCE);
        golden.check(&format!("logits{t}"), &host(&out.logits), TOLERANCE);
        if golden.has(&format!("grad_train{t}")) {
            golden.check(&format!("grad_train{t}"), &host(&out.input_gradient), TOLERANCE);
        }
        let metrics = out.metrics.wait().unwrap();
        for (key, value) in [
            ("loss", metrics.loss),
            ("adv_acc", metrics.adv_acc),
            ("alpha", metrics.alpha),
            ("linearity_batch", metrics.linearity),
            ("pert_align", metrics.pert_align),
            ("linearity_raw", metrics.linearity_raw),
            ("linearity_of_sums", metrics.linearity_of_sums),
            ("grad_ratio", metrics.grad_ratio),
        ] {
            let expected = golden.scalar(&format!("{key}{t}"));
            assert!(
                (value - expected).abs() <= TOLERANCE * expected.abs().max(0.1),
                "{file} {key}{t}: {value}, expected {expected}"
            );
        }
        let key = format!("abnormal{t}");
        // LAP's gives weight gradients, too.
        let attacks = info.passes.backward_input > 0 || info.name == "lap";
        assert_eq!(metrics.abnormal.is_some(), attacks, "{file}: an attack pass tells losses");
        if golden.has(&key) {
            golden.check(&key, metrics.abnormal.as_slice(), TOLERANCE);
        }
        let state: HashMap<_, _> =
            method.state().unwrap().into_iter().map(|tensor| (tensor.name, tensor.data)).collect();
        for (key, name) in [
            ("v", "v"),
            ("stored_delta", "delta.values"),
            ("m", "m"),
            ("prior", "prior.values"),
            ("next_delta", "delta"),
            ("lambda", "lambda"),
        ] {
            let key = format!("{key}{t}");
            if (name != "lambda" || file.contains("elle-a")) && golden.has(&key) {
                golden.check(&key, &state[name], TOLERANCE);
            }
        }
        optimizer.step(&mut model.params, out.gradients, rates);
        average.update(&model);
    }
    if case.extras == Extras::default() && case.set.is_empty() {
        let times = updates as u64;
        let expected = Passes {
            forward: times * info.passes.forward,
            backward_input: times * info.passes.backward_input,
            backward_full: times * info.passes.backward_full,
        };
        assert_eq!(passes, expected, "{method_name}: the registry's passes are those made");
    }
    weights_agree(&golden, "", &model);
    check_buffers(&golden, &model);
    if case.ema > 0.0 {
        let averaged = average.applied(&model);
        weights_agree(&golden, "ema.", &averaged);
        for tensor in averaged.buffers.to_host().unwrap() {
            golden.check(&format!("ema.buffer.{}", tensor.name), &tensor.data, TOLERANCE);
        }
    }
}

/// Parameters and their norms against those of the file whose names start with `prefix`.
fn weights_agree(golden: &Golden, prefix: &str, model: &Model) {
    let params: HashMap<_, _> =
        model.params.to_host().unwrap().into_iter().map(|t| (t.name, t.data)).collect();
    let mut checked = 0;
    for (name, expected) in golden.with_prefix(&format!("{prefix}norm.")) {
        assert_close(&format!("{prefix}norm.{name}"), &[norm(&params[name])], expected, TOLERANCE);
        checked += 1;
    }
    assert_eq!(checked, params.len(), "the norm of every parameter is checked");
    for (name, expected) in golden.with_prefix(&format!("{prefix}param.")) {
        assert_close(&format!("{prefix}param.{name}"), &params[name], expected, TOLERANCE);
    }
}

/// How the batch of update `t` was augmented.
fn augmented(golden: &Golden, t: usize) -> Vec<AugmentDraw> {
    let draws = golden.draws(t);
    let (Some(crop), Some(flip)) = (draws.get("crop"), draws.get("flip")) else {
        return vec![AugmentDraw::IDENTITY; 8];
    };
    let pad: i32 = golden.settings["pad"].parse().unwrap();
    let offset = |u: f32| (f32::floor((2 * pad + 1) as f32 * u)) as i32 - pad;
    let draw = |(place, flip): (&[f32; 2], &f32)| AugmentDraw {
        dy: offset(place[0]),
        dx: offset(place[1]),
        flip: *flip >= 0.5,
        ..AugmentDraw::IDENTITY
    };
    crop.as_chunks::<2>().0.iter().zip(flip).map(draw).collect()
}

fn tensor(name: &str, shape: Vec<usize>, data: Vec<f32>) -> HostTensor {
    HostTensor { name: name.into(), shape, data }
}

/// ELLE-A with a past.
fn elle_a_state(golden: &Golden) -> Vec<HostTensor> {
    let past: Vec<f32> = golden.values("draw.past.1").iter().map(|u| 1e-6 * u).collect();
    vec![tensor("lambda", vec![1], vec![0.0]), tensor("past", vec![past.len()], past)]
}

/// ATAS with perturbations and gradient averages.
fn atas_state(golden: &Golden) -> Vec<HostTensor> {
    let epsilon: f32 = golden.settings["epsilon"].parse().unwrap();
    let delta = golden.host("draw.delta.1");
    let ids: Vec<f32> = (0..8).map(f32::from_bits).collect();
    vec![
        tensor("delta.ids", vec![8], ids.clone()),
        tensor(
            "delta.values",
            delta.shape.clone(),
            delta.data.iter().map(|u| (2.0 * u - 1.0) * epsilon).collect(),
        ),
        tensor("m.ids", vec![8], ids),
        tensor("m", vec![8], golden.values("draw.m.1").to_vec()),
        tensor("resets", vec![1], vec![0.0]),
    ]
}

/// The SORA reference's form of a method that has two.
const REFERENCE: &[&str] = &["variant=reference"];

const NO_EXTRAS: Extras = Extras { label_smoothing: 0.0, awp: 0.0 };
const CASE: Case = Case {
    file: "",
    method: "",
    set: &[],
    from_settings: &[],
    extras: NO_EXTRAS,
    epoch: 0,
    state: None,
    updates: 0,
    replays: 0,
    same_batch: false,
    ema: 0.0,
};

macro_rules! steps {
    ($($test:ident: $file:literal, $method:literal $(, $field:ident: $value:expr)*;)*) => {
        $(
            #[test]
            fn $test() {
                steps_agree(Case { file: $file, method: $method, $($field: $value,)* ..CASE });
            }
        )*
    };
}

steps! {
    step_none: "none", "none";
    step_fgsm: "fgsm", "fgsm";
    step_fgm: "fgm", "fgm";
    step_fgsm_rs: "fgsm-rs", "fgsm-rs";
    step_n_fgsm: "n-fgsm", "n-fgsm";
    step_pgd: "pgd", "pgd";
    step_pgd_2: "pgd-2", "pgd-2";
    step_pgd_l2: "pgd-l2", "pgd";
    step_sora: "sora", "sora";
    step_sora_l2: "sora-l2", "sora";
    step_sora_fixed_alpha: "sora-fixed-alpha", "sora", set: &["fixed_alpha=1.5"];
    step_sora_full_step: "sora-full-step", "sora", set: &["r=one"];
    step_sora_sample_step: "sora-sample-step", "sora", set: &["r=sample"];
    step_sora_no_start: "sora-no-start", "sora", set: &["eta=false"];
    step_zerograd: "zerograd", "zerograd", from_settings: &["quantile"];
    step_multigrad: "multigrad", "multigrad", from_settings: &["starts"];
    step_fgsm_rs_l2: "fgsm-rs-l2", "fgsm-rs";
    step_gradalign: "gradalign", "gradalign", set: REFERENCE, from_settings: &["lambda"];
    step_gradalign_official: "gradalign-official", "gradalign";
    step_nuat: "nuat", "nuat", set: REFERENCE, from_settings: &["lambda"];
    step_nuat_official: "nuat-official", "nuat", from_settings: &["lambda"], epoch: 10;
    step_elle: "elle", "elle", set: REFERENCE, from_settings: &["lambda"], updates: 1;
    step_elle_official: "elle-official", "elle", from_settings: &["lambda"], updates: 1;
    step_elle_a_official: "elle-a-official", "elle", set: &["adaptive=true"],
        from_settings: &["lambda", "decay", "sensitivity"], state: Some(elle_a_state);
    step_n_fgsm_elle_a: "n-fgsm-elle-a", "n-fgsm-elle-a",
        from_settings: &["lambda", "decay", "sensitivity"], state: Some(elle_a_state);
    step_lp_fgsm: "lp-fgsm", "lp-fgsm", from_settings: &["beta"];
    step_lp_fgsm_p: "lp-fgsm-p", "lp-fgsm", from_settings: &["p"];
    step_lap: "lap", "lap", from_settings: &["beta", "gamma"];
    step_atas_official: "atas-official", "atas", from_settings: &["c", "decay"], epoch: 5,
        state: Some(atas_state), same_batch: true;
    step_fgsm_pgi_official: "fgsm-pgi-official", "fgsm-pgi", from_settings: &["lambda", "decay"],
        same_batch: true;
    step_elle_a: "elle-a", "elle", set: &["variant=reference", "adaptive=true"],
        from_settings: &["lambda", "decay", "sensitivity"], state: Some(elle_a_state);
    step_aaer: "aaer", "aaer", from_settings: &["lambda1", "lambda2", "lambda3"];
    step_aaer_rs: "aaer-rs", "aaer", set: &["base=fgsm-rs"];
    step_atas: "atas", "atas", set: REFERENCE, from_settings: &["c", "decay"], epoch: 5,
        state: Some(atas_state), same_batch: true;
    step_fgsm_pgi: "fgsm-pgi", "fgsm-pgi", set: REFERENCE, from_settings: &["lambda", "decay"],
        same_batch: true;
    step_free: "free", "free", from_settings: &["replays"], updates: 4, replays: 3;
    step_trades: "trades", "trades", from_settings: &["lambda", "steps", "start"];
    step_mart: "mart", "mart", from_settings: &["lambda", "steps", "start"];
    step_awp: "awp", "n-fgsm", extras: Extras { awp: 0.01, ..NO_EXTRAS };
    step_label_smoothing: "label-smoothing", "n-fgsm", extras: Extras { label_smoothing: 0.1, ..NO_EXTRAS };
    step_ema: "ema", "n-fgsm", ema: 0.7;
}
