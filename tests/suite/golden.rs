//! Against PyTorch: values in `tests/golden`, made by `scripts/golden/make.py`, an independent implementation.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor};
use sora::{
    gradient::{input_gradient, train_gradient},
    loss::cross_entropy,
    method::{self, Batch, Passes, StepContext},
    model::Model,
    nn::{BnMode, Spec, TensorSet},
    noise::Noise,
    optim::{OptimizerKind, Schedule},
    threat::{Norm, Threat},
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
    assert_eq!(checked, golden.with_prefix("buffer.").count(), "every running statistic is checked");
}

fn model_agrees(name: &str, channels: usize, height: usize, width: usize) {
    let golden = Golden::load(name);
    let (x, y) = (golden.image("x"), golden.labels("y"));
    let mut model = golden_model(&golden, channels, height, width);

    let eval = input_gradient(&model, x.clone(), BnMode::Eval, |logits| cross_entropy(logits, y.clone()));
    golden.check("logits_eval", &host(&eval.logits), TOLERANCE);
    golden.check("logits_eval", &host(&model.logits(x.clone())), TOLERANCE);
    golden.check("loss_eval", &host(&eval.loss), TOLERANCE);
    golden.check("input_grad_eval", &host(&eval.grad), TOLERANCE);
    assert!(eval.stats.is_empty(), "eval mode leaves the running statistics alone");

    let attack = input_gradient(&model, x.clone(), BnMode::Train, |logits| cross_entropy(logits, y.clone()));
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
    for (name, kind, weight_decay) in
        [("sgd", OptimizerKind::Sgd, 5e-4), ("adam", OptimizerKind::Adam, 5e-4), ("adamw", OptimizerKind::Adamw, 1e-2)]
    {
        let spec = Spec { name: "p".into(), shape: vec![5], init: sora::nn::Init::Constant(0.0) };
        let device = Device::flex();
        let mut params = TensorSet::init(vec![spec], 0, &device);
        params.set(0, Tensor::from_data(golden.values("start"), &device));
        let mut optimizer = kind.build(&params, 0.9, weight_decay);
        for (step, lr) in golden.values("lr").iter().enumerate() {
            let gradient = &golden.values("grads")[5 * step..5 * step + 5];
            optimizer.step(&mut params, vec![Tensor::from_data(gradient, &device)], *lr);
            assert_close(name, &host(&params.values()[0]), &golden.values(name)[5 * step..5 * step + 5], 1e-6);
        }
    }
}

#[test]
fn schedules_step_by_step() {
    let golden = Golden::load("schedules");
    for (name, schedule) in [
        ("cyclic", Schedule::Cyclic),
        ("multistep", Schedule::Multistep),
        ("cosine", Schedule::Cosine),
        ("warmup-cosine", Schedule::WarmupCosine),
        ("constant", Schedule::Constant),
    ] {
        for (key, total) in [(name.to_owned(), 40), (format!("{name}.odd"), 41)] {
            let found: Vec<f32> = (0..total).map(|step| schedule.at(0.2, step, total)).collect();
            golden.check(&key, &found, 1e-6);
        }
    }
}

/// Two whole training steps: perturbation, gradients, figures, state, updated weights and running statistics.
fn two_steps(file: &str, method_name: &str, set: &[&str]) {
    let golden = Golden::load(&format!("step_{file}"));
    let batches = Golden::load("batches");
    let mut model = golden_model(&batches, 3, 10, 10);
    let norm_of = if golden.settings["norm"] == "l2" { Norm::L2 } else { Norm::Linf };
    let threat = Threat { norm: norm_of, epsilon: golden.settings["epsilon"].parse().unwrap() };
    let info = method::method(method_name).unwrap();
    let mut options = (info.options)().unwrap();
    set.iter().for_each(|pair| options.set(pair, method_name).unwrap());
    let mut method = info.build(&options, threat).unwrap();
    let mut optimizer = OptimizerKind::Sgd.build(&model.params, 0.9, 5e-4);
    let mut passes = Passes::default();

    for t in 1..=2usize {
        let batch = Batch { x: batches.image(&format!("x{t}")), labels: batches.labels(&format!("y{t}")), ids: (0..8).collect() };
        let mut noise = Noise::given(golden.draws(t), &Device::flex());
        let mut cx = StepContext { model: &mut model, threat, attack_bn: BnMode::Train, noise: &mut noise, epoch: 0, passes };
        let out = method.step(&mut cx, &batch).unwrap();
        passes = cx.passes;
        golden.check(&format!("delta{t}"), &host(&out.delta), TOLERANCE);
        golden.check(&format!("logits{t}"), &host(&out.logits), TOLERANCE);
        if golden.has(&format!("grad_train{t}")) {
            golden.check(&format!("grad_train{t}"), &host(&out.input_gradient), TOLERANCE);
        }
        let metrics = out.metrics;
        for (key, value) in [
            ("loss", metrics.loss),
            ("adv_acc", metrics.adv_acc),
            ("alpha", metrics.alpha),
            ("linearity_batch", metrics.linearity),
            ("pert_align", metrics.pert_align),
        ] {
            let expected = golden.scalar(&format!("{key}{t}"));
            assert!((value - expected).abs() <= TOLERANCE * expected.abs().max(0.1), "{file} {key}{t}: {value}, expected {expected}");
        }
        if golden.has(&format!("v{t}")) {
            golden.check(&format!("v{t}"), &method.state()[0].data, TOLERANCE);
        }
        optimizer.step(&mut model.params, out.gradients, 0.05);
    }
    let expected = Passes {
        forward: 2 * info.passes.forward,
        backward_input: 2 * info.passes.backward_input,
        backward_full: 2 * info.passes.backward_full,
    };
    assert_eq!(passes, expected, "{method_name}: the registry's passes are those made");
    let params: HashMap<_, _> = model.params.to_host().unwrap().into_iter().map(|t| (t.name, t.data)).collect();
    for (name, expected) in golden.with_prefix("norm.") {
        assert_close(&format!("{file} norm.{name}"), &[norm(&params[name])], expected, TOLERANCE);
    }
    for (name, expected) in golden.with_prefix("param.") {
        assert_close(&format!("{file} param.{name}"), &params[name], expected, TOLERANCE);
    }
    check_buffers(&golden, &model);
}

macro_rules! steps {
    ($($test:ident: $file:literal, $method:literal, [$($set:literal),*];)*) => {
        $(#[test] fn $test() { two_steps($file, $method, &[$($set),*]); })*
    };
}

steps! {
    step_none: "none", "none", [];
    step_fgsm: "fgsm", "fgsm", [];
    step_fgm: "fgm", "fgm", [];
    step_fgsm_rs: "fgsm-rs", "fgsm-rs", [];
    step_n_fgsm: "n-fgsm", "n-fgsm", [];
    step_pgd: "pgd", "pgd", [];
    step_pgd_2: "pgd-2", "pgd-2", [];
    step_pgd_l2: "pgd-l2", "pgd", [];
    step_sora: "sora", "sora", [];
    step_sora_l2: "sora-l2", "sora", [];
    step_sora_fixed_alpha: "sora-fixed-alpha", "sora", ["fixed_alpha=1.5"];
    step_sora_full_step: "sora-full-step", "sora", ["r=one"];
    step_sora_sample_step: "sora-sample-step", "sora", ["r=sample"];
    step_sora_no_start: "sora-no-start", "sora", ["eta=false"];
}
