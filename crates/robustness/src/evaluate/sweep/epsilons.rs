//! The epsilons of a sweep, as a user writes them.

use std::str::FromStr;

use crate::{
    error::{Error, Result},
    threat::{Epsilon, Norm},
};

/// Most epsilons of a sweep.
const MOST: usize = 1000;

/// Epsilons as a user writes them: `1..32/255` (both ends belong to it), `1..32/255:2` for every
/// second, or a list such as `2/255,8/255` or `0.01,0.03`.
#[derive(Clone, Debug, PartialEq)]
pub struct Epsilons(Vec<Epsilon>);

impl Epsilons {
    /// The radii in `norm`, pixel units.
    ///
    /// # Errors
    /// [`Error`] for 1 or more in l-inf.
    pub fn within(&self, norm: Norm) -> Result<Vec<f32>> {
        let value = |epsilon: &Epsilon| Ok(epsilon.clone().within(norm)?.value());
        self.0.iter().map(value).collect()
    }

    /// `1..32/255`.
    pub fn usual() -> Self {
        Self((1..=32).map(|top| Epsilon::ratio(top, 255)).collect())
    }
}

impl FromStr for Epsilons {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |problem| Error::Epsilons { text: text.to_owned(), problem };
        let Some((first, rest)) = text.split_once("..") else {
            let list: Vec<Epsilon> =
                text.split(',').map(|one| one.trim().parse()).collect::<Result<_>>()?;
            return if list.len() > MOST {
                Err(wrong("more than 1000 values"))
            } else {
                Ok(Self(list))
            };
        };
        let (range, step) = rest.split_once(':').unwrap_or((rest, "1"));
        let (last, bottom) = range.split_once('/').unwrap_or((range, "1"));
        let whole = |s: &str| s.trim().parse::<u32>().ok().filter(|n| *n <= 255_000);
        let (Some(first), Some(last), Some(step)) = (whole(first), whole(last), whole(step)) else {
            return Err(wrong("not a range of whole numbers"));
        };
        let Some(bottom) = whole(bottom).filter(|n| *n > 0) else {
            return Err(wrong("not a fraction"));
        };
        if first > last || step == 0 {
            return Err(wrong("an empty range"));
        }
        let tops = (first..=last).step_by(step as usize);
        if tops.clone().nth(MOST).is_some() {
            return Err(wrong("more than 1000 values"));
        }
        let one = |top: u32| match bottom {
            1 => top.to_string().parse(),
            _ => Ok(Epsilon::ratio(top, bottom)),
        };
        Ok(Self(tops.map(one).collect::<Result<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilons_are_read() {
        let read = |text: &str| {
            let values = text.parse::<Epsilons>()?.within(Norm::Linf)?;
            Ok(values.iter().map(|v| (v * 255_000.0).round() as i64).collect::<Vec<_>>())
        };
        let of = |text: &str| read(text).unwrap_or_else(|e: Error| panic!("{text}: {e}"));
        assert_eq!(of("1..4/255"), [1000, 2000, 3000, 4000]);
        assert_eq!(of("0..8/255:4"), [0, 4000, 8000]);
        assert_eq!(of("2/255,8/255,0.5"), [2000, 8000, 127_500]);
        assert_eq!(read("1..32/255").unwrap(), read("1..32/255:1").unwrap());
        assert_eq!(Epsilons::usual(), "1..32/255".parse().unwrap());
        assert_eq!(Epsilons::usual().within(Norm::Linf).unwrap()[7], (8.0f64 / 255.0) as f32);
        for (text, meant) in [("8", "8/255"), ("1..32", "1/255"), ("2,4,8", "2/255")] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(&format!("did you mean {meant}?")), "{said}");
            assert!(text.parse::<Epsilons>().unwrap().within(Norm::L2).is_ok());
        }
        for wrong in [
            "",
            "4..1/255",
            "1..",
            "a..b",
            "1..4/255:0",
            "1..100000/255",
            "-1",
            "1/255,,2/255",
            "1..4/0",
        ] {
            assert!(read(wrong).is_err_and(|e| e.is_input()), "{wrong}");
        }
    }
}
