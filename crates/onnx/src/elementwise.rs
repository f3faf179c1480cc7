//! Functions of one, two and three arrays, element by element.
//!
//! Wherever the order in memory allows, these are loops over slices, which the compiler turns into
//! vector code.

use std::borrow::Cow;

use ndarray::{ArrayViewD, Axis, IxDyn, Zip};

use crate::{
    error::Outcome,
    value::{Array, array, broadcast_shape, inverse, memory_order, spread},
};

/// Least number of elements to which a short period is repeated, enough for whole vectors.
const PERIOD: usize = 256;

/// A broadcast array as it lies along the elements of a full one: each value `repeat` times, and
/// all of it over and over.
struct Pattern<'a, T> {
    values: &'a [T],
    repeat: usize,
}

impl<'a, T> Pattern<'a, T> {
    /// The pattern of `view`, whose axes are in the full array's order in memory; `None` where some
    /// side is repeated between sides that are not.
    fn of(mut view: ArrayViewD<'a, T>) -> Option<Self> {
        let (mut repeat, mut values_seen, mut outside) = (1, false, false);
        for axis in
            (0..view.ndim()).rev().filter(|&axis| view.shape()[axis] > 1).collect::<Vec<_>>()
        {
            if view.strides()[axis] != 0 {
                if outside {
                    return None;
                }
                values_seen = true;
                continue;
            }
            if values_seen {
                outside = true;
            } else {
                repeat *= view.shape()[axis];
            }
            view.collapse_axis(Axis(axis), 0);
        }
        Some(Self { values: view.to_slice()?, repeat })
    }

    /// Whether the pattern, over and over, covers `len` elements.
    fn covers(&self, len: usize) -> bool {
        let period = self.values.len() * self.repeat;
        period > 0 && len.is_multiple_of(period)
    }

    /// The values, several times if they are few; a loop over them is then long enough to be worth
    /// its start.
    fn period(&self) -> Cow<'a, [T]>
    where
        T: Copy,
    {
        match self.values.len() {
            0 | PERIOD.. => Cow::Borrowed(self.values),
            few => Cow::Owned(self.values.repeat(PERIOD.div_ceil(few))),
        }
    }
}

/// Applies `f` to the elements of `a` and those of the pattern beside them.
fn along<A: Copy, B: Copy, R>(a: &[A], b: &Pattern<'_, B>, f: impl Fn(A, B) -> R) -> Vec<R> {
    let mut out = Vec::with_capacity(a.len());
    if b.repeat > 1 {
        for (a, &b) in a.chunks(b.repeat).zip(b.values.iter().cycle()) {
            out.extend(a.iter().map(|&a| f(a, b)));
        }
    } else {
        let period = b.period();
        for a in a.chunks(period.len().max(1)) {
            out.extend(a.iter().zip(&*period).map(|(&a, &b)| f(a, b)));
        }
    }
    out
}

/// Does what [`along`] does, in place.
fn change_along(a: &mut [f32], b: &Pattern<'_, f32>, f: impl Fn(f32, f32) -> f32) {
    if b.repeat > 1 {
        for (a, &b) in a.chunks_mut(b.repeat).zip(b.values.iter().cycle()) {
            a.iter_mut().for_each(|a| *a = f(*a, b));
        }
    } else {
        let period = b.period();
        for a in a.chunks_mut(period.len().max(1)) {
            a.iter_mut().zip(&*period).for_each(|(a, &b)| *a = f(*a, b));
        }
    }
}

/// Applies `f` to the elements of `a` and `b`, broadcast to a common shape. The result has the
/// order in memory of the array with that shape.
pub(crate) fn combine<A, B, R>(
    a: &Array<A>,
    b: &Array<B>,
    f: impl Fn(A, B) -> R,
) -> Outcome<Array<R>>
where
    A: Copy,
    B: Copy,
    R: Copy,
{
    let shape = broadcast_shape(a.shape(), b.shape())?;
    let (a_all, b_all) = (spread(a, &shape)?, spread(b, &shape)?);
    let order = if a.shape() == shape { memory_order(&a_all) } else { memory_order(&b_all) };
    let (a_all, b_all) = (a_all.permuted_axes(IxDyn(&order)), b_all.permuted_axes(IxDyn(&order)));
    let sides = a_all.shape().to_vec();
    let data = match (a_all.to_slice(), b_all.to_slice()) {
        (Some(a), Some(b)) => Some(a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()),
        (Some(a), None) => {
            let pattern = Pattern::of(b_all.view()).filter(|b| b.covers(a.len()));
            pattern.map(|b| along(a, &b, &f))
        }
        (None, Some(b)) => {
            let pattern = Pattern::of(a_all.view()).filter(|a| a.covers(b.len()));
            pattern.map(|a| along(b, &a, |b, a| f(a, b)))
        }
        (None, None) => None,
    };
    let out = match data {
        Some(data) => array(&sides, data)?,
        None => Zip::from(&a_all).and(&b_all).map_collect(|&a, &b| f(a, b)).into_shared(),
    };
    Ok(out.permuted_axes(IxDyn(&inverse(&order))))
}

/// Does what [`combine`] does, for three arrays.
pub(crate) fn select<T: Copy>(
    condition: &Array<bool>,
    yes: &Array<T>,
    no: &Array<T>,
) -> Outcome<Array<T>> {
    let pairs = combine(yes, no, |yes, no| (yes, no))?;
    combine(&pairs, condition, |(yes, no), condition| if condition { yes } else { no })
}

/// Applies `f` to each element and keeps the order in memory.
pub(crate) fn map<T: Clone, R: Clone>(x: &Array<T>, f: impl Fn(T) -> R) -> Array<R> {
    let order = memory_order(&x.view());
    let view = x.view().permuted_axes(IxDyn(&order));
    view.mapv(f).into_shared().permuted_axes(IxDyn(&inverse(&order)))
}

/// Does what [`combine`] does for numbers, in the memory of `a` where nothing else holds it.
pub(crate) fn combine_into(
    a: Array<f32>,
    b: &Array<f32>,
    f: impl Fn(f32, f32) -> f32,
) -> Outcome<Array<f32>> {
    if broadcast_shape(a.shape(), b.shape())? != a.shape() {
        return combine(&a, b, f);
    }
    let mut a = match a.try_into_owned_nocopy() {
        Ok(a) => a,
        Err(a) => return combine(&a, b, f),
    };
    let order = memory_order(&a.view());
    let spread = spread(b, a.shape())?.permuted_axes(IxDyn(&order));
    let pattern = Pattern::of(spread).filter(|pattern| pattern.covers(a.len()));
    let mut turned = a.view_mut().permuted_axes(IxDyn(&order));
    match (turned.as_slice_mut(), pattern) {
        (Some(a), Some(b)) => change_along(a, &b, f),
        _ => return combine(&a.into_shared(), b, f),
    }
    Ok(a.into_shared())
}

/// Changes the elements of `x` by those of `others`, which have its shape: in place where all lie
/// alike in memory.
pub(crate) fn update<const N: usize>(
    mut x: Array<f32>,
    others: [&Array<f32>; N],
    f: impl Fn(f32, [f32; N]) -> f32,
) -> Outcome<Array<f32>> {
    let slices = others.map(|other| other.as_slice_memory_order());
    if slices.iter().all(Option::is_some)
        && others.iter().all(|other| lie_alike(&x, other))
        && let Some(x_all) = x.as_slice_memory_order_mut()
    {
        let slices = slices.map(|slice| &slice.unwrap_or_default()[..x_all.len()]);
        for (i, x) in x_all.iter_mut().enumerate() {
            *x = f(*x, slices.map(|slice| slice[i]));
        }
        return Ok(x);
    }
    let mut all = map(&x, |_| [0.0; N]);
    for (index, other) in others.into_iter().enumerate() {
        all = combine(&all, other, |mut all, other| {
            all[index] = other;
            all
        })?;
    }
    combine(&x, &all, f)
}

/// An array of `data` with the shape of `x`, in the order of its elements in memory.
pub(crate) fn like(x: &Array<f32>, data: Vec<f32>) -> Outcome<Array<f32>> {
    let order = memory_order(&x.view());
    let sides: Vec<usize> = order.iter().map(|&axis| x.shape()[axis]).collect();
    Ok(array(&sides, data)?.permuted_axes(IxDyn(&inverse(&order))))
}

/// Whether `a` and `b` have the same shape and order in memory, without gaps.
pub(crate) fn lie_alike(a: &Array<f32>, b: &Array<f32>) -> bool {
    let same = |axis: usize| a.shape()[axis] == 1 || a.strides()[axis] == b.strides()[axis];
    a.shape() == b.shape() && (0..a.ndim()).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{permute, plain};

    fn counted(shape: &[usize]) -> Array<f32> {
        array(shape, (0..shape.iter().product()).map(|v: usize| v as f32).collect()).unwrap()
    }

    /// Every way in which a side can be broadcast, against the definition.
    #[test]
    fn arrays_are_broadcast_on_either_side_and_in_any_order_in_memory() {
        let sides = [2, 3, 4, 5];
        let full = counted(&sides);
        let turned = permute(&plain(&permute(&full, &[2, 3, 0, 1])), &[2, 3, 0, 1]);
        assert_eq!(full, turned);
        for kept in 0..16 {
            let shape: Vec<usize> =
                (0..4).map(|axis| if kept >> axis & 1 == 1 { sides[axis] } else { 1 }).collect();
            let part = counted(&shape);
            let ranks = [part.clone(), reshaped_without_leading_ones(&part)];
            for (full, part) in
                [&full, &turned].into_iter().flat_map(|f| ranks.iter().map(move |p| (f, p)))
            {
                let expected = ndarray::Array::from_shape_fn(IxDyn(&sides), |at| {
                    let own: Vec<usize> =
                        (0..4).map(|axis| at[axis].min(shape[axis] - 1)).collect();
                    2.0 * full[&at] - ranks[0][&own[..]]
                });
                let found = combine(full, part, |a, b| 2.0 * a - b).unwrap();
                assert_eq!(found, expected, "{shape:?}");
                assert_eq!(combine(part, full, |b, a| 2.0 * a - b).unwrap(), expected);
                let own = full.to_owned().into_shared();
                assert_eq!(combine_into(own, part, |a, b| 2.0 * a - b).unwrap(), expected);
                let shared = full.clone();
                assert_eq!(combine_into(shared, part, |a, b| 2.0 * a - b).unwrap(), expected);
                assert_eq!(found.strides(), full.strides());
            }
        }
    }

    fn reshaped_without_leading_ones(x: &Array<f32>) -> Array<f32> {
        let leading = x.shape().iter().take_while(|&&side| side == 1).count();
        x.clone().into_shape_with_order(IxDyn(&x.shape()[leading..])).unwrap()
    }

    #[test]
    fn empty_arrays_stay_empty() {
        let (none, row) = (counted(&[0, 3]), counted(&[3]));
        assert_eq!(combine(&none, &row, |a, b| a + b).unwrap().shape(), [0, 3]);
        assert_eq!(combine(&row, &none, |a, b| a + b).unwrap().shape(), [0, 3]);
        let (none, column) = (counted(&[2, 0]), counted(&[2, 1]));
        assert_eq!(combine(&none, &column, |a, b| a + b).unwrap().shape(), [2, 0]);
        assert_eq!(combine_into(none.clone(), &column, |a, b| a + b).unwrap().shape(), [2, 0]);
        assert_eq!(update(none.clone(), [&none], |a, [b]| a + b).unwrap().shape(), [2, 0]);
    }

    #[test]
    fn an_update_leaves_other_holders_alone() {
        let x = counted(&[2, 3]);
        let turned = permute(&plain(&permute(&x, &[1, 0])), &[1, 0]);
        for other in [&x, &turned] {
            let sum = update(x.clone(), [other, &x], |x, [a, b]| x + 2.0 * a - b).unwrap();
            assert_eq!(sum, x.mapv(|v| 2.0 * v));
        }
        assert_eq!(x, counted(&[2, 3]));
    }
}
