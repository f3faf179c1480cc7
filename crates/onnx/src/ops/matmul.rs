//! Matrix products.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Ix2, linalg::general_mat_mul};
use sora_kernels::linear::Linear;

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    cache::{Packed, isa},
    error::{Outcome, problem},
    value::{
        Array, Value, array, broadcast_shape, combine, elements, map, permute, plain, reshape,
        unspread,
    },
};

/// `MatMul`: NumPy's product of stacks of matrices.
#[derive(Debug, Default)]
struct MatMul {
    packed: Packed,
}

/// `Gemm`: `alpha A B + beta C`, where A and B may be transposed.
#[derive(Debug)]
struct Gemm {
    alpha: f32,
    beta: f32,
    transpose: [bool; 2],
    packed: Packed,
}

/// `Einsum` of two operands, reduced to one product of matrices.
#[derive(Debug)]
struct Einsum {
    operands: [Vec<char>; 2],
    output: Vec<char>,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    Ok(Some(match attributes.kind() {
        "MatMul" => Box::new(MatMul::default()),
        "Gemm" => Box::new(Gemm {
            alpha: attributes.float("alpha", 1.0),
            beta: attributes.float("beta", 1.0),
            transpose: ["transA", "transB"].map(|name| attributes.int(name, 0) != 0),
            packed: Packed::default(),
        }),
        "Einsum" => Box::new(Einsum::new(&attributes.text("equation", ""))?),
        _ => return Ok(None),
    }))
}

fn two(x: &Array<f32>) -> Outcome<ArrayView2<'_, f32>> {
    Ok(x.view().into_dimensionality::<Ix2>()?)
}

/// The product `a b` of matrices.
fn product(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> Outcome<Array<f32>> {
    if a.ncols() != b.nrows() {
        problem!("matrices of {:?} and {:?} do not multiply", a.shape(), b.shape());
    }
    elements(&[a.nrows(), b.ncols()])?;
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    general_mat_mul(1.0, &a, &b, 0.0, &mut out);
    Ok(out.into_dyn().into_shared())
}

/// A layer `[in] -> [out]` with constant weights, computed by the kernels: rows times `w^T`, where
/// `w` is `[out, in]`. The other direction computes the gradient.
fn layer(
    packed: &Packed,
    rows: &[f32],
    weights: &Array<f32>,
    out_first: bool,
    direction: sora_kernels::conv::Direction,
) -> Outcome<Vec<f32>> {
    let [inputs, outputs] = if out_first {
        [weights.shape()[1], weights.shape()[0]]
    } else {
        [weights.shape()[0], weights.shape()[1]]
    };
    let linear = Linear::<f32>::new(inputs, outputs, isa()?)?;
    let ordered = || if out_first { weights.clone() } else { plain(&permute(weights, &[1, 0])) };
    let packed = packed.linear(&linear, weights, direction, ordered)?;
    let forward = direction == sora_kernels::conv::Direction::Forward;
    let [from, to] = if forward { [inputs, outputs] } else { [outputs, inputs] };
    let n = rows.len().checked_div(from).unwrap_or(0);
    let mut y = vec![0.0; elements(&[n, to])?];
    if forward {
        linear.forward(n, rows, &packed, None, &mut y)?;
    } else {
        linear.input_grad(n, rows, &packed, &mut y, sora_kernels::Addend::None.into())?;
    }
    Ok(y)
}

const FORWARD: sora_kernels::conv::Direction = sora_kernels::conv::Direction::Forward;
const BACKWARD: sora_kernels::conv::Direction = sora_kernels::conv::Direction::InputGrad;

/// The last two sides of a stack of matrices and the sides before.
fn stack(shape: &[usize]) -> (&[usize], [usize; 2]) {
    let (outer, inner) = shape.split_at(shape.len() - 2);
    (outer, [inner[0], inner[1]])
}

/// Products of the matrices of two stacks that are broadcast to each other; `turn` says whether the
/// matrices of the first and of the second stack are transposed.
fn stacked(a: &Array<f32>, b: &Array<f32>, turn: [bool; 2]) -> Outcome<Array<f32>> {
    let turned = |x: &Array<f32>, turn: bool| {
        let rank = x.ndim();
        let mut axes: Vec<usize> = (0..rank).collect();
        if turn {
            axes.swap(rank - 2, rank - 1);
        }
        permute(x, &axes)
    };
    let (a, b) = (turned(a, turn[0]), turned(b, turn[1]));
    let ((outer_a, [m, k]), (outer_b, [k2, n])) = (stack(a.shape()), stack(b.shape()));
    if k != k2 {
        problem!("matrices of {m}x{k} and {k2}x{n} do not multiply");
    }
    let outer = broadcast_shape(outer_a, outer_b)?;
    let [all_a, all_b] = [(&a, m, k), (&b, k, n)].map(|(x, rows, columns)| {
        let shape = [&outer[..], &[rows, columns]].concat();
        x.broadcast(ndarray::IxDyn(&shape))
    });
    let (Some(all_a), Some(all_b)) = (all_a, all_b) else { problem!("stacks do not fit") };
    let shape = [&outer[..], &[m, n]].concat();
    let mut out = vec![0.0f32; elements(&shape)?];
    // The matrices of a stack are multiplied one by one, whatever their strides.
    let count: usize = outer.iter().product();
    for (index, out) in out.chunks_mut((m * n).max(1)).enumerate().take(count) {
        let (mut a, mut b, mut rest) = (all_a.clone(), all_b.clone(), index);
        for axis in (0..outer.len()).rev() {
            let at = rest % outer[axis];
            rest /= outer[axis];
            a.index_axis_inplace(ndarray::Axis(axis), at);
            b.index_axis_inplace(ndarray::Axis(axis), at);
        }
        let mut out = ArrayViewMut2::from_shape((m, n), out)?;
        let (a, b) = (a.into_dimensionality::<Ix2>()?, b.into_dimensionality::<Ix2>()?);
        general_mat_mul(1.0, &a, &b, 0.0, &mut out);
    }
    array(&shape, out)
}

impl Operator for MatMul {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let (a, b) = (inputs.float(0)?, inputs.float(1)?);
        Ok(vec![Value::Float(self.product(a, b)?)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let (a, b, g) = (back.inputs.float(0)?, back.inputs.float(1)?, back.gradient()?);
        let mut all = vec![None; 2];
        // A vector counts as a matrix of one row or one column; the product lacks that axis.
        let a2 = if a.ndim() == 1 { reshape(a, &[1, a.len()])? } else { a.clone() };
        let b2 = if b.ndim() == 1 { reshape(b, &[b.len(), 1])? } else { b.clone() };
        let mut shape = g.shape().to_vec();
        if a.ndim() == 1 {
            shape.insert(shape.len() - usize::from(b.ndim() != 1), 1);
        }
        if b.ndim() == 1 {
            shape.push(1);
        }
        let g = reshape(g, &shape)?;
        if back.wants(0) {
            let whole = if b.ndim() == 2 && a.ndim() >= 2 {
                let rows = layer(&self.packed, &crate::value::to_vec(&g), b, false, BACKWARD)?;
                array(a.shape(), rows)?
            } else {
                stacked(&g, &b2, [false, true])?
            };
            all[0] = Some(reshape(&unspread(whole, a2.shape())?, a.shape())?);
        }
        if back.wants(1) {
            let whole = match b2.shape() {
                // One product over all rows, not one for each matrix of the stack.
                &[inner, columns] => {
                    let a = reshape(&a2, &[a2.len().checked_div(inner).unwrap_or(0), inner])?;
                    let g = reshape(&g, &[g.len().checked_div(columns).unwrap_or(0), columns])?;
                    product(two(&a)?.reversed_axes(), two(&g)?)?
                }
                _ => stacked(&a2, &g, [true, false])?,
            };
            all[1] = Some(reshape(&unspread(whole, b2.shape())?, b.shape())?);
        }
        Ok(all)
    }
}

impl MatMul {
    fn product(&self, a: &Array<f32>, b: &Array<f32>) -> Outcome<Array<f32>> {
        if a.ndim() == 0 || b.ndim() == 0 {
            problem!("expected at least 1 dimension");
        }
        let a2 = if a.ndim() == 1 { reshape(a, &[1, a.len()])? } else { a.clone() };
        let b2 = if b.ndim() == 1 { reshape(b, &[b.len(), 1])? } else { b.clone() };
        let (inner_a, inner_b) = (a2.shape()[a2.ndim() - 1], b2.shape()[b2.ndim() - 2]);
        if inner_a != inner_b {
            problem!("shapes {:?} and {:?} do not multiply", a.shape(), b.shape());
        }
        let y = if b.ndim() == 2 {
            let rows = layer(&self.packed, &crate::value::to_vec(&a2), b, false, FORWARD)?;
            let mut shape = a2.shape().to_vec();
            shape.pop();
            shape.push(b.shape()[1]);
            array(&shape, rows)?
        } else {
            stacked(&a2, &b2, [false, false])?
        };
        let mut shape = y.shape().to_vec();
        if b.ndim() == 1 {
            shape.pop();
        }
        if a.ndim() == 1 {
            shape.remove(shape.len() - usize::from(b.ndim() != 1));
        }
        reshape(&y, &shape)
    }
}

impl Operator for Gemm {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let (a, b) = (inputs.float(0)?, inputs.float(1)?);
        crate::value::expect_rank(a, 2)?;
        crate::value::expect_rank(b, 2)?;
        let [turn_a, turn_b] = self.transpose;
        let a = if turn_a { plain(&permute(a, &[1, 0])) } else { plain(a) };
        let inner = b.shape()[usize::from(turn_b)];
        if a.shape()[1] != inner {
            problem!("shapes {:?} and {:?} do not multiply", a.shape(), b.shape());
        }
        let rows = layer(&self.packed, &crate::value::to_vec(&a), b, turn_b, FORWARD)?;
        let mut y = array(&[a.shape()[0], b.shape()[usize::from(!turn_b)]], rows)?;
        if self.alpha != 1.0 {
            y = map(&y, |v| v * self.alpha)?;
        }
        if let Some(c) = inputs.get(2) {
            y = combine(&y, c.float()?, |y, c| y + self.beta * c)?;
        }
        Ok(vec![Value::Float(y)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let (a, b, g) = (back.inputs.float(0)?, back.inputs.float(1)?, back.gradient()?);
        let [turn_a, turn_b] = self.transpose;
        let mut all = vec![None; back.inputs.len()];
        let scaled = if self.alpha == 1.0 { plain(g) } else { plain(&map(g, |v| v * self.alpha)?) };
        if back.wants(0) {
            let rows = layer(&self.packed, &crate::value::to_vec(&scaled), b, turn_b, BACKWARD)?;
            let inner = b.shape()[usize::from(turn_b)];
            let whole = array(&[g.shape()[0], inner], rows)?;
            all[0] = Some(if turn_a { plain(&permute(&whole, &[1, 0])) } else { whole });
        }
        if back.wants(1) {
            let a = two(a)?;
            let a = if turn_a { a } else { a.reversed_axes() };
            let whole = product(a, two(&scaled)?)?;
            all[1] = Some(if turn_b { plain(&permute(&whole, &[1, 0])) } else { whole });
        }
        if back.wants(2) {
            let each = map(g, |g| g * self.beta)?;
            all[2] = Some(unspread(each, back.inputs.value(2)?.shape())?);
        }
        Ok(all)
    }
}

impl Einsum {
    fn new(equation: &str) -> Outcome<Self> {
        let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphabetic());
        let parts =
            equation.split_once("->").and_then(|(from, to)| Some((from.split_once(',')?, to)));
        let Some(((a, b), to)) = parts.filter(|((a, b), to)| plain(a) && plain(b) && plain(to))
        else {
            problem!("the equation '{equation}': expected two operands and an output, in letters");
        };
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        let this = Self { operands: [letters(a), letters(b)], output: letters(to) };
        let once = |list: &[char]| (1..list.len()).all(|i| !list[..i].contains(&list[i]));
        let known = this.output.iter().all(|c| this.operands.iter().any(|o| o.contains(c)));
        if !known || ![&this.operands[0], &this.operands[1], &this.output].iter().all(|l| once(l)) {
            problem!("the equation '{equation}': a letter stands twice, or comes from nowhere");
        }
        Ok(this)
    }

    /// The sum of `a b` over the letters that `to` lacks, in the order of `to`.
    fn contract(
        a: (&Array<f32>, &[char]),
        b: (&Array<f32>, &[char]),
        to: &[char],
    ) -> Outcome<Array<f32>> {
        for (x, letters) in [a, b] {
            crate::value::expect_rank(x, letters.len())?;
        }
        let side = |c: &char| {
            let of = |(x, letters): (&Array<f32>, &[char])| {
                letters.iter().position(|l| l == c).map(|axis| x.shape()[axis])
            };
            of(a).or_else(|| of(b)).unwrap_or(1)
        };
        // Letters that only one operand has and the output lacks are summed beforehand.
        let narrowed = |(x, letters): (&Array<f32>, &[char]), other: &[char]| {
            let (mut x, mut left) = (x.clone(), letters.to_vec());
            while let Some(axis) = left.iter().position(|c| !to.contains(c) && !other.contains(c)) {
                x = x.sum_axis(ndarray::Axis(axis)).into_shared();
                left.remove(axis);
            }
            (x, left)
        };
        let ((x, lx), (y, ly)) = (narrowed(a, b.1), narrowed(b, a.1));
        let pick = |from: &[char], test: &dyn Fn(&char) -> bool| -> Vec<char> {
            from.iter().copied().filter(|c| test(c)).collect()
        };
        let both = pick(&lx, &|c| ly.contains(c) && to.contains(c));
        let rows = pick(&lx, &|c| !ly.contains(c));
        let summed = pick(&lx, &|c| ly.contains(c) && !to.contains(c));
        let columns = pick(&ly, &|c| !lx.contains(c));
        let arranged = |x: &Array<f32>, letters: &[char], parts: [&[char]; 3]| {
            let order: Vec<usize> =
                parts.concat().iter().filter_map(|c| letters.iter().position(|l| l == c)).collect();
            let shape = parts.map(|part| part.iter().map(side).product::<usize>());
            reshape(&permute(x, &order), &shape)
        };
        let x = arranged(&x, &lx, [&both, &rows, &summed])?;
        let y = arranged(&y, &ly, [&both, &summed, &columns])?;
        let z = stacked(&x, &y, [false, false])?;
        let now = [&both[..], &rows, &columns].concat();
        let z = reshape(&z, &now.iter().map(side).collect::<Vec<_>>())?;
        let order: Vec<usize> = to.iter().filter_map(|c| now.iter().position(|l| l == c)).collect();
        Ok(plain(&permute(&z, &order)))
    }
}

impl Operator for Einsum {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let [a, b] = &self.operands;
        let y = Self::contract((inputs.float(0)?, a), (inputs.float(1)?, b), &self.output)?;
        Ok(vec![Value::Float(y)])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let mut all = vec![None; 2];
        for (index, place) in all.iter_mut().enumerate() {
            if back.wants(index) {
                let (mine, other) = (&self.operands[index], &self.operands[1 - index]);
                let reached = mine.iter().all(|c| self.output.contains(c) || other.contains(c));
                if !reached {
                    problem!("a gradient for an operand that is summed by itself");
                }
                let g = (back.gradient()?, &self.output[..]);
                let x = (back.inputs.float(1 - index)?, &other[..]);
                *place = Some(Self::contract(g, x, mine)?);
            }
        }
        Ok(all)
    }
}
