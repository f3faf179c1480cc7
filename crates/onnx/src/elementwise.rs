//! Functions of one, two and three arrays, element by element.
//!
//! What depends on shapes and on the order in memory is compiled once; each function adds one loop
//! over slices that lie alike, which the compiler turns into vector code.

use std::borrow::Cow;

use ndarray::{ArrayViewD, Axis, IxDyn};

use crate::{
    error::{Outcome, problem},
    value::{Array, array, broadcast_shape, in_order, inverse, memory_order, spread},
};

/// Elements that are handled together where an array is broadcast, if there are as many: enough
/// for a loop to be worth its start, and few enough for the first cache.
const BLOCK: usize = 1024;

/// An array as its values lie along the elements of one that it is broadcast to: each value
/// `repeat` times, and all of it over and over.
struct Pattern<'a, T: Clone> {
    values: Cow<'a, [T]>,
    repeat: usize,
}

impl<'a, T: Copy> Pattern<'a, T> {
    /// The pattern of `view`, which is broadcast and has its axes in the order in memory of the
    /// array that it is along.
    fn of(view: &ArrayViewD<'a, T>) -> Self {
        match Self::in_place(view.clone()) {
            Some((values, 1)) if values.len() < BLOCK.min(view.len()) => {
                let times = BLOCK.min(view.len()).div_ceil(values.len().max(1));
                Self { values: values.repeat(times).into(), repeat: 1 }
            }
            Some((values, repeat)) => Self { values: values.into(), repeat },
            None => Self { values: view.iter().copied().collect(), repeat: 1 },
        }
    }

    /// The values where they lie, and how often each is repeated; `None` where some side is
    /// repeated between sides that are not, or the values do not follow each other.
    fn in_place(mut view: ArrayViewD<'a, T>) -> Option<(&'a [T], usize)> {
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
        // One value is as well a period of its own.
        let values = view.to_slice()?;
        Some((values, if values.len() == 1 { 1 } else { repeat }))
    }

    /// What lies along the elements from `from` on, at most `most` of them. Values that are
    /// repeated are written to `room`.
    fn block<'s>(&'s self, from: usize, most: usize, room: &'s mut Vec<T>) -> &'s [T] {
        let mut from = from % (self.values.len() * self.repeat);
        if self.repeat == 1 {
            let values = &self.values[from..];
            return &values[..values.len().min(most)];
        }
        let most = most.min(BLOCK);
        room.clear();
        for &value in &self.values[from / self.repeat..] {
            let count = (self.repeat - from % self.repeat).min(most - room.len());
            room.extend(std::iter::repeat_n(value, count));
            from += count;
            if room.len() == most {
                break;
            }
        }
        room
    }

    /// Calls `each` with all of `along` and the values that lie along it, block by block.
    fn pass(&self, mut along: &mut [T], each: &mut dyn FnMut(&mut [T], &[T])) {
        let (mut at, mut room) = (0, Vec::new());
        while !along.is_empty() {
            let values = self.block(at, along.len(), &mut room);
            let (here, rest) = std::mem::take(&mut along).split_at_mut(values.len());
            each(here, values);
            at += values.len();
            along = rest;
        }
    }
}

/// Two arrays, broadcast to a common shape.
struct Pair<'a, A: Clone, B: Clone> {
    /// The axes of the shape in their order in memory.
    order: Vec<usize>,
    /// The shape, in that order.
    sides: Vec<usize>,
    a: Pattern<'a, A>,
    b: Pattern<'a, B>,
}

impl<'a, A: Copy, B: Copy> Pair<'a, A, B> {
    fn of(a: &'a Array<A>, b: &'a Array<B>) -> Outcome<Self> {
        let shape = broadcast_shape(a.shape(), b.shape())?;
        let (all_a, all_b) = (spread(a, &shape)?, spread(b, &shape)?);
        let order = if a.shape() == shape { memory_order(&all_a) } else { memory_order(&all_b) };
        let (all_a, all_b) =
            (all_a.permuted_axes(IxDyn(&order)), all_b.permuted_axes(IxDyn(&order)));
        let sides = all_a.shape().to_vec();
        Ok(Self { order, sides, a: Pattern::of(&all_a), b: Pattern::of(&all_b) })
    }

    /// Number of elements of the common shape.
    fn len(&self) -> usize {
        self.sides.iter().product()
    }

    /// Calls `each` with what lies side by side, block by block.
    fn pass(&self, each: &mut dyn FnMut(&[A], &[B])) {
        let (len, mut at) = (self.len(), 0);
        let (mut room_a, mut room_b) = (Vec::new(), Vec::new());
        while at < len {
            let a = self.a.block(at, len - at, &mut room_a);
            let b = self.b.block(at, a.len(), &mut room_b);
            each(&a[..b.len()], b);
            at += b.len();
        }
    }

    /// `data`, which is in the order in memory, as an array of the common shape.
    fn array<R: Clone>(&self, data: Vec<R>) -> Outcome<Array<R>> {
        Ok(array(&self.sides, data)?.permuted_axes(IxDyn(&inverse(&self.order))))
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
    let pair = Pair::of(a, b)?;
    let mut out = Vec::with_capacity(pair.len());
    pair.pass(&mut |a, b| out.extend(a.iter().zip(b).map(|(&a, &b)| f(a, b))));
    pair.array(out)
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
pub(crate) fn map<T: Copy, R: Clone>(x: &Array<T>, f: impl Fn(T) -> R) -> Outcome<Array<R>> {
    let order = memory_order(&x.view());
    let x = in_order(x.clone(), &order);
    let data = x.as_slice().unwrap_or_default().iter().map(|&x| f(x)).collect();
    Ok(array(x.shape(), data)?.permuted_axes(IxDyn(&inverse(&order))))
}

/// Does what [`combine`] does for numbers, in the memory of `a` where nothing else holds it.
pub(crate) fn combine_into(
    a: Array<f32>,
    b: &Array<f32>,
    f: impl Fn(f32, f32) -> f32,
) -> Outcome<Array<f32>> {
    let stays = broadcast_shape(a.shape(), b.shape())? == a.shape();
    let mut a = match a.try_into_owned_nocopy() {
        Ok(a) if stays => a,
        Ok(a) => return combine(&a.into_shared(), b, f),
        Err(a) => return combine(&a, b, f),
    };
    let order = memory_order(&a.view());
    let other = spread(b, a.shape())?.permuted_axes(IxDyn(&order));
    let mut turned = a.view_mut().permuted_axes(IxDyn(&order));
    let Some(all) = turned.as_slice_mut() else { return combine(&a.into_shared(), b, f) };
    Pattern::of(&other).pass(all, &mut |a, b| {
        a.iter_mut().zip(b).for_each(|(a, &b)| *a = f(*a, b));
    });
    Ok(a.into_shared())
}

/// Changes the elements of `x` by those of `others`, which have its shape: in place where all lie
/// alike in memory.
pub(crate) fn update<const N: usize>(
    x: Array<f32>,
    others: [&Array<f32>; N],
    f: impl Fn(f32, [f32; N]) -> f32,
) -> Outcome<Array<f32>> {
    if let Some(other) = others.iter().find(|other| other.shape() != x.shape()) {
        problem!("a value of shape {:?} beside one of {:?}", other.shape(), x.shape());
    }
    let order = memory_order(&x.view());
    let mut x = in_order(x, &order);
    let others = others.map(|other| in_order(other.clone(), &order));
    let all = x.as_slice_mut().unwrap_or_default();
    let slices = others.each_ref().map(|other| &other.as_slice().unwrap_or_default()[..all.len()]);
    for (i, x) in all.iter_mut().enumerate() {
        *x = f(*x, slices.map(|slice| slice[i]));
    }
    Ok(x.permuted_axes(IxDyn(&inverse(&order))))
}

/// Folds `x` along `axis`, which keeps the size 1, beginning with `start`. `each` is given results
/// and the values for them: one row after the other, of one value for each result.
pub(crate) fn fold_axis<T: Copy>(
    x: &Array<T>,
    axis: usize,
    start: T,
    each: &mut dyn FnMut(&mut [T], &[T]),
) -> Outcome<Array<T>> {
    let order = memory_order(&x.view());
    let places = inverse(&order);
    let x = in_order(x.clone(), &order);
    let mut sides = x.shape().to_vec();
    let row: usize = sides[places[axis] + 1..].iter().product();
    let rows = row * sides[places[axis]];
    sides[places[axis]] = 1;
    let mut results = vec![start; sides.iter().product()];
    if rows > 0 {
        let values = x.as_slice().unwrap_or_default().chunks_exact(rows);
        results.chunks_exact_mut(row).zip(values).for_each(|(results, values)| {
            each(results, values);
        });
    }
    Ok(array(&sides, results)?.permuted_axes(IxDyn(&places)))
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

    /// Every way in which a side can be broadcast, against the definition, below and above the
    /// size of a block.
    #[test]
    fn arrays_are_broadcast_on_either_side_and_in_any_order_in_memory() {
        for sides in [[2, 3, 4, 5], [3, 2, 350, 2], [2, 2, 2, 1100]] {
            let full = counted(&sides);
            let turned = permute(&plain(&permute(&full, &[2, 3, 0, 1])), &[2, 3, 0, 1]);
            assert_eq!(full, turned);
            for kept in 0..16 {
                let shape: Vec<usize> = (0..4)
                    .map(|axis| if kept >> axis & 1 == 1 { sides[axis] } else { 1 })
                    .collect();
                broadcast(&full, &counted(&shape));
                broadcast(&turned, &counted(&shape));
            }
        }
    }

    fn broadcast(full: &Array<f32>, part: &Array<f32>) {
        let expected = ndarray::Array::from_shape_fn(full.raw_dim(), |at| {
            let own: Vec<usize> = (0..4).map(|axis| at[axis].min(part.shape()[axis] - 1)).collect();
            2.0 * full[&at] - part[&own[..]]
        });
        for part in [part, &reshaped_without_leading_ones(part)] {
            let found = combine(full, part, |a, b| 2.0 * a - b).unwrap();
            assert_eq!(found, expected, "{:?}", part.shape());
            assert_eq!(combine(part, full, |b, a| 2.0 * a - b).unwrap(), expected);
            let own = full.to_owned().into_shared();
            assert_eq!(combine_into(own, part, |a, b| 2.0 * a - b).unwrap(), expected);
            let shared = full.clone();
            assert_eq!(combine_into(shared, part, |a, b| 2.0 * a - b).unwrap(), expected);
            assert_eq!(found.strides(), full.strides());
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

    #[test]
    fn values_beside_each_other_have_one_shape() {
        let (x, row) = (counted(&[2, 3]), counted(&[1, 3]));
        assert!(update(x, [&row], |x, [row]| x + row).is_err());
    }

    #[test]
    fn arrays_are_folded_along_any_axis_in_any_order_in_memory() {
        let x = counted(&[3, 4, 5]);
        let turned = permute(&plain(&permute(&x, &[2, 0, 1])), &[1, 2, 0]);
        assert_eq!(x, turned);
        for (x, axis) in [&x, &turned].into_iter().flat_map(|x| (0..3).map(move |axis| (x, axis))) {
            let found = fold_axis(x, axis, 1.0, &mut |results, values| {
                for row in values.chunks_exact(results.len()) {
                    results.iter_mut().zip(row).for_each(|(result, v)| *result = 0.5 * *result - v);
                }
            });
            let expected = x.fold_axis(Axis(axis), 1.0, |result, v| 0.5 * result - v);
            assert_eq!(found.unwrap(), expected.insert_axis(Axis(axis)), "{axis}");
        }
        let none = fold_axis(&counted(&[2, 0, 3]), 1, 7.0, &mut |_, _| unreachable!()).unwrap();
        assert_eq!(none, array(&[2, 1, 3], vec![7.0; 6]).unwrap());
        assert!(fold_axis(&counted(&[2, 0]), 0, 7.0, &mut |_, _| ()).unwrap().is_empty());
    }
}
