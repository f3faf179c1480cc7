//! Values that flow through a graph: arrays of numbers, whole numbers or truth values.
//!
//! Arrays are logically in ONNX's order (images `[N, C, H, W]`), whatever their order in memory.
//! Convolutions leave their results as `[H][W][N][C]`, elementwise operations keep the order of
//! their input, and only operations that need another order copy.

use ndarray::{ArcArray, ArrayViewD, Dimension, IxDyn};

pub(crate) use crate::elementwise::{
    combine, combine_into, fold_axis, lie_alike, like, map, select, update,
};
use crate::error::{Outcome, Problem, problem};

/// A shared array of any rank.
pub(crate) type Array<T> = ArcArray<T, IxDyn>;

/// Most elements that one value may have; it bounds what a hostile file can take (1 GiB of f32). In the
/// fuzz target, which has milliseconds for a file, it is less.
pub(crate) const MOST_ELEMENTS: usize = if cfg!(fuzzing) { 1 << 16 } else { 1 << 28 };

/// A value of a graph. All whole-number types are held as i64, all others as f32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Float(Array<f32>),
    Int(Array<i64>),
    Bool(Array<bool>),
}

impl Value {
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Float(array) => array.shape(),
            Self::Int(array) => array.shape(),
            Self::Bool(array) => array.shape(),
        }
    }

    /// Bytes of its elements.
    pub fn bytes(&self) -> u64 {
        let (count, each) = match self {
            Self::Float(array) => (array.len(), size_of::<f32>()),
            Self::Int(array) => (array.len(), size_of::<i64>()),
            Self::Bool(array) => (array.len(), size_of::<bool>()),
        };
        count as u64 * each as u64
    }

    pub fn float(&self) -> Outcome<&Array<f32>> {
        match self {
            Self::Float(array) => Ok(array),
            other => problem!("expected floating-point numbers, found {}", other.kind()),
        }
    }

    pub fn int(&self) -> Outcome<&Array<i64>> {
        match self {
            Self::Int(array) => Ok(array),
            other => problem!("expected whole numbers, found {}", other.kind()),
        }
    }

    pub fn bool(&self) -> Outcome<&Array<bool>> {
        match self {
            Self::Bool(array) => Ok(array),
            other => problem!("expected truth values, found {}", other.kind()),
        }
    }

    /// The whole numbers as a list: a shape, axes, starts.
    pub fn list(&self) -> Outcome<Vec<i64>> {
        Ok(self.int()?.iter().copied().collect())
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Float(_) => "floating-point numbers",
            Self::Int(_) => "whole numbers",
            Self::Bool(_) => "truth values",
        }
    }
}

/// An array of `shape` that holds `data` in row-major order.
pub(crate) fn array<T: Clone>(shape: &[usize], data: Vec<T>) -> Outcome<Array<T>> {
    Ok(ArcArray::from_shape_vec(IxDyn(shape), data)?)
}

/// Number of elements of `shape`. The other sides are bounded where one is 0, too: operators list
/// the places along a side.
pub(crate) fn elements(shape: &[usize]) -> Outcome<usize> {
    let bound = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side.max(1)));
    match bound {
        Some(bound) if bound <= MOST_ELEMENTS => Ok(shape.iter().product()),
        _ => problem!("a value of shape {shape:?} is too large"),
    }
}

/// Non-negative whole numbers as a shape.
pub(crate) fn to_shape(sizes: &[i64]) -> Outcome<Vec<usize>> {
    let shape: Option<Vec<usize>> = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
    let shape = shape.ok_or_else(|| Problem::new(format!("no shape: {sizes:?}")))?;
    elements(&shape)?;
    Ok(shape)
}

/// The index below `rank` of `axis`, which may count from the end.
pub(crate) fn to_axis(axis: i64, rank: usize) -> Outcome<usize> {
    let index = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(index) {
        Ok(index) if index < rank => Ok(index),
        _ => problem!("axis {axis} of a value of {rank} dimensions"),
    }
}

/// The axes of `x` from the slowest to the fastest in memory.
pub(crate) fn memory_order<T>(x: &ArrayViewD<'_, T>) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..x.ndim()).collect();
    axes.sort_by_key(|&axis| std::cmp::Reverse(x.strides()[axis].unsigned_abs()));
    axes
}

pub(crate) fn inverse(permutation: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; permutation.len()];
    for (to, &from) in permutation.iter().enumerate() {
        inverse[from] = to;
    }
    inverse
}

/// The shape to which arrays of shapes `a` and `b` are broadcast (NumPy's rule).
pub(crate) fn broadcast_shape(a: &[usize], b: &[usize]) -> Outcome<Vec<usize>> {
    let rank = a.len().max(b.len());
    let side = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(1, |index| shape[index])
    };
    let mut shape = Vec::with_capacity(rank);
    for axis in 0..rank {
        shape.push(match (side(a, axis), side(b, axis)) {
            (a, b) if a == b => a,
            (1, b) => b,
            (a, 1) => a,
            _ => problem!("shapes {a:?} and {b:?} do not fit together"),
        });
    }
    elements(&shape)?;
    Ok(shape)
}

/// `x` broadcast to `shape`.
pub(crate) fn spread<'a, T>(x: &'a Array<T>, shape: &[usize]) -> Outcome<ArrayViewD<'a, T>> {
    x.broadcast(IxDyn(shape)).ok_or_else(|| {
        Problem::new(format!("a value of shape {:?} does not fit {shape:?}", x.shape()))
    })
}

/// The gradient of an array of `shape` that was broadcast to the shape of `gradient`: the sum over
/// the axes along which the array was repeated.
pub(crate) fn unspread(gradient: Array<f32>, shape: &[usize]) -> Outcome<Array<f32>> {
    let mut gradient = gradient;
    while gradient.ndim() > shape.len() {
        gradient = gradient.sum_axis(ndarray::Axis(0)).into_shared();
    }
    for (axis, &side) in shape.iter().enumerate() {
        if side == 1 && gradient.shape()[axis] != 1 {
            let axis = ndarray::Axis(axis);
            gradient = gradient.sum_axis(axis).insert_axis(axis).into_shared();
        }
    }
    if gradient.shape() != shape {
        problem!("a gradient of shape {:?} for a value of {shape:?}", gradient.shape());
    }
    Ok(gradient)
}

/// `x` in row-major order.
pub(crate) fn plain<T: Clone>(x: &Array<T>) -> Array<T> {
    if x.is_standard_layout() { x.clone() } else { x.as_standard_layout().to_shared() }
}

/// `x` with its axes in the order `axes`, and in row-major order then.
pub(crate) fn in_order<T: Clone>(x: Array<T>, axes: &[usize]) -> Array<T> {
    let x = x.permuted_axes(IxDyn(axes));
    if x.is_standard_layout() { x } else { x.as_standard_layout().to_shared() }
}

/// `x` in row-major order with another shape.
pub(crate) fn reshape<T: Clone>(x: &Array<T>, shape: &[usize]) -> Outcome<Array<T>> {
    Ok(plain(x).into_shape_with_order(IxDyn(shape))?)
}

/// `x` with its axes in the order `axes`, without copying.
pub(crate) fn permute<T: Clone>(x: &Array<T>, axes: &[usize]) -> Array<T> {
    x.clone().permuted_axes(IxDyn(axes))
}

/// Undoes [`permute`].
pub(crate) fn unpermute<T: Clone>(x: &Array<T>, axes: &[usize]) -> Array<T> {
    permute(x, &inverse(axes))
}

/// The elements in row-major order.
pub(crate) fn to_vec<T: Clone>(x: &Array<T>) -> Vec<T> {
    match x.as_slice() {
        Some(slice) => slice.to_vec(),
        None => x.iter().cloned().collect(),
    }
}

/// An array of zeros of `shape`.
pub(crate) fn zeros(shape: &[usize]) -> Array<f32> {
    Array::zeros(IxDyn(shape))
}

/// Checks that `x` has `rank` axes.
pub(crate) fn expect_rank<T>(x: &Array<T>, rank: usize) -> Outcome<()> {
    if x.dim().ndim() != rank {
        problem!("expected {rank} dimensions, found shape {:?}", x.shape());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(shape: &[usize]) -> Array<f32> {
        array(shape, (0..shape.iter().product()).map(|v: usize| v as f32).collect()).unwrap()
    }

    #[test]
    fn arrays_spread_whatever_their_order_in_memory() {
        let x = counted(&[2, 3, 4]);
        let turned = plain(&permute(&x, &[2, 0, 1]));
        let same = unpermute(&turned, &[2, 0, 1]);
        assert_eq!(x, same);
        let b = array(&[3, 1], vec![10.0, 20.0, 30.0]).unwrap();
        let sum = combine(&x, &b, |a, b| a + b).unwrap();
        let other = combine(&same, &b, |a, b| a + b).unwrap();
        assert_eq!(sum, other);
        assert_eq!(other.strides(), same.strides());
        assert_eq!(sum[[1, 2, 3]], 23.0 + 30.0);
        let swapped = combine(&b, &same, |b, a| a + b).unwrap();
        assert_eq!(swapped, sum);
        assert!(combine(&x, &counted(&[2]), |a, _| a).is_err());
    }

    #[test]
    fn gradients_of_spread_arrays_are_sums() {
        let g = counted(&[2, 3, 4]);
        let back = unspread(g.clone(), &[3, 1]).unwrap();
        assert_eq!(back[[1, 0]], (4..8).map(|v| (2 * v + 12) as f32).sum::<f32>());
        assert_eq!(unspread(g.clone(), &[2, 3, 4]).unwrap(), g);
        assert_eq!(unspread(g, &[]).unwrap().sum(), 276.0);
    }

    #[test]
    fn axes_and_shapes_out_of_range_are_refused() {
        assert_eq!(to_axis(-1, 3).unwrap(), 2);
        assert!(to_axis(3, 3).is_err() && to_axis(-4, 3).is_err());
        assert!(to_shape(&[1 << 20, 1 << 20]).is_err() && to_shape(&[-1]).is_err());
    }

    #[test]
    fn no_side_is_without_bound() {
        assert_eq!(elements(&[]).unwrap(), 1);
        assert_eq!(elements(&[2, 0, 5]).unwrap(), 0);
        assert_eq!(elements(&[3, MOST_ELEMENTS / 3]).unwrap(), MOST_ELEMENTS / 3 * 3);
        let beyond = [
            &[1 << 46][..],
            &[0, 1 << 46],
            &[1 << 46, 0],
            &[usize::MAX, 2, 0],
            &[2, MOST_ELEMENTS],
        ];
        for shape in beyond {
            assert!(elements(shape).is_err(), "{shape:?}");
        }
        assert!(to_shape(&[0, 1 << 46]).is_err());
    }
}
