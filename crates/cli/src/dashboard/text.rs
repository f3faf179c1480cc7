//! The texts of the view.

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{Dashboard, ORANGE, RECENT, RED, RunState};
use crate::console::{duration, visible};

impl Dashboard<'_> {
    /// Method, data set, network, threat and seed.
    pub(super) fn title(&self) -> Line<'static> {
        let c = &self.config.settings;
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
            Span::styled(visible(&method), Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(visible(&rest)),
        ])
    }

    /// `epoch 3/30 step 1200/11700 1 h 05 min left`.
    pub(super) fn progress(&self) -> String {
        let done = self.steps.last().map_or(0, |line| line.step.saturating_add(1));
        let epoch = self.steps.last().map_or(0, |line| line.epoch).saturating_add(1);
        let steps = self.total().map_or_else(|| "?".into(), |total| total.to_string());
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
        format!("epoch {epoch}/{} step {done}/{steps} {state}", self.config.settings.epochs)
    }

    /// PertAlign of the newest steps.
    pub(super) fn alignment(&self) -> String {
        let word = if self.has_overfitted() { " CATASTROPHIC OVERFITTING" } else { "" };
        self.recent(|line| line.pert_align).filter(|value| value.is_finite()).map_or_else(
            || "PertAlign -".into(),
            |value| format!("PertAlign {value:.2} (last {RECENT} steps){word}"),
        )
    }

    /// The figures of the newest step.
    pub(super) fn numbers(&self) -> Line<'static> {
        let Some(last) = self.steps.last() else {
            return Line::raw("waiting for the first step");
        };
        let speed = self.speed().unwrap_or_default();
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

    /// Two lines: the last event, and the newest validation.
    pub(super) fn events(&self) -> Vec<Line<'static>> {
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
        vec![self.overfitting(), Line::raw(format!("{text}{:>width$}", "q quits"))]
    }

    fn overfitting(&self) -> Line<'static> {
        let found = self.steps.iter().find_map(|line| line.co);
        let co = found.or_else(|| self.epochs.last().and_then(|line| line.co));
        let rollback = self.steps.iter().find_map(|line| line.rollback.as_ref());
        let alarm = Style::new().fg(RED).add_modifier(Modifier::BOLD);
        match (co, rollback) {
            (Some(again), Some(back)) => Line::styled(
                format!(
                    "CO again at step {} (sure to {:.1} %); at {}: back to step {}, {} since",
                    again.step,
                    100.0 * again.sure,
                    back.co.step,
                    back.to_step,
                    visible(&back.method)
                ),
                alarm,
            ),
            (Some(co), None) => Line::styled(
                format!(
                    "CO at step {} (well until {}, sure to {:.1} %)",
                    co.step,
                    co.onset,
                    100.0 * co.sure
                ),
                alarm,
            ),
            (None, Some(back)) => Line::styled(
                format!(
                    "CO at step {}: rolled back to step {}, {} since",
                    back.co.step,
                    back.to_step,
                    visible(&back.method)
                ),
                Style::new().fg(ORANGE),
            ),
            (None, None) if self.damaged > 0 => {
                Line::raw(format!("{} damaged log lines passed over", self.damaged))
            }
            (None, None) => Line::raw("no catastrophic overfitting found"),
        }
    }
}
