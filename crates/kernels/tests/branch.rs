//! Residual branches of transformer blocks against a plain reference in `f64` and its slopes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{cases, distinct_instruction_sets, instruction_sets, to_f64, values, values_as};
use sora_kernels::branch::{Branch, Gradients, Middle, Parameters, WeightOperands};
use sora_kernels::conv::{Direction, PackedWeights};
use sora_kernels::layer_norm::LayerNorm;
use sora_kernels::{Element, ElementType, Isa, bf16};

const EPSILON: f32 = 1e-3;

/// Sizes and parameters of a branch, and tokens.
struct Case {
    tokens: usize,
    features: usize,
    middle: Middle,
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    weights: [Vec<f32>; 2],
    biases: [Vec<f32>; 2],
    dy: Vec<f32>,
}

/// A branch's numbers in `f64`: tokens, gamma, beta, weights and biases of both layers.
type Numbers = [Vec<f64>; 7];

impl Case {
    fn new(n: usize, tokens: usize, features: usize, middle: Middle) -> Self {
        let [inner, outer] = Branch::<f32>::new(tokens, features, middle, Isa::Portable)
            .map(|branch| branch.inner())
            .unwrap();
        let scaled = |len, seed, by: f32| values(len, seed, 0.0).iter().map(|v| v * by).collect();
        Self {
            tokens,
            features,
            middle,
            x: values(n * tokens * features, 1, 0.3),
            gamma: values(features, 2, 1.0),
            beta: values(features, 3, 0.0),
            weights: [
                scaled(inner * features, 4, (features as f32).sqrt().recip()),
                scaled(features * outer, 5, (outer as f32).sqrt().recip()),
            ],
            biases: [values(inner, 6, 0.0), values(features, 7, 0.0)],
            dy: values(n * tokens * features, 8, 0.0),
        }
    }

    fn numbers(&self) -> Numbers {
        let [first, second] = &self.weights;
        let [first_bias, second_bias] = &self.biases;
        [&self.x, &self.gamma, &self.beta, first, first_bias, second, second_bias]
            .map(|values| to_f64(values))
    }

    /// The branch by its definition.
    fn reference(
        &self,
        [x, gamma, beta, first, first_bias, second, second_bias]: &Numbers,
    ) -> Vec<f64> {
        let features = self.features;
        let linear = |x: &[f64], w: &[f64], b: &[f64]| -> Vec<f64> {
            let inputs = w.len() / b.len();
            x.chunks(inputs)
                .flat_map(|x| {
                    w.chunks(inputs)
                        .zip(b)
                        .map(move |(w, b)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b)
                })
                .collect()
        };
        let normed: Vec<f64> = x
            .chunks(features)
            .flat_map(|x| {
                let mean = x.iter().sum::<f64>() / features as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / features as f64;
                let inverse = (variance + f64::from(EPSILON)).sqrt().recip();
                let row: Vec<f64> = x.iter().map(|x| (x - mean) * inverse).collect();
                row.into_iter().zip(gamma.iter().zip(beta)).map(|(x, (g, b))| x * g + b)
            })
            .collect();
        let inner = linear(&normed, first, first_bias);
        let outer = match self.middle {
            Middle::Gelu { .. } => inner.iter().map(|&x| gelu(x)).collect(),
            Middle::Attention { heads } => self.attention(&inner, heads),
        };
        let y = linear(&outer, second, second_bias);
        y.iter().zip(x).map(|(y, x)| y + x).collect()
    }

    fn attention(&self, qkv: &[f64], heads: usize) -> Vec<f64> {
        let (tokens, width) = (self.tokens, self.features / heads);
        let mut out = Vec::new();
        for qkv in qkv.chunks(3 * tokens * self.features) {
            let at = |part: usize, token: usize, head: usize, c: usize| {
                qkv[((token * 3 + part) * heads + head) * width + c]
            };
            for (i, head) in (0..tokens).flat_map(|i| (0..heads).map(move |head| (i, head))) {
                let scores: Vec<f64> = (0..tokens)
                    .map(|j| {
                        let dot: f64 =
                            (0..width).map(|c| at(0, i, head, c) * at(1, j, head, c)).sum();
                        (dot / (width as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = scores.iter().sum();
                out.extend((0..width).map(|c| {
                    (0..tokens).map(|j| scores[j] / total * at(2, j, head, c)).sum::<f64>()
                }));
            }
        }
        out
    }

    /// The derivative of `dy . y` by number `index` of `part`.
    fn slope(&self, numbers: &Numbers, part: usize, index: usize) -> f64 {
        let h = 1e-5;
        let loss = |by: f64| -> f64 {
            let mut numbers = numbers.clone();
            numbers[part][index] += by;
            self.reference(&numbers).iter().zip(&self.dy).map(|(y, d)| y * f64::from(*d)).sum()
        };
        (loss(h) - loss(-h)) / (2.0 * h)
    }
}

/// `x Phi(x)` by Simpson's rule.
fn gelu(x: f64) -> f64 {
    let steps = 400;
    let h = x / f64::from(steps);
    let density = |t: f64| (-0.5 * t * t).exp();
    let inside: f64 =
        (1..steps).map(|i| density(h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    let integral = (density(0.0) + density(x) + inside) * h / 3.0;
    x * (0.5 + integral / (2.0 * std::f64::consts::PI).sqrt())
}

/// What the kernels compute: the result and the gradients in the order of [`Numbers`].
struct Found {
    y: Vec<f32>,
    gradients: [Vec<f32>; 7],
}

fn compute<E: Element>(case: &Case, isa: Isa) -> Found {
    let branch = Branch::<E>::new(case.tokens, case.features, case.middle, isa).unwrap();
    let (rows, features, [inner, outer]) =
        (case.x.len() / case.features, case.features, branch.inner());
    let pack = |direction| -> Vec<PackedWeights> {
        let layers = branch.layers().into_iter().zip(&case.weights);
        layers.map(|(layer, weights)| layer.pack(weights, direction).unwrap()).collect()
    };
    let norm = LayerNorm { gamma: &case.gamma, beta: &case.beta, epsilon: EPSILON };
    let biases = [&case.biases[0][..], &case.biases[1][..]];
    let forward = pack(Direction::Forward);
    let parameters = Parameters { norm, weights: [&forward[0], &forward[1]], biases };
    let mut y = vec![f32::NAN; case.x.len()];
    let mut kept = values_as::<E>(rows * inner, 9, 0.0);
    branch.forward(&case.x, parameters, None, &mut y).unwrap();
    let alone = y.clone();
    branch.forward(&case.x, parameters, Some(&mut kept), &mut y).unwrap();
    assert_eq!(y, alone, "what is kept changes nothing");

    let backward = pack(Direction::InputGrad);
    let parameters = Parameters { weights: [&backward[0], &backward[1]], ..parameters };
    let mut gradients = [vec![f32::NAN; case.x.len()], vec![0.0; features], vec![0.0; features]];
    let mut run = |operands: Option<WeightOperands<'_, E>>| {
        let [x, gamma, beta] = &mut gradients;
        let gradients = Gradients { x, gamma, beta };
        branch.backward(&case.x, parameters, &kept, &case.dy, gradients, operands).unwrap();
        gradients_of(&[x, gamma, beta])
    };
    let without = run(None);
    let values = |width: usize| values_as::<E>(rows * width, 10, 0.0);
    let (mut normed, mut d_inner, mut again, mut dy) =
        (values(features), values(inner), values(outer), values(features));
    let with = run(Some(WeightOperands {
        normed: &mut normed,
        inner: &mut d_inner,
        outer: &mut again,
        dy: Some(&mut dy),
    }));
    assert_eq!(with, without, "the factors of the weights' gradients change nothing");
    if E::PRECISION == ElementType::F32 {
        dy = common::narrowed(&case.dy);
    }
    let [mut first, mut second] = case.weights.clone();
    branch.layers()[0].weight_grad(rows, &normed, &d_inner, &mut first).unwrap();
    branch.layers()[1].weight_grad(rows, &again, &dy, &mut second).unwrap();
    let sums = |dy: &[E], width: usize| {
        let mut sums = vec![0.0; width];
        sora_kernels::channels::channel_sums(isa, dy, &mut sums).unwrap();
        sums
    };
    let [x, gamma, beta] = with;
    let (first_bias, second_bias) = (sums(&d_inner, inner), sums(&dy, features));
    Found { y, gradients: [x, gamma, beta, first, first_bias, second, second_bias] }
}

fn gradients_of(parts: &[&mut Vec<f32>; 3]) -> [Vec<f32>; 3] {
    [parts[0].clone(), parts[1].clone(), parts[2].clone()]
}

/// Fails unless the values agree to `tolerance` of the largest one.
#[track_caller]
fn assert_near(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    let scale = expected.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= tolerance * scale, "{what} at {i}: {found} in place of {expected}");
    }
}

fn check<E: Element>(case: &Case, isas: &[Isa], tolerance: f64) {
    let numbers = case.numbers();
    let expected = case.reference(&numbers);
    // Every number of the small parts, some of the others.
    let checked: Vec<Vec<usize>> = numbers
        .iter()
        .map(|part| (0..part.len()).step_by(part.len().div_ceil(12).max(1)).collect())
        .collect();
    let slopes: Vec<Vec<f64>> = checked
        .iter()
        .enumerate()
        .map(|(part, indices)| {
            indices.iter().map(|&index| case.slope(&numbers, part, index)).collect()
        })
        .collect();
    for &isa in isas {
        let found = compute::<E>(case, isa);
        let what = format!("{isa}, {:?}, {} tokens", case.middle, case.tokens);
        assert_near(&what, &found.y, &expected, tolerance);
        for (part, gradient) in found.gradients.iter().enumerate() {
            let some: Vec<f32> = checked[part].iter().map(|&index| gradient[index]).collect();
            let what = format!("{what}: gradient {part}");
            assert_near(&what, &some, &slopes[part], tolerance);
        }
    }
}

fn all_cases() -> Vec<Case> {
    let gelu = |hidden| Middle::Gelu { hidden };
    let heads = |heads| Middle::Attention { heads };
    let all = [
        (2, 5, 6, gelu(11)),
        (3, 65, 32, gelu(40)),
        (1, 1, 1, gelu(1)),
        (2, 5, 6, heads(2)),
        (3, 19, 34, heads(2)),
        (2, 65, 24, heads(3)),
        (1, 1, 1, heads(1)),
        (1, 3, 9, heads(3)),
    ];
    let few = [(2, 3, 6, gelu(5)), (2, 3, 6, heads(2))];
    let sizes = cases(&all, &few).into_iter();
    sizes.map(|(n, tokens, features, middle)| Case::new(n, tokens, features, middle)).collect()
}

#[test]
fn branches_match_a_plain_reference_and_its_slopes() {
    for case in all_cases() {
        check::<f32>(&case, &distinct_instruction_sets::<f32>(), 2e-5);
    }
}

#[test]
fn branches_in_bf16_are_as_near_as_their_rounding() {
    for case in all_cases() {
        check::<bf16>(&case, &instruction_sets(), 4e-2);
    }
}

#[test]
fn sequences_do_not_depend_on_their_batch() {
    for middle in [Middle::Gelu { hidden: 20 }, Middle::Attention { heads: 2 }] {
        let case = Case::new(cases(&[7], &[2])[0], 29, 10, middle);
        for isa in distinct_instruction_sets::<f32>() {
            let all = compute::<f32>(&case, isa);
            let sequence = 29 * 10;
            for (i, x) in case.x.chunks(sequence).enumerate() {
                let part = i * sequence..(i + 1) * sequence;
                let alone = Case {
                    x: x.to_vec(),
                    dy: case.dy[part.clone()].to_vec(),
                    ..Case::new(1, 29, 10, middle)
                };
                let alone = compute::<f32>(&alone, isa);
                assert_eq!(alone.y, all.y[part.clone()], "{isa}");
                assert_eq!(alone.gradients[0], all.gradients[0][part], "{isa}");
            }
        }
    }
}

#[test]
fn a_branch_refuses_what_does_not_fit() {
    let isa = Isa::Portable;
    for (tokens, features, middle) in [
        (0, 4, Middle::Gelu { hidden: 4 }),
        (4, 0, Middle::Gelu { hidden: 4 }),
        (4, 4, Middle::Gelu { hidden: 0 }),
        (4, 4, Middle::Attention { heads: 0 }),
        (4, 4, Middle::Attention { heads: 3 }),
        (usize::MAX, 4, Middle::Attention { heads: 2 }),
        (4, 1 << 62, Middle::Attention { heads: 2 }),
        (4, 4, Middle::Gelu { hidden: 1 << 62 }),
        (usize::MAX, usize::MAX, Middle::Gelu { hidden: usize::MAX }),
        (1 << 31, 1 << 31, Middle::Gelu { hidden: 2 }),
    ] {
        assert!(Branch::<f32>::new(tokens, features, middle, isa).is_err(), "{middle:?}");
    }
    let case = Case::new(2, 3, 4, Middle::Gelu { hidden: 5 });
    let branch = Branch::<f32>::new(3, 4, case.middle, isa).unwrap();
    let layers = branch.layers();
    let pack = |direction| {
        [0, 1].map(|layer| layers[layer].pack(&case.weights[layer], direction).unwrap())
    };
    let (forward, backward) = (pack(Direction::Forward), pack(Direction::InputGrad));
    let norm = LayerNorm { gamma: &case.gamma, beta: &case.beta, epsilon: EPSILON };
    let good = Parameters {
        norm,
        weights: [&forward[0], &forward[1]],
        biases: [&case.biases[0], &case.biases[1]],
    };
    let mut y = vec![0.0; 24];
    assert!(branch.forward(&case.x, good, None, &mut y).is_ok());
    assert!(branch.forward(&case.x[..20], good, None, &mut y).is_err());
    assert!(branch.forward(&case.x, good, None, &mut y[..20]).is_err());
    assert!(branch.forward(&case.x, good, Some(&mut [0.0; 29]), &mut y).is_err());
    let wrong = Parameters { weights: [&backward[0], &forward[1]], ..good };
    assert!(branch.forward(&case.x, wrong, None, &mut y).is_err());
    let wrong = Parameters { biases: [&case.biases[1], &case.biases[1]], ..good };
    assert!(branch.forward(&case.x, wrong, None, &mut y).is_err());
    let wrong = Parameters { norm: LayerNorm { gamma: &[1.0], ..norm }, ..good };
    assert!(branch.forward(&case.x, wrong, None, &mut y).is_err());
    assert!(branch.forward(&[], good, None, &mut []).is_ok(), "no sequence at all");
}
