//! The CPU engine: its layers against Burn's own operations, and feature maps in bf16 against f32.

use burn::tensor::{Device, Tensor, TensorData};
use sora::{
    gradient::{TrainGradient, train_gradient},
    loss,
    method::method,
    model::Model,
    nn::{
        self, Backend, BatchNorm, BnMode, Conv2d, Jvp, Linear, NormInput, Pass, PoolInput, PoolOf,
        Precision, SpecBuilder, TensorSet,
    },
    threat::Norm,
};

use crate::{
    methods::{self, SIDE},
    support::{host, small_model},
};

/// The root mean square of the relative error of a stored bf16, about: half of its largest, 2^-8.
const UNIT: f32 = 1.0 / 512.0;

/// Values in [-1, 1) that look random.
fn noise<const D: usize>(shape: [usize; D], seed: u32) -> Tensor<D> {
    let mut state = seed;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let len = shape.iter().product();
    Tensor::from_data(
        TensorData::new((0..len).map(|_| draw()).collect::<Vec<f32>>(), shape),
        &Device::flex(),
    )
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32
}

/// `|| a - b || / || b ||`.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(b).max(1e-30)
}

#[track_caller]
fn agree(name: &str, engine: &[f32], burn: &[f32]) {
    let found = distance(engine, burn);
    assert!(found < 1e-4, "{name}: {found}");
}

/// Convolutions with bias, groups and other kernels than the engine's fast ones, and a linear
/// layer.
#[test]
fn odd_convolutions_agree_with_burn() {
    let mut specs = SpecBuilder::default();
    let first = Conv2d::with_bias(&mut specs, "first", [4, 6], 5, [1, 2], 2);
    let bn = BatchNorm::new(&mut specs, "bn", 6);
    let second = Conv2d::with_bias(&mut specs, "second", [6, 5], 2, [2, 1], 1);
    let third = Conv2d::new(&mut specs, "third", [6, 5], 2, 2, 1);
    let linear = Linear::new(&mut specs, "linear", [5, 3]);
    let device = Device::flex();
    let (params, buffers) =
        (TensorSet::init(specs.params, 1, &device), TensorSet::init(specs.buffers, 1, &device));
    let run = |backend| {
        let weights = params.tracked();
        let x = noise([3, 4, 7, 6], 5).autodiff().require_grad();
        let mut pass = Pass::new(backend, BnMode::Train, buffers.frozen());
        let map = first.forward(&weights, nn::enter(x.clone(), &pass), None, &pass);
        let map = bn.forward(&weights, map, true, NormInput::Alone, &mut pass);
        // Two readers of one map, one of which adds the other's result.
        let other = third.forward(&weights, map.clone(), None, &pass);
        let map = second.forward(&weights, map, Some(other), &pass);
        let out = linear
            .forward(&weights, nn::global_avg_pool(map, PoolInput::Alone, &pass), &pass)
            .values;
        let mut gradients = (out.clone() * noise([3, 3], 9).autodiff()).sum().backward();
        let of_x = host(&x.grad_remove(&mut gradients).unwrap());
        let of_weights: Vec<Vec<f32>> =
            weights.gradients(&mut gradients).iter().map(host).collect();
        (host(&out.inner()), of_x, of_weights)
    };
    let (engine, burn) = (run(Backend::Engine), run(Backend::Burn));
    agree("output", &engine.0, &burn.0);
    agree("input gradient", &engine.1, &burn.1);
    for ((spec, a), b) in params.specs().iter().zip(&engine.2).zip(&burn.2) {
        assert!(norm(b) > 0.0 || spec.name == "first.bias", "{}", spec.name);
        if norm(b) > 1e-4 {
            agree(&spec.name, a, b);
        }
    }
}

#[test]
fn pooling_agrees_with_burn() {
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (3, 1, 1)] {
        for of in [PoolOf::Mean, PoolOf::Max] {
            let run = |backend| {
                let buffers = TensorSet::init(vec![], 0, &Device::flex());
                let pass = Pass::new(backend, BnMode::Eval, buffers.frozen());
                let x = noise([2, 3, 7, 6], 3).autodiff().require_grad();
                let map = if backend == Backend::Engine {
                    x.clone().permute([2, 3, 0, 1])
                } else {
                    x.clone()
                };
                let y = nn::pool(map, kernel, stride, padding, of, &pass);
                let y = if backend == Backend::Engine { y.permute([2, 3, 0, 1]) } else { y };
                let mut gradients = (y.clone() * noise(y.dims(), 4).autodiff()).sum().backward();
                (host(&y.inner()), host(&x.grad_remove(&mut gradients).unwrap()))
            };
            let (engine, burn) = (run(Backend::Engine), run(Backend::Burn));
            agree("pooled", &engine.0, &burn.0);
            agree("gradient", &engine.1, &burn.1);
        }
    }
}

#[test]
fn layer_norm_gelu_attention_and_cross_entropy_agree_with_burn() {
    let device = Device::flex();
    let buffers = TensorSet::init(vec![], 0, &device);
    let run = |backend| {
        let pass = Pass::new(backend, BnMode::Eval, buffers.frozen());
        let [x, gamma, beta] = [noise([5, 7], 1), noise([1, 7], 2), noise([1, 7], 3)]
            .map(|t| t.autodiff().require_grad());
        let y = nn::layer_norm(
            x.clone(),
            [gamma.clone().reshape([7]), beta.clone().reshape([7])],
            1e-5,
            &pass,
        );
        let y = nn::gelu(y * 2.0, &pass);
        let mut gradients = (y.clone() * noise([5, 7], 4).autodiff()).sum().backward();
        let mut all = vec![host(&y.inner())];
        all.extend([x, gamma, beta].map(|t| host(&t.grad_remove(&mut gradients).unwrap())));
        all
    };
    for (index, (engine, burn)) in run(Backend::Engine).iter().zip(&run(Backend::Burn)).enumerate()
    {
        agree(["output", "x", "gamma", "beta"][index], engine, burn);
    }

    // 3 sequences of 4 tokens, 2 heads of 3 features.
    let run = |backend| {
        let pass = Pass::new(backend, BnMode::Eval, buffers.frozen());
        let qkv = noise([12, 18], 5).autodiff().require_grad();
        let y =
            nn::attention(Jvp { value: qkv.clone().reshape([3, 4, 18]), tangent: None }, 2, &pass)
                .value
                .reshape([12, 6]);
        let mut gradients = (y.clone() * noise([12, 6], 6).autodiff()).sum().backward();
        [host(&y.inner()), host(&qkv.grad_remove(&mut gradients).unwrap())]
    };
    for (name, (engine, burn)) in
        ["attention", "qkv"].iter().zip(run(Backend::Engine).iter().zip(&run(Backend::Burn)))
    {
        agree(name, engine, burn);
    }

    let labels = || Tensor::from_data([2, 0, 6, 1, 3], &device);
    for smoothing in [0.0, 0.2] {
        let logits = (noise([5, 7], 8) * 4.0).autodiff().require_grad();
        let value = loss::smoothed_cross_entropy(logits.clone(), labels(), smoothing);
        let mut gradients = value.backward();
        let ours = (host(&value.inner()), host(&logits.grad_remove(&mut gradients).unwrap()));
        let logits = (noise([5, 7], 8) * 4.0).autodiff().require_grad();
        let log = burn::tensor::activation::log_softmax(logits.clone(), 1);
        let picked = log.clone().gather(1, labels().reshape([5, 1])).mean().neg();
        let value = picked * (1.0 - smoothing) - log.mean() * smoothing;
        let mut gradients = value.backward();
        agree("cross-entropy", &ours.0, &host(&value.inner()));
        agree("its gradient", &ours.1, &host(&logits.grad_remove(&mut gradients).unwrap()));
    }
}

/// A training pass of `model` stored in `precision`.
fn train(model: &Model, precision: Precision) -> TrainGradient {
    let batch = methods::batch(16);
    let mut model = model.clone();
    model.set_precision(precision).unwrap();
    train_gradient(&model, batch.x, batch.labels)
}

/// Relative errors of a bf16 training pass against `exact`: logits, gradient for the images,
/// gradients of the weights.
fn errors(model: &Model, exact: &TrainGradient) -> [f32; 3] {
    let half = train(model, Precision::Bf16);
    let all = |gradient: &TrainGradient| gradient.params.iter().flat_map(host).collect::<Vec<_>>();
    [
        distance(&host(&half.logits), &host(&exact.logits)),
        distance(&host(&half.input), &host(&exact.input)),
        distance(&all(&half), &all(exact)),
    ]
}

/// Each stored map carries a relative error of about `UNIT`, of independent sign; batch norm keeps
/// it from growing. Through the 17 convolutions, the 17 batch norms and the entry of the network,
/// with as many rounded weights, that makes sqrt(52) `UNIT` of the logits. Gradients also feel
/// every ReLU that changes sides; how much, is measured: with Burn's operations, which round at the
/// same points.
#[test]
fn bf16_costs_what_its_roundings_cost() {
    let mut model = small_model(8, 3, SIDE);
    let exact = train(&model, Precision::F32);
    let engine = errors(&model, &exact);
    model.set_backend(Backend::Burn).unwrap();
    let burn = errors(&model, &exact);
    let logits = 52f32.sqrt() * UNIT;
    assert!(
        engine[0] > 0.1 * logits && engine[0] < 3.0 * logits,
        "{engine:?}, expected about {logits}"
    );
    for (engine, burn) in engine.into_iter().zip(burn) {
        assert!(
            engine < 3.0 * burn && burn < 3.0 * engine && engine < 1.0,
            "engine {engine}, Burn {burn}"
        );
    }
}

/// A small vision transformer, of 12 blocks.
fn transformer() -> Model {
    let mut config = small_model(8, 3, SIDE).config;
    (config.name, config.width) = ("vit-tiny".into(), 24);
    Model::init(config, 8, &Device::flex()).unwrap()
}

/// A block stores what lies inside its two branches; its tokens stay f32. As much is rounded as with
/// Burn's operations, whose products take rounded operands.
#[test]
fn transformers_in_bf16_cost_what_their_roundings_cost() {
    let mut model = transformer();
    let exact = train(&model, Precision::F32);
    let engine = errors(&model, &exact);
    model.set_backend(Backend::Burn).unwrap();
    let burn = errors(&model, &exact);
    for (engine, burn) in engine.into_iter().zip(burn) {
        assert!(engine > 0.1 * UNIT && engine < 3.0 * burn, "engine {engine}, Burn {burn}");
    }
}

/// The engine computes a branch of a block in one operation; with Burn's operations it is five.
#[test]
fn transformers_agree_with_burn() {
    let mut model = transformer();
    let engine = train(&model, Precision::F32);
    model.set_backend(Backend::Burn).unwrap();
    let burn = train(&model, Precision::F32);
    agree("logits", &host(&engine.logits), &host(&burn.logits));
    agree("gradient for the images", &host(&engine.input), &host(&burn.input));
    for (i, (engine, burn)) in engine.params.iter().zip(&burn.params).enumerate() {
        let (engine, burn) = (host(engine), host(burn));
        // The bias of the keys has a gradient of zero but for rounding.
        let off = norm(&engine.iter().zip(&burn).map(|(a, b)| a - b).collect::<Vec<_>>());
        assert!(off < 1e-4 * norm(&burn).max(1e-3), "gradient {i}: {off}");
    }
}

#[test]
fn every_method_trains_in_bf16() {
    let batch = methods::batch(16);
    methods::each(|info, norm| {
        let run = |precision| {
            let mut model = small_model(2, 3, SIDE);
            model.set_precision(precision).unwrap();
            methods::run(info, norm, &mut model, &batch, 2, None)
        };
        let (half, exact) = (run(Precision::Bf16), run(Precision::F32));
        assert!(half.weights.iter().all(|w| w.is_finite()), "{} {norm}", info.name);
        // Penalties on small differences of losses or logits, such as elle's, see the roundings
        // most.
        let off = (half.losses[0] - exact.losses[0]).abs() / exact.losses[0].abs();
        assert!(off < 0.5, "{} {norm}: {:?} and {:?}", info.name, half.losses, exact.losses);
    });
}

#[test]
fn bf16_gives_the_same_bits_for_every_number_of_threads() {
    let batch = methods::batch(24);
    let info = method("sora").unwrap();
    for start in [small_model(8, 3, SIDE), transformer()] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut model = start.clone();
                model.set_precision(Precision::Bf16).unwrap();
                methods::run(info, Norm::Linf, &mut model, &batch, 3, None).weights
            })
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(3));
    }
}
