//! The order of attacks by their names, for where no result decides: which record stands for a run,
//! and which of several attacks is named that leave equally many images right.

/// Rank of the clean images.
const CLEAN: u64 = 0;
/// Rank of a single step.
const SINGLE: u64 = 1;
/// Rank of what needs no gradients, looks for the nearest adversarial image or is not known: below
/// ten steps of PGD, because only its result can say that it was strong.
const OTHER: u64 = 50;
/// Rank below the attacks of many steps; the number of steps is added to it.
const STEPS: u64 = 100;

/// Attacks of many steps within the bound: the beginning of their names, the steps of a name
/// without numbers, and how many times each step is made (for each of nine other classes).
const STEPPED: [(&str, u64, u64); 5] =
    [("pgd", 10, 1), ("cw", 50, 1), ("apgd-ce", 100, 1), ("apgd-dlr", 100, 1), ("apgd-t", 100, 9)];

/// Rank of an attack by its name; weaker attacks come first.
pub fn strength(attack: &str) -> u64 {
    match attack {
        "autoattack" | "autoattack-plus" | "autoattack-rand" => u64::MAX,
        _ => match attack.strip_prefix("autoattack:") {
            // A list of one's own is as strong as the strongest of its attacks.
            Some(parts) => parts.split('+').map(of_one).fold(OTHER, u64::max),
            None => of_one(attack),
        },
    }
}

/// Rank of a single attack.
fn of_one(attack: &str) -> u64 {
    match attack {
        "clean" => CLEAN,
        "fgsm" => SINGLE,
        _ => STEPPED.iter().find_map(|row| stepped(attack, row)).unwrap_or(OTHER),
    }
}

/// Rank of `attack` if it is of this row: its number of steps with all restarts.
fn stepped(attack: &str, (base, usual, times): &(&str, u64, u64)) -> Option<u64> {
    let rest = attack.strip_prefix(base)?;
    let numbers = rest.strip_prefix('-').or_else(|| rest.is_empty().then_some(rest))?;
    // The size of a step may stand behind the numbers, as in pgd-20@2/255.
    let numbers = numbers.split('@').next().unwrap_or(numbers);
    let (steps, restarts) = numbers.split_once('x').unwrap_or((numbers, "1"));
    let number = |text: &str, other: u64| text.parse::<u64>().unwrap_or(other).min(10_000);
    Some(STEPS + times * number(steps, *usual) * number(restarts, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_are_ordered_by_strength() {
        let mut names = [
            "autoattack",
            "apgd-t",
            "pgd-50x10",
            "cw",
            "clean",
            "pgd-10",
            "fgsm",
            "apgd-ce",
            "square-1000",
            "pgd-5",
        ];
        names.sort_by_key(|name| strength(name));
        let expected = [
            "clean",
            "fgsm",
            "square-1000",
            "pgd-5",
            "pgd-10",
            "cw",
            "apgd-ce",
            "pgd-50x10",
            "apgd-t",
            "autoattack",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn black_box_minimum_norm_and_short_attacks_are_below_ten_steps_of_pgd() {
        for name in [
            "square",
            "square-5000x10",
            "rays",
            "deepfool",
            "fmn",
            "fab-t-9",
            "apgd-ce-1",
            "apgd-t-1",
            "apgd-dlr-9",
            "autoattack:square",
            "autoattack:",
            "autoattack:fgsm+square-10",
            "an attack of one's own",
            "",
        ] {
            assert!((2..strength("pgd-10")).contains(&strength(name)), "{name}");
        }
        for name in ["autoattack-plus", "autoattack-rand"] {
            assert_eq!(strength(name), u64::MAX);
        }
        assert_eq!(strength("autoattack:square+apgd-ce"), strength("apgd-ce"));
    }

    #[test]
    fn the_size_of_a_step_does_not_change_the_rank_of_an_attack() {
        for (name, plain) in [
            ("pgd-200@1/255", "pgd-200"),
            ("pgd-20@0.25", "pgd-20"),
            ("pgd-50x10@2/255", "pgd-50x10"),
            ("pgd-50x10@eps/4", "pgd-50x10"),
        ] {
            assert_eq!(strength(name), strength(plain), "{name}");
        }
        let mut names = ["pgd-50x10@eps/4", "pgd-200@1/255", "pgd-10"];
        names.sort_by_key(|name| strength(name));
        assert_eq!(names, ["pgd-10", "pgd-200@1/255", "pgd-50x10@eps/4"]);
    }
}
