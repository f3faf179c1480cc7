//! The curves of the view.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Style},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, GraphType},
};

use super::{BLUE, Dashboard, GREEN, ORANGE, RED};
use sora::run::log::{StepLine, ValFigures};

/// Number of points of a curve: more than a terminal has columns of dots.
const POINTS: usize = 200;
/// Share of the values at either end that an axis may cut off: a first loss of thousands would
/// flatten the rest of the curve.
const OUTLIERS: f64 = 0.02;

/// Colour, marker and points of a curve.
type Curve<'a> = (Color, Marker, &'a [(f64, f64)]);

impl Dashboard<'_> {
    /// `value` over steps, averaged in at most as many bins as a chart can show. Values that are
    /// not finite are left out.
    fn curve(&self, value: impl Fn(&StepLine) -> f64) -> Vec<(f64, f64)> {
        let bin = self.steps.len().div_ceil(POINTS).max(1);
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (n, sum) = values
                .filter(|value| value.is_finite())
                .fold((0.0, 0.0), |(n, sum), value| (n + 1.0, sum + value));
            (n > 0.0).then(|| sum / n)
        };
        self.steps
            .chunks(bin)
            .filter_map(|bin| {
                let at = mean(&mut bin.iter().map(|line| line.step as f64))?;
                Some((at, mean(&mut bin.iter().map(&value))?))
            })
            .collect()
    }

    /// Training accuracy and the validations.
    pub(super) fn draw_accuracy(&self, frame: &mut Frame<'_>, area: Rect) {
        let validations = self.validations();
        let figure = |pick: fn(&ValFigures) -> f64| {
            validations.iter().map(|(step, val)| (*step, pick(val))).collect::<Vec<_>>()
        };
        let (clean, fgsm, pgd) =
            (figure(|v| v.clean.accuracy), figure(|v| v.fgsm.accuracy), figure(|v| v.pgd.accuracy));
        let train = self.curve(|line| f64::from(line.adv_acc));
        let most = [&train, &clean, &fgsm, &pgd]
            .iter()
            .flat_map(|c| c.iter().map(|p| p.1))
            .filter(|v| v.is_finite())
            .fold(0.1f64, f64::max);
        let top = ((most * 10.0).ceil() / 10.0).min(1.0);
        let names = [("train", BLUE), ("c clean", GREEN), ("f fgsm", ORANGE), ("p pgd", RED)];
        self.chart(
            frame,
            area,
            titled("accuracy:", &names),
            [0.0, top],
            &[
                (BLUE, Marker::Braille, &train),
                (GREEN, Marker::Custom('c'), &clean),
                (ORANGE, Marker::Custom('f'), &fgsm),
                (RED, Marker::Custom('p'), &pgd),
            ],
        );
    }

    /// PertAlign and linearity.
    pub(super) fn draw_alignment(&self, frame: &mut Frame<'_>, area: Rect) {
        let pert_align = self.curve(|line| f64::from(line.pert_align));
        let linearity = self.curve(|line| f64::from(line.linearity));
        let least = pert_align.iter().chain(&linearity).map(|p| p.1).fold(0.0f64, f64::min);
        self.chart(
            frame,
            area,
            titled("", &[("PertAlign", BLUE), ("- linearity", ORANGE)]),
            [if least < -0.1 { -1.0 } else { least.min(0.0) }, 1.0],
            &[(ORANGE, Marker::Custom('-'), &linearity), (BLUE, Marker::Braille, &pert_align)],
        );
    }

    /// Training loss.
    pub(super) fn draw_loss(&self, frame: &mut Frame<'_>, area: Rect) {
        let losses = self.curve(|line| f64::from(line.loss));
        let curve = [(BLUE, Marker::Braille, &losses[..])];
        self.chart(frame, area, titled("training loss", &[]), around(&losses), &curve);
    }

    /// Step size.
    pub(super) fn draw_step_size(&self, frame: &mut Frame<'_>, area: Rect) {
        let alphas = self.curve(|line| f64::from(line.alpha) * 255.0);
        let curve = [(BLUE, Marker::Braille, &alphas[..])];
        self.chart(frame, area, titled("step size alpha (1/255)", &[]), around(&alphas), &curve);
    }

    /// One chart over the steps so far.
    fn chart(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        title: Line<'static>,
        y: [f64; 2],
        curves: &[Curve<'_>],
    ) {
        let last = self.steps.last().map_or(0, |line| line.step).saturating_add(1) as f64;
        let datasets = curves.iter().filter(|(.., p)| !p.is_empty()).map(dataset).collect();
        let steps = ["0".to_owned(), format!("step {last:.0}")];
        let chart = Chart::new(datasets)
            .block(Block::bordered().title(title))
            .x_axis(Axis::default().bounds([0.0, last]).labels(steps))
            .y_axis(Axis::default().bounds(y).labels(y.map(label)))
            .legend_position(None);
        frame.render_widget(chart, area);
    }
}

fn dataset<'a>((colour, marker, points): &Curve<'a>) -> Dataset<'a> {
    let lines = *marker == Marker::Braille;
    Dataset::default()
        .marker(*marker)
        .style(Style::new().fg(*colour))
        .data(points)
        .graph_type(if lines { GraphType::Line } else { GraphType::Scatter })
}

/// A bound of an axis as a short text.
fn label(value: f64) -> String {
    match value.abs() {
        small if small < 0.05 => "0".into(),
        middle if middle < 100.0 => format!("{value:.1}"),
        large if large < 1e5 => format!("{value:.0}"),
        _ => format!("{value:.0e}"),
    }
}

/// A chart's title with the names of its curves in their colours.
fn titled(title: &'static str, curves: &[(&'static str, Color)]) -> Line<'static> {
    let names = curves
        .iter()
        .flat_map(|&(name, colour)| [Span::raw(" "), Span::styled(name, Style::new().fg(colour))]);
    Line::from_iter([Span::raw(title)].into_iter().chain(names))
}

/// Bounds somewhat beyond the values, without the few largest and smallest.
fn around(curve: &[(f64, f64)]) -> [f64; 2] {
    let mut values: Vec<f64> = curve.iter().map(|p| p.1).filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let cut = (values.len() as f64 * OUTLIERS).ceil() as usize;
    // A few values have no outliers.
    let cut = if values.len() < 10 { 0 } else { cut };
    let (low, high) =
        (values.get(cut), values.len().checked_sub(cut + 1).and_then(|i| values.get(i)));
    match (low, high) {
        (Some(&low), Some(&high)) => {
            // A flat curve gets some space too.
            let room = ((high - low) * 0.1).max(0.02 * high.abs()).max(0.05);
            [(low - room).max(0.0), high + room]
        }
        _ => [0.0, 1.0],
    }
}

#[cfg(test)]
mod tests {
    use super::around;

    #[test]
    fn a_few_extreme_values_do_not_flatten_the_rest() {
        let mut curve: Vec<_> = (0..100).map(|i| (f64::from(i), 2.0)).collect();
        curve[0].1 = 5000.0;
        let [low, high] = around(&curve);
        assert!(low > 1.8 && high < 2.2, "{low} {high}");
        assert_eq!(around(&[]), [0.0, 1.0]);
        assert_eq!(around(&[(0.0, f64::NAN)]), [0.0, 1.0]);
        let few = around(&[(0.0, 1.0), (1.0, 9.0)]);
        assert!(few[0] < 1.0 && few[1] > 9.0, "{few:?}");
    }
}
