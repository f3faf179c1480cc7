//! The live view of a run: what `sora watch` draws.

use std::time::Duration;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph},
};

use sora::{
    config::TrainConfig,
    metrics::{EpochLine, StepLine, ValFigures},
};

/// Points of a curve: more than a terminal has columns of dots.
const POINTS: usize = 200;
/// Steps over which gauges and throughput are averaged.
const RECENT: usize = 20;

/// Okabe and Ito's colours, which also colour-blind readers tell apart.
const BLUE: Color = Color::Rgb(0, 114, 178);
const ORANGE: Color = Color::Rgb(230, 159, 0);
const GREEN: Color = Color::Rgb(0, 158, 115);
const RED: Color = Color::Rgb(213, 94, 0);

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// No line was written yet.
    Starting,
    /// Lines are being written.
    Running,
    /// Nothing was written for so long.
    Silent(Duration),
    /// It ended.
    Done,
}

/// What the view shows.
#[derive(Clone, Copy, Debug)]
pub struct Dashboard<'a> {
    /// Settings of the run.
    pub config: &'a TrainConfig,
    /// Lines of metrics.jsonl.
    pub steps: &'a [StepLine],
    /// Lines of epochs.jsonl.
    pub epochs: &'a [EpochLine],
    /// Whether the run goes on.
    pub state: RunState,
    /// Lines that could not be understood.
    pub damaged: u64,
}

impl Dashboard<'_> {
    /// Steps of the whole run; `None` before they are known.
    fn total(&self) -> Option<u64> {
        let from_epochs = || self.epochs.last().map(|line| line.step / (line.epoch + 1));
        self.config.steps_per_epoch.or_else(from_epochs).map(|steps| steps * self.config.epochs)
    }

    fn recent(&self, value: impl Fn(&StepLine) -> f32) -> Option<f64> {
        let recent = &self.steps[self.steps.len().saturating_sub(RECENT)..];
        (!recent.is_empty()).then(|| {
            recent.iter().map(|line| f64::from(value(line))).sum::<f64>() / recent.len() as f64
        })
    }

    /// Seconds of training and validation that are left, from the newest steps and the validations
    /// so far.
    fn seconds_left(&self) -> Option<f64> {
        let (last, total) = (self.steps.last()?, self.total()?);
        let speed = self.recent(|line| line.images_per_s).filter(|&speed| speed > 0.0)?;
        let steps = total.saturating_sub(last.step + 1) as f64 * self.config.batch as f64 / speed;
        let validated: f64 = self.epochs.iter().map(|line| line.val_seconds).sum();
        let epochs = self.config.epochs.saturating_sub(self.epochs.len() as u64) as f64;
        Some(steps + epochs * validated / self.epochs.len().max(1) as f64)
    }

    /// Validations by the number of steps before them: those within epochs, else those after
    /// epochs.
    fn validations(&self) -> Vec<(f64, ValFigures)> {
        let within: Vec<_> = self
            .steps
            .iter()
            .filter_map(|line| Some(((line.step + 1) as f64, line.val?)))
            .collect();
        if within.is_empty() {
            self.epochs.iter().filter_map(|line| Some((line.step as f64, line.val?))).collect()
        } else {
            within
        }
    }

    /// `value` over steps, averaged in as many bins as a chart can show.
    fn curve(&self, value: impl Fn(&StepLine) -> f64) -> Vec<(f64, f64)> {
        let bin = self.steps.len().div_ceil(POINTS).max(1);
        self.steps
            .chunks(bin)
            .map(|bin| {
                let n = bin.len() as f64;
                let mean = |value: &dyn Fn(&StepLine) -> f64| {
                    bin.iter().map(value).filter(|v| v.is_finite()).sum::<f64>() / n
                };
                (mean(&|line| line.step as f64), mean(&value))
            })
            .collect()
    }

    /// Draws into a terminal of at least 80x24.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let [title, progress, accuracy, loss, gauge, numbers, events] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(5),
            Constraint::Fill(4),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(2),
        ])
        .areas(area);
        let [accuracy, align] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(accuracy);
        let [loss, alpha] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(loss);

        frame.render_widget(Paragraph::new(self.title()), title);
        self.draw_progress(frame, progress);

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
            .fold(0.1f64, f64::max);
        let top = ((most * 10.0).ceil() / 10.0).min(1.0);
        self.chart(
            frame,
            accuracy,
            titled(
                "accuracy:",
                &[("train", BLUE), ("c clean", GREEN), ("f fgsm", ORANGE), ("p pgd", RED)],
            ),
            [0.0, top],
            &[
                (BLUE, Marker::Braille, &train),
                (GREEN, Marker::Custom('c'), &clean),
                (ORANGE, Marker::Custom('f'), &fgsm),
                (RED, Marker::Custom('p'), &pgd),
            ],
        );
        let pert_align = self.curve(|line| f64::from(line.pert_align));
        let linearity = self.curve(|line| f64::from(line.linearity));
        let least = pert_align.iter().chain(&linearity).map(|p| p.1).fold(0.0f64, f64::min);
        self.chart(
            frame,
            align,
            titled("", &[("PertAlign", BLUE), ("- linearity", ORANGE)]),
            [if least < -0.1 { -1.0 } else { least.min(0.0) }, 1.0],
            &[(ORANGE, Marker::Custom('-'), &linearity), (BLUE, Marker::Braille, &pert_align)],
        );
        let losses = self.curve(|line| f64::from(line.loss));
        self.chart(
            frame,
            loss,
            titled("training loss", &[]),
            around(&losses),
            &[(BLUE, Marker::Braille, &losses)],
        );
        let alphas = self.curve(|line| f64::from(line.alpha) * 255.0);
        self.chart(
            frame,
            alpha,
            titled("step size alpha (1/255)", &[]),
            around(&alphas),
            &[(BLUE, Marker::Braille, &alphas)],
        );

        self.draw_gauge(frame, gauge);
        frame.render_widget(Paragraph::new(self.numbers()), numbers);
        frame.render_widget(Paragraph::new(self.events()), events);
    }

    fn title(&self) -> Line<'static> {
        let c = self.config;
        let method = match self.steps.last().and_then(|line| line.method.as_deref()) {
            Some(now) => format!("{} then {now}", c.method),
            None => c.method.clone(),
        };
        let set = c.dataset.rsplit(['/', '\\']).next().unwrap_or_default();
        let rest = format!(
            " on {set} | {} width {} | {} {} | seed {}",
            c.model, c.width, c.norm, c.epsilon, c.seed
        );
        Line::from(vec![
            Span::styled(method, Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(rest),
        ])
    }

    fn draw_progress(&self, frame: &mut Frame<'_>, area: Rect) {
        let done = self.steps.last().map_or(0, |line| line.step + 1);
        let total = self.total();
        let ratio = total.map_or(0.0, |total| done as f64 / total.max(1) as f64).clamp(0.0, 1.0);
        let epoch = self.steps.last().map_or(0, |line| line.epoch) + 1;
        let steps = total.map_or_else(|| "?".into(), |total| total.to_string());
        let state = match self.state {
            RunState::Starting => "no step yet".into(),
            RunState::Running => self
                .seconds_left()
                .map_or_else(|| "running".into(), |left| format!("{} left", duration(left))),
            RunState::Silent(since) => {
                format!("no line for {}: stopped?", duration(since.as_secs_f64()))
            }
            RunState::Done => "done".into(),
        };
        let label = format!("epoch {epoch}/{} step {done}/{steps} {state}", self.config.epochs);
        frame.render_widget(
            Gauge::default()
                .gauge_style(Style::new().fg(BLUE).bg(Color::Black))
                .ratio(ratio)
                .label(label),
            area,
        );
    }

    fn draw_gauge(&self, frame: &mut Frame<'_>, area: Rect) {
        let value = self.recent(|line| line.pert_align).filter(|v| v.is_finite());
        let found = self.steps.iter().rev().any(|line| line.co.is_some())
            || self.epochs.last().is_some_and(|line| line.co.is_some());
        let (colour, word) = match value {
            None => (Color::Gray, ""),
            Some(_) if found => (RED, " CATASTROPHIC OVERFITTING"),
            Some(_) => (GREEN, ""),
        };
        let label = value.map_or_else(
            || "PertAlign -".into(),
            |value| format!("PertAlign {value:.2} (last {RECENT} steps){word}"),
        );
        let gauge = Gauge::default().gauge_style(Style::new().fg(colour).bg(Color::Black));
        frame.render_widget(gauge.ratio(value.unwrap_or(0.0).clamp(0.0, 1.0)).label(label), area);
    }

    fn numbers(&self) -> Line<'static> {
        let Some(last) = self.steps.last() else {
            return Line::raw("waiting for the first step");
        };
        let speed = self.recent(|line| line.images_per_s).unwrap_or_default();
        let memory = self
            .epochs
            .last()
            .map_or_else(String::new, |line| format!(" | {} MiB", line.peak_rss_mib));
        Line::raw(format!(
            "alpha {:.1}/255 | loss {:.3} | adv acc {:.2} | lr {:.4} | {speed:.0} images/s{memory}",
            last.alpha * 255.0,
            last.loss,
            last.adv_acc,
            last.lr
        ))
    }

    /// Two lines: what happened, and the newest validation.
    fn events(&self) -> Vec<Line<'static>> {
        let co = self
            .steps
            .iter()
            .find_map(|line| line.co)
            .or_else(|| self.epochs.last().and_then(|line| line.co));
        let rollback = self.steps.iter().find_map(|line| line.rollback.as_ref());
        let red = Style::new().fg(RED).add_modifier(Modifier::BOLD);
        let event = match (co, rollback) {
            (Some(co), _) => Line::styled(
                format!(
                    "CO at step {} (well until {}, sure to {:.1} %)",
                    co.step,
                    co.onset,
                    100.0 * co.sure
                ),
                red,
            ),
            (None, Some(back)) => {
                let text = format!(
                    "CO at step {}: rolled back to step {}, {} since",
                    back.co.step, back.to_step, back.method
                );
                Line::styled(text, Style::new().fg(ORANGE))
            }
            (None, None) if self.damaged > 0 => {
                Line::raw(format!("{} damaged log lines passed over", self.damaged))
            }
            (None, None) => Line::raw("no catastrophic overfitting found"),
        };
        let text = self.validations().last().map_or_else(
            || "not validated yet".into(),
            |(step, val)| {
                format!(
                    "validation at step {step}: clean {:.3} fgsm {:.3} pgd-10 {:.3} (n {})",
                    val.clean.accuracy, val.fgsm.accuracy, val.pgd.accuracy, val.n
                )
            },
        );
        let width = 80usize.saturating_sub(text.chars().count()).max(9);
        vec![event, Line::raw(format!("{text}{:>width$}", "q quits"))]
    }

    fn chart(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        title: Line<'static>,
        y: [f64; 2],
        curves: &[Curve<'_>],
    ) {
        let most =
            self.total().or(self.steps.last().map(|line| line.step + 1)).unwrap_or(1).max(1) as f64;
        let datasets = curves
            .iter()
            .filter(|(.., points)| !points.is_empty())
            .map(|(colour, marker, points)| {
                let kind =
                    if *marker == Marker::Braille { GraphType::Line } else { GraphType::Scatter };
                Dataset::default()
                    .marker(*marker)
                    .style(Style::new().fg(*colour))
                    .data(points)
                    .graph_type(kind)
            })
            .collect();
        let label = |v: f64| {
            if v.abs() >= 10.0 || v.abs() < 0.05 {
                format!("{:.0}", v.abs())
            } else {
                format!("{v:.1}")
            }
        };
        let chart = Chart::new(datasets)
            .block(Block::bordered().title(title))
            .x_axis(
                Axis::default()
                    .bounds([0.0, most])
                    .labels(["0".to_owned(), format!("step {most:.0}")]),
            )
            .y_axis(Axis::default().bounds(y).labels([label(y[0]), label(y[1])]))
            .legend_position(None);
        frame.render_widget(chart, area);
    }
}

/// Colour, marker and points of a curve.
type Curve<'a> = (Color, Marker, &'a [(f64, f64)]);

/// A chart's title with the names of its curves in their colours.
fn titled(title: &'static str, curves: &[(&'static str, Color)]) -> Line<'static> {
    let names = curves
        .iter()
        .flat_map(|&(name, colour)| [Span::raw(" "), Span::styled(name, Style::new().fg(colour))]);
    Line::from_iter([Span::raw(title)].into_iter().chain(names))
}

/// Bounds a little beyond the values.
fn around(curve: &[(f64, f64)]) -> [f64; 2] {
    let (low, high) = curve
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &(_, v)| (low.min(v), high.max(v)));
    if low.is_finite() && high.is_finite() {
        let room = ((high - low) * 0.05).max(0.05);
        [(low - room).max(0.0), high + room]
    } else {
        [0.0, 1.0]
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

/// The characters of a drawn screen, a line a row.
pub fn plain_text(buffer: &Buffer) -> String {
    let rows = buffer.content().chunks(usize::from(buffer.area().width).max(1));
    rows.map(|row| {
        row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n"
    })
    .collect()
}
