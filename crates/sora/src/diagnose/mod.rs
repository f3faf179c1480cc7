//! Diagnostics of training: detection of catastrophic overfitting while it happens.

mod co;
mod collapse;
mod criterion;
mod reference_rule;
mod rules;

pub use co::{CoDetector, CoEvent, CoSign, WINDOW};
pub use collapse::{Collapse, collapse};
pub use criterion::{Judgement, Verdict};
pub use reference_rule::ReferenceRule;
pub use rules::{
    Alarms, DETECTOR, FREE, FiveNumbers, REFERENCE, REFERENCE_WINDOW, RuleResult, Rules,
    judge_rules,
};
