//! Hostile sizes: whatever a caller passes, the kernels return a result or a typed error. The sizes
//! are small enough for Miri (`cargo +nightly miri test --features serial --test sizes`).

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{assert_close, cases, for_each_term, to_f64, values};
use sora_kernels::attention::Attention;
use sora_kernels::bench;
use sora_kernels::channels::channel_moments;
use sora_kernels::conv::{
    Addend, Conv2d, ConvAlgorithm, ConvGeometry, Direction, Epilogue, Moments, Overlay, Partial,
    TileIndex,
};
use sora_kernels::layout::{Dimensions, nchw_to_hwnc};
use sora_kernels::linear::Linear;
use sora_kernels::loss::softmax_cross_entropy;
use sora_kernels::pool::{PoolWindow, global_average};
use sora_kernels::{Buffer, Element, ElementType, Isa, ShapeError, bf16};

/// Numbers at the edges of arithmetic.
const EDGES: [usize; 9] = [
    1 << 31,
    1 << 32,
    (1 << 32) + 1,
    1 << 61,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    usize::MAX - 30,
    usize::MAX,
];

fn base() -> ConvGeometry {
    ConvGeometry::square(2, 3, [5, 4], 3, 1)
}

/// Every field of a geometry, by number.
fn field(geometry: &mut ConvGeometry, index: usize) -> &mut usize {
    match index {
        0 => &mut geometry.in_channels,
        1 => &mut geometry.out_channels,
        2 | 3 => &mut geometry.input[index - 2],
        4 | 5 => &mut geometry.kernel[index - 4],
        6 | 7 => &mut geometry.stride[index - 6],
        8 | 9 => &mut geometry.padding[index - 8],
        _ => &mut geometry.groups,
    }
}

/// Calls everything that needs no large slice, on portable code, and outside Miri also on the
/// fastest instruction set, whose algorithms are more.
fn touch<E: Element>(geometry: ConvGeometry, n: usize) {
    let _ = geometry.output();
    touch_on::<E>(geometry, n, Isa::Portable);
    if !cfg!(miri) {
        touch_on::<E>(geometry, n, Isa::detect());
    }
}

fn touch_on<E: Element>(geometry: ConvGeometry, n: usize, isa: Isa) {
    let Ok(conv) = Conv2d::<E>::new(geometry, isa) else { return };
    for algorithm in ConvAlgorithm::ALL {
        let Ok(conv) = conv.clone().with_algorithm(algorithm) else { continue };
        let _ = (conv.input_len(n), conv.output_len(n), conv.weight_len());
        for direction in [Direction::Forward, Direction::InputGrad] {
            let _ = conv.packed_len(direction);
        }
        let lens = [conv.input_len(n), conv.output_len(n)].map(|len| len.unwrap_or(0));
        if lens[0].max(lens[1]).max(conv.weight_len()) > 1 << 12 {
            continue;
        }
        let (x, mut y) = (vec![E::default(); lens[0]], vec![E::default(); lens[1]]);
        let mut w = vec![0.5; conv.weight_len()];
        let packed = conv.pack(&w, Direction::Forward).unwrap();
        let _ = conv.forward(n, &x, &packed, &mut y, Epilogue::default());
        let tiles = [TileIndex { sample: 0, tile: 0 }];
        let partial = Partial { tiles: &tiles, input: None, add: None };
        let _ = conv.forward_partial(n, &x, &packed, &mut y, Epilogue::default(), partial);
        let packed = conv.pack(&w, Direction::InputGrad).unwrap();
        let mut dx = x.clone();
        let _ = conv.input_grad(n, &y, &packed, &mut dx, Epilogue::default());
        let _ = conv.weight_grad(n, &x, &y, &mut w);
    }
}

#[test]
fn any_field_of_a_geometry_may_be_anything() {
    let base = || match cfg!(miri) {
        true => ConvGeometry { input: [2, 1], ..self::base() },
        false => self::base(),
    };
    let all = [&EDGES[..], &[0, 1]].concat();
    for index in 0..11 {
        for value in cases(&all, &[0, 1, (1 << 32) + 1, 1 << 62, usize::MAX]) {
            // One of the two types, in turn.
            let half = cfg!(miri).then_some(index % 2 == 0);
            for n in cases(&[0, 1, usize::MAX], &[1, usize::MAX]) {
                let mut geometry = base();
                *field(&mut geometry, index) = value;
                if half != Some(true) {
                    touch::<f32>(geometry, n);
                }
                if half != Some(false) {
                    touch::<bf16>(geometry, n);
                }
            }
        }
    }
    // Two at a time: products that wrap to something small, and empty tensors of large images.
    let all = [(1 << 32, 1 << 32), (usize::MAX, usize::MAX), (0, 1 << 62), (1 << 62, 0)];
    for first in 0..11 {
        for second in 0..first {
            let turn = (first + second) % all.len();
            for (a, b) in cases(&all, &all[turn..=turn]) {
                let mut geometry = base();
                *field(&mut geometry, first) = a;
                *field(&mut geometry, second) = b;
                touch::<f32>(geometry, 1);
            }
        }
    }
}

/// One output pixel of one tap that lies inside the image: the product of the two.
fn one_pixel(geometry: ConvGeometry) {
    let conv = Conv2d::<f32>::new(geometry, Isa::Portable).unwrap();
    let n = 2;
    let (x, w) = (values(conv.input_len(n).unwrap(), 1, 0.0), values(conv.weight_len(), 2, 0.0));
    let mut expected = vec![0.0; conv.output_len(n).unwrap()];
    for_each_term(&geometry, n, |y, xi, wi| expected[y] += f64::from(x[xi]) * f64::from(w[wi]));
    let packed = conv.pack(&w, Direction::Forward).unwrap();
    let mut y = vec![f32::NAN; expected.len()];
    conv.forward(n, &x, &packed, &mut y, Epilogue::default()).unwrap();
    assert_close("whole", &y, &expected, 1e-6);
    let tiles = [0, 1].map(|sample| TileIndex { sample, tile: 0 });
    let partial = Partial { tiles: &tiles, input: None, add: None };
    let mut part = vec![f32::NAN; expected.len()];
    conv.forward_partial(n, &x, &packed, &mut part, Epilogue::default(), partial).unwrap();
    assert_eq!(part, y, "{geometry:?}");
}

#[test]
fn a_stride_beyond_the_image_computes_what_is_there() {
    let base = ConvGeometry { padding: [1, 0], ..ConvGeometry::square(8, 1, [1, 1], 1, 1) };
    // Windows of four strides would wrap to nothing.
    for stride in [
        [715_827_882, 357_913_941],
        [2_863_311_530, 2_863_311_530],
        [usize::MAX, usize::MAX],
        [1 << 62, 3],
    ] {
        one_pixel(ConvGeometry { kernel: [2, 1], stride, ..base });
        one_pixel(ConvGeometry { kernel: [2, 2], padding: [1, 1], stride, ..base });
        one_pixel(ConvGeometry { kernel: [3, 3], padding: [1, 1], stride, input: [3, 2], ..base });
    }
}

#[test]
fn a_tile_that_sees_too_much_is_refused() {
    let geometry = ConvGeometry {
        kernel: [1, 1 << 13],
        stride: [1 << 13, 1],
        padding: [0, (1 << 13) - 1],
        ..ConvGeometry::square(1, 1, [3 << 13, 1], 1, 1)
    };
    let conv = Conv2d::<f32>::new(geometry, Isa::Portable).unwrap();
    let packed = conv.pack(&vec![0.0; conv.weight_len()], Direction::Forward).unwrap();
    let (x, mut y) =
        (vec![0.0; conv.input_len(1).unwrap()], vec![0.0; conv.output_len(1).unwrap()]);
    let tiles = [TileIndex { sample: 0, tile: 0 }];
    let partial = Partial { tiles: &tiles, input: None, add: None };
    let error = conv.forward_partial(1, &x, &packed, &mut y, Epilogue::default(), partial);
    assert!(error.unwrap_err().to_string().contains("lie under one"));
}

#[test]
fn without_channels_there_is_nothing_stale() {
    for (from, to) in [(0, 3), (3, 0), (0, 0)] {
        let geometry = ConvGeometry::square(from, to, [4, 4], 3, 1);
        let conv = Conv2d::<f32>::new(geometry, Isa::Portable).unwrap();
        assert!(!conv.supports(ConvAlgorithm::Winograd));
        assert!(conv.clone().with_algorithm(ConvAlgorithm::Winograd).is_err());
        let (mut y, mut dx) = (vec![f32::NAN; 2 * 16 * to], vec![f32::NAN; 2 * 16 * from]);
        let packed = conv.pack(&[], Direction::Forward).unwrap();
        let (mut mean, mut variance) = (vec![f32::NAN; to], vec![f32::NAN; to]);
        let moments = Some(Moments { mean: &mut mean, variance: &mut variance });
        let (bias, add) = (vec![1.5; to], vec![0.5; y.len()]);
        let epilogue =
            Epilogue { bias: Some(&bias), add: Addend::Tensor(&add), moments, norm: None };
        conv.forward(2, &vec![0.0; dx.len()], &packed, &mut y, epilogue).unwrap();
        assert!(y.iter().chain(&mean).all(|&v| v == 2.0) && variance.iter().all(|&v| v == 0.0));
        let packed = conv.pack(&[], Direction::InputGrad).unwrap();
        conv.input_grad(2, &y, &packed, &mut dx, Epilogue::default()).unwrap();
        assert!(dx.iter().all(|&v| v == 0.0));
        conv.weight_grad(2, &dx, &y, &mut []).unwrap();
    }
}

#[test]
fn input_gradients_take_every_part_of_an_epilogue() {
    for algorithm in [ConvAlgorithm::Direct, ConvAlgorithm::Winograd] {
        let geometry = ConvGeometry::square(5, 9, [5, 4], 3, 1);
        let conv = Conv2d::<f32>::new(geometry, Isa::Portable).unwrap();
        let conv = conv.with_algorithm(algorithm).unwrap();
        let (dy, w) =
            (values(conv.output_len(2).unwrap(), 1, 0.0), values(conv.weight_len(), 2, 0.0));
        let bias = values(5, 3, 0.0);
        let mut expected: Vec<f64> =
            (0..conv.input_len(2).unwrap()).map(|i| f64::from(bias[i % 5])).collect();
        for_each_term(&geometry, 2, |y, x, wi| {
            expected[x] += f64::from(dy[y]) * f64::from(w[wi]);
        });
        let packed = conv.pack(&w, Direction::InputGrad).unwrap();
        let mut dx = vec![f32::NAN; expected.len()];
        let (mut mean, mut variance) = ([f32::NAN; 5], [f32::NAN; 5]);
        let moments = Some(Moments { mean: &mut mean, variance: &mut variance });
        let epilogue = Epilogue { bias: Some(&bias), moments, ..Epilogue::default() };
        conv.input_grad(2, &dy, &packed, &mut dx, epilogue).unwrap();
        assert_close("dx", &dx, &expected, 1e-5);
        let (expected_mean, expected_variance) = common::moments(&to_f64(&dx), 5);
        assert_close("mean", &mean, &expected_mean, 1e-5);
        assert_close("variance", &variance, &expected_variance, 1e-5);
    }
}

#[test]
fn gradients_of_weights_agree_with_the_sum_of_products() {
    for (algorithm, channels) in [
        (ConvAlgorithm::Direct, [3, 9]),
        (ConvAlgorithm::Winograd, [3, 9]),
        (ConvAlgorithm::Winograd, [66, 2]),
    ] {
        let geometry = ConvGeometry::square(channels[0], channels[1], [3, 4], 3, 1);
        let conv = Conv2d::<f32>::new(geometry, Isa::Portable).unwrap();
        let conv = conv.with_algorithm(algorithm).unwrap();
        let (x, dy) = (
            values(conv.input_len(2).unwrap(), 1, 0.0),
            values(conv.output_len(2).unwrap(), 2, 0.0),
        );
        let mut expected = vec![0.0; conv.weight_len()];
        for_each_term(&geometry, 2, |y, xi, wi| {
            expected[wi] += f64::from(dy[y]) * f64::from(x[xi]);
        });
        let mut dw = vec![f32::NAN; expected.len()];
        conv.weight_grad(2, &x, &dy, &mut dw).unwrap();
        assert_close("dw", &dw, &expected, 1e-5);
    }
}

#[test]
fn overlays_and_tiles_of_any_size_are_checked() {
    let conv = Conv2d::<f32>::new(base(), Isa::Portable).unwrap();
    let packed = conv.pack(&vec![0.5; conv.weight_len()], Direction::Forward).unwrap();
    let (x, mut y) = (vec![0.5; 40], vec![0.5; 60]);
    let mut refused = |partial: Partial<'_>| {
        assert!(
            conv.forward_partial(1, &x, &packed, &mut y, Epilogue::default(), partial).is_err()
        );
    };
    for edge in EDGES {
        let tiles = [TileIndex { sample: edge, tile: 0 }, TileIndex { sample: 0, tile: edge }];
        for tile in tiles {
            refused(Partial { tiles: &[tile], input: None, add: None });
        }
        for (rows, columns) in [((0, edge), (0, 4)), ((edge, edge), (0, 4)), ((0, 5), (edge, 0))] {
            let overlay = Some(Overlay { values: &x[..], rows, columns });
            refused(Partial { tiles: &[], input: overlay, add: None });
        }
    }
}

#[test]
fn attention_of_any_size_is_an_error_or_right() {
    for edge in EDGES {
        for shape in [
            Attention { tokens: edge, heads: 1, width: 1 },
            Attention { tokens: 1, heads: edge, width: 1 },
            Attention { tokens: 1, heads: 1, width: edge },
            Attention { tokens: 2, heads: edge, width: edge },
            Attention { tokens: edge, heads: 0, width: 1 },
        ] {
            let forward = shape.forward(Isa::Portable, &[0.0; 3], &mut [0.0]);
            let backward = shape.backward(Isa::Portable, &[0.0; 3], &[0.0], &mut [0.0; 3]);
            assert!(forward.is_err() && backward.is_err(), "{shape:?}");
        }
    }
    // One token attends to itself alone.
    let shape = Attention { tokens: 1, heads: 2, width: 3 };
    let qkv = values(18, 1, 0.0);
    let mut out = [f32::NAN; 6];
    shape.forward(Isa::Portable, &qkv, &mut out).unwrap();
    assert_eq!(out, qkv[12..]);
    let mut dqkv = [f32::NAN; 18];
    shape.backward(Isa::Portable, &qkv, &out, &mut dqkv).unwrap();
    assert_eq!(dqkv[12..], out);
}

#[test]
fn pooling_windows_of_any_size_are_an_error_or_right() {
    for edge in EDGES {
        for window in [
            PoolWindow { input: [edge, 1], kernel: [1; 2], stride: [1; 2], padding: [0; 2] },
            PoolWindow { input: [1, edge], kernel: [2; 2], stride: [1; 2], padding: [1; 2] },
            PoolWindow { input: [1, 1], kernel: [1; 2], stride: [1; 2], padding: [edge, 0] },
            PoolWindow { input: [1, 1], kernel: [edge, 1], stride: [1; 2], padding: [0; 2] },
            PoolWindow {
                input: [edge, 0],
                kernel: [edge; 2],
                stride: [1; 2],
                padding: [edge / 2; 2],
            },
            PoolWindow { input: [edge, edge], kernel: [0; 2], stride: [1; 2], padding: [0; 2] },
        ] {
            let _ = window.output();
            for row in [1, edge] {
                let (mut y, mut indices) = ([0.0], [0]);
                let max = window.max(Isa::detect(), row, &[0.0], &mut y, &mut indices);
                let average = window.average(row, &[0.0], &mut y);
                assert!(max.is_err() && average.is_err(), "{window:?}");
                let _ = window.average_grad(row, &y, &mut [0.0]);
                let _ = window.max_grad(Isa::detect(), row, &y, &indices, &mut [0.0]);
            }
        }
    }
    // A stride beyond the image: one window.
    let window =
        PoolWindow { input: [2, 1], kernel: [2, 1], stride: [usize::MAX; 2], padding: [0; 2] };
    let mut y = [0.0f32];
    window.average(1, &[1.0f32, 3.0], &mut y).unwrap();
    assert_eq!(y, [2.0]);
}

#[test]
fn other_sizes_are_checked_too() {
    for edge in EDGES {
        assert!(Linear::<f32>::new(edge, edge, Isa::Portable).is_err());
        assert!(softmax_cross_entropy(&[], &[0], edge, 0.0, &mut [0.0], None).is_err());
        assert!(global_average(edge, &[1.0f32], &mut [0.0f32]).is_err());
        let dimensions = Dimensions { n: edge, c: edge, h: 1, w: 1 };
        assert!(nchw_to_hwnc(dimensions, &[1.0f32], &mut [0.0f32]).is_err());
        let config = bench::Config {
            network: bench::BenchNetwork::PreactResnet18,
            isa: Isa::Portable,
            precisions: vec![ElementType::F32],
            width: edge,
            image: edge,
            batch: 1,
            seconds: 0.0,
            algorithm: None,
        };
        assert!(bench::run(&config, |_| ()).is_err());
    }
    for len in [1 << 61, 1 << 62, usize::MAX] {
        assert!(matches!(Buffer::<f32>::try_zeroed(len), Err(ShapeError::Overflow { .. })));
    }
    assert_eq!(Buffer::<bf16>::try_zeroed(3).unwrap().len(), 3);
    assert!(channel_moments::<f32>(Isa::Portable, &[], &mut [], &mut []).is_err());
}
