//! The library's observers as bars.

use sora::robustness::{Event, Observer};

use crate::console::Bar;

/// A bar for each attack of an evaluation.
#[derive(Debug, Default)]
pub struct EvaluationBar(Option<Bar>);

impl Observer for EvaluationBar {
    fn on(&mut self, event: &Event<'_>) {
        match *event {
            Event::Started { what, total } => self.0 = Some(Bar::new(what, 0, total)),
            Event::Advanced { done, attack, .. } => {
                let Some(bar) = &mut self.0 else { return };
                bar.set(done, || {
                    attack.map_or_else(String::new, |at| {
                        format!(
                            "round {}/{}, accuracy at most {:.1} %",
                            at.round + 1,
                            at.rounds,
                            100.0 * at.standing as f64 / at.images.max(1) as f64
                        )
                    })
                });
            }
            _ => self.0 = None,
        }
    }
}
