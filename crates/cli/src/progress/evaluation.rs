//! One progress bar for all attacks of an evaluation.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use sora::robustness::{EvalEvent, EvalObserver};

use super::plan::{Plan, Planned};
use crate::console::Bar;

/// Number of steps of the bar.
const STEPS: u64 = 1000;

/// A bar for a whole plan. Clones share it, so that several evaluators can use it in turn.
#[derive(Clone, Debug)]
pub struct EvaluationBar(Arc<Mutex<State>>);

impl EvaluationBar {
    /// A bar for `plan`, of which nothing is done.
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new(State {
            plan: plan.0,
            begun: 0,
            total: 0.0,
            first: None,
            clean: 1.0,
            standing: 1.0,
            done: 0.0,
            worked: 0.0,
            started: Instant::now(),
            bar: None,
        })))
    }
}

impl EvalObserver for EvaluationBar {
    fn on(&mut self, event: &EvalEvent<'_>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *event {
            EvalEvent::Started { what, total } => state.begin(what, total as f64),
            EvalEvent::Advanced { done, attack, .. } => {
                if let Some(at) = attack {
                    state.standing = at.standing as f64 / at.images.max(1) as f64;
                }
                let note = attack.map_or_else(String::new, |at| {
                    format!(
                        "accuracy at most {:.1} %",
                        100.0 * at.standing as f64 / at.images.max(1) as f64
                    )
                });
                state.advance(done as f64, &note);
            }
            EvalEvent::Finished { .. } => state.end(),
            EvalEvent::StateLost { error } => {
                tracing::warn!("{error}; the evaluation goes on, but cannot be resumed");
            }
            _ => {}
        }
    }
}

/// The state of a plan. Work is measured in the seconds that were planned for it.
#[derive(Debug)]
struct State {
    plan: Vec<Planned>,
    /// Number of attacks that were begun.
    begun: usize,
    /// Units of the current attack.
    total: f64,
    /// Units of the current attack that were known when it began.
    first: Option<f64>,
    /// Share of the images that are correct without attack, and share that still stands.
    clean: f64,
    standing: f64,
    /// Finished work, and the part of it that this process did.
    done: f64,
    worked: f64,
    started: Instant,
    bar: Option<Bar>,
}

impl State {
    fn begin(&mut self, what: &str, total: f64) {
        self.begun += 1;
        let known = self.plan.get(self.begun - 1).is_some_and(|planned| planned.name == what);
        if !known {
            // Unplanned work, such as the step sizes of a sweep, counts with the units that it
            // reports.
            let first = true;
            let planned = Planned { name: what.to_owned(), first, units: total, seconds: 0.0 };
            self.plan.insert(self.begun - 1, planned);
        }
        (self.total, self.first) = (total, None);
        if let Some(planned) = self.plan.get(self.begun - 1).filter(|planned| planned.first) {
            self.clean = total / planned.units.max(1.0);
            self.standing = self.clean;
        }
        let label = format!("{what} ({} of {})", self.begun, self.plan.len());
        let bar = self.bar.get_or_insert_with(|| Bar::new(&label, 0, STEPS));
        bar.relabel(&label);
    }

    /// The work of the current attack, in proportion to its images.
    fn current(&self) -> f64 {
        let planned = self.begun.checked_sub(1).and_then(|at| self.plan.get(at));
        planned.map_or(0.0, |planned| planned.seconds * self.total / planned.units.max(1.0))
    }

    /// The work after the current attack.
    fn after(&self) -> f64 {
        let share = |planned: &Planned| if planned.first { self.clean } else { self.standing };
        self.plan.iter().skip(self.begun).map(|planned| planned.seconds * share(planned)).sum()
    }

    fn advance(&mut self, units: f64, note: &str) {
        let first = *self.first.get_or_insert(units);
        let of = |units: f64| self.current() * (units / self.total.max(1.0)).clamp(0.0, 1.0);
        let (done, worked) = (self.done + of(units), self.worked + of(units) - of(first));
        let left = self.current() - of(units) + self.after();
        let all = done + left;
        let elapsed = self.started.elapsed().as_secs_f64();
        let seconds = (worked > 0.0).then(|| left * elapsed / worked);
        let share = if all > 0.0 { done / all } else { 0.0 };
        if let Some(bar) = &mut self.bar {
            bar.tell((share * STEPS as f64) as u64, seconds, || note.to_owned());
        }
    }

    fn end(&mut self) {
        let current = self.current();
        self.done += current;
        self.worked += current * (1.0 - self.first.unwrap_or(0.0) / self.total.max(1.0)).max(0.0);
        if self.begun >= self.plan.len() {
            self.bar = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, first: bool) -> Planned {
        Planned { name: name.into(), first, units: 100.0, seconds: 10.0 }
    }

    #[test]
    fn work_shrinks_with_the_images_that_fall_and_strangers_find_a_place() {
        let plan = Plan(vec![planned("a", true), planned("b", false), planned("c", true)]);
        let bar = EvaluationBar::new(plan);
        let mut state = bar.0.lock().unwrap();
        state.begin("a", 80.0);
        assert_eq!(state.current(), 8.0, "80 of 100 images are correct clean");
        assert_eq!(state.after(), 8.0 + 8.0);
        state.standing = 0.2;
        state.advance(40.0, "");
        assert_eq!(state.after(), 2.0 + 8.0, "b has what stands, c begins anew");
        state.end();
        assert_eq!(state.done, 8.0);
        state.begin("b", 20.0);
        state.end();
        assert_eq!(state.done, 10.0);
        state.begin("stranger", 5.0);
        assert_eq!((state.begun, state.plan.len()), (3, 4));
        state.end();
        state.begin("c", 80.0);
        assert_eq!(state.after(), 0.0);
        state.end();
        assert!(state.bar.is_none(), "all is done");
    }
}
