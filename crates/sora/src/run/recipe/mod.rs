//! Recipes: which runs and evaluations make a grid, and which drawings a figure or table of the
//! paper. Those that come with the program are in `configs/`.
//!
//! ```toml
//! title = "What the figure shows"
//! plots = ["curves"]                    # kinds of `sora plot`
//! table = true                          # whether to write a table of the evaluations
//!
//! [train]                               # keys of a run's config.toml, for every run
//! dataset = "cifar10"
//!
//! [[runs]]                              # every combination of the lists
//! method = ["fgsm", "sora"]
//! seed = [0, 1]
//!
//! [scale.small]                         # the same for smoke and full
//! train = { width = 16, epochs = 8 }    # goes over [train]
//! keep = { seed = [0] }                 # of a key's values, only these
//! attacks = ["clean", "pgd-10"]         # `sora eval` after each run; none: no evaluation
//! limit = 1000                          # test images of it
//! ```
//!
//! A recipe of one size has no scales; `attacks` and `limit` stand at its top.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::{
    config::{self, TrainConfig, one_line},
    error::{Error, Result},
};

/// Most runs of a recipe.
const MOST_RUNS: usize = 10_000;

/// The share of the paper's setting that a recipe runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Minutes: shows that everything works, but not the paper's claims.
    Smoke,
    /// An hour or so on two cores: narrow networks, parts of the data.
    #[default]
    Small,
    /// The paper's setting.
    Full,
}

impl Scale {
    /// Name on the command line and in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Small => "small",
            Self::Full => "full",
        }
    }
}

macro_rules! recipes {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every recipe that comes with the program.
        pub const RECIPES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../configs/", $name, ".toml")))),*];
    };
}

recipes![
    "curves",
    "pertalign",
    "epsilon-overfitting",
    "landscape",
    "main-table",
    "datasets",
    "networks",
    "cost",
    "l2",
    "vit",
    "ablations",
    "robust-overfitting",
];

/// The content of a recipe's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Heading: what the figure shows.
    #[serde(default)]
    pub title: String,
    /// The kinds of figures to draw.
    #[serde(default)]
    pub plots: Vec<String>,
    /// Whether to write a table of the evaluations.
    #[serde(default)]
    pub table: bool,
    #[serde(default)]
    train: Table,
    runs: Vec<Table>,
    #[serde(default)]
    attacks: Vec<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    scale: BTreeMap<Scale, ScaleOptions>,
    /// The file, unless it comes with the program.
    #[serde(skip)]
    file: Option<PathBuf>,
}

/// The settings of a recipe for one scale.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleOptions {
    #[serde(default)]
    train: Table,
    #[serde(default)]
    keep: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    attacks: Vec<String>,
    #[serde(default)]
    limit: Option<usize>,
}

/// A run of a recipe.
#[derive(Clone, Debug)]
pub struct PlannedRun {
    /// Folder name: readable, and different for different settings.
    pub name: String,
    /// Text that separates the run from the recipe's other runs in tables: values of `method`,
    /// `label` and every swept key.
    pub label: String,
    /// Settings, as the text of a config file.
    pub config: String,
    /// Folder name in earlier versions, which hung on the machine's settings, too.
    former_name: String,
}

/// Settings of a machine, which make no other run when a call gives them.
const OF_THE_MACHINE: [&str; 3] = ["threads", "device", "data_dir"];

impl PlannedRun {
    /// The run's folder in `out`; one that an earlier version has made goes on.
    pub fn folder(&self, out: &Path) -> PathBuf {
        let former = out.join(&self.former_name);
        if former.exists() { former } else { out.join(&self.name) }
    }
}

/// The work of a recipe at one scale.
#[derive(Clone, Debug)]
pub struct RecipePlan {
    /// Runs, each once.
    pub runs: Vec<PlannedRun>,
    /// Attacks of the evaluation after each run; empty for no evaluation.
    pub attacks: Vec<String>,
    /// Number of test images of the evaluation; `None` for all.
    pub limit: Option<usize>,
}

impl Recipe {
    /// Finds the recipe called `name`, or reads the file of that name, which ends in `.toml`.
    ///
    /// # Errors
    /// [`Error`] for an unknown name, or a file that cannot be read or parsed.
    pub fn find(name: &str) -> Result<Self> {
        if let Some((_, text)) = RECIPES.iter().find(|(known, _)| *known == name) {
            return toml::from_str(text).map_err(|e| {
                Error::defect(format!("recipe {name}: {}", one_line(&e.to_string())))
            });
        }
        let path = Path::new(name);
        if path.extension().is_some_and(|extension| extension == "toml") {
            return Self::parse(&config::read_text(path, "a recipe")?, path);
        }
        Err(Error::unknown("recipe", name, RECIPES.iter().map(|(name, _)| *name)))
    }

    /// Reads the text of the recipe in `file`.
    ///
    /// # Errors
    /// [`Error`] for a text that is no recipe.
    pub(crate) fn parse(text: &str, file: &Path) -> Result<Self> {
        let recipe: Self = from_toml(text, file)?;
        Ok(Self { file: Some(file.to_owned()), ..recipe })
    }

    /// The runs and evaluations at `scale`, with the settings `over` in place of all others. A
    /// recipe without scales is the same at each.
    ///
    /// # Errors
    /// [`Error`] for a scale that the recipe does not have, for none where it has some, or for a
    /// setting that a training would refuse.
    pub fn plan(&self, scale: Option<Scale>, over: &Table) -> Result<RecipePlan> {
        let at = &self.at(scale)?;
        let mut runs: Vec<PlannedRun> = Vec::new();
        for table in &self.runs {
            let mut fixed = self.train.clone();
            fixed.extend(at.train.clone());
            let (mut swept, mut label) = (Vec::new(), None);
            for (key, value) in table {
                match value {
                    Value::Array(values) => {
                        let kept = values.iter().filter(|value| {
                            at.keep.get(key).is_none_or(|keep| keep.contains(value))
                        });
                        swept.push((key.clone(), kept.cloned().collect::<Vec<_>>()));
                    }
                    Value::String(text) if key == "label" => label = Some(text.clone()),
                    value => {
                        if at.keep.get(key).is_some_and(|keep| !keep.contains(value)) {
                            swept.push((key.clone(), Vec::new()));
                        }
                        // A fixed value of a run replaces the scale's.
                        fixed.insert(key.clone(), value.clone());
                    }
                }
            }
            let count =
                swept.iter().fold(1usize, |count, (_, values)| count.saturating_mul(values.len()));
            if count.saturating_add(runs.len()) > MOST_RUNS {
                let problem = format!("its lists combine to more than {MOST_RUNS} runs");
                return Err(Error::unfit(format!("recipe '{}'", self.title), problem));
            }
            for choice in combinations(&swept) {
                let mut own = fixed.clone();
                own.extend(choice.clone());
                let run = planned(own, over, &choice, label.as_deref())
                    .map_err(|e| self.placed(e, over))?;
                if runs.iter().all(|known| known.name != run.name) {
                    runs.push(run);
                }
            }
        }
        Ok(RecipePlan { runs, attacks: at.attacks.clone(), limit: at.limit })
    }

    fn at(&self, scale: Option<Scale>) -> Result<ScaleOptions> {
        if self.scale.is_empty() {
            let (attacks, limit) = (self.attacks.clone(), self.limit);
            return Ok(ScaleOptions { attacks, limit, ..Default::default() });
        }
        scale.and_then(|scale| self.scale.get(&scale)).cloned().ok_or_else(|| {
            let known: Vec<_> = self.scale.keys().map(|scale| scale.name()).collect();
            let problem = format!("the recipe has the scales {}", known.join(", "));
            Error::setting("scale", scale.map_or("", Scale::name), problem)
        })
    }

    /// A wrong setting of the recipe's file, and not `over` it, is told with the file.
    fn placed(&self, error: Error, over: &Table) -> Error {
        match (&self.file, &error) {
            (_, Error::Setting { setting, .. }) if over.contains_key(setting.as_ref()) => error,
            (Some(path), _) => Error::InFile { path: path.clone(), source: Box::new(error) },
            (None, _) => error,
        }
    }
}

/// Reads the text of the file `path`.
fn from_toml<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|e| Error::damaged(path, one_line(&e.to_string())))
}

/// Every choice of one value for each key.
fn combinations(swept: &[(String, Vec<Value>)]) -> Vec<Table> {
    swept.iter().fold(vec![Table::new()], |tables, (key, values)| {
        let with = |table: &Table, value: &Value| {
            let mut table = table.clone();
            table.insert(key.clone(), value.clone());
            table
        };
        tables.iter().flat_map(|table| values.iter().map(move |value| with(table, value))).collect()
    })
}

/// The run with the settings `own`, which a call has replaced by those of `over`.
fn planned(own: Table, over: &Table, choice: &Table, label: Option<&str>) -> Result<PlannedRun> {
    let mut settings = own.clone();
    settings.extend(over.clone());
    // What makes a run another one: neither a machine's threads nor its folders.
    let of_the_machine = |key: &str| OF_THE_MACHINE.contains(&key);
    let mut identity = own;
    identity.extend(over.clone().into_iter().filter(|(key, _)| !of_the_machine(key)));
    let (config, identity) = (text(&settings)?, text(&identity)?);
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let method = settings.get("method").map_or_else(|| "sora".into(), plain);
    let mut words = vec![label.map_or(method, str::to_owned)];
    words.extend(
        choice
            .iter()
            .filter(|(key, _)| *key != "method")
            .map(|(key, value)| format!("{key} {}", plain(value))),
    );
    let label = words.join(", ");
    // Settings that a training would refuse are refused before any run begins, as are lists of one
    // that has no effect: their runs would be the same.
    let swept = |e: &Error| match e {
        Error::Setting { setting, .. } => choice.contains_key(setting.as_ref()),
        _ => false,
    };
    let check = |table| {
        let ignored = TrainConfig::from_table(table)?.ignored()?;
        ignored.into_iter().find(swept).map_or(Ok(()), Err)
    };
    config::parse(&config).and_then(check).map_err(|e| match e {
        Error::Setting { setting, value, problem } => {
            Error::Setting { setting, value, problem: format!("{problem} (the run '{label}')") }
        }
        other => Error::unfit(format!("the recipe's run '{label}'"), other.to_string()),
    })?;
    let readable: String = label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .collect();
    let readable = readable.replace("__", "_").replace("_8_255", "_8").replace("_16_255", "_16");
    let [name, former_name] =
        [&identity, &config].map(|text| format!("{readable}-{:08x}", short_hash(text)));
    Ok(PlannedRun { name, label, config, former_name })
}

fn text(settings: &Table) -> Result<String> {
    toml::to_string(settings)
        .map_err(|e| Error::defect(format!("cannot serialise the settings of a run: {e}")))
}

/// The upper half of FNV-1a.
fn short_hash(text: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix) >> 32
}

#[cfg(test)]
mod tests;
