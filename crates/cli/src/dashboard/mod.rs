//! The live view of a run: what `sora watch` draws.

mod charts;
mod text;

use std::time::Duration;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style},
    widgets::{Gauge, Paragraph},
};

use sora::run::{
    RunConfig,
    log::{EpochLine, StepLine, ValFigures},
};

/// Number of steps over which gauges and throughput are averaged.
const RECENT: usize = 20;

/// Okabe and Ito's colours, which colour-blind readers can tell apart.
const BLUE: Color = Color::Rgb(0, 114, 178);
const ORANGE: Color = Color::Rgb(230, 159, 0);
const GREEN: Color = Color::Rgb(0, 158, 115);
const RED: Color = Color::Rgb(213, 94, 0);

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// No line has been written yet.
    Starting,
    /// Lines are being written.
    Running,
    /// No line has been written for this long.
    Silent(Duration),
    /// The run has ended.
    Done,
}

/// The data of the view.
#[derive(Clone, Copy, Debug)]
pub struct Dashboard<'a> {
    /// Settings of the run.
    pub config: &'a RunConfig,
    /// Lines of metrics.jsonl.
    pub steps: &'a [StepLine],
    /// Lines of epochs.jsonl.
    pub epochs: &'a [EpochLine],
    /// State of the run.
    pub state: RunState,
    /// Number of lines that could not be parsed.
    pub damaged: u64,
}

impl Dashboard<'_> {
    /// Number of steps of the whole run; `None` before it is known.
    fn total(&self) -> Option<u64> {
        let from_epochs =
            || self.epochs.last().map(|line| line.step / line.epoch.saturating_add(1));
        let known = Some(self.config.steps_per_epoch).filter(|steps| *steps > 0);
        let steps = known.or_else(from_epochs)?;
        Some(steps.saturating_mul(self.config.settings.epochs))
    }

    /// The newest steps.
    fn newest(&self) -> &[StepLine] {
        &self.steps[self.steps.len().saturating_sub(RECENT)..]
    }

    /// Images per second of the newest steps: their images over their time, in which a slow step
    /// weighs more than a fast one.
    fn speed(&self) -> Option<f64> {
        let rates = self.newest().iter().map(|line| f64::from(line.images_per_s));
        let known: Vec<f64> = rates.filter(|rate| rate.is_finite() && *rate > 0.0).collect();
        let seconds_of_an_image: f64 = known.iter().map(|rate| rate.recip()).sum();
        (!known.is_empty()).then(|| known.len() as f64 / seconds_of_an_image)
    }

    fn recent(&self, value: impl Fn(&StepLine) -> f32) -> Option<f64> {
        let recent = self.newest();
        (!recent.is_empty()).then(|| {
            recent.iter().map(|line| f64::from(value(line))).sum::<f64>() / recent.len() as f64
        })
    }

    /// Seconds of training and validation that are left, estimated from the newest steps and the
    /// validations so far.
    fn seconds_left(&self) -> Option<f64> {
        let (last, total) = (self.steps.last()?, self.total()?);
        let speed = self.speed()?;
        let steps = total.saturating_sub(last.step.saturating_add(1)) as f64
            * self.config.settings.batch as f64
            / speed;
        let validated: f64 = self.epochs.iter().map(|line| line.val_seconds).sum();
        let epochs = self.config.settings.epochs.saturating_sub(self.epochs.len() as u64) as f64;
        Some(steps + epochs * validated / self.epochs.len().max(1) as f64)
    }

    /// Validations, each with the number of steps before it: those within epochs, or else those
    /// after epochs.
    fn validations(&self) -> Vec<(f64, ValFigures)> {
        let within: Vec<_> = self
            .steps
            .iter()
            .filter_map(|line| Some((line.step as f64 + 1.0, line.val?)))
            .collect();
        if within.is_empty() {
            self.epochs.iter().filter_map(|line| Some((line.step as f64, line.val?))).collect()
        } else {
            within
        }
    }

    fn has_overfitted(&self) -> bool {
        self.steps.iter().any(|line| line.co.is_some())
            || self.epochs.last().is_some_and(|line| line.co.is_some())
    }

    /// Draws the view into a terminal of at least 80x24 characters.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let [title, progress, upper, lower, gauge, numbers, events] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(5),
            Constraint::Fill(4),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(2),
        ])
        .areas(frame.area());
        let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]);
        let [accuracy, alignment] = halves.areas(upper);
        let [loss, step_size] = halves.areas(lower);
        frame.render_widget(Paragraph::new(self.title()), title);
        self.draw_progress(frame, progress);
        self.draw_accuracy(frame, accuracy);
        self.draw_alignment(frame, alignment);
        self.draw_loss(frame, loss);
        self.draw_step_size(frame, step_size);
        self.draw_gauge(frame, gauge);
        frame.render_widget(Paragraph::new(self.numbers()), numbers);
        frame.render_widget(Paragraph::new(self.events()), events);
    }

    fn draw_progress(&self, frame: &mut Frame<'_>, area: Rect) {
        let done = self.steps.last().map_or(0.0, |line| line.step as f64 + 1.0);
        let ratio = self.total().map_or(0.0, |total| done / total.max(1) as f64);
        let gauge = Gauge::default().gauge_style(Style::new().fg(BLUE).bg(Color::Black));
        frame.render_widget(gauge.ratio(share(ratio)).label(self.progress()), area);
    }

    fn draw_gauge(&self, frame: &mut Frame<'_>, area: Rect) {
        let value = self.recent(|line| line.pert_align).filter(|v| v.is_finite());
        let colour = match value {
            None => Color::Gray,
            Some(_) if self.has_overfitted() => RED,
            Some(_) => GREEN,
        };
        let gauge = Gauge::default().gauge_style(Style::new().fg(colour).bg(Color::Black));
        let gauge = gauge.ratio(share(value.unwrap_or(0.0))).label(self.alignment());
        frame.render_widget(gauge, area);
    }
}

/// A ratio clamped to the range of a gauge.
fn share(ratio: f64) -> f64 {
    if ratio.is_finite() { ratio.clamp(0.0, 1.0) } else { 0.0 }
}

/// The characters of a drawn screen, one line per row.
pub fn plain_text(buffer: &Buffer) -> String {
    let rows = buffer.content().chunks(usize::from(buffer.area().width).max(1));
    rows.map(|row| {
        row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n"
    })
    .collect()
}
