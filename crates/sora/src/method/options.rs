//! A method's hyperparameters: a struct with defaults, and the same values as `key = value` pairs
//! from the command line or a config file.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{Method, MethodInfo};
use crate::{
    error::{Error, Result},
    threat::Threat,
};

/// The hyperparameters of a method. The struct's fields are the options, `Default` has their
/// defaults, and `Serialize` has their names.
///
/// ```
/// use sora::method::{Hyperparameters, Sora};
///
/// let sora = Sora { alpha_0: 0.04, ..Sora::default() };
/// sora.check()?;
/// assert_eq!(Sora::info().name, "sora");
/// # Ok::<(), sora::error::Error>(())
/// ```
pub trait Hyperparameters: Default + Serialize + DeserializeOwned + fmt::Debug {
    /// The method's row in the registry.
    fn info() -> &'static MethodInfo;

    /// Refuses values out of their ranges.
    ///
    /// # Errors
    /// [`Error`] for the first wrong value.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Makes the method, before its first step.
    fn into_method(self) -> Box<dyn Method>;

    /// The defaults of the other [`Variant`], for a method that has two.
    fn reference() -> Option<Self> {
        None
    }

    /// These hyperparameters by name.
    ///
    /// # Errors
    /// [`Error`] for a struct that is not a table of values.
    fn options(&self) -> Result<Options> {
        Ok(Options { values: table(self)?, ..Options::defaults::<Self>()? })
    }
}

/// The two forms of a method, where the authors' repository and the SORA reference differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The form of the authors' repository.
    #[default]
    Official,
    /// The form of the SORA reference's comparison, which earlier versions of this program trained.
    Reference,
}

impl Variant {
    /// Every variant.
    pub const ALL: [Self; 2] = [Self::Official, Self::Reference];

    /// The variant of a config file that names none: it was written before there were two.
    pub(super) const fn of_old_runs() -> Self {
        Self::Reference
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Official => "official",
            Self::Reference => "reference",
        })
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|variant| variant.to_string() == text).ok_or_else(|| {
            Error::setting("options.variant", text, "expected official or reference")
        })
    }
}

/// Hyperparameters by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Options {
    values: Table,
    /// Defaults of the variant `reference`.
    #[serde(skip)]
    reference: Option<Table>,
    /// The names that were given a value.
    #[serde(skip)]
    given: BTreeSet<String>,
}

impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

fn table<T: Serialize>(options: &T) -> Result<Table> {
    Table::try_from(options)
        .map_err(|e| Error::defect(format!("a method's options cannot be listed: {e}")))
}

impl Options {
    /// Every option of `T` with its default; the `options` of a [`MethodInfo`].
    ///
    /// # Errors
    /// [`Error`] for a struct that is not a table of values.
    pub fn defaults<T: Hyperparameters>() -> Result<Self> {
        Self::of(&T::default())?.or_reference(T::reference().as_ref())
    }

    /// The fields of `values` as options.
    ///
    /// # Errors
    /// [`Error`] for a struct that is not a table of values.
    pub fn of<T: Serialize>(values: &T) -> Result<Self> {
        Ok(Self { values: table(values)?, ..Self::default() })
    }

    /// Replaces the text `name`, if there is one that is not empty.
    pub(crate) fn replace_text(&mut self, name: &str, by: impl FnOnce(&str) -> String) {
        if let Some(Value::String(text)) = self.values.get_mut(name)
            && !text.is_empty()
        {
            *text = by(text);
        }
    }

    /// These options, with `reference` as the defaults of that variant.
    pub(super) fn or_reference<T: Serialize>(self, reference: Option<&T>) -> Result<Self> {
        Ok(Self { reference: reference.map(table).transpose()?, ..self })
    }

    /// The method `T` with these options; the `build` of a [`MethodInfo`].
    ///
    /// # Errors
    /// [`Error`] for an option that is unknown, of the wrong type, or out of its range.
    pub fn build<T: Hyperparameters>(&self, _threat: Threat) -> Result<Box<dyn Method>> {
        let options: T = self.parse(T::info().name)?;
        options.check()?;
        Ok(options.into_method())
    }

    /// `key = value` pairs in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Sets `key=value`; only a key that is already there can be set. Setting `variant` brings that
    /// variant's defaults where no value was given.
    ///
    /// # Errors
    /// [`Error`] for a malformed pair, or for an unknown key; the message lists the valid keys.
    pub fn set(&mut self, pair: &str, method: &str) -> Result<()> {
        let (key, text) = pair.split_once('=').ok_or_else(|| {
            Error::setting("options", pair, "expected key=value, for example beta=0.05")
        })?;
        let value = format!("v = {}", text.trim())
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| Value::String(text.trim().to_owned()));
        self.set_value(key.trim(), value, method)
    }

    /// Overrides options with those of a config file.
    ///
    /// # Errors
    /// [`Error`] for an unknown key.
    pub fn merge(&mut self, other: &Self, method: &str) -> Result<()> {
        other.values.iter().try_for_each(|(key, value)| self.set_value(key, value.clone(), method))
    }

    fn set_value(&mut self, key: &str, value: Value, method: &str) -> Result<()> {
        let Some(slot) = self.values.get_mut(key) else {
            let known = self.values.keys().cloned().collect::<Vec<_>>().join(", ");
            let has = if known.is_empty() {
                format!("method {method} has no options")
            } else {
                format!("method {method} has no such option; it has {known}")
            };
            return Err(Error::setting(format!("options.{key}"), value.to_string(), has));
        };
        // `beta=1` means 1.0 where the option is a floating-point number.
        *slot = match (&slot, value) {
            (Value::Float(_), Value::Integer(number)) => Value::Float(number as f64),
            (_, value) => value,
        };
        let of_reference = key == "variant" && slot.as_str() == Some("reference");
        self.given.insert(key.to_owned());
        if let Some(reference) = self.reference.as_ref().filter(|_| of_reference) {
            for (key, value) in reference {
                if !self.given.contains(key) {
                    self.values.insert(key.clone(), value.clone());
                }
            }
        }
        Ok(())
    }

    /// The options as the method's own struct.
    ///
    /// # Errors
    /// [`Error`] for a value of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self, method: &str) -> Result<T> {
        self.values.clone().try_into().map_err(|e| {
            let line = e.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Error::setting("options", "", format!("method {method}: {line}"))
        })
    }
}

/// Refuses an option outside `low..=high`.
///
/// # Errors
/// [`Error`] for a value outside the range, or NaN.
pub fn range(name: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::setting(format!("options.{name}"), value, format!("expected {low} to {high}")))
}

/// Checks the ranges of several options: name, value, lowest, highest.
pub(super) fn ranges<const N: usize>(options: [(&str, f64, f64, f64); N]) -> Result<()> {
    options.into_iter().try_for_each(|(name, value, low, high)| range(name, value, low, high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Atas, METHODS};

    #[test]
    fn a_variant_brings_its_defaults_where_nothing_was_given() {
        let defaults = || Options::defaults::<Atas>().unwrap();
        let parsed = |options: &Options| options.parse::<Atas>("atas").unwrap();
        let reference = Atas::reference().unwrap();
        assert_ne!(reference, Atas::default());
        for pairs in [["variant=reference", "least=0.25"], ["least=0.25", "variant=reference"]] {
            let mut options = defaults();
            pairs.iter().for_each(|pair| options.set(pair, "atas").unwrap());
            assert_eq!(parsed(&options), Atas { least: 0.25, ..reference });
        }
        assert_eq!(parsed(&defaults()), Atas::default());
    }

    #[test]
    fn options_of_an_old_run_mean_the_reference() {
        let mut old = Options::of(&Atas::reference().unwrap()).unwrap();
        old.values.remove("variant");
        assert_eq!(old.parse::<Atas>("atas").unwrap(), Atas::reference().unwrap());
    }

    #[test]
    fn every_methods_defaults_go_through_their_text() {
        for info in METHODS {
            let defaults = (info.options)().unwrap();
            let text = toml::to_string(&defaults).unwrap();
            assert_eq!(toml::from_str::<Options>(&text).unwrap(), defaults, "{}", info.name);
            let mut unknown = defaults.clone();
            assert!(unknown.set("no_such_option=1", info.name).is_err());
            assert!(unknown.set("no value", info.name).is_err());
        }
    }
}
