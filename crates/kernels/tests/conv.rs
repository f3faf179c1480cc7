//! Convolutions against a plain `f64` reference, on every instruction set of this machine.

mod common;

use common::{assert_close, for_each_term, moments, on_threads, to_f64, values};
use proptest::prelude::*;
use sora_kernels::conv::{Addend, Conv2d, ConvAlgorithm, ConvGeometry, Direction, Epilogue, Moments};
use sora_kernels::{Isa, ShapeError};

/// Largest error of an element, relative to the largest magnitude of the tensor.
const TOLERANCE: f64 = 1e-5;

/// Every output of one convolution.
#[derive(Debug, PartialEq, Clone)]
struct Results {
    y: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
}

struct Case {
    n: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    add: Vec<f32>,
    dy: Vec<f32>,
    dx_add: Vec<f32>,
}

impl Case {
    fn new(conv: &Conv2d, n: usize, seed: u64) -> Self {
        let x_len = conv.input_len(n).unwrap();
        let y_len = conv.output_len(n).unwrap();
        Self {
            n,
            x: values(x_len, seed, 0.3),
            w: values(conv.weight_len(), seed + 1, 0.0),
            bias: values(conv.geometry().out_channels, seed + 2, 0.0),
            add: values(y_len, seed + 3, 0.0),
            dy: values(y_len, seed + 4, 0.1),
            dx_add: values(x_len, seed + 5, 0.0),
        }
    }

    fn run(&self, conv: &Conv2d) -> Result<Results, ShapeError> {
        let channels = conv.geometry().out_channels;
        // Rubbish in the outputs shows elements that are never written.
        let mut y = vec![f32::NAN; self.dy.len()];
        let mut mean = vec![f32::NAN; channels];
        let mut variance = vec![f32::NAN; channels];
        let epilogue = Epilogue {
            bias: Some(&self.bias),
            add: Addend::Tensor(&self.add),
            moments: Some(Moments { mean: &mut mean, variance: &mut variance }),
        };
        let packed = conv.pack(&self.w, Direction::Forward)?;
        conv.forward(self.n, &self.x, &packed, &mut y, epilogue)?;
        let packed = conv.pack(&self.w, Direction::InputGrad)?;
        let mut dx = self.dx_add.clone();
        conv.input_grad(self.n, &self.dy, &packed, &mut dx, Addend::Output)?;
        let mut dw = vec![f32::NAN; self.w.len()];
        conv.weight_grad(self.n, &self.x, &self.dy, &mut dw)?;
        Ok(Results { y, mean, variance, dx, dw })
    }

    fn check(&self, conv: &Conv2d, what: &str) {
        let results = self.run(conv).unwrap();
        let g = conv.geometry();
        let channels = g.out_channels;
        let mut y: Vec<f64> = (0..self.add.len()).map(|i| f64::from(self.add[i]) + f64::from(self.bias[i % channels])).collect();
        let mut dx = to_f64(&self.dx_add);
        let mut dw = vec![0.0; self.w.len()];
        for_each_term(g, self.n, |yi, xi, wi| {
            let (x, w, dy) = (f64::from(self.x[xi]), f64::from(self.w[wi]), f64::from(self.dy[yi]));
            y[yi] += x * w;
            dx[xi] += dy * w;
            dw[wi] += dy * x;
        });
        assert_close(&format!("{what} y"), &results.y, &y, TOLERANCE);
        assert_close(&format!("{what} dx"), &results.dx, &dx, TOLERANCE);
        assert_close(&format!("{what} dw"), &results.dw, &dw, TOLERANCE);
        if !y.is_empty() {
            let (mean, variance) = moments(&y, channels);
            let scale = y.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            for c in 0..channels {
                assert!((f64::from(results.mean[c]) - mean[c]).abs() <= 1e-5 * scale, "{what}");
                let error = (f64::from(results.variance[c]) - variance[c]).abs();
                assert!(error <= 1e-4 * (variance[c] + 1e-3 * scale * scale), "{what}");
            }
        }
    }
}

fn check_everywhere(g: ConvGeometry, n: usize) {
    for isa in Isa::available() {
        for algorithm in [ConvAlgorithm::Direct, ConvAlgorithm::Winograd] {
            let Ok(conv) = Conv2d::new(g, isa).unwrap().with_algorithm(algorithm) else {
                assert_eq!(algorithm, ConvAlgorithm::Winograd);
                continue;
            };
            Case::new(&conv, n, 7).check(&conv, &format!("{isa} {algorithm:?} {g:?} n={n}"));
        }
    }
}

#[test]
fn three_by_three_stride_one() {
    for (from, to, h, w, n) in [
        (64, 64, 8, 8, 16),
        (16, 16, 8, 8, 33),
        (3, 64, 6, 5, 4),
        (1, 16, 7, 9, 3),
        (5, 10, 4, 4, 1),
        (33, 17, 5, 3, 7),
        (130, 72, 4, 4, 5),
        (1, 1, 1, 1, 1),
        (20, 150, 2, 9, 2),
    ] {
        check_everywhere(ConvGeometry::square(from, to, [h, w], 3, 1), n);
    }
}

#[test]
fn three_by_three_stride_two() {
    for (from, to, h, w, n) in [(16, 32, 8, 8, 16), (3, 10, 7, 5, 3), (72, 40, 5, 8, 6), (1, 1, 1, 1, 1), (5, 3, 2, 3, 300)] {
        check_everywhere(ConvGeometry::square(from, to, [h, w], 3, 2), n);
    }
}

#[test]
fn one_by_one() {
    for stride in [1, 2] {
        for (from, to, h, w, n) in [(64, 96, 4, 6, 9), (3, 1, 5, 3, 2), (17, 33, 1, 1, 270)] {
            let mut g = ConvGeometry::square(from, to, [h, w], 1, stride);
            g.padding = [0; 2];
            check_everywhere(g, n);
        }
    }
}

#[test]
fn other_geometries() {
    let base = ConvGeometry::square(12, 8, [9, 7], 5, 1);
    for g in [
        base,
        ConvGeometry { padding: [0, 4], ..base },
        ConvGeometry { kernel: [2, 3], stride: [3, 2], padding: [1, 0], ..base },
        ConvGeometry { kernel: [3; 2], padding: [1; 2], groups: 4, ..base },
        ConvGeometry { kernel: [3; 2], padding: [1; 2], in_channels: 40, out_channels: 40, groups: 40, ..base },
        ConvGeometry { kernel: [7; 2], stride: [2; 2], padding: [3; 2], in_channels: 3, ..base },
    ] {
        check_everywhere(g, 3);
    }
}

#[test]
fn empty_shapes() {
    for (h, w, n) in [(0, 4, 2), (4, 0, 2), (4, 4, 0)] {
        for stride in [1, 2] {
            check_everywhere(ConvGeometry::square(9, 10, [h, w], 3, stride), n);
        }
    }
    // A kernel larger than the padded input has no output.
    let g = ConvGeometry { padding: [0; 2], ..ConvGeometry::square(2, 3, [2, 2], 3, 1) };
    assert_eq!(g.output(), [0, 0]);
    for isa in Isa::available() {
        let conv = Conv2d::new(g, isa).unwrap();
        let packed = conv.pack(&values(54, 1, 0.0), Direction::InputGrad).unwrap();
        let mut dx = vec![1.0; 8];
        conv.input_grad(1, &[], &packed, &mut dx, Addend::None).unwrap();
        assert_eq!(dx, [0.0; 8]);
    }
}

#[test]
fn same_bits_on_any_number_of_threads() {
    for isa in Isa::available() {
        for g in [
            ConvGeometry::square(24, 40, [9, 8], 3, 1),
            ConvGeometry::square(3, 20, [8, 8], 3, 1),
            ConvGeometry::square(24, 40, [9, 8], 3, 2),
        ] {
            let conv = Conv2d::new(g, isa).unwrap();
            let case = Case::new(&conv, 70, 3);
            let one = on_threads(1, || case.run(&conv).unwrap());
            for threads in [2, 3, 7] {
                let many = on_threads(threads, || case.run(&conv).unwrap());
                assert!(one == many, "{isa} {g:?}: {threads} threads differ from one");
            }
        }
    }
}

#[test]
fn variance_survives_a_large_mean() {
    for isa in Isa::available() {
        for algorithm in [ConvAlgorithm::Direct, ConvAlgorithm::Winograd] {
            let g = ConvGeometry::square(8, 8, [8, 8], 3, 1);
            let conv = Conv2d::new(g, isa).unwrap().with_algorithm(algorithm).unwrap();
            let n = 40;
            let x = vec![0.0; conv.input_len(n).unwrap()];
            let packed = conv.pack(&vec![0.0; conv.weight_len()], Direction::Forward).unwrap();
            let add = values(conv.output_len(n).unwrap(), 3, 4096.0);
            let mut y = vec![0.0; add.len()];
            let (mut mean, mut variance) = (vec![0.0; 8], vec![0.0; 8]);
            let epilogue = Epilogue {
                add: Addend::Tensor(&add),
                moments: Some(Moments { mean: &mut mean, variance: &mut variance }),
                ..Epilogue::default()
            };
            conv.forward(n, &x, &packed, &mut y, epilogue).unwrap();
            let (_, expected) = moments(&to_f64(&add), 8);
            assert_close("variance", &variance, &expected, 1e-5);
        }
    }
}

#[test]
fn nan_and_infinity_are_not_swallowed() {
    for isa in Isa::available() {
        for algorithm in [ConvAlgorithm::Direct, ConvAlgorithm::Winograd] {
            for bad in [f32::NAN, f32::INFINITY] {
                let g = ConvGeometry::square(8, 8, [4, 4], 3, 1);
                let conv = Conv2d::new(g, isa).unwrap().with_algorithm(algorithm).unwrap();
                let mut case = Case::new(&conv, 2, 1);
                // Pixel (1, 1), sample 1, channel 3.
                case.x[((4 + 1) * 2 + 1) * 8 + 3] = bad;
                let results = case.run(&conv).unwrap();
                let pixel = ((4 + 1) * 2 + 1) * 8;
                assert!(results.y[pixel..pixel + 8].iter().all(|y| !y.is_finite()));
                assert!(results.mean.iter().all(|m| !m.is_finite()));
                assert!(results.variance.iter().all(|v| !v.is_finite()));
                assert!(results.y[..8].iter().all(|y| y.is_finite()), "another sample is untouched");
            }
        }
    }
}

#[test]
fn wrong_lengths_and_parameters_are_errors() {
    let g = ConvGeometry::square(4, 6, [5, 5], 3, 1);
    let conv = Conv2d::new(g, Isa::Portable).unwrap();
    assert_eq!(conv.pack(&[0.0; 3], Direction::Forward).unwrap_err().to_string(), "conv weights: expected 216 elements, got 3");
    let packed = conv.pack(&[0.0; 216], Direction::Forward).unwrap();
    let mut y = vec![0.0; 150];
    assert!(conv.forward(1, &[0.0; 99], &packed, &mut y, Epilogue::default()).is_err());
    assert!(conv.forward(1, &[0.0; 100], &packed, &mut y[1..], Epilogue::default()).is_err());
    let epilogue = Epilogue { bias: Some(&[0.0; 5]), ..Epilogue::default() };
    assert!(conv.forward(1, &[0.0; 100], &packed, &mut y, epilogue).is_err());
    let mut dx = vec![0.0; 100];
    let error = conv.input_grad(1, &y, &packed, &mut dx, Addend::None).unwrap_err();
    assert!(error.to_string().contains("packed for another"), "{error}");
    assert!(conv.input_len(usize::MAX).is_err());
    for bad in [
        ConvGeometry { stride: [0, 1], ..g },
        ConvGeometry { kernel: [0, 1], ..g },
        ConvGeometry { groups: 0, ..g },
        ConvGeometry { groups: 4, ..g },
        ConvGeometry { padding: [3, 1], ..g },
    ] {
        assert!(Conv2d::new(bad, Isa::Portable).is_err(), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_geometry(
        from in 1usize..40, to in 1usize..70, h in 1usize..8, w in 1usize..8, n in 1usize..20,
        kernel in 1usize..4, stride in 1usize..3, padding in 0usize..2,
    ) {
        let g = ConvGeometry {
            padding: [padding.min(kernel - 1); 2],
            ..ConvGeometry::square(from, to, [h, w], kernel, stride)
        };
        check_everywhere(g, n);
    }
}
