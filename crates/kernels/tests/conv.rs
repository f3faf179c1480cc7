//! Convolutions against a plain `f64` reference, on every instruction set of this machine.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{
    assert_close, assert_rounded, cases, distinct_instruction_sets, for_each_term,
    instruction_sets, moments, narrowed, on_threads, to_f64, values, values_as, widened,
};
use proptest::prelude::*;
use sora_kernels::batch_norm::BatchNorm;
use sora_kernels::conv::{
    Addend, Conv2d, ConvAlgorithm, ConvGeometry, Direction, Epilogue, Moments, Normed, Overlay,
    PackedWeights, Partial, TILE_SIDE, TileIndex,
};
use sora_kernels::{Element, ElementType, Isa, ShapeError, bf16};

/// Largest error of an element, relative to the largest magnitude of the tensor.
const TOLERANCE: f64 = 1e-5;

/// Largest error of an element where transformed values are rounded to bf16: tests of the whole
/// tensor's error say what the rounding costs, this one that no element is wrong.
const ROUNDED_POINTS: f64 = 2e-2;

const ALGORITHMS: [ConvAlgorithm; 4] = ConvAlgorithm::ALL;

/// Every output of one convolution.
#[derive(Debug, PartialEq, Clone)]
struct Results<E> {
    y: Vec<E>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    dx: Vec<E>,
    dw: Vec<f32>,
}

struct Case<E> {
    n: usize,
    x: Vec<E>,
    w: Vec<f32>,
    bias: Vec<f32>,
    add: Vec<E>,
    dy: Vec<E>,
    dx_add: Vec<E>,
}

impl<E: Element> Case<E> {
    fn new(conv: &Conv2d<E>, n: usize, seed: u64) -> Self {
        let x_len = conv.input_len(n).unwrap();
        let y_len = conv.output_len(n).unwrap();
        Self {
            n,
            x: values_as(x_len, seed, 0.3),
            // The values are exact in bf16, so an algorithm that rounds weights changes nothing.
            w: widened(&values_as::<E>(conv.weight_len(), seed + 1, 0.0)),
            bias: values(conv.geometry().out_channels, seed + 2, 0.0),
            add: values_as(y_len, seed + 3, 0.0),
            dy: values_as(y_len, seed + 4, 0.1),
            dx_add: values_as(x_len, seed + 5, 0.0),
        }
    }

    fn run(&self, conv: &Conv2d<E>) -> Result<Results<E>, ShapeError> {
        let channels = conv.geometry().out_channels;
        // Arbitrary values in the outputs reveal elements that are never written.
        let mut y = vec![E::from_f32(f32::NAN); self.dy.len()];
        let mut mean = vec![f32::NAN; channels];
        let mut variance = vec![f32::NAN; channels];
        let epilogue = Epilogue {
            bias: Some(&self.bias),
            add: Addend::Tensor(&self.add),
            moments: Some(Moments { mean: &mut mean, variance: &mut variance }),
            norm: None,
        };
        let packed = conv.pack(&self.w, Direction::Forward)?;
        conv.forward(self.n, &self.x, &packed, &mut y, epilogue)?;
        let packed = conv.pack(&self.w, Direction::InputGrad)?;
        let mut dx = self.dx_add.clone();
        conv.input_grad(self.n, &self.dy, &packed, &mut dx, Addend::Output.into())?;
        let mut dw = vec![f32::NAN; self.w.len()];
        conv.weight_grad(self.n, &self.x, &self.dy, &mut dw)?;
        Ok(Results { y, mean, variance, dx, dw })
    }

    /// A batch norm in the convolution's own store is the batch norm of what it stores, to the bit,
    /// with the stored map or in its place.
    fn check_norm(&self, conv: &Conv2d<E>, stored: &[E], isa: Isa, what: &str) {
        let channels = conv.geometry().out_channels;
        let [mean, gamma, beta] = [8, 9, 10].map(|seed| values(channels, seed, 0.0));
        let variance: Vec<f32> = values(channels, 11, 0.0).iter().map(|v| v.abs()).collect();
        for relu in cases(&[true, false], &[self.n.is_multiple_of(2)]) {
            let norm = BatchNorm {
                mean: &mean,
                variance: &variance,
                gamma: &gamma,
                beta: &beta,
                epsilon: 1e-5,
                relu,
            };
            let mut expected = vec![E::default(); stored.len()];
            norm.forward(isa, stored, &mut expected).unwrap();
            let packed = conv.pack(&self.w, Direction::Forward).unwrap();
            let run = |y: &mut [E], normed: Option<&mut [E]>| {
                let normed = Some(Normed { norm, y: normed });
                let epilogue = Epilogue {
                    bias: Some(&self.bias),
                    add: Addend::Tensor(&self.add),
                    moments: None,
                    norm: normed,
                };
                conv.forward(self.n, &self.x, &packed, y, epilogue).unwrap();
            };
            let rubbish = || vec![E::from_f32(f32::NAN); stored.len()];
            let (mut y, mut normed, mut alone) = (rubbish(), rubbish(), rubbish());
            run(&mut y, Some(&mut normed));
            run(&mut alone, None);
            assert!(
                y == stored && normed == expected && alone == expected,
                "{what} norm, relu {relu}"
            );
        }
    }

    /// Some tiles of some samples get the bits of the whole convolution and the others keep their
    /// values, also where a part of the input and of the addend lies elsewhere.
    fn check_partial(&self, conv: &Conv2d<E>, stored: &[E], what: &str) {
        let ([h, w], [height, width]) = (conv.geometry().output(), conv.geometry().input);
        let (channels, tiles_x) = (conv.geometry().out_channels, w.div_ceil(TILE_SIDE));
        let wanted = |tile: &TileIndex| !(tile.sample * 7 + tile.tile * 5).is_multiple_of(3);
        let all = (0..self.n).flat_map(|sample| {
            (0..h.div_ceil(TILE_SIDE) * tiles_x).map(move |tile| TileIndex { sample, tile })
        });
        let tiles: Vec<TileIndex> = all.filter(wanted).collect();
        let packed = conv.pack(&self.w, Direction::Forward).unwrap();
        let partial = Partial { tiles: &tiles, input: None, add: None };
        let run = |x: &[E], add: &[E], partial: Partial<'_, E>| {
            let mut y = vec![E::from_f32(0.125); stored.len()];
            let epilogue = Epilogue {
                bias: Some(&self.bias),
                add: Addend::Tensor(add),
                ..Epilogue::default()
            };
            conv.forward_partial(self.n, x, &packed, &mut y, epilogue, partial).map(|()| y)
        };
        if E::PRECISION != ElementType::F32 {
            assert!(run(&self.x, &self.add, partial).is_err());
            return;
        }
        let check = |y: Vec<E>, what: String| {
            for (i, (y, whole)) in y.iter().zip(stored).enumerate() {
                let (pixel, sample) = (i / channels / self.n, i / channels % self.n);
                let inside = wanted(&TileIndex {
                    sample,
                    tile: pixel / w / TILE_SIDE * tiles_x + pixel % w / TILE_SIDE,
                });
                assert_eq!(*y, if inside { *whole } else { E::from_f32(0.125) }, "{what} at {i}");
            }
        };
        check(run(&self.x, &self.add, partial).unwrap(), format!("{what} tile"));

        // Values that must not be read are NaN.
        let split =
            |map: &[E], width: usize, row: usize, rows: (usize, usize), columns: (usize, usize)| {
                let inside = |i: usize| {
                    (rows.0..rows.1).contains(&(i / row / width))
                        && (columns.0..columns.1).contains(&(i / row % width))
                };
                let part = |wanted: bool| {
                    let value = |(i, v): (usize, &E)| {
                        if inside(i) == wanted { *v } else { E::from_f32(f32::NAN) }
                    };
                    map.iter().enumerate().map(value).collect::<Vec<E>>()
                };
                (part(false), part(true))
            };
        let thirds = |size: usize| (size / 3, size - size / 4);
        let tiles = |size: usize| (TILE_SIDE.min(size), size - size % TILE_SIDE.min(size.max(1)));
        let (rows, columns, add_rows, add_columns) =
            (thirds(height), thirds(width), tiles(h), tiles(w));
        let (x, x_overlay) =
            split(&self.x, width, self.n * conv.geometry().in_channels, rows, columns);
        let (add, add_overlay) = split(&self.add, w, self.n * channels, add_rows, add_columns);
        let x_overlay = Overlay { values: &x_overlay, rows, columns };
        let add_overlay = Overlay { values: &add_overlay, rows: add_rows, columns: add_columns };
        check(
            run(&x, &add, Partial { input: Some(x_overlay), add: Some(add_overlay), ..partial })
                .unwrap(),
            format!("{what} overlaid tile"),
        );

        let refused = [
            Partial { tiles: &[TileIndex { sample: self.n, tile: 0 }], ..partial },
            Partial { tiles: &[TileIndex { sample: 0, tile: 0 }; 2], ..partial },
            Partial { input: Some(Overlay { rows: (0, height + 1), ..x_overlay }), ..partial },
            Partial { input: Some(Overlay { rows: (1, 0), ..x_overlay }), ..partial },
            Partial { input: Some(Overlay { values: &[], ..x_overlay }), ..partial },
            Partial {
                add: Some(Overlay { rows: (0, 0), columns: (0, w + 1), ..add_overlay }),
                ..partial
            },
            Partial { add: Some(Overlay { values: &[], ..add_overlay }), ..partial },
        ];
        for (index, partial) in refused.into_iter().enumerate() {
            assert!(run(&self.x, &self.add, partial).is_err(), "{what}: {index} was taken");
        }
        if h > 1 && w > 1 {
            let within_a_tile = Overlay { rows: (0, 1), columns: (0, w), ..add_overlay };
            assert!(
                run(&self.x, &self.add, Partial { add: Some(within_a_tile), ..partial }).is_err()
            );
        }
    }

    fn check(&self, conv: &Conv2d<E>, isa: Isa, what: &str) {
        let results = self.run(conv).unwrap();
        if !results.y.is_empty() {
            self.check_norm(conv, &results.y, isa, what);
            self.check_partial(conv, &results.y, what);
        }
        let geometry = conv.geometry();
        let channels = geometry.out_channels;
        let mut y: Vec<f64> = (0..self.add.len())
            .map(|i| f64::from(self.add[i].to_f32()) + f64::from(self.bias[i % channels]))
            .collect();
        let mut dx = to_f64(&widened(&self.dx_add));
        let mut dw = vec![0.0; self.w.len()];
        for_each_term(geometry, self.n, |yi, xi, wi| {
            let (x, w, dy) = (
                f64::from(self.x[xi].to_f32()),
                f64::from(self.w[wi]),
                f64::from(self.dy[yi].to_f32()),
            );
            y[yi] += x * w;
            dx[xi] += dy * w;
            dw[wi] += dy * x;
        });
        let rounds_points = conv.algorithms().forward == ConvAlgorithm::WinogradBf16;
        let tolerance = if rounds_points { ROUNDED_POINTS } else { TOLERANCE };
        assert_rounded(&format!("{what} y"), &results.y, &y, tolerance);
        assert_rounded(&format!("{what} dx"), &results.dx, &dx, tolerance);
        assert_close(&format!("{what} dw"), &results.dw, &dw, TOLERANCE);
        if !y.is_empty() {
            // The statistics are those of the stored values.
            let stored = to_f64(&widened(&results.y));
            let (mean, variance) = moments(&stored, channels);
            let scale = y.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            for c in 0..channels {
                assert!((f64::from(results.mean[c]) - mean[c]).abs() <= 1e-5 * scale, "{what}");
                let error = (f64::from(results.variance[c]) - variance[c]).abs();
                assert!(error <= 1e-4 * (variance[c] + 1e-3 * scale * scale), "{what}");
            }
        }
    }
}

fn check_as<E: Element>(geometry: ConvGeometry, n: usize) {
    for isa in distinct_instruction_sets::<E>() {
        for algorithm in ALGORITHMS {
            let conv = Conv2d::<E>::new(geometry, isa).unwrap();
            if !conv.supports(algorithm) {
                assert!(conv.with_algorithm(algorithm).is_err());
                continue;
            }
            let conv = conv.with_algorithm(algorithm).unwrap();
            Case::new(&conv, n, 7).check(
                &conv,
                isa,
                &format!("{isa} {} {algorithm:?} {geometry:?} n={n}", E::PRECISION),
            );
        }
    }
}

fn check_everywhere(geometry: ConvGeometry, n: usize) {
    check_as::<f32>(geometry, n);
    check_as::<bf16>(geometry, n);
}

#[test]
fn three_by_three_stride_one() {
    let all = [
        (64, 64, 8, 8, 16),
        (16, 16, 8, 8, 33),
        (3, 64, 6, 5, 4),
        (1, 16, 7, 9, 3),
        (5, 10, 4, 4, 1),
        (33, 17, 5, 3, 7),
        (130, 72, 4, 4, 5),
        (1, 1, 1, 1, 1),
        (20, 150, 2, 9, 2),
        (32, 48, 5, 3, 40),
        (96, 20, 3, 4, 21),
    ];
    // One value, a whole tile and several blocks of rows; then more channels than a block has, for a
    // weight gradient in one section and in several.
    let few = [(1, 1, 1, 1, 1), (3, 4, 4, 4, 1), (2, 3, 1, 9, 5), (5, 9, 1, 5, 2), (5, 3, 1, 5, 3)];
    for (from, to, h, w, n) in cases(&all, &few) {
        check_everywhere(ConvGeometry::square(from, to, [h, w], 3, 1), n);
    }
}

/// The root of the mean square of `y - expected`, relative to that of `expected`.
fn relative_error(y: &[f32], expected: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let error = square(&mut y.iter().zip(expected).map(|(y, e)| f64::from(*y) - e));
    (error / square(&mut expected.iter().copied())).sqrt()
}

/// Products of bf16 in Winograd's algorithm err about twice as much, at most, as those of the
/// direct algorithm with weights rounded to bf16, which is what PyTorch computes, in activations as well
/// as in their gradients.
#[test]
#[cfg_attr(miri, ignore = "millions of operations")]
fn rounded_points_err_at_most_twice_as_much_as_rounded_weights() {
    let sizes = [(64, 64, 8, 8, 4), (128, 96, 4, 4, 8), (40, 72, 7, 9, 3), (256, 32, 6, 6, 2)];
    for isa in distinct_instruction_sets::<bf16>() {
        for (seed, (from, to, h, w, n)) in (20..).zip(sizes) {
            let conv =
                Conv2d::<bf16>::new(ConvGeometry::square(from, to, [h, w], 3, 1), isa).unwrap();
            if !conv.supports(ConvAlgorithm::WinogradBf16) {
                continue;
            }
            // Activations behind a ReLU, and values of either sign, whose points are the largest.
            for relu in [true, false] {
                let mut case = Case::new(&conv, n, seed);
                case.w = values(case.w.len(), seed + 1, 0.0);
                case.x = values_as(case.x.len(), seed, 0.0);
                case.dy = values_as(case.dy.len(), seed + 4, 0.0);
                if relu {
                    case.x
                        .iter_mut()
                        .for_each(|x| *x = if x.to_f32() > 0.0 { *x } else { bf16::ZERO });
                }
                (case.add, case.dx_add) =
                    (vec![bf16::ZERO; case.add.len()], vec![bf16::ZERO; case.dx_add.len()]);
                case.bias.fill(0.0);
                let (mut y, mut dx) = (vec![0.0; case.dy.len()], vec![0.0; case.x.len()]);
                for_each_term(conv.geometry(), n, |yi, xi, wi| {
                    y[yi] += f64::from(case.x[xi].to_f32()) * f64::from(case.w[wi]);
                    dx[xi] += f64::from(case.dy[yi].to_f32()) * f64::from(case.w[wi]);
                });
                let errors =
                    [ConvAlgorithm::DirectBf16, ConvAlgorithm::WinogradBf16].map(|algorithm| {
                        let results =
                            case.run(&conv.clone().with_algorithm(algorithm).unwrap()).unwrap();
                        [
                            relative_error(&widened(&results.y), &y),
                            relative_error(&widened(&results.dx), &dx),
                        ]
                    });
                for (direct, winograd) in errors[0].iter().zip(errors[1]) {
                    assert!(winograd <= 2.1 * direct, "{from} -> {to}, relu {relu}: {errors:?}");
                }
            }
        }
    }
}

#[test]
fn three_by_three_stride_two() {
    let all = [
        (16, 32, 8, 8, 16),
        (3, 10, 7, 5, 3),
        (72, 40, 5, 8, 6),
        (1, 1, 1, 1, 1),
        (5, 3, 2, 3, 300),
    ];
    for (from, to, h, w, n) in cases(&all, &[(1, 1, 1, 1, 1), (5, 9, 3, 2, 6)]) {
        check_everywhere(ConvGeometry::square(from, to, [h, w], 3, 2), n);
    }
}

#[test]
fn one_by_one() {
    for stride in [1, 2] {
        // The last two have several tasks of a product and of a weight gradient, and tiles of one
        // to four vectors.
        let all = [
            (64, 96, 4, 6, 9),
            (3, 1, 5, 3, 2),
            (17, 33, 1, 1, 270),
            (20, 300, 5, 9, 9),
            (272, 112, 3, 4, 33),
        ];
        for (from, to, h, w, n) in cases(&all, &[(3, 1, 3, 2, 2), (9, 6, 1, 1, 5)]) {
            let mut geometry = ConvGeometry::square(from, to, [h, w], 1, stride);
            geometry.padding = [0; 2];
            check_everywhere(geometry, n);
        }
    }
}

#[test]
fn other_geometries() {
    let all = ([12, 8], [9, 7], 40, 3);
    let (channels, size, depthwise, n) = cases(&[all], &[([4, 4], [5, 3], 5, 2)])[0];
    let base = ConvGeometry::square(channels[0], channels[1], size, 5, 1);
    for geometry in [
        base,
        ConvGeometry { padding: [0, 4], ..base },
        ConvGeometry { kernel: [2, 3], stride: [3, 2], padding: [1, 0], ..base },
        ConvGeometry { kernel: [3; 2], padding: [1; 2], groups: 4, ..base },
        ConvGeometry {
            kernel: [3; 2],
            padding: [1; 2],
            in_channels: depthwise,
            out_channels: depthwise,
            groups: depthwise,
            ..base
        },
        ConvGeometry { kernel: [7; 2], stride: [2; 2], padding: [3; 2], in_channels: 3, ..base },
    ] {
        check_everywhere(geometry, n);
    }
}

#[test]
fn empty_shapes() {
    for (h, w, n) in [(0, 4, 2), (4, 0, 2), (4, 4, 0)] {
        for stride in [1, 2] {
            let (from, to) = cases(&[(9, 10)], &[(2, 3)])[0];
            check_everywhere(ConvGeometry::square(from, to, [h, w], 3, stride), n);
        }
    }
    // A kernel larger than the padded input has no output.
    let geometry = ConvGeometry { padding: [0; 2], ..ConvGeometry::square(2, 3, [2, 2], 3, 1) };
    assert_eq!(geometry.output(), [0, 0]);
    for isa in instruction_sets() {
        let conv = Conv2d::new(geometry, isa).unwrap();
        let packed = conv.pack(&values(54, 1, 0.0), Direction::InputGrad).unwrap();
        let mut dx = vec![1.0; 8];
        conv.input_grad(1, &[], &packed, &mut dx, Epilogue::default()).unwrap();
        assert_eq!(dx, [0.0; 8]);
        let conv = Conv2d::new(geometry, isa).unwrap();
        let packed = conv.pack(&values(54, 1, 0.0), Direction::InputGrad).unwrap();
        let mut dx = vec![bf16::ONE; 8];
        conv.input_grad(1, &[], &packed, &mut dx, Epilogue::default()).unwrap();
        assert_eq!(dx, [bf16::ZERO; 8]);
    }
}

fn same_bits_as<E: Element>() {
    for isa in distinct_instruction_sets::<E>() {
        for geometry in [
            ConvGeometry::square(24, 40, [9, 8], 3, 1),
            ConvGeometry::square(3, 20, [8, 8], 3, 1),
            ConvGeometry::square(24, 40, [9, 8], 3, 2),
            ConvGeometry::square(64, 33, [5, 4], 1, 2),
            ConvGeometry::square(64, 80, [9, 8], 1, 1),
            // Two blocks of columns, which many threads cut into parts.
            ConvGeometry::square(12, 330, [4, 4], 3, 1),
            ConvGeometry::square(32, 200, [6, 6], 3, 2),
        ] {
            for algorithm in ALGORITHMS {
                let conv = Conv2d::<E>::new(geometry, isa).unwrap();
                let Ok(conv) = conv.with_algorithm(algorithm) else { continue };
                let case = Case::new(&conv, 70, 3);
                let one = on_threads(1, || case.run(&conv).unwrap());
                for threads in [2, 7, 40] {
                    let many = on_threads(threads, || case.run(&conv).unwrap());
                    assert!(
                        one == many,
                        "{isa} {} {algorithm:?} {geometry:?}: {threads} threads differ from one",
                        E::PRECISION
                    );
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "the kernels use one thread")]
fn same_bits_on_any_number_of_threads() {
    same_bits_as::<f32>();
    same_bits_as::<bf16>();
}

#[test]
fn f32_is_the_same_with_and_without_bf16_extensions() {
    for isa in instruction_sets() {
        if matches!(isa, Isa::Amx | Isa::Avx512Bf16) {
            let geometry = ConvGeometry::square(24, 40, [9, 8], 3, 1);
            let [conv, plain] =
                [isa, Isa::Avx512].map(|isa| Conv2d::<f32>::new(geometry, isa).unwrap());
            assert_eq!(conv.algorithms(), plain.algorithms());
            let case = Case::new(&conv, 5, 3);
            assert!(case.run(&conv).unwrap() == case.run(&plain).unwrap());
        }
    }
}

#[test]
fn bf16_is_f32_rounded_when_it_is_stored() {
    for isa in distinct_instruction_sets::<bf16>() {
        for algorithm in [ConvAlgorithm::Direct, ConvAlgorithm::Winograd] {
            for stride in [1, 2] {
                let (from, to, size, n) = cases(&[(20, 36, [9, 6], 9)], &[(3, 5, [3, 2], 1)])[0];
                let geometry = ConvGeometry::square(from, to, size, 3, stride);
                let Ok(conv) =
                    Conv2d::<bf16>::new(geometry, isa).unwrap().with_algorithm(algorithm)
                else {
                    continue;
                };
                let plain =
                    Conv2d::<f32>::new(geometry, isa).unwrap().with_algorithm(algorithm).unwrap();
                let case = Case::new(&conv, n, 5);
                let wide = Case {
                    n: case.n,
                    x: widened(&case.x),
                    w: case.w.clone(),
                    bias: case.bias.clone(),
                    add: widened(&case.add),
                    dy: widened(&case.dy),
                    dx_add: widened(&case.dx_add),
                };
                let (results, expected) = (case.run(&conv).unwrap(), wide.run(&plain).unwrap());
                assert_eq!(results.y, narrowed::<bf16>(&expected.y), "{isa} {algorithm:?}");
                assert_eq!(results.dx, narrowed::<bf16>(&expected.dx), "{isa} {algorithm:?}");
                assert_close("weight gradient", &results.dw, &to_f64(&expected.dw), 1e-6);
            }
        }
    }
}

#[test]
fn products_of_bf16_take_weights_rounded_to_nearest() {
    for isa in instruction_sets() {
        // One input pixel of ones: the output is the sum of its weights.
        for from in [2, 3, 32] {
            let geometry = ConvGeometry::square(from, 7, [1, 1], 1, 1);
            let conv = Conv2d::<bf16>::new(geometry, isa).unwrap();
            let Ok(conv) = conv.with_algorithm(ConvAlgorithm::DirectBf16) else { continue };
            // Halfway between two values, and to both sides of it.
            let w: Vec<f32> = (0..conv.weight_len())
                .map(|i| 1.0 + (i % 7 + 1) as f32 / 256.0 + (i % 3) as f32 * 1e-4)
                .collect();
            let packed = conv.pack(&w, Direction::Forward).unwrap();
            let mut y = vec![bf16::ZERO; 7];
            conv.forward(1, &vec![bf16::ONE; from], &packed, &mut y, Epilogue::default()).unwrap();
            let rounded = widened(&narrowed::<bf16>(&w));
            let expected: Vec<f64> =
                rounded.chunks(from).map(|w| w.iter().map(|&w| f64::from(w)).sum()).collect();
            assert_rounded("y", &y, &expected, 1e-6);
        }
    }
}

#[test]
fn one_buffer_packs_many_convolutions() {
    for isa in instruction_sets() {
        let mut shared = PackedWeights::default();
        let mut largest = 0;
        let all = [(70, 40, 3), (3, 5, 1), (90, 80, 3), (8, 8, 5)];
        for (from, to, kernel) in cases(&all, &[(7, 4, 3), (3, 5, 1), (9, 8, 3)]) {
            let size = cases(&[[6, 5]], &[[3, 3]])[0];
            let conv =
                Conv2d::<bf16>::new(ConvGeometry::square(from, to, size, kernel, 1), isa).unwrap();
            let case = Case::new(&conv, 3, 5);
            for direction in [Direction::Forward, Direction::InputGrad] {
                conv.pack_into(&case.w, direction, &mut shared).unwrap();
                largest = largest.max(4 * conv.packed_len(direction));
                assert_eq!(shared.bytes(), largest);
            }
            conv.pack_into(&case.w, Direction::Forward, &mut shared).unwrap();
            let (mut y, mut again) = (case.dy.clone(), case.dy.clone());
            conv.forward(3, &case.x, &shared, &mut y, Epilogue::default()).unwrap();
            let own = conv.pack(&case.w, Direction::Forward).unwrap();
            conv.forward(3, &case.x, &own, &mut again, Epilogue::default()).unwrap();
            assert_eq!(y, again);
        }
    }
    let conv = Conv2d::<f32>::new(ConvGeometry::square(1, 1, [1, 1], 1, 1), Isa::Portable).unwrap();
    assert!(
        conv.forward(1, &[0.0], &PackedWeights::default(), &mut [0.0], Epilogue::default())
            .is_err()
    );
}

fn variance_as<E: Element>() {
    for isa in distinct_instruction_sets::<E>() {
        for algorithm in ALGORITHMS {
            let (side, n) = cases(&[(8, 40)], &[(2, 6)])[0];
            let geometry = ConvGeometry::square(8, 8, [side; 2], 3, 1);
            let Ok(conv) = Conv2d::<E>::new(geometry, isa).unwrap().with_algorithm(algorithm)
            else {
                continue;
            };
            let x = vec![E::default(); conv.input_len(n).unwrap()];
            let packed = conv.pack(&vec![0.0; conv.weight_len()], Direction::Forward).unwrap();
            // In bf16 the values around 4096 are 32 apart, so they have to spread further.
            let spread = if E::PRECISION == ElementType::Bf16 { 200.0 } else { 1.0 };
            let add: Vec<f32> = values(conv.output_len(n).unwrap(), 3, 0.0)
                .iter()
                .map(|v| v * spread + 4096.0)
                .collect();
            let add = narrowed::<E>(&add);
            let mut y = vec![E::default(); add.len()];
            let (mut mean, mut variance) = (vec![0.0; 8], vec![0.0; 8]);
            let epilogue = Epilogue {
                add: Addend::Tensor(&add),
                moments: Some(Moments { mean: &mut mean, variance: &mut variance }),
                ..Epilogue::default()
            };
            conv.forward(n, &x, &packed, &mut y, epilogue).unwrap();
            let (_, expected) = moments(&to_f64(&widened(&add)), 8);
            assert_close("variance", &variance, &expected, 1e-5);
        }
    }
}

#[test]
fn variance_survives_a_large_mean() {
    variance_as::<f32>();
    variance_as::<bf16>();
}

fn not_finite_as<E: Element>() {
    for isa in distinct_instruction_sets::<E>() {
        for algorithm in ALGORITHMS {
            let all = [(f32::NAN, 8), (f32::INFINITY, 8), (f32::NAN, 32), (f32::NAN, 9)];
            for (bad, from) in cases(&all, &[(f32::INFINITY, 4), (f32::NAN, 5)]) {
                let geometry = ConvGeometry::square(from, 8, [4, 4], 3, 1);
                let Ok(conv) = Conv2d::<E>::new(geometry, isa).unwrap().with_algorithm(algorithm)
                else {
                    continue;
                };
                let mut case = Case::new(&conv, 2, 1);
                // Pixel (1, 1), sample 1, channel 3.
                case.x[((4 + 1) * 2 + 1) * from + 3] = E::from_f32(bad);
                let results = case.run(&conv).unwrap();
                let y = widened(&results.y);
                let pixel = ((4 + 1) * 2 + 1) * 8;
                assert!(y[pixel..pixel + 8].iter().all(|y| !y.is_finite()));
                assert!(results.mean.iter().all(|m| !m.is_finite()));
                assert!(results.variance.iter().all(|v| !v.is_finite()));
                assert!(y[..8].iter().all(|y| y.is_finite()), "another sample is untouched");
                assert!(results.dw.iter().any(|dw| !dw.is_finite()));
            }
        }
    }
}

#[test]
fn nan_and_infinity_are_not_swallowed() {
    not_finite_as::<f32>();
    not_finite_as::<bf16>();
}

#[test]
fn wrong_lengths_and_parameters_are_errors() {
    let geometry = ConvGeometry::square(4, 6, [5, 5], 3, 1);
    let conv = Conv2d::<f32>::new(geometry, Isa::Portable).unwrap();
    assert_eq!(
        conv.pack(&[0.0; 3], Direction::Forward).unwrap_err().to_string(),
        "conv weights: expected 216 elements, got 3"
    );
    let packed = conv.pack(&[0.0; 216], Direction::Forward).unwrap();
    let mut y = vec![0.0; 150];
    assert!(conv.forward(1, &[0.0; 99], &packed, &mut y, Epilogue::default()).is_err());
    assert!(conv.forward(1, &[0.0; 100], &packed, &mut y[1..], Epilogue::default()).is_err());
    let epilogue = Epilogue { bias: Some(&[0.0; 5]), ..Epilogue::default() };
    assert!(conv.forward(1, &[0.0; 100], &packed, &mut y, epilogue).is_err());
    let mut dx = vec![0.0; 100];
    let error = conv.input_grad(1, &y, &packed, &mut dx, Epilogue::default()).unwrap_err();
    assert!(error.to_string().contains("packed for another"), "{error}");
    assert!(conv.input_len(usize::MAX).is_err());
    for bad in [
        ConvGeometry { stride: [0, 1], ..geometry },
        ConvGeometry { kernel: [0, 1], ..geometry },
        ConvGeometry { groups: 0, ..geometry },
        ConvGeometry { groups: 4, ..geometry },
        ConvGeometry { padding: [3, 1], ..geometry },
    ] {
        assert!(Conv2d::<f32>::new(bad, Isa::Portable).is_err(), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    #[cfg_attr(miri, ignore = "too long; the tests above take the same ways")]
    fn any_geometry(
        from in prop_oneof![1usize..40, Just(32), Just(64)], to in 1usize..70,
        h in 1usize..8, w in 1usize..8, n in prop_oneof![1usize..20, 30usize..36],
        kernel in 1usize..4, stride in 1usize..3, padding in 0usize..2,
    ) {
        let geometry = ConvGeometry {
            padding: [padding.min(kernel - 1); 2],
            ..ConvGeometry::square(from, to, [h, w], kernel, stride)
        };
        check_everywhere(geometry, n);
    }
}
