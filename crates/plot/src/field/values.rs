//! Values on a grid.

/// Values on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Places of the columns, in ascending order.
    pub x: Vec<f64>,
    /// Places of the rows, in ascending order.
    pub y: Vec<f64>,
    /// The values, `[rows, columns]`.
    pub values: Vec<f64>,
}

impl Field {
    /// The value of a row and a column; NaN outside.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        if column < self.x.len() {
            self.values.get(row * self.x.len() + column).copied().unwrap_or(f64::NAN)
        } else {
            f64::NAN
        }
    }

    /// Smallest and largest finite value, which always differ; `[0, 1]` if no value is finite.
    pub fn range(&self) -> [f64; 2] {
        range(std::iter::once(self))
    }

    /// Bilinear value at a fraction of the grid.
    pub(crate) fn between(&self, row: f64, column: f64) -> f64 {
        let (r, c) = (
            (row.floor() as usize).min(self.y.len().saturating_sub(2)),
            (column.floor() as usize).min(self.x.len().saturating_sub(2)),
        );
        let (u, v) = (row - r as f64, column - c as f64);
        let low = self.at(r, c) * (1.0 - v) + self.at(r, c + 1) * v;
        let high = self.at(r + 1, c) * (1.0 - v) + self.at(r + 1, c + 1) * v;
        low * (1.0 - u) + high * u
    }
}

/// Smallest and largest finite value of several fields, which always differ.
pub fn range<'a>(fields: impl Iterator<Item = &'a Field>) -> [f64; 2] {
    let values = fields.flat_map(|f| &f.values).copied().filter(|v| v.is_finite());
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    match (low <= high, low < high) {
        (false, _) => [0.0, 1.0],
        (true, false) => [low, low + 1.0],
        _ => [low, high],
    }
}

/// Position of `value` between the ends: 0 to 1 inside them.
pub(crate) fn part(value: f64, [low, high]: [f64; 2]) -> f64 {
    (value - low) / (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bilinear_values_agree_on_the_grid_and_between() {
        let field =
            Field { x: vec![0.0, 1.0], y: vec![0.0, 1.0], values: vec![0.0, 1.0, 2.0, 3.0] };
        for (row, column, value) in
            [(0.0, 0.0, 0.0), (1.0, 1.0, 3.0), (0.5, 0.5, 1.5), (0.25, 1.0, 1.5)]
        {
            assert!((field.between(row, column) - value).abs() < 1e-12);
        }
        assert_eq!(Field { values: vec![f64::NAN; 4], ..field }.range(), [0.0, 1.0]);
    }
}
