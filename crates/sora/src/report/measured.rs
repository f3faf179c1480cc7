//! Selects the evaluation that is a run's result. A point, or a card, shows the figures of one
//! record or of one validation, never of two.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    caption::thousands,
    record::{Of, Record},
    run::Run,
    strength::strength,
};
use crate::{run::log::ValFigures, stats::Accuracy};

/// Accuracies that were measured together.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Accuracies by attack; `clean` is one of the attacks.
    pub results: BTreeMap<String, Accuracy>,
    /// Number of images.
    pub n: u64,
    /// The images and weights of the measurement.
    pub source: MeasuredOn,
    /// Place of its record among those of the run that have it, the best last.
    pub(super) place: usize,
}

/// The images and weights of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasuredOn {
    /// The run's own test split.
    Test(Of),
    /// The images held out of training, after this many steps.
    Validation(u64),
}

impl MeasuredOn {
    /// Description of the images.
    pub fn images(self) -> &'static str {
        match self {
            Self::Test(_) => "test images",
            Self::Validation(_) => "validation images",
        }
    }

    /// Description of the weights.
    pub fn weights(self) -> String {
        match self {
            Self::Test(of) => of.words(),
            Self::Validation(step) => Of::Step(step).words(),
        }
    }
}

impl Measured {
    /// The accuracy under an attack.
    pub fn under(&self, attack: &str) -> Option<Accuracy> {
        self.results.get(attack).copied()
    }

    /// The strongest attack but those of `apart`: the one that leaves the fewest images right. The
    /// names of attacks decide among equals alone.
    pub fn strongest(&self, apart: &[&str]) -> Option<(&str, Accuracy)> {
        let all = self.results.iter().filter(|(name, _)| !apart.contains(&name.as_str()));
        let found = all.min_by(|(a, under_a), (b, under_b)| {
            let fewest = under_a.accuracy.total_cmp(&under_b.accuracy);
            fewest.then_with(|| strength(b).cmp(&strength(a)))
        });
        found.map(|(name, accuracy)| (name.as_str(), *accuracy))
    }

    /// Description of the measurement, for captions: `n = 1,000 test images, final weights`.
    pub fn words(&self) -> String {
        let Self { n, source, .. } = self;
        format!("n = {} {}, {}", thousands(*n), source.images(), source.weights())
    }

    fn of_record(record: &Record) -> Self {
        let source = MeasuredOn::Test(record.of);
        Self { results: record.results.clone(), n: record.n, source, place: 0 }
    }

    fn of_validation(step: u64, val: &ValFigures) -> Self {
        let results = [("clean", val.clean), ("fgsm", val.fgsm), ("pgd-10", val.pgd)];
        let results = results.map(|(name, accuracy)| (name.to_owned(), accuracy)).into();
        Self { results, n: val.n, source: MeasuredOn::Validation(step), place: 0 }
    }
}

impl Run {
    /// Whether a record is of the run's own test split, as it was when the run began, under the
    /// threat that it was trained for, and of nothing special such as attacks towards a class.
    pub fn is_own_test(&self, record: &Record) -> bool {
        self.is_own_dataset(&record.dataset)
            && matches!(record.split.as_str(), "test" | "")
            && self.has_images(record)
            && self.epsilon().is_none_or(|own| own as f32 == record.epsilon as f32)
            && record.norm == self.norm()
            && record.options.is_empty()
    }

    /// Whether the images of a record are those of the run's test split when it began, as far as
    /// run and record say what they are.
    pub fn has_images(&self, record: &Record) -> bool {
        let Some(own) = self.test_identity() else { return true };
        let same = |digest: &String| digest.is_empty() || *digest == own.sha256;
        let whole = record.n != own.images as u64 || same(&record.images.sha256);
        let classes = record.images.sha256.is_empty() || record.images.classes == own.classes;
        record.n <= own.images as u64 && whole && classes && same(&record.images.split_sha256)
    }

    /// How well the weights of a record represent the run; `None` where they do not. For a finished
    /// run the final weights come first, then weights that an older version's record does not name,
    /// then those of the best validation; for an unfinished run the newest weights come first.
    fn standing(&self, record: &Record) -> Option<u64> {
        match (record.of, self.finished) {
            (Of::Final, _) => Some(u64::MAX),
            (Of::Step(_), true) | (Of::Other, _) => None,
            (Of::Step(step), false) => Some(2 + step),
            (Of::Unsaid, _) => Some(1),
            (Of::Best, _) => Some(0),
        }
    }

    /// Records that may represent the run, the best last. They are ordered by their weights, their
    /// strongest attack by name, and their number of images.
    fn own_records(&self) -> Vec<&Record> {
        let rank = |record: &&Record| (self.standing(record), record.rank(), record.n);
        let own = self.records.iter().filter(|record| self.is_own_test(record));
        let mut own: Vec<_> = own.filter(|record| self.standing(record).is_some()).collect();
        own.sort_by_key(rank);
        own
    }

    /// The run's result: one record of its test split, or else its last validation.
    pub fn result(&self) -> Option<Measured> {
        let record = self.own_records().pop().map(Measured::of_record);
        record.or_else(|| self.last_validation())
    }

    /// The best record of the run's test split with clean accuracy and accuracy under `attack`.
    pub fn tested(&self, attack: &str) -> Option<Measured> {
        let holds = |record: &&Record| {
            record.results.contains_key("clean") && record.results.contains_key(attack)
        };
        let all = self.own_records();
        let place = all.iter().rposition(holds)?;
        Some(Measured { place, ..Measured::of_record(all[place]) })
    }

    /// The run's last validation.
    pub fn last_validation(&self) -> Option<Measured> {
        let (step, last) = self.validations().into_iter().next_back()?;
        Some(Measured::of_validation(step, &last))
    }

    /// Multi-step accuracy of the best and of the last validation: `[(completed steps, accuracy);
    /// 2]`. Their difference is robust overfitting.
    pub fn best_and_last(&self) -> Option<[(u64, Accuracy); 2]> {
        let all: Vec<_> = self.validations().iter().map(|(step, val)| (*step, val.pgd)).collect();
        let finite = all.iter().filter(|(_, pgd)| pgd.accuracy.is_finite());
        // Of several equal validations the first counts as best, because no later one was better.
        let best = finite.rev().max_by(|a, b| a.1.accuracy.total_cmp(&b.1.accuracy))?;
        Some([*best, *all.last()?])
    }
}

/// Comparable measurements of several runs: under one attack, and all on test images or all on
/// validation images.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The attack.
    pub attack: String,
    /// One measurement for each run; `None` for a run that lacks it.
    pub found: Vec<Option<Measured>>,
}

impl Comparison {
    /// The strongest attack under which every run was tested: the one with the lowest mean
    /// accuracy. Without such an attack, the last validations, if every run has one; otherwise the
    /// measurement that most runs have, without the other runs.
    pub fn of(runs: &[Run]) -> Self {
        let measured = |attack: &str| -> Vec<_> { runs.iter().map(|r| r.tested(attack)).collect() };
        let names: BTreeSet<&String> =
            runs.iter().flat_map(|r| &r.records).flat_map(|e| e.results.keys()).collect();
        let tested = names
            .into_iter()
            .filter(|name| strength(name) > 1)
            .map(|name| Self { attack: name.clone(), found: measured(name) })
            .filter(|one| one.count() > 0)
            .min_by(Self::first_choice);
        let found: Vec<_> = runs.iter().map(Run::last_validation).collect();
        let validated = Self { attack: "pgd-10".into(), found };
        match tested {
            Some(tested) if tested.count() >= validated.count() => tested,
            _ => validated,
        }
    }

    /// Orders attacks: first what most runs have, then what the better records have, then the lowest
    /// mean accuracy, then the names. Accuracies of other records are of other weights or images, and
    /// decide nothing.
    fn first_choice(&self, other: &Self) -> Ordering {
        let most = other.count().cmp(&self.count());
        let best = || other.places().cmp(&self.places());
        let lowest = || self.mean().total_cmp(&other.mean());
        most.then_with(best)
            .then_with(lowest)
            .then_with(|| strength(&other.attack).cmp(&strength(&self.attack)))
    }

    /// Places of the records, added up.
    fn places(&self) -> usize {
        self.found.iter().flatten().map(|one| one.place).sum()
    }

    /// Number of runs that have the measurement.
    fn count(&self) -> usize {
        self.found.iter().flatten().count()
    }

    /// Mean accuracy under the attack.
    fn mean(&self) -> f64 {
        let each = self.found.iter().flatten().filter_map(|one| one.under(&self.attack));
        each.map(|under| under.accuracy).sum::<f64>() / self.count().max(1) as f64
    }

    /// The images that are compared.
    pub(super) fn on(&self) -> MeasuredOn {
        let first = self.found.iter().flatten().next();
        first.map_or(MeasuredOn::Test(Of::Unsaid), |measured| measured.source)
    }

    /// Description of the points, for captions; it names the runs that are left out.
    pub fn words(&self, runs: &[Run]) -> String {
        let mut all: Vec<String> = self.found.iter().flatten().map(Measured::words).collect();
        all.sort();
        all.dedup();
        if all.is_empty() {
            return "no run has been measured".into();
        }
        let missing: Vec<_> =
            runs.iter().zip(&self.found).filter(|(_, found)| found.is_none()).collect();
        let names: Vec<_> = missing.iter().map(|(run, _)| run.name.as_str()).collect();
        let mut text = all.join("; ");
        if !names.is_empty() {
            text += &format!("; not measured so and left out: {}", names.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::log::EpochLine;

    fn record(of: Of, dataset: &str, n: u64, results: &[(&str, f64)]) -> Record {
        let accuracy = |(name, accuracy): &(&str, f64)| {
            ((*name).to_owned(), Accuracy { accuracy: *accuracy, ci95: [0.0, 1.0] })
        };
        Record {
            dataset: dataset.into(),
            split: "test".into(),
            n,
            epsilon: 8.0 / 255.0,
            norm: "linf".into(),
            of,
            results: results.iter().map(accuracy).collect(),
            ..Record::default()
        }
    }

    fn run(records: Vec<Record>, finished: bool) -> Run {
        let config = "epsilon = \"8/255\"\nnorm = \"linf\"\ndataset = \"folder:/a/d\"\n";
        Run { config: config.parse().unwrap(), records, finished, ..Run::default() }
    }

    fn validated(accuracies: &[f64]) -> Run {
        let lines = accuracies.iter().enumerate().map(|(i, pgd)| {
            let value = |accuracy: f64| serde_json::json!({"accuracy": accuracy, "ci95": [0, 1]});
            let val = serde_json::json!(
                {"n": 100, "clean": value(0.9), "fgsm": value(0.5), "pgd": value(*pgd)}
            );
            serde_json::json!({"epoch": i, "step": 10 * (i + 1), "val": val})
        });
        let epochs: Vec<EpochLine> =
            lines.map(|line| serde_json::from_value(line).unwrap()).collect();
        Run { epochs, ..run(Vec::new(), true) }
    }

    #[test]
    fn a_result_is_of_the_own_test_set_and_the_final_weights() {
        let own = "folder:/a/d";
        let run = run(
            vec![
                record(Of::Final, "folder:/a/other", 9000, &[("clean", 0.1), ("autoattack", 0.1)]),
                record(Of::Step(3), own, 9000, &[("clean", 0.2), ("autoattack", 0.2)]),
                record(Of::Other, own, 9000, &[("clean", 0.3), ("autoattack", 0.3)]),
                record(Of::Best, own, 9000, &[("clean", 0.4), ("autoattack", 0.4)]),
                record(Of::Unsaid, own, 9000, &[("clean", 0.5), ("autoattack", 0.5)]),
                record(Of::Final, own, 100, &[("clean", 0.6), ("pgd-10", 0.6)]),
            ],
            true,
        );
        let result = run.result().unwrap();
        assert_eq!((result.n, result.source), (100, MeasuredOn::Test(Of::Final)));
        assert_eq!(result.under("clean").unwrap().accuracy, 0.6);
        // No record under AutoAttack is of the final weights.
        assert_eq!(run.tested("autoattack").unwrap().source, MeasuredOn::Test(Of::Unsaid));
        let mut other = run.clone();
        other.config.insert("norm".into(), "l2".into());
        assert!(other.result().is_none(), "another threat");
    }

    #[test]
    fn one_result_never_mixes_two_records() {
        let own = "folder:/a/d";
        let fast = record(Of::Final, own, 2000, &[("clean", 0.8), ("fgsm", 0.7), ("pgd-10", 0.6)]);
        let strong = record(Of::Final, own, 48, &[("clean", 0.9), ("autoattack", 0.4)]);
        let run = run(vec![fast, strong], true);
        let result = run.result().unwrap();
        assert_eq!((result.n, result.under("fgsm").is_none()), (48, true));
        assert_eq!(run.tested("pgd-10").unwrap().under("clean").unwrap().accuracy, 0.8);
    }

    #[test]
    fn the_newest_weights_stand_for_an_unfinished_run() {
        let own = "folder:/a/d";
        let at = |step| record(Of::Step(step), own, 10, &[("clean", step as f64 / 100.0)]);
        let run = run(vec![at(20), at(10)], false);
        assert_eq!(run.result().unwrap().source, MeasuredOn::Test(Of::Step(20)));
    }

    #[test]
    fn test_and_validation_images_are_never_compared() {
        let tested = |results| run(vec![record(Of::Final, "folder:/a/d", 100, results)], true);
        let mut both = validated(&[0.3]);
        both.records = tested(&[("clean", 0.9), ("pgd-20", 0.4)]).records;
        let one = Comparison::of(&[both.clone(), validated(&[0.2])]);
        assert_eq!(one.attack, "pgd-10");
        assert!(one.found.iter().flatten().all(|m| matches!(m.source, MeasuredOn::Validation(_))));
        let runs = [both.clone(), both, tested(&[("clean", 0.9), ("pgd-50", 0.2)])];
        let one = Comparison::of(&runs);
        assert_eq!(one.attack, "pgd-20");
        assert!(one.found[2].is_none());
        assert!(one.words(&runs).contains("left out"), "{}", one.words(&runs));
    }

    #[test]
    fn the_strongest_attack_is_the_one_with_the_lowest_accuracy() {
        let strongest = |results: &[(&str, f64)], apart: &[&str]| {
            let one = Measured::of_record(&record(Of::Final, "d", 100, results));
            one.strongest(apart).map(|(name, under)| format!("{name} {}", under.accuracy))
        };
        let weak = [("clean", 0.2), ("fgsm", 0.047), ("pgd-20", 0.047), ("square-20", 0.078)];
        assert_eq!(strongest(&weak, &["clean", "fgsm"]).unwrap(), "pgd-20 0.047");
        assert_eq!(strongest(&weak, &["clean"]).unwrap(), "pgd-20 0.047");
        // An attack that needs no gradients shows that they are masked.
        let masked = [("autoattack", 0.4), ("pgd-20", 0.5), ("rays", 0.3)];
        assert_eq!(strongest(&masked, &["clean"]).unwrap(), "rays 0.3");
        for name in ["square-20", "rays", "deepfool", "fmn", "apgd-ce-1", "autoattack:square"] {
            let equals = [("pgd-10", 0.5), (name, 0.5)];
            assert_eq!(strongest(&equals, &[]).unwrap(), "pgd-10 0.5", "{name}");
        }
        assert_eq!(strongest(&[("clean", 0.9)], &["clean"]), None);
    }

    #[test]
    fn runs_are_compared_under_the_attack_with_the_lowest_mean() {
        let tested = |results| run(vec![record(Of::Final, "folder:/a/d", 100, results)], true);
        let runs = [
            tested(&[("clean", 0.9), ("pgd-20", 0.4), ("square-20", 0.5), ("rays", 0.1)]),
            tested(&[("clean", 0.9), ("pgd-20", 0.2), ("square-20", 0.15)]),
        ];
        assert_eq!(Comparison::of(&runs).attack, "pgd-20");
        assert_eq!(Comparison::of(&runs[..1]).attack, "rays");
        assert_eq!(Comparison::of(&runs[1..]).attack, "square-20");
        // Accuracies of other weights or fewer images decide nothing.
        let own = "folder:/a/d";
        let old = record(Of::Step(5), own, 100, &[("clean", 0.9), ("pgd-10", 0.2)]);
        let new = record(Of::Step(9), own, 100, &[("clean", 0.9), ("autoattack", 0.4)]);
        assert_eq!(Comparison::of(&[run(vec![old, new], false)]).attack, "autoattack");
    }

    #[test]
    fn robust_overfitting_is_the_fall_from_the_best_validation_to_the_last() {
        let [best, last] = validated(&[0.1, 0.4, 0.4, 0.3]).best_and_last().unwrap();
        assert_eq!((best.0, best.1.accuracy), (20, 0.4));
        assert_eq!((last.0, last.1.accuracy), (40, 0.3));
        assert!(validated(&[]).best_and_last().is_none());
    }
}
