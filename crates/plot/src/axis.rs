//! Axes: the range of the values, and the places and texts of the ticks.

/// The spacing of values along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Values are spaced evenly.
    Linear,
    /// Values are spaced by their logarithm; values that are not positive are left out.
    Log,
}

/// One axis of a chart.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The quantity that the axis shows, with its unit.
    pub label: String,
    /// The spacing of the values.
    pub spacing: Spacing,
    /// Lowest and highest value; `None` takes them from the data.
    pub range: Option<[f64; 2]>,
    /// Values of the ticks, with their labels; `None` puts ticks at round numbers.
    pub ticks: Option<Vec<(f64, String)>>,
    /// Whether ticks stand at whole numbers only.
    pub whole: bool,
}

impl Axis {
    /// An evenly spaced axis whose ends come from the data.
    pub fn linear(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            spacing: Spacing::Linear,
            range: None,
            ticks: None,
            whole: false,
        }
    }

    /// A logarithmic axis whose ends come from the data.
    pub fn log(label: impl Into<String>) -> Self {
        Self { spacing: Spacing::Log, ..Self::linear(label) }
    }

    /// The same with fixed ends.
    pub fn range(self, low: f64, high: f64) -> Self {
        Self { range: Some([low, high]), ..self }
    }

    /// The same with given ticks.
    pub fn ticks(self, ticks: Vec<(f64, String)>) -> Self {
        Self { ticks: Some(ticks), ..self }
    }

    /// The same with ticks at whole numbers only.
    pub fn whole(self) -> Self {
        Self { whole: true, ..self }
    }

    /// Whether `value` has a place on the axis.
    pub(super) fn takes(&self, value: f64) -> bool {
        value.is_finite() && (self.spacing == Spacing::Linear || value > 0.0)
    }

    /// Lowest and highest value of an axis that holds all `values` and leaves a little space.
    pub(super) fn ends(&self, values: impl Iterator<Item = f64>) -> [f64; 2] {
        if let Some([low, high]) = self.range
            && self.takes(low)
            && self.takes(high)
            && low < high
        {
            return [low, high];
        }
        let (low, high) = values
            .filter(|v| self.takes(*v))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        match self.spacing {
            _ if low > high => [f64::from(u8::from(self.spacing == Spacing::Log)), 10.0],
            Spacing::Log => {
                let air = ((high / low).ln() * 0.05).max(0.05).exp();
                [low / air, high * air]
            }
            Spacing::Linear => {
                let air = if high > low { (high - low) * 0.04 } else { low.abs().max(1.0) * 0.1 };
                // A reader expects the axis to begin at zero if zero is near.
                let start = if low >= 0.0 && low <= 0.25 * high { 0.0 } else { low - air };
                [start, high + air]
            }
        }
    }

    /// Ticks within `ends`, about `wanted` of them.
    pub(super) fn ticks_within(&self, [low, high]: [f64; 2], wanted: usize) -> Vec<(f64, String)> {
        if let Some(ticks) = &self.ticks {
            let slack = (high - low) * 1e-9;
            return ticks
                .iter()
                .filter(|(v, _)| (low - slack..=high + slack).contains(v))
                .cloned()
                .collect();
        }
        match self.spacing {
            Spacing::Linear => linear_ticks(low, high, wanted, self.whole),
            Spacing::Log => log_ticks(low, high, wanted),
        }
    }

    /// Position of `value` between the ends: 0 to 1 inside them.
    pub(super) fn place(&self, value: f64, [low, high]: [f64; 2]) -> f64 {
        match self.spacing {
            Spacing::Linear => (value - low) / (high - low),
            Spacing::Log => (value / low).ln() / (high / low).ln(),
        }
    }
}

/// Ticks at a step of 1, 2 or 5 times a power of ten, about `wanted` of them.
fn linear_ticks(low: f64, high: f64, wanted: usize, whole: bool) -> Vec<(f64, String)> {
    let rough = (high - low) / wanted.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let near = |step: &f64| (step / rough).ln().abs();
    let mut step = [1.0, 2.0, 5.0, 10.0]
        .map(|s| s * power)
        .into_iter()
        .min_by(|a, b| near(a).total_cmp(&near(b)))
        .unwrap_or(power);
    if whole {
        step = step.max(1.0);
    }
    let decimals = (0..=12)
        .find(|d| (step * 10f64.powi(*d) - (step * 10f64.powi(*d)).round()).abs() < 1e-6)
        .unwrap_or(12);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last.min(first.saturating_add(100)))
        .map(|i| {
            let value = i as f64 * step;
            (value, tick_text(value, decimals as usize))
        })
        .collect()
}

fn log_ticks(low: f64, high: f64, wanted: usize) -> Vec<(f64, String)> {
    let decades = (high / low).log10();
    let factors: &[f64] = match decades {
        d if d < 0.8 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
        d if d <= 0.6 * wanted as f64 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let mut ticks = Vec::new();
    for exponent in (low.log10().floor() as i32)..=(high.log10().ceil() as i32) {
        for factor in factors {
            let value = factor * 10f64.powi(exponent);
            if (low * 0.999_999..=high * 1.000_001).contains(&value) {
                ticks.push((
                    value,
                    tick_text(
                        value,
                        (-exponent).max(i32::from(*factor == 1.5) - exponent).max(0) as usize,
                    ),
                ));
            }
        }
    }
    let every = ticks.len().div_ceil(wanted.max(1) * 2).max(1);
    ticks.into_iter().step_by(every).collect()
}

/// The number with a true minus sign, and with its thousands separated from five digits on.
fn tick_text(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && whole.len() >= 5 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(c);
    }
    if let Some(rest) = rest {
        grouped = format!("{grouped}.{rest}");
    }
    let zero = grouped.chars().all(|c| matches!(c, '0' | '.'));
    if value < 0.0 && !zero { format!("\u{2212}{grouped}") } else { grouped }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ticks: &[(f64, String)]) -> Vec<&str> {
        ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        let axis = Axis::linear("x");
        assert_eq!(
            texts(&axis.ticks_within([0.0, 100.0], 5)),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(
            texts(&axis.ticks_within([-0.1, 0.12], 4)),
            ["\u{2212}0.10", "\u{2212}0.05", "0.00", "0.05", "0.10"]
        );
        assert_eq!(texts(&axis.ticks_within([0.0, 25_000.0], 3)), ["0", "10,000", "20,000"]);
        assert_eq!(
            texts(&Axis::linear("x").whole().ticks_within([0.0, 3.0], 8)),
            ["0", "1", "2", "3"]
        );
        assert_eq!(
            texts(&Axis::log("x").ticks_within([1.0, 100.0], 6)),
            ["1", "2", "5", "10", "20", "50", "100"]
        );
        assert_eq!(texts(&Axis::log("x").ticks_within([0.9, 2.5], 6)), ["1", "1.5", "2"]);
    }

    #[test]
    fn ends_hold_the_data_whatever_it_is() {
        let axis = Axis::linear("x");
        assert_eq!(axis.ends([].into_iter()), [0.0, 10.0]);
        assert_eq!(axis.ends([f64::NAN, f64::INFINITY].into_iter()), [0.0, 10.0]);
        let [low, high] = axis.ends([3.0, 3.0].into_iter());
        assert!(low < 3.0 && high > 3.0);
        let [low, high] = Axis::log("x").ends([0.0, -1.0, 2.0, 8.0].into_iter());
        assert!(low > 0.0 && low < 2.0 && high > 8.0);
        assert_eq!(axis.clone().range(1.0, 1.0).ends([2.0, 4.0].into_iter())[1], 4.08);
    }
}
