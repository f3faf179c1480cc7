//! Where each value of a result comes from.

use crate::{
    error::{Outcome, problem},
    value::{Array, array, elements, plain},
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

/// The source of place `at` of an axis of `side` under padding `mode`; `at` may lie before the
/// first place or after the last.
pub(super) fn padded(mode: Mode, at: i64, side: i64) -> Option<usize> {
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
