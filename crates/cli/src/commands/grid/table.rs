//! The results of a grid: mean and standard deviation over seeds, and paired differences.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use serde_json::Value;
use sora::run::recipe::PlannedRun;

use crate::{
    commands::shared::summary,
    console::{Table, print},
    error::Result,
};

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Text that separates the run from the others.
    pub label: String,
    /// The same text without the seed, and with what else separates its settings from others'.
    pub group: String,
    /// Its seed.
    pub seed: i64,
    /// Folder.
    pub folder: String,
    /// Accuracies by attack, as fractions; empty where nothing was measured.
    pub figures: Vec<(String, f64)>,
    /// Seconds of training.
    pub seconds: Option<f64>,
    /// Its settings without the seed.
    #[serde(skip)]
    settings: toml::Table,
}

impl Outcome {
    /// From the run's records: the evaluation `report`, else the last validation.
    ///
    /// # Errors
    /// A summary that is damaged.
    pub fn read(run: &PlannedRun, dir: &Path, report: Option<Value>) -> Result<Self> {
        let mut settings: toml::Table = run.config.parse().unwrap_or_default();
        let seed = settings.remove("seed").and_then(|seed| seed.as_integer()).unwrap_or(0);
        let summary = summary(dir)?.unwrap_or_default();
        let validation = &summary["last_epoch"]["val"];
        let figures = match report.as_ref().and_then(|report| report["results"].as_object()) {
            Some(results) => accuracies(results.iter().map(|(name, of)| (name.as_str(), of))),
            None => accuracies(["clean", "fgsm", "pgd"].map(|name| (name, &validation[name]))),
        };
        Ok(Self {
            label: run.label.clone(),
            group: run.label.replace(&format!(", seed {seed}"), ""),
            seed,
            folder: dir.display().to_string(),
            figures,
            seconds: summary["seconds"].as_f64(),
            settings,
        })
    }
}

/// Gives groups of one name names of their own where their settings differ in more than the seed: a
/// label tells the lists of `[[runs]]`, and not its plain values.
pub fn separate(outcomes: &mut [Outcome]) {
    let mut kinds: BTreeMap<String, Vec<toml::Table>> = BTreeMap::new();
    for Outcome { group, settings, .. } in outcomes.iter() {
        let known = kinds.entry(group.clone()).or_default();
        if !known.contains(settings) {
            known.push(settings.clone());
        }
    }
    for Outcome { group, settings, .. } in outcomes {
        let Some([first, others @ ..]) = kinds.get(group).map(Vec::as_slice) else { continue };
        for (key, value) in settings.iter() {
            let differs = |other: &toml::Table| other.get(key) != first.get(key);
            if others.iter().any(differs) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                *group += &format!(", {key} {value}");
            }
        }
    }
}

fn accuracies<'a>(of: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Vec<(String, f64)> {
    of.into_iter()
        .filter_map(|(name, result)| Some((name.to_owned(), result["accuracy"].as_f64()?)))
        .collect()
}

/// Mean and standard deviation of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the sample (n - 1); `None` for one value.
    pub std: Option<f64>,
    /// Values.
    pub n: usize,
}

impl Spread {
    /// The spread of `values`; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let std = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        (n > 0).then_some(Self { mean, std, n })
    }

    /// `51.20 +- 0.34` in percent.
    fn percent(self) -> String {
        match self.std {
            Some(std) => format!("{:.2} +- {:.2}", 100.0 * self.mean, 100.0 * std),
            None => format!("{:.2}", 100.0 * self.mean),
        }
    }
}

/// Runs that differ only in the seed.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// The text that the runs share.
    pub label: String,
    /// Seeds of the finished runs.
    pub seeds: Vec<i64>,
    /// Accuracy by attack.
    pub accuracy: BTreeMap<String, Spread>,
    /// Difference from the first group, seed by seed, over the seeds that both have; empty for the
    /// first group.
    pub difference: BTreeMap<String, Spread>,
}

/// The table.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Attacks, in the order of the evaluation.
    pub attacks: Vec<String>,
    /// Rows.
    pub groups: Vec<Group>,
    /// Every run.
    pub runs: Vec<Outcome>,
}

impl Summary {
    /// Groups the runs that differ only in the seed.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut attacks: Vec<String> = Vec::new();
        let mut labels: Vec<&str> = Vec::new();
        for outcome in outcomes {
            for (name, _) in &outcome.figures {
                if !attacks.contains(name) {
                    attacks.push(name.clone());
                }
            }
            if !labels.contains(&outcome.group.as_str()) {
                labels.push(&outcome.group);
            }
        }
        let of_group = |label: &str| -> Vec<&Outcome> {
            outcomes.iter().filter(|o| o.group == label && !o.figures.is_empty()).collect()
        };
        let first = labels.first().map(|label| of_group(label)).unwrap_or_default();
        let groups = labels.iter().enumerate().map(|(i, label)| {
            let runs = of_group(label);
            Group {
                label: (*label).to_owned(),
                seeds: runs.iter().map(|run| run.seed).collect(),
                accuracy: spreads(&attacks, |name| values(&runs, name)),
                difference: spreads(&attacks, |name| {
                    if i == 0 { Vec::new() } else { differences(&runs, &first, name) }
                }),
            }
        });
        Self { groups: groups.collect(), runs: outcomes.to_vec(), attacks }
    }

    /// Prints the rows, and the differences where there are any.
    ///
    /// # Errors
    /// A standard output that cannot be written.
    pub fn print(&self) -> Result<()> {
        self.print_part("accuracy in %, mean +- standard deviation over seeds", |g| &g.accuracy)?;
        if self.groups.iter().all(|group| group.difference.is_empty()) {
            return Ok(());
        }
        let first = self.groups.first().map_or("", |group| &group.label);
        print("\n")?;
        self.print_part(&format!("difference from {first}, paired by seed"), |g| &g.difference)
    }

    fn print_part(
        &self,
        title: &str,
        of: impl Fn(&Group) -> &BTreeMap<String, Spread>,
    ) -> Result<()> {
        print(&format!("{title}\n"))?;
        let heading = ["runs", "n"].into_iter().chain(self.attacks.iter().map(String::as_str));
        let mut table = Table::new(heading);
        for group in self.groups.iter().filter(|group| !of(group).is_empty()) {
            let n = of(group).values().map(|spread| spread.n).max().unwrap_or(0);
            let cells = self.attacks.iter().map(|name| {
                of(group).get(name).map_or_else(|| "-".into(), |spread| spread.percent())
            });
            table.row([group.label.clone(), n.to_string()].into_iter().chain(cells));
        }
        table.figures_from(1).print()
    }
}

fn spreads(attacks: &[String], of: impl Fn(&str) -> Vec<f64>) -> BTreeMap<String, Spread> {
    attacks.iter().filter_map(|name| Some((name.clone(), Spread::of(&of(name))?))).collect()
}

fn figure(run: &Outcome, name: &str) -> Option<f64> {
    run.figures.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}

fn values(runs: &[&Outcome], name: &str) -> Vec<f64> {
    runs.iter().filter_map(|run| figure(run, name)).collect()
}

fn differences(runs: &[&Outcome], first: &[&Outcome], name: &str) -> Vec<f64> {
    let with = |seed: i64| first.iter().find(|run| run.seed == seed);
    runs.iter()
        .filter_map(|run| Some(figure(run, name)? - figure(with(run.seed)?, name)?))
        .collect()
}

/// A row for each run.
pub fn csv(outcomes: &[Outcome]) -> String {
    let summary = Summary::of(outcomes);
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let names: Vec<String> = summary.attacks.iter().map(|name| quoted(name)).collect();
    let mut text = format!("run,group,seed,folder,seconds,{}\n", names.join(","));
    for run in outcomes {
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
        let figures = summary.attacks.iter().map(|name| number(figure(run, name)));
        let cells = [
            quoted(&run.label),
            quoted(&run.group),
            run.seed.to_string(),
            quoted(&run.folder),
            number(run.seconds),
        ];
        text += &cells.into_iter().chain(figures).collect::<Vec<_>>().join(",");
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(group: &str, seed: i64, clean: Option<f64>) -> Outcome {
        Outcome {
            label: format!("{group}, seed {seed}"),
            group: group.into(),
            seed,
            folder: "runs/x, y".into(),
            figures: clean.map(|value| ("clean".to_owned(), value)).into_iter().collect(),
            seconds: Some(1.5),
            settings: toml::Table::new(),
        }
    }

    #[test]
    fn runs_whose_settings_differ_in_more_than_the_seed_stand_in_rows_of_their_own() {
        let with = |seed, settings: &str| Outcome {
            settings: settings.parse().unwrap(),
            ..outcome("sora", seed, Some(0.5))
        };
        let mut outcomes = [
            with(0, "epsilon = '8/255'\nwidth = 4"),
            with(1, "epsilon = '8/255'\nwidth = 4"),
            with(0, "epsilon = '64/255'\nwidth = 4"),
            with(0, "width = 4"),
            outcome("fgsm", 0, Some(0.5)),
        ];
        separate(&mut outcomes);
        let summary = Summary::of(&outcomes);
        let rows: Vec<_> = summary.groups.iter().map(|group| group.label.as_str()).collect();
        assert_eq!(rows, ["sora, epsilon 8/255", "sora, epsilon 64/255", "sora", "fgsm"]);
        assert_eq!(summary.groups[0].seeds, [0, 1]);
    }

    #[test]
    fn means_deviations_and_paired_differences_are_over_what_is_done() {
        let outcomes = [
            outcome("fgsm", 0, Some(0.5)),
            outcome("fgsm", 1, Some(0.7)),
            outcome("fgsm", 2, None),
            outcome("sora", 0, Some(0.6)),
            outcome("sora", 2, Some(0.9)),
        ];
        let summary = Summary::of(&outcomes);
        let fgsm = summary.groups[0].accuracy["clean"];
        assert!((fgsm.mean - 0.6).abs() < 1e-12 && fgsm.n == 2, "{fgsm:?}");
        assert!((fgsm.std.unwrap() - 0.02f64.sqrt()).abs() < 1e-12, "{fgsm:?}");
        let paired = summary.groups[1].difference["clean"];
        assert!((paired.mean - 0.1).abs() < 1e-12, "seed 0 alone is in both: {paired:?}");
        assert_eq!((paired.n, paired.std), (1, None));
        assert!(summary.groups[0].difference.is_empty());
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn csv_has_a_row_for_each_run() {
        let text = csv(&[outcome("a \"b\"", 0, Some(0.5)), outcome("c", 1, None)]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "run,group,seed,folder,seconds,\"clean\"");
        assert_eq!(lines[1], "\"a \"\"b\"\", seed 0\",\"a \"\"b\"\"\",0,\"runs/x, y\",1.5,0.5");
        assert!(lines[2].ends_with(",1.5,"), "{text}");
    }
}
