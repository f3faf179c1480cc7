//! Texts that captions and pages share.

use super::run::Run;

/// The settings that the runs share, and their seeds.
pub fn setting(runs: &[Run]) -> String {
    let distinct = |of: &dyn Fn(&Run) -> String| {
        let mut all: Vec<String> = runs.iter().map(of).collect();
        all.sort();
        all.dedup();
        all.join(", ")
    };
    let seeds = distinct(&|run| run.seed());
    let several = if seeds.contains(',') { "s" } else { "" };
    format!(
        "{}; {}; {}; seed{several} {seeds}.",
        distinct(&|r| r.training_data()),
        distinct(&|r| r.network()),
        distinct(&|r| r.threat())
    )
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
