//! Networks of one's own: layers that do not fit are refused with a reason, those that do train,
//! are exported and found by name.

use burn::tensor::Device;
use sora::{
    exchange::to_onnx,
    gradient::train_gradient,
    loss::cross_entropy,
    model::{
        Builder, Id, Model, ModelConfig, NetworkInfo, NetworkOptions, Shape, Start, Window,
        network, networks, register,
    },
    nn::{Backend, BnMode},
};

use crate::support::{SIDE, assert_close, batch, host};

const SHAPE: Shape = Shape { channels: 3, height: SIDE, width: SIDE, classes: 10 };

/// Every kind of layer that a network of maps has.
fn layers(net: &mut Builder, x: Id) {
    let x = net.conv(x, "stem", 6, Window::of(3, 1, 1), Start::KaimingOut);
    let y = net.norm_act(x, "bn");
    let y = net.conv_add(y, x, "body", 6, Window::of(3, 1, 1), Start::Default);
    let y = net.pad_end(y, 1);
    let y = net.conv_bias(y, "down", 8, Window::of(3, 2, 0), Start::Default);
    let y = net.act(y);
    let y = net.max_pool(y, Window::of(2, 2, 0));
    let y = net.flatten(y);
    net.dense(y, "head", 10, Start::ZeroBias);
}

fn built() -> Builder {
    let mut net = Builder::new(SHAPE);
    let x = net.input();
    layers(&mut net, x);
    net
}

fn model() -> Model {
    let normalisation = [vec![0.5; 3], vec![0.25; 3]];
    Model::from_builder("own", built(), normalisation, 3, &Device::flex()).unwrap()
}

#[test]
fn a_network_of_ones_own_trains_alike_on_both_backends_and_is_exported() {
    let batch = batch(6);
    let engine = model();
    let mut burn = engine.clone();
    burn.set_backend(Backend::Burn).unwrap();
    let names: Vec<_> = engine.params.specs().iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names[..4], ["stem.weight", "bn.weight", "bn.bias", "body.weight"]);
    let [a, b] = [&engine, &burn].map(|model| {
        let logits = model.forward(&model.params.frozen(), batch.x.clone(), BnMode::Eval).0;
        let out = train_gradient(model, batch.x.clone(), batch.labels.clone());
        (host(&cross_entropy(logits, batch.labels.clone())), out)
    });
    assert_close("loss in eval mode", &a.0, &b.0, 1e-4);
    assert_close("input gradient", &host(&a.1.input), &host(&b.1.input), 1e-4);
    for ((spec, a), b) in engine.params.specs().iter().zip(&a.1.params).zip(&b.1.params) {
        assert_close(&spec.name, &host(a), &host(b), 1e-3);
    }
    assert!(to_onnx(&engine, &[]).unwrap().len() > 4 * engine.params.num_elements());
}

#[test]
fn layers_that_do_not_fit_are_refused_with_a_reason() {
    let refused = |list: &dyn Fn(&mut Builder, Id)| {
        let mut net = Builder::new(SHAPE);
        let x = net.input();
        list(&mut net, x);
        net.finish().map(|_| ()).expect_err("does not fit").to_string()
    };
    let conv = |net: &mut Builder, x, kernel| {
        net.conv(x, "c", 4, Window::of(kernel, 1, 0), Start::Default)
    };
    for (error, part) in [
        (refused(&|_, _| {}), "expected 10 logits"),
        (refused(&|net, x| _ = conv(net, x, SIDE + 1)), "too small for the network"),
        (refused(&|net, x| _ = net.dense(x, "d", 10, Start::Default)), "takes a vector"),
        (
            refused(&|net, x| {
                let flat = net.flatten(x);
                net.norm_act(flat, "bn");
            }),
            "batch norm) takes a map",
        ),
        (
            refused(&|net, x| {
                let smaller = conv(net, x, 3);
                net.add(x, smaller);
            }),
            "a sum of [3, 8, 8] and [4, 6, 6]",
        ),
        (
            refused(&|net, _| {
                let mut larger = built();
                let far = larger.dense(larger.input(), "far", 1, Start::Default);
                net.act(far);
            }),
            "reads one of another network",
        ),
        (
            refused(&|net, x| {
                let side = conv(net, x, 3);
                net.norm_act(side, "unread");
                let flat = net.flatten(x);
                net.dense(flat, "head", 10, Start::ZeroBias);
            }),
            "no layer reads the result of layer 2, of shape [4, 6, 6]",
        ),
        (
            refused(&|net, x| {
                let x = net.tokens(x);
                let x = net.self_attention(x, "attn", 2, true, Start::Default);
                net.first(x);
            }),
            "expected a multiple of 2",
        ),
    ] {
        assert!(error.contains(part), "{error}");
    }
}

static OWN: NetworkInfo = NetworkInfo {
    name: "own-of-the-tests",
    width_from: "stem.weight",
    classes_from: &["head.weight"],
    build: layers,
    ..NetworkInfo::BASE
};

#[test]
fn a_registered_network_is_built_by_its_name() {
    register(&OWN).unwrap();
    assert!(register(&OWN).unwrap_err().to_string().contains("already"));
    assert!(networks().iter().any(|info| info.name == OWN.name));
    assert_eq!(network(OWN.name).unwrap().parameters(1, SHAPE).unwrap(), {
        model().params.num_elements() as u64
    });
    let config = ModelConfig {
        name: OWN.name.into(),
        width: 1,
        shape: SHAPE,
        mean: vec![0.5; 3],
        std: vec![0.25; 3],
        options: NetworkOptions::default(),
        onnx: None,
    };
    let again = Model::init(config, 3, &Device::flex()).unwrap();
    let x = batch(2).x;
    assert_eq!(host(&again.logits(x.clone())), host(&model().logits(x)));
    assert!(network("no-such").unwrap_err().to_string().contains("unknown network"));
}
