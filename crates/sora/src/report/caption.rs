//! Texts that captions and pages share.

use serde::Serialize;

use super::run::Run;

/// What the results of a run depend on, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Data of the training.
    pub data: String,
    /// Network.
    pub network: String,
    /// Norm and radius of the training.
    pub threat: String,
    /// Seed.
    pub seed: String,
}

impl Setting {
    /// That of a run.
    pub fn of(run: &Run) -> Self {
        Self {
            data: run.training_data(),
            network: run.network(),
            threat: run.threat(),
            seed: run.seed(),
        }
    }
}

/// The settings of the runs, each value once.
pub fn setting(runs: &[Run]) -> String {
    let all: Vec<_> = runs.iter().map(Setting::of).collect();
    settings(&all.iter().collect::<Vec<_>>())
}

/// These settings, each value once.
pub fn settings(all: &[&Setting]) -> String {
    let distinct = |of: fn(&Setting) -> &String| {
        let mut values: Vec<&str> = all.iter().map(|one| of(one).as_str()).collect();
        values.sort_unstable();
        values.dedup();
        values.join(", ")
    };
    let seeds = distinct(|one| &one.seed);
    let several = if seeds.contains(',') { "s" } else { "" };
    format!(
        "{}; {}; {}; seed{several} {seeds}.",
        distinct(|one| &one.data),
        distinct(|one| &one.network),
        distinct(|one| &one.threat)
    )
}

/// A fact about runs, given with their names: once where all share it, otherwise each value with
/// the runs that have it.
pub fn each(facts: &[(&str, String)]) -> String {
    let mut distinct: Vec<(&str, Vec<&str>)> = Vec::new();
    for (run, fact) in facts {
        match distinct.iter_mut().find(|(known, _)| *known == fact.as_str()) {
            Some((_, runs)) => runs.push(*run),
            None => distinct.push((fact.as_str(), vec![*run])),
        }
    }
    if let [(fact, _)] = distinct.as_slice() {
        return (*fact).to_owned();
    }
    let all: Vec<_> =
        distinct.iter().map(|(fact, runs)| format!("{fact} ({})", runs.join(", "))).collect();
    all.join(", ")
}

/// Number of validation images.
pub fn validation_size(runs: &[Run]) -> String {
    let mut sizes: Vec<u64> =
        runs.iter().flat_map(|run| run.validations()).map(|(_, val)| val.n).collect();
    sizes.sort_unstable();
    sizes.dedup();
    match sizes.as_slice() {
        [] => "no validation".into(),
        sizes => {
            let sizes: Vec<_> = sizes.iter().map(|n| thousands(*n)).collect();
            format!("n = {} validation images", sizes.join(", "))
        }
    }
}

/// A whole number with its thousands separated.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A duration for readers: `54 s`, `12 min`, `1 h 17 min`.
pub fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        _ if seconds < 100.0 => format!("{seconds:.0} s"),
        0..60 => format!("{minutes} min"),
        _ => format!("{} h {} min", thousands(minutes / 60), minutes % 60),
    }
}

/// The name of a norm for readers.
pub fn norm(name: &str) -> &str {
    if name == "linf" { "l-inf" } else { name }
}

/// A norm and a radius for readers, in 1/255 where that is a round number.
pub fn radius(norm_name: &str, epsilon: f64) -> String {
    let (name, parts) = (norm(norm_name), epsilon * 255.0);
    if (parts - parts.round()).abs() < 1e-3 {
        format!("{name} \u{3b5} = {parts:.0}/255")
    } else {
        format!("{name} \u{3b5} = {epsilon:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_share_is_said_once_and_the_rest_with_their_names() {
        let all = |facts: &[(&str, &str)]| {
            each(&facts.iter().map(|(run, fact)| (*run, (*fact).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(all(&[("a", "8/255"), ("b", "8/255")]), "8/255");
        let expected = "8/255 (a, c), 16/255 (b)";
        assert_eq!(all(&[("a", "8/255"), ("b", "16/255"), ("c", "8/255")]), expected);
        let run = |config: &str| Run { config: config.parse().unwrap(), ..Run::default() };
        let network = "dataset = \"d\"\nmodel = \"m\"\nwidth = 4\n";
        let runs = [
            "norm = \"l2\"\nepsilon = 0.5\nseed = 1\n",
            "norm = \"linf\"\nepsilon = \"8/255\"\nseed = 0\n",
        ]
        .map(|threat| run(&format!("{network}{threat}")));
        let threats = "l-inf \u{3b5} = 8/255, l2 \u{3b5} = 0.5";
        assert_eq!(setting(&runs), format!("d; m of width 4; {threats}; seeds 0, 1."));
    }

    #[test]
    fn thousands_are_apart_and_durations_readable() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"].map(String::from),
            [0, 999, 1000, 1_234_567].map(thousands)
        );
        assert_eq!(
            ["4 s", "99 s", "2 min", "1 h 17 min"].map(String::from),
            [4.2, 99.4, 125.0, 4620.0].map(duration)
        );
        assert_eq!(radius("linf", 8.0 / 255.0), "l-inf \u{3b5} = 8/255");
        assert_eq!(radius("l2", 0.3), "l2 \u{3b5} = 0.3000");
    }
}
