//! Durations for readers.

/// `seconds` in the two largest units that matter: `42 s`, `3 min 05 s`, `1 h 17 min`, `2 d 03 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "an unknown time".into();
    }
    if (0.0..9.95).contains(&seconds) {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s:02} s"),
        (0, h, m, _) => format!("{h} h {m:02} min"),
        (d, h, ..) => format!("{d} d {h:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn the_two_largest_units_are_given() {
        for (seconds, text) in [
            (0.0, "0.0 s"),
            (1.26, "1.3 s"),
            (9.96, "10 s"),
            (59.6, "1 min 00 s"),
            (185.0, "3 min 05 s"),
            (4620.0, "1 h 17 min"),
            (183_600.0, "2 d 03 h"),
            (-3.0, "0 s"),
            (f64::NAN, "an unknown time"),
            (f64::INFINITY, "an unknown time"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
