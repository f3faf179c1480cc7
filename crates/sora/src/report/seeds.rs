//! Groups runs that differ only in their seed.

use std::collections::BTreeMap;

use super::run::Run;
use crate::plot::Point;

/// Settings that do not distinguish experiments.
const ASIDE: [&str; 6] = ["seed", "out", "threads", "device", "tensorboard", "keep"];

/// Runs of one experiment, which agree in every setting that decides the result, except the seed.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The runs, in their order.
    pub runs: Vec<&'a Run>,
    /// Name of the group; the run's own name for a single run.
    pub name: String,
}

/// Groups the runs by experiment, in the order of their first runs.
pub fn groups(runs: &[Run]) -> Vec<Group<'_>> {
    let mut all: Vec<(BTreeMap<String, String>, Vec<&Run>)> = Vec::new();
    for run in runs {
        let mut settings = run.settings();
        ASIDE.iter().for_each(|key| drop(settings.remove(*key)));
        // Two evaluations of one run do not count as two seeds.
        let known = all.iter_mut().find(|(other, with)| {
            *other == settings && with.iter().all(|one| one.seed() != run.seed())
        });
        match known {
            Some((_, with)) => with.push(run),
            None => all.push((settings, vec![run])),
        }
    }
    all.into_iter().map(|(_, runs)| Group { name: name(&runs), runs }).collect()
}

impl Group<'_> {
    /// Whether the group has more than one seed.
    pub fn has_seeds(&self) -> bool {
        self.runs.len() > 1
    }

    /// Mean over the seeds and, for several seeds, a standard deviation on both sides. `values`
    /// gives `(x, y)` of one run; values of x that not every run has are left out.
    pub fn over_seeds(&self, values: impl Fn(&Run) -> Vec<(f64, f64)>) -> Vec<Point> {
        let each: Vec<_> = self.runs.iter().map(|run| values(run)).collect();
        let [first, others @ ..] = each.as_slice() else { return Vec::new() };
        if others.is_empty() {
            return first.iter().map(|value| Point::from(*value)).collect();
        }
        let maps: Vec<BTreeMap<u64, f64>> = others
            .iter()
            .map(|values| values.iter().map(|(x, y)| (x.to_bits(), *y)).collect())
            .collect();
        let point = |(x, y): &(f64, f64)| {
            let rest: Option<Vec<f64>> =
                maps.iter().map(|map| map.get(&x.to_bits()).copied()).collect();
            let (mean, deviation) = mean_and_deviation([vec![*y], rest?].concat());
            Some(Point::from((*x, mean, [mean - deviation, mean + deviation])))
        };
        first.iter().filter_map(point).collect()
    }
}

/// Mean and standard deviation (with n - 1) of some values; 0 for a single one.
pub fn mean_and_deviation(values: Vec<f64>) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

/// The name of a group: the common part of its runs' names, without the seed; or else the method.
fn name(runs: &[&Run]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    if runs.len() == 1 {
        return first.name.clone();
    }
    let common = runs.iter().fold(first.name.as_str(), |common, run| {
        let same = common.char_indices().zip(run.name.chars()).find(|((_, a), b)| a != b);
        let end = same.map_or(common.len().min(run.name.len()), |((at, _), _)| at);
        &common[..end]
    });
    let name = common.trim_end_matches(|c: char| !c.is_alphanumeric());
    let name = name
        .strip_suffix("seed")
        .or(name.strip_suffix('s').filter(|n| n.ends_with(['-', '_', '/'])))
        .unwrap_or(name);
    let name = name.trim_end_matches(|c: char| !c.is_alphanumeric());
    format!(
        "{} ({} seeds)",
        if name.is_empty() { first.method() } else { name.to_owned() },
        runs.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, config: &str) -> Run {
        Run { name: name.into(), config: config.parse().unwrap(), ..Run::default() }
    }

    #[test]
    fn runs_that_differ_in_their_seed_alone_are_one_experiment() {
        let runs = [
            run("sora-seed0", "method = \"sora\"\nseed = 0\nthreads = 1\n"),
            run("sora-seed1", "method = \"sora\"\nseed = 1\nthreads = 2\n"),
            run("fgsm", "method = \"fgsm\"\nseed = 0\n"),
            run("again", "method = \"sora\"\nseed = 1\n"),
        ];
        let found: Vec<_> = groups(&runs).into_iter().map(|g| (g.name, g.runs.len())).collect();
        let expected = [("sora (2 seeds)", 2), ("fgsm", 1), ("again", 1)];
        assert_eq!(found, expected.map(|(name, n)| (name.to_owned(), n)));
    }

    #[test]
    fn means_and_deviations_are_over_the_places_that_all_runs_have() {
        let runs = [run("a", "seed = 0\n"), run("b", "seed = 1\n")];
        let group = &groups(&runs)[0];
        let points = group.over_seeds(|run| match run.name.as_str() {
            "a" => vec![(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)],
            _ => vec![(0.0, 3.0), (2.0, 3.0)],
        });
        let found: Vec<_> = points.iter().map(|p| (p.x, p.y, p.y_interval.unwrap())).collect();
        let deviation = 2f64.sqrt();
        assert_eq!(found[1], (2.0, 3.0, [3.0, 3.0]));
        assert_eq!((found.len(), found[0].0, found[0].1), (2, 0.0, 2.0));
        assert!((found[0].2[1] - 2.0 - deviation).abs() < 1e-12);
        assert_eq!(mean_and_deviation(vec![1.0, 2.0, 3.0]), (2.0, 1.0));
    }
}
