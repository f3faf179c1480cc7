//! Lines of equal value (marching squares).

use std::collections::{HashMap, VecDeque};

use super::values::Field;

/// An edge of the grid between two corners, the smaller corner first, and the point where a line
/// crosses it.
type Crossing = ([(usize, usize); 2], [f64; 2]);

/// The line along which `field` has `value`, as pieces with gaps between them (marching squares).
pub(crate) fn isoline(
    field: &Field,
    value: f64,
    place: impl Fn(f64, f64) -> [f64; 2],
) -> Vec<[f64; 2]> {
    let mut segments: Vec<[Crossing; 2]> = Vec::new();
    for row in 0..field.y.len().saturating_sub(1) {
        for column in 0..field.x.len().saturating_sub(1) {
            let corners =
                [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)];
            let values = corners.map(|(r, c)| field.at(r, c) - value);
            if values.iter().any(|v| !v.is_finite()) {
                continue;
            }
            let mut crossings = Vec::with_capacity(4);
            for i in 0..4 {
                let j = (i + 1) % 4;
                if (values[i] < 0.0) != (values[j] < 0.0) {
                    let t = values[i] / (values[i] - values[j]);
                    let mix = |a: usize, b: usize| a as f64 + (b as f64 - a as f64) * t;
                    let mut edge = [corners[i], corners[j]];
                    edge.sort_unstable();
                    crossings.push((
                        edge,
                        place(mix(corners[i].1, corners[j].1), mix(corners[i].0, corners[j].0)),
                    ));
                }
            }
            // At a saddle two lines cross the cell; the value in the middle decides which corners
            // they cut off.
            if crossings.len() == 4 && (values.iter().sum::<f64>() < 0.0) != (values[0] < 0.0) {
                crossings.rotate_left(1);
            }
            let (pairs, _) = crossings.as_chunks::<2>();
            segments.extend(pairs);
        }
    }
    joined(&segments)
}

/// Joins segments that meet at an edge of the grid, so that corners look right and the file is
/// short.
fn joined(segments: &[[Crossing; 2]]) -> Vec<[f64; 2]> {
    let mut ends: HashMap<[(usize, usize); 2], Vec<usize>> = HashMap::new();
    for (i, segment) in segments.iter().enumerate() {
        segment.iter().for_each(|(edge, _)| ends.entry(*edge).or_default().push(i));
    }
    let mut used = vec![false; segments.len()];
    let mut lines = Vec::new();
    for (start, [first, last]) in segments.iter().enumerate() {
        if std::mem::replace(&mut used[start], true) {
            continue;
        }
        let mut line = VecDeque::from([first.1, last.1]);
        for (forward, mut tip) in [(true, last.0), (false, first.0)] {
            while let Some(next) =
                ends.get(&tip).and_then(|list| list.iter().copied().find(|i| !used[*i]))
            {
                used[next] = true;
                let [a, b] = segments[next];
                let far = if a.0 == tip { b } else { a };
                tip = far.0;
                if forward { line.push_back(far.1) } else { line.push_front(far.1) }
            }
        }
        lines.extend(line);
        lines.push([f64::NAN; 2]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cone(size: usize) -> Field {
        let places: Vec<f64> =
            (0..size).map(|i| i as f64 / (size - 1) as f64 * 2.0 - 1.0).collect();
        let values = places
            .iter()
            .flat_map(|y| places.iter().map(move |x| (x * x + y * y).sqrt()))
            .collect();
        Field { x: places.clone(), y: places, values }
    }

    #[test]
    fn the_isoline_of_a_cone_is_one_closed_circle() {
        let line = isoline(&cone(41), 0.5, |c, r| [c / 20.0 - 1.0, r / 20.0 - 1.0]);
        let gaps = line.iter().filter(|p| p[0].is_nan()).count();
        assert_eq!(gaps, 1, "one line");
        let points: Vec<_> = line.iter().filter(|p| p[0].is_finite()).collect();
        assert!(points.len() > 60);
        for [x, y] in points {
            assert!(((x * x + y * y).sqrt() - 0.5).abs() < 0.01);
        }
    }
}
