//! The numbers in an attack's name. `pgd-50x10` is what papers call PGD-50-10: 50 steps from each of 10
//! random starts (as in Wong, Rice and Kolter, "Fast is better than free", ICLR 2020).

use std::fmt::Write as _;

use crate::error::{Error, Result};

/// The numbers of `BASE`, `BASE-K` or `BASE-KxR`, K and R from 1 to 10000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub steps: Option<usize>,
    pub restarts: usize,
}

/// Largest number in a name.
const MOST: usize = 10_000;

impl Numbers {
    /// Reads the numbers of `name`, an attack called `base`.
    pub fn after(base: &str, name: &str) -> Result<Self> {
        let wrong = || Error::AttackForm {
            name: name.to_owned(),
            problem: format!(
                "expected {base}-K or {base}-KxR, K steps and R restarts from 1 to {MOST}"
            ),
        };
        let rest = name.strip_prefix(base).ok_or_else(wrong)?;
        if rest.is_empty() {
            return Ok(Self { steps: None, restarts: 1 });
        }
        let rest = rest.strip_prefix('-').ok_or_else(wrong)?;
        let (steps, restarts) = rest.split_once('x').unwrap_or((rest, "1"));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let value = digits.then(|| text.parse::<usize>().ok()).flatten();
            value.filter(|n| (1..=MOST).contains(n)).ok_or_else(wrong)
        };
        Ok(Self { steps: Some(number(steps)?), restarts: number(restarts)? })
    }
}

/// The steps of `BASE` (none) or `BASE-K`, for attacks without restarts.
pub(super) fn steps_alone(base: &str, name: &str) -> Result<Option<usize>> {
    let numbers = Numbers::after(base, name)?;
    if numbers.restarts != 1 {
        let problem = format!("has no restarts; expected {base} or {base}-K");
        return Err(Error::AttackForm { name: name.to_owned(), problem });
    }
    Ok(numbers.steps)
}

/// The shortest name of an attack: it omits the usual number of steps, and a single restart.
pub(super) fn spell(base: &str, steps: usize, usual: Option<usize>, restarts: usize) -> String {
    let mut name = base.to_owned();
    if usual != Some(steps) || restarts != 1 {
        // Writing to a String cannot fail.
        let _ = write!(name, "-{steps}");
    }
    if restarts != 1 {
        let _ = write!(name, "x{restarts}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_spelled() {
        for (name, steps, restarts) in
            [("a-b", None, 1), ("a-b-7", Some(7), 1), ("a-b-7x3", Some(7), 3)]
        {
            assert_eq!(Numbers::after("a-b", name).unwrap(), Numbers { steps, restarts });
            assert_eq!(spell("a-b", steps.unwrap_or(5), Some(5), restarts), name);
        }
        assert_eq!(steps_alone("a", "a-7").unwrap(), Some(7));
        assert!(steps_alone("a", "a-7x2").is_err());
        for wrong in
            ["a", "a-b-", "a-b-0", "a-b-5x", "a-b-5x0", "a-b-x5", "a-b--1", "a-b-99999", "a-b7"]
        {
            let error = Numbers::after("a-b", wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("a-b-KxR"), "{error}");
        }
    }
}
