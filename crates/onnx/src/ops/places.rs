//! Where each value of a result comes from.

use std::ops::Range;

use crate::{
    error::{Outcome, problem},
    value::{Array, array, elements, plain, to_shape},
};

/// The way in which a value is padded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// The source of each place of the result, for each axis; `None` for a place that is filled.
pub(super) type Sources = Vec<Vec<Option<usize>>>;

/// Builds a value from the places `sources` of `x`.
pub(super) fn pick<T: Copy>(x: &Array<T>, sources: &Sources, fill: T) -> Outcome<Array<T>> {
    let shape: Vec<usize> = sources.iter().map(Vec::len).collect();
    let mut out = Vec::with_capacity(elements(&shape)?);
    let x = plain(x);
    let data = x.as_slice().unwrap_or_default();
    let Some((last, outer)) = sources.split_last() else { return Ok(x.clone()) };
    let count: usize = shape[..outer.len()].iter().product();
    for index in 0..count {
        // Start of the row of `x` from which this row of the result is taken.
        let (mut rest, mut start) = (index, Some(0));
        for (axis, places) in outer.iter().enumerate().rev() {
            let place = places[rest % shape[axis]];
            rest /= shape[axis];
            start = start.zip(place).map(|(start, place)| {
                start + place * x.shape()[axis + 1..].iter().product::<usize>()
            });
        }
        match start {
            Some(start) => {
                out.extend(
                    last.iter().map(|place| place.map_or(fill, |place| data[start + place])),
                );
            }
            None => out.extend(std::iter::repeat_n(fill, last.len())),
        }
    }
    array(&shape, out)
}

/// The sources of every axis for a value that stays as it is.
pub(super) fn everything(shape: &[usize]) -> Sources {
    shape.iter().map(|&side| (0..side).map(Some).collect()).collect()
}

/// The sources of a value of `shape` with `pads` around it: one before each of `axes`, then one behind
/// each; numbers below 0 leave places out.
pub(super) fn around(
    shape: &[usize],
    mode: Mode,
    axes: &[usize],
    pads: &[i64],
) -> Outcome<Sources> {
    let mut ranges: Vec<Range<i64>> = shape.iter().map(|&side| 0..side as i64).collect();
    let (before, behind) = pads.split_at(axes.len());
    for ((&axis, before), &behind) in axes.iter().zip(before).zip(behind) {
        ranges[axis] = before.saturating_neg()..(shape[axis] as i64).saturating_add(behind);
    }
    // Their number is bounded before the places are listed.
    let side = |range: &Range<i64>| range.end.saturating_sub(range.start).max(0);
    to_shape(&ranges.iter().map(side).collect::<Vec<_>>())?;
    let places = |(range, &side): (Range<i64>, &usize)| {
        range.map(|at| padded(mode, at, side as i64)).collect()
    };
    Ok(ranges.into_iter().zip(shape).map(places).collect())
}

/// The source of place `at` of an axis of `side` under padding `mode`; `at` may lie before the
/// first place or after the last.
fn padded(mode: Mode, at: i64, side: i64) -> Option<usize> {
    let inside = (0..side).contains(&at);
    let place = match mode {
        _ if inside => at,
        Mode::Constant => return None,
        _ if side == 0 => return None,
        Mode::Edge => at.clamp(0, side - 1),
        Mode::Wrap => at.rem_euclid(side),
        Mode::Reflect if side == 1 => 0,
        Mode::Reflect => {
            let period = 2 * (side - 1);
            let at = at.rem_euclid(period);
            if at < side { at } else { period - at }
        }
    };
    usize::try_from(place).ok()
}

/// The places of an axis of `side` from `start` to before `end` by `step`, clamped as in NumPy.
pub(super) fn sliced(side: i64, start: i64, end: i64, step: i64) -> Outcome<Vec<Option<usize>>> {
    if step == 0 {
        problem!("a step of 0");
    }
    let absolute = |v: i64| if v < 0 { v.saturating_add(side) } else { v };
    let (low, high) = if step > 0 { (0, side) } else { (-1, side - 1) };
    let (mut at, end) = (absolute(start).clamp(low, high), absolute(end).clamp(low, high));
    let mut places = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        places.push(usize::try_from(at).ok());
        at = at.saturating_add(step);
    }
    Ok(places)
}

/// An index that may count from the end, as a place.
pub(super) fn place(index: i64, side: usize) -> Outcome<usize> {
    match usize::try_from(if index < 0 { index + side as i64 } else { index }) {
        Ok(place) if place < side => Ok(place),
        _ => problem!("place {index} of {side}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padding_is_bounded_before_it_is_listed() {
        let around = |pads: &[i64]| around(&[2, 3], Mode::Constant, &[1], pads);
        let rows = vec![Some(0), Some(1)];
        let padded = vec![None, Some(0), Some(1), Some(2), None, None];
        assert_eq!(around(&[1, 2]).unwrap(), [rows.clone(), padded]);
        assert_eq!(around(&[-1, -1]).unwrap(), [rows.clone(), vec![Some(1)]]);
        assert_eq!(around(&[-2, -2]).unwrap(), [rows, vec![]]);
        for pads in [[1 << 40, 0], [0, i64::MAX], [i64::MAX, i64::MAX]] {
            assert!(around(&pads).is_err(), "{pads:?}");
        }
    }
}
