//! A part of a grid.

use std::str::FromStr;

use crate::error::{Failure, Result};

/// Every `of`-th run of a grid, beginning with number `index` (from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// The whole grid.
    const ALL: Self = Self { index: 0, of: 1 };

    /// The part for a task of a Slurm job array, from its environment variables; the whole grid
    /// outside of a job array.
    ///
    /// # Errors
    /// Numbers that contradict each other.
    pub fn of_slurm(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
        let Some(id) = number("SLURM_ARRAY_TASK_ID") else { return Ok(Self::ALL) };
        let of = number("SLURM_ARRAY_TASK_COUNT").unwrap_or(1).max(1);
        let first = number("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
        let step = number("SLURM_ARRAY_TASK_STEP").unwrap_or(1).max(1);
        match id.checked_sub(first).map(|distance| distance / step) {
            Some(index) if index < of => Ok(Self { index, of }),
            _ => Err(Failure::input(format!(
                "SLURM_ARRAY_TASK_ID {id} does not lie in an array of {of} from {first}; name the \
                 part with --shard I/N"
            ))),
        }
    }

    /// Whether the run at `position` belongs to this part.
    pub fn takes(self, position: usize) -> bool {
        position % self.of == self.index
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, of)| {
            Some((index.trim().parse::<usize>().ok()?, of.trim().parse::<usize>().ok()?))
        });
        match numbers {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index: index - 1, of }),
            _ => Err("expected I/N with I from 1 to N, such as 2/8".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_apart_and_together_all() {
        let shards: Vec<Shard> = (1..=3).map(|i| format!("{i}/3").parse().unwrap()).collect();
        for position in 0..10 {
            assert_eq!(shards.iter().filter(|shard| shard.takes(position)).count(), 1);
        }
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_job_array_says_the_part() {
        let of = |set: &[(&str, &str)]| {
            Shard::of_slurm(|name| {
                set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]).ok(), Some(Shard::ALL));
        let array = [
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
        ];
        assert_eq!(of(&array).ok(), Some(Shard { index: 3, of: 4 }));
        assert!(of(&[("SLURM_ARRAY_TASK_ID", "9"), ("SLURM_ARRAY_TASK_COUNT", "4")]).is_err());
    }
}
