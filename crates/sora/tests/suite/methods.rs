//! What holds for every method of the registry: a new row is covered without another line here.

use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use sora::{
    loss::cross_entropy,
    method::{Extras, METHODS, MethodInfo, Place, StepContext, StepSettings, TrainBatch},
    model::Model,
    nn::Backend,
    noise::Noise,
    optim::{OptimizerKind, Rates},
    perturbation::{Perturb, clamp_to_box, l2_norm},
    threat::{Norm, Threat},
};

pub use crate::support::{SIDE, batch, threat};
use crate::support::{host, small_model};

/// What a run of some steps leaves behind.
pub struct Trace {
    pub losses: Vec<f32>,
    deltas: Vec<Vec<f32>>,
    pub weights: Vec<f32>,
    state: Vec<f32>,
}

/// Trains on one batch; at step `reload` the method's state goes through a checkpoint into a fresh
/// method.
pub fn run(
    info: &MethodInfo,
    norm: Norm,
    model: &mut Model,
    batch: &TrainBatch,
    steps: u64,
    reload: Option<u64>,
) -> Trace {
    let options = (info.options)().unwrap();
    let mut method = info.build(&options, threat(norm)).unwrap();
    let mut optimizer = OptimizerKind::Sgd.build(&model.params, 5e-4);
    let mut trace = Trace { losses: vec![], deltas: vec![], weights: vec![], state: vec![] };
    for step in 0..steps {
        if reload == Some(step) {
            let state = method.state().unwrap().into_iter().map(|t| (t.name.clone(), t)).collect();
            method = info.build(&options, threat(norm)).unwrap();
            method.load_state(&state).unwrap();
        }
        let mut noise = Noise::training(1, 0, step, batch.ids.clone(), &Device::flex());
        let settings = StepSettings {
            threat: threat(norm),
            attack_bn: info.attack_bn,
            place: Place { epoch: 0, epochs: 1, step, steps },
            extras: Extras::default(),
        };
        let mut cx = StepContext::new(model, &mut noise, settings);
        let out = method.step(&mut cx, batch).unwrap();
        assert_eq!(cx.passes, info.passes, "{}: the registry's passes are those made", info.name);
        trace.deltas.push(host(&out.delta));
        let m = out.metrics.wait().unwrap();
        trace.losses.push(m.loss);
        for value in [
            m.loss,
            m.adv_acc,
            m.alpha,
            m.linearity_raw,
            m.linearity_of_sums,
            m.grad_ratio,
            m.pert_align,
            m.delta_mean,
        ] {
            assert!(value.is_finite(), "{}: {m:?}", info.name);
        }
        assert!(
            (-1.0..=1.0).contains(&m.linearity) && m.pert_align.abs() <= 1.0 + 1e-5,
            "{}: {m:?}",
            info.name
        );
        optimizer.step(&mut model.params, out.gradients, Rates { lr: 0.01, momentum: 0.9 });
    }
    trace.weights = model.params.values().iter().flat_map(host).collect();
    trace.state = method.state().unwrap().into_iter().flat_map(|t| t.data).collect();
    trace
}

pub fn each(mut check: impl FnMut(&MethodInfo, Norm)) {
    for info in METHODS {
        info.norms.iter().for_each(|norm| check(info, *norm));
    }
}

#[test]
fn loss_falls_and_perturbations_stay_within_their_bound_and_the_box() {
    let batch = batch(32);
    each(|info, norm| {
        let trace = run(info, norm, &mut small_model(2, 3, SIDE), &batch, 12, None);
        let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
        assert!(
            mean(&trace.losses[9..]) < mean(&trace.losses[..3]),
            "{} {norm}: {:?}",
            info.name,
            trace.losses
        );
        let bound = info.bound * threat(norm).epsilon;
        for delta in &trace.deltas {
            let delta = Tensor::<4>::from_data(
                TensorData::new(delta.clone(), batch.x.dims()),
                &Device::flex(),
            );
            let sizes = match norm {
                Norm::Linf => host(&delta),
                Norm::L2 | Norm::L1 => host(&l2_norm(delta.clone())),
            };
            assert!(
                sizes.iter().all(|v| v.abs() <= bound * (1.0 + 1e-5)),
                "{} {norm}: beyond {bound}",
                info.name
            );
            let moved = host(&(batch.x.clone() + delta));
            assert!(
                moved.iter().all(|v| (-1e-6..=1.0 + 1e-6).contains(v)),
                "{} {norm}: outside [0,1]",
                info.name
            );
        }
        if info.bound > 0.0 {
            assert!(
                trace.deltas[0].iter().any(|v| v.abs() > 0.1 * threat(norm).epsilon / 20.0),
                "{} {norm}: no perturbation",
                info.name
            );
        }
    });
}

#[test]
fn same_seed_same_bits_also_through_a_checkpoint() {
    let batch = batch(16);
    each(|info, norm| {
        let first = run(info, norm, &mut small_model(2, 3, SIDE), &batch, 4, None);
        let again = run(info, norm, &mut small_model(2, 3, SIDE), &batch, 4, None);
        let resumed = run(info, norm, &mut small_model(2, 3, SIDE), &batch, 4, Some(2));
        for other in [&again, &resumed] {
            assert_eq!(first.weights, other.weights, "{} {norm}", info.name);
            assert_eq!(first.deltas, other.deltas, "{} {norm}", info.name);
            assert_eq!(first.state, other.state, "{} {norm}", info.name);
        }
    });
}

#[test]
fn the_engine_and_burn_compute_the_same_steps() {
    let batch = batch(16);
    each(|info, norm| {
        let deltas_and_losses = |backend| {
            let mut model = small_model(2, 3, SIDE);
            model.set_backend(backend).unwrap();
            run(info, norm, &mut model, &batch, 1, None)
        };
        let (engine, burn) = (deltas_and_losses(Backend::Engine), deltas_and_losses(Backend::Burn));
        let close =
            engine.losses.iter().zip(&burn.losses).all(|(a, b)| (a - b).abs() < 1e-3 * b.abs());
        assert!(close, "{} {norm}: {:?} and {:?}", info.name, engine.losses, burn.losses);
    });
}

#[test]
fn fgsm_on_a_linear_loss_takes_the_worst_corner() {
    // With zero weights in all blocks but one class direction there is no closed form through the
    // network; the linear loss <w, x> has one: its worst point in the ball and box is x + eps
    // sign(w), clamped.
    let device = Device::flex();
    let x = Tensor::<4>::from_data(
        TensorData::new(vec![0.0f32, 0.01, 0.5, 1.0], [1, 1, 2, 2]),
        &device,
    );
    let w = Tensor::<4>::from_data(
        TensorData::new(vec![-1.0f32, -2.0, 3.0, 0.5], [1, 1, 2, 2]),
        &device,
    );
    let threat = threat(Norm::Linf);
    let delta = clamp_to_box(&x, threat.ascent(w) * threat.epsilon);
    let e = threat.epsilon;
    assert_eq!(host(&delta), [0.0, -0.01, e, 0.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn projection_lands_in_the_ball_and_keeps_what_is_inside(
        values in proptest::collection::vec(-2.0f32..2.0, 12),
        epsilon in 0.0f32..1.5,
    ) {
        let delta = || Tensor::<4>::from_data(TensorData::new(values.clone(), [2, 1, 2, 3]), &Device::flex());
        for norm in [Norm::Linf, Norm::L2] {
            let threat = Threat { norm, epsilon };
            let projected = threat.project(delta());
            let size = |t: Tensor<4>| match norm {
                Norm::Linf => host(&t).into_iter().fold(0f32, |m, v| m.max(v.abs())),
                Norm::L2 | Norm::L1 => host(&l2_norm(t)).into_iter().fold(0f32, f32::max),
            };
            prop_assert!(size(projected.clone()) <= epsilon * (1.0 + 1e-5) + 1e-7);
            let again = host(&threat.project(projected.clone()));
            for (a, b) in again.iter().zip(host(&projected)) {
                prop_assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-3));
            }
            if size(delta()) <= epsilon {
                for (a, b) in host(&projected).iter().zip(&values) {
                    prop_assert!((a - b).abs() <= 1e-6);
                }
            }
        }
    }

    #[test]
    fn random_starts_lie_in_the_ball(seed: u64, epsilon in 1e-4f32..1.0) {
        for norm in [Norm::Linf, Norm::L2] {
            let threat = Threat { norm, epsilon };
            let mut noise = Noise::training(seed, 0, 0, vec![0, 1, 2], &Device::flex());
            let start = threat.random_start(&mut noise, [3, 1, 4, 4]);
            let size = match norm {
                Norm::Linf => host(&start),
                Norm::L2 | Norm::L1 => host(&l2_norm(start)),
            };
            prop_assert!(size.iter().all(|v| v.abs() <= epsilon * (1.0 + 1e-5)));
            prop_assert!(size.iter().any(|v| v.abs() > 0.0));
        }
    }
}

#[test]
fn cross_entropy_of_known_logits() {
    let device = Device::flex();
    let logits =
        Tensor::<2>::from_data([[0.0f32, 0.0, 0.0, 0.0], [1000.0, 0.0, 0.0, 0.0]], &device);
    let loss = |labels: [i32; 2]| {
        host(&cross_entropy(logits.clone(), Tensor::from_data(labels, &device)))[0]
    };
    assert!((loss([1, 0]) - 4f32.ln() / 2.0).abs() < 1e-6);
    assert!((loss([1, 2]) - (4f32.ln() + 1000.0) / 2.0).abs() < 1e-3, "no overflow");
}
