//! Hyperparameters of a method as `key = value`, from the command line or a config file.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::error::{Error, Result};

/// Hyperparameters by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Options(Table);

impl Options {
    /// A method without options.
    pub fn none() -> Result<Self> {
        Ok(Self::default())
    }

    /// Every field of `defaults` as an option.
    pub fn of<T: Serialize>(defaults: &T) -> Result<Self> {
        Table::try_from(defaults)
            .map(Self)
            .map_err(|e| Error::work(format!("a method's default options cannot be listed: {e}")))
    }

    /// `key = value` pairs in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Sets `key=value`; only a key that is already there can be set.
    ///
    /// # Errors
    /// A malformed pair, or an unknown key; the message lists the valid ones.
    pub fn set(&mut self, pair: &str, method: &str) -> Result<()> {
        let (key, text) = pair.split_once('=').ok_or_else(|| {
            Error::input(format!("--set '{pair}': expected key=value, for example --set beta=0.05"))
        })?;
        let value = format!("v = {}", text.trim())
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| Value::String(text.trim().to_owned()));
        self.set_value(key.trim(), value, method)
    }

    /// Overrides with the options of a config file.
    ///
    /// # Errors
    /// An unknown key.
    pub fn merge(&mut self, other: &Self, method: &str) -> Result<()> {
        other.0.iter().try_for_each(|(key, value)| self.set_value(key, value.clone(), method))
    }

    fn set_value(&mut self, key: &str, value: Value, method: &str) -> Result<()> {
        if let Some(slot) = self.0.get_mut(key) {
            // `--set beta=1` means 1.0 where the option is a number with a fraction.
            *slot = match (&slot, value) {
                (Value::Float(_), Value::Integer(number)) => Value::Float(number as f64),
                (_, value) => value,
            };
            return Ok(());
        }
        let known = self.0.keys().cloned().collect::<Vec<_>>().join(", ");
        let has = if known.is_empty() {
            "has no options".to_owned()
        } else {
            format!("has no such option; it has {known}")
        };
        Err(Error::input(format!("option '{key}': method {method} {has}")))
    }

    /// The options as the method's own struct.
    ///
    /// # Errors
    /// A value of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self, method: &str) -> Result<T> {
        self.0.clone().try_into().map_err(|e| {
            let line = e.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Error::input(format!("options of method {method}: {line}"))
        })
    }

    /// For methods without options.
    ///
    /// # Errors
    /// Any option at all.
    pub fn expect_none(&self, method: &str) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => {
                Err(Error::input(format!("option '{key}': method {method} has no options")))
            }
        }
    }
}

/// Refuses an option outside `low..=high`.
pub(super) fn range(name: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::input(format!("option '{name}' = {value}: expected {low} to {high}")))
}
