//! Rules that tell catastrophic overfitting from the figures of a run, one beside the other, and how
//! often and how early each of them was right.

use std::collections::{BTreeMap, VecDeque};

use robustness::stats::exact95;
use serde::Serialize;

use super::{CoDetector, CoEvent, Judgement, ReferenceRule, Verdict};
use crate::run::log::{StepLine, ValFigures};

/// Steps of the reference rule's window.
pub const REFERENCE_WINDOW: usize = 100;
/// Steps over which the share of abnormal examples is averaged, as the detector's newest mean.
const NEWEST: usize = 5;
/// Shares of abnormal examples that a rule speaks at.
const SHARES: [f32; 5] = [0.1, 0.2, 0.3, 0.4, 0.5];

/// Follows the figures of a run by every rule.
#[derive(Clone, Debug)]
pub struct Rules {
    lr_max: f64,
    detector: CoDetector,
    /// The same without validations.
    free: CoDetector,
    reference: ReferenceRule,
    abnormal: VecDeque<f32>,
    shares: [Option<u64>; SHARES.len()],
}

/// The steps at which rules first spoke.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Alarms(pub BTreeMap<String, Option<u64>>);

/// Our detector, as it watches a run.
pub const DETECTOR: &str = "detector";
/// Our detector without the validations.
pub const FREE: &str = "detector, no validation";
/// The reference's rule.
pub const REFERENCE: &str = "reference rule";

impl Rules {
    /// Rules for a run with the largest learning rate `lr_max`.
    pub fn new(lr_max: f64) -> Self {
        Self {
            lr_max,
            detector: CoDetector::default(),
            free: CoDetector::default(),
            reference: ReferenceRule::new(REFERENCE_WINDOW),
            abnormal: VecDeque::new(),
            shares: [None; SHARES.len()],
        }
    }

    /// Takes in a step.
    pub fn observe(&mut self, line: &StepLine) {
        self.detector.observe(line, self.lr_max);
        self.free.observe(line, self.lr_max);
        // As the detector: without a perturbation there is nothing to tell.
        if line.delta_mean == 0.0 || !line.pert_align.is_finite() {
            return;
        }
        self.reference.observe(line.step, line.pert_align);
        let Some(share) = line.abnormal.filter(|share| share.is_finite()) else { return };
        if self.abnormal.len() == NEWEST {
            self.abnormal.pop_front();
        }
        self.abnormal.push_back(share);
        let mean = self.abnormal.iter().sum::<f32>() / NEWEST as f32;
        for (least, spoke) in SHARES.iter().zip(&mut self.shares) {
            if self.abnormal.len() == NEWEST && mean >= *least {
                spoke.get_or_insert(line.step);
            }
        }
    }

    /// Takes in a validation after `step`.
    pub fn observe_validation(&mut self, step: u64, val: &ValFigures) {
        self.detector.observe_validation(step, val);
    }

    /// What the detector found.
    pub fn event(&self) -> Option<CoEvent> {
        self.detector.event()
    }

    /// When each rule spoke. Rules on abnormal examples are left out where none were logged.
    pub fn alarms(&self) -> Alarms {
        let step = |detector: &CoDetector| detector.event().map(|event| event.step);
        let mut alarms = BTreeMap::from([
            (DETECTOR.to_owned(), step(&self.detector)),
            (FREE.to_owned(), step(&self.free)),
            (REFERENCE.to_owned(), self.reference.step()),
        ]);
        if !self.abnormal.is_empty() {
            let rules = SHARES.iter().zip(self.shares);
            alarms.extend(rules.map(|(share, step)| (format!("abnormal share {share:.1}"), step)));
        }
        Alarms(alarms)
    }
}

/// How a rule did over several runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleResult {
    /// The rule.
    pub rule: String,
    /// Runs that collapsed, as far as the rule could be asked.
    pub collapsed: usize,
    /// Healthy runs, likewise.
    pub healthy: usize,
    /// Collapses told no later than at the validation that the criterion dates them to.
    pub hits: usize,
    /// Collapses told later.
    pub late: usize,
    /// Collapses not told at all.
    pub missed: usize,
    /// Healthy runs in which it spoke.
    pub false_alarms: usize,
    /// Hits among hits and false alarms; `None` where it spoke of none.
    pub precision: Option<f64>,
    /// Its exact 95 % interval.
    pub precision_ci95: Option<[f64; 2]>,
    /// Hits among collapses; `None` where there were none.
    pub recall: Option<f64>,
    /// Its exact 95 % interval.
    pub recall_ci95: Option<[f64; 2]>,
    /// Over all collapses that were told: steps from the word to the first validation below half of
    /// the peak for good. Negative: it came after.
    pub lead: Option<FiveNumbers>,
    /// The same to the validation before, when accuracy was still above: a lower bound.
    pub lead_least: Option<FiveNumbers>,
}

/// A distribution in five numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FiveNumbers {
    /// Values.
    pub n: usize,
    /// Smallest.
    pub min: f64,
    /// Quartiles, between values where they fall there.
    pub quartiles: [f64; 3],
    /// Largest.
    pub max: f64,
}

impl FiveNumbers {
    /// Of `values`; `None` where there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let at = |share: f64| {
            let place = share * (values.len() - 1) as f64;
            let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Some(Self { n: values.len(), min, quartiles: [0.25, 0.5, 0.75].map(at), max })
    }
}

/// Judges every rule by `runs`; runs that neither collapsed nor are healthy are left out.
pub fn judge_rules(runs: &[(Judgement, &Alarms)]) -> Vec<RuleResult> {
    let mut names: Vec<&String> = runs.iter().flat_map(|(_, alarms)| alarms.0.keys()).collect();
    names.sort();
    names.dedup();
    names.sort_by_key(|name| !name.starts_with(DETECTOR));
    names.into_iter().map(|name| judge_rule(name, runs)).collect()
}

fn judge_rule(rule: &str, runs: &[(Judgement, &Alarms)]) -> RuleResult {
    let asked = || runs.iter().filter_map(|(run, alarms)| Some((run, *alarms.0.get(rule)?)));
    let of = |verdict| asked().filter(move |(run, _)| run.verdict == verdict);
    let collapses = || of(Verdict::Collapsed);
    let hits = collapses().filter(|(run, spoke)| *spoke <= run.step && spoke.is_some()).count();
    let missed = collapses().filter(|(_, spoke)| spoke.is_none()).count();
    let false_alarms = of(Verdict::Healthy).filter(|(_, spoke)| spoke.is_some()).count();
    let lead = |end: usize| {
        let steps =
            collapses().filter_map(|(run, spoke)| Some(run.halved?[end] as f64 - spoke? as f64));
        FiveNumbers::of(steps.collect())
    };
    let share = |part: usize, of: usize| (of > 0).then(|| part as f64 / of as f64);
    let interval = |part: usize, of: usize| (of > 0).then(|| exact95(part, of));
    let collapsed = collapses().count();
    RuleResult {
        rule: rule.to_owned(),
        collapsed,
        healthy: of(Verdict::Healthy).count(),
        hits,
        late: collapsed - hits - missed,
        missed,
        false_alarms,
        precision: share(hits, hits + false_alarms),
        precision_ci95: interval(hits, hits + false_alarms),
        recall: share(hits, collapsed),
        recall_ci95: interval(hits, collapsed),
        lead: lead(1),
        lead_least: lead(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(verdict: Verdict) -> Judgement {
        let collapsed = verdict == Verdict::Collapsed;
        Judgement {
            verdict,
            peak: 0.3,
            peak_step: 100,
            end: 0.0,
            step: collapsed.then_some(240),
            halved: collapsed.then_some([180, 200]),
        }
    }

    fn alarms(step: Option<u64>) -> Alarms {
        Alarms(BTreeMap::from([(DETECTOR.to_owned(), step)]))
    }

    #[test]
    fn rules_are_judged_by_hand() {
        let (early, late, late2, never) =
            (alarms(Some(150)), alarms(Some(220)), alarms(Some(300)), alarms(None));
        let collapsed = judged(Verdict::Collapsed);
        let runs = [
            (collapsed, &early),
            (collapsed, &late),
            (collapsed, &late2),
            (collapsed, &never),
            (judged(Verdict::Healthy), &never),
            (judged(Verdict::Healthy), &early),
            (judged(Verdict::Between), &early),
            (judged(Verdict::NeverRose), &early),
        ];
        let [found] = &judge_rules(&runs)[..] else { unreachable!() };
        assert_eq!((found.collapsed, found.healthy), (4, 2));
        assert_eq!((found.hits, found.late, found.missed, found.false_alarms), (2, 1, 1, 1));
        assert_eq!((found.precision, found.recall), (Some(2.0 / 3.0), Some(0.5)));
        assert_eq!(found.precision_ci95, Some(exact95(2, 3)));
        assert_eq!(found.recall_ci95, Some(exact95(2, 4)));
        let lead = found.lead.unwrap();
        assert_eq!(
            (lead.n, lead.min, lead.quartiles, lead.max),
            (3, -100.0, [-60.0, -20.0, 15.0], 50.0)
        );
        assert_eq!(found.lead_least.unwrap().max, 30.0);
    }

    #[test]
    fn the_rules_speak_of_a_fall_and_of_abnormal_examples() {
        let mut rules = Rules::new(0.2);
        for step in 0..400u64 {
            let fallen = step >= 200;
            rules.observe(&StepLine {
                step,
                pert_align: if fallen { 0.05 } else { 0.8 },
                linearity: 0.9,
                delta_mean: 0.03,
                lr: 0.1,
                abnormal: Some(if fallen { 0.35 } else { 0.05 }),
                ..StepLine::default()
            });
        }
        let found = rules.alarms().0;
        assert!(found[DETECTOR].is_some_and(|step| (200..206).contains(&step)), "{found:?}");
        assert_eq!(found[DETECTOR], found[FREE]);
        assert!(found[REFERENCE].is_some_and(|step| (210..=225).contains(&step)), "{found:?}");
        assert_eq!(found["abnormal share 0.1"], Some(200));
        assert_eq!((found["abnormal share 0.3"], found["abnormal share 0.4"]), (Some(204), None));
        assert_eq!(Rules::new(0.2).alarms().0.len(), 3);
    }
}
