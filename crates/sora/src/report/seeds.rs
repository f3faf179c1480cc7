//! Groups runs that differ only in their seed.

use std::collections::BTreeMap;

use super::{
    images::SetKey,
    measured::{Comparison, Measured},
    run::Run,
};
use crate::plot::Point;

/// Settings that do not distinguish experiments. Those of the images do it by what the images are,
/// not by their names.
const ASIDE: [&str; 9] =
    ["seed", "out", "threads", "device", "tensorboard", "keep", "data", "dataset", "extra_data"];

/// What runs of one experiment share: their settings, and which images they are of.
type Experiment = (BTreeMap<String, String>, [SetKey; 2]);

/// Runs of one experiment, which agree in every setting that decides the result, except the seed,
/// and in their images.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The runs, in their order.
    pub runs: Vec<&'a Run>,
    /// Name of the group; the run's own name for a single run.
    pub name: String,
}

/// Groups the runs by experiment, in the order of their first runs.
pub fn groups(runs: &[Run]) -> Vec<Group<'_>> {
    let mut all: Vec<(Experiment, Vec<&Run>)> = Vec::new();
    for run in runs {
        let mut settings = run.settings();
        ASIDE.iter().for_each(|key| drop(settings.remove(*key)));
        let experiment = (settings, run.images_key());
        // Two evaluations of one run do not count as two seeds.
        let known = all.iter_mut().find(|(other, with)| {
            *other == experiment && with.iter().all(|one| one.seed() != run.seed())
        });
        match known {
            Some((_, with)) => with.push(run),
            None => all.push((experiment, vec![run])),
        }
    }
    all.into_iter().map(|(_, runs)| Group { name: name(&runs), runs }).collect()
}

impl<'a> Group<'a> {
    /// The runs of the group that `comparison`, which is of all `runs`, has, with their
    /// measurements.
    pub fn measured(
        &self,
        runs: &[Run],
        comparison: &'a Comparison,
    ) -> Vec<(&'a Run, &'a Measured)> {
        let of = |run: &&'a Run| {
            let at = runs.iter().position(|other| std::ptr::eq(other, *run))?;
            Some((*run, comparison.found.get(at)?.as_ref()?))
        };
        self.runs.iter().filter_map(of).collect()
    }

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
            let (y, deviation) = mean_and_deviation(&[vec![*y], rest?].concat());
            let y_interval = deviation.map(|deviation| [y - deviation, y + deviation]);
            Some(Point { x: *x, y, y_interval, x_interval: None })
        };
        first.iter().filter_map(point).collect()
    }
}

/// Mean and standard deviation (with n - 1) of some values; a single one has no deviation.
pub fn mean_and_deviation(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()))
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
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 3.0]), (2.0, Some(1.0)));
        assert_eq!(mean_and_deviation(&[4.0]), (4.0, None));
    }

    /// Settings of a run on `dataset` whose images have these digests.
    fn on(dataset: &str, seed: u64, [train, test, extra]: [&str; 3]) -> Run {
        let split = |name: &str, sha256: &str| {
            format!(
                "[{name}]\nsha256 = \"{sha256}\"\nimages = 5\nshape = [1, 1, 1]\nclasses = []\n"
            )
        };
        let config = format!(
            "dataset = \"{dataset}\"\nseed = {seed}\n{}{}{}",
            split("data.train", train),
            split("data.test", test),
            if extra.is_empty() { String::new() } else { split("extra", extra) }
        );
        run(&format!("{dataset} {seed} {train}{test}{extra}"), &config)
    }

    #[test]
    fn data_sets_of_one_name_are_not_seeds_of_one_experiment() {
        let one = |seed| on("folder:/old/pets", seed, ["a", "b", "c"]);
        for other in [
            on("folder:/new/pets", 1, ["other", "b", "c"]),
            on("folder:/new/pets", 1, ["a", "other", "c"]),
            on("folder:/new/pets", 1, ["a", "b", "other"]),
            on("folder:/new/pets", 1, ["a", "b", ""]),
        ] {
            let both = [one(0), other];
            assert_eq!(groups(&both).len(), 2, "{}", both[1].name);
            let [first, second] = [0, 1].map(|i| both[i].settings()["data"].clone());
            assert!(first.contains("5 training images (a)") && first != second, "{second}");
        }
        // The same images at another place, and images that are drawn from the seed.
        for both in [
            [one(0), on("folder:/copy/cats", 1, ["a", "b", "c"])],
            [on("synthetic:99", 0, ["a", "b", ""]), on("synthetic:99", 1, ["c", "d", ""])],
        ] {
            assert_eq!(groups(&both).len(), 1, "{}", both[1].name);
        }
        // Runs of older versions, which do not say what their images are.
        let older = |place: &str, seed: u64| {
            run("older", &format!("dataset = \"folder:/{place}/pets\"\nseed = {seed}\n"))
        };
        assert_eq!(groups(&[older("old", 0), older("new", 1)]).len(), 2);
        assert_eq!(groups(&[older("old", 0), older("old", 1)]).len(), 1);
        // One of them beside one that does: the place decides.
        assert_eq!(groups(&[older("old", 0), on("folder:/old/pets", 1, ["a", "b", ""])]).len(), 1);
    }
}
