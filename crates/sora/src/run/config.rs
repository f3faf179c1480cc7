//! `config.toml` of a run: its settings, what the data set decided, and where it was made.
//!
//! The first line is the SHA-256 of what follows it, so that a changed byte is noticed. It is a
//! comment: the file is also what a new run can start from.

use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::Table;

use crate::{
    config::{ABOUT_THE_RUN, TrainConfig, complete, one_line, read},
    data::{Dataset, DatasetIdentity},
    device,
    error::{Error, Result},
    files,
    model::ModelConfig,
};

/// What the first line of config.toml begins with.
const SEAL: &str = "# sha256 of what follows: ";

/// Facts about the program and the machine, kept with the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Version of the program.
    pub sora: String,
    /// Revision of its sources.
    pub git_revision: String,
    /// Version of Burn.
    pub burn: String,
    /// Device.
    pub device: String,
    /// Instruction set of the CPU engine: another one gives other last bits.
    pub instruction_set: String,
    /// Operating system.
    pub os: String,
}

impl Provenance {
    /// Of this process.
    ///
    /// # Errors
    /// An instruction set that is asked for and not known.
    pub fn here(device: &str) -> Result<Self> {
        Ok(Self {
            sora: env!("CARGO_PKG_VERSION").into(),
            git_revision: option_env!("SORA_GIT_REVISION").unwrap_or("unknown").into(),
            burn: "0.22.1".into(),
            device: device.into(),
            instruction_set: device::instruction_set()?.to_string(),
            os: std::env::consts::OS.into(),
        })
    }
}

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunConfig {
    /// What was asked for, with augmentation and validation size settled.
    #[serde(flatten)]
    pub settings: TrainConfig,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Numbers of epochs that the run had before it was extended, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extended: Vec<u64>,
    /// The network as the data set decides it.
    pub network: ModelConfig,
    /// The images and labels that the run began with; absent in files of older versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DatasetIdentity>,
    /// Where the run was made.
    pub provenance: Provenance,
    /// Whether the file carries its own digest, as all do since there are manifests.
    #[serde(skip)]
    pub sealed: bool,
}

impl RunConfig {
    /// The text of config.toml.
    ///
    /// # Errors
    /// Settings that cannot be serialised, which is a defect.
    pub fn to_text(&self) -> Result<String> {
        let text = toml::to_string(self).map_err(|e| {
            Error::defect(format!("cannot serialise the settings: {}", one_line(&e.to_string())))
        })?;
        Ok(format!("{SEAL}{}\n{text}", files::sha256(text.as_bytes())))
    }

    /// From the text of the config.toml `file`. A file of an older version has no seal.
    ///
    /// # Errors
    /// A text that was changed, is no TOML, or has an unknown key or a wrong value.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("# ") {
            let sealed = text.strip_prefix(SEAL).and_then(|sealed| sealed.split_once('\n'));
            let whole = sealed.is_some_and(|(sum, rest)| sum == files::sha256(rest.as_bytes()));
            if !whole && (sealed.is_some() || rest.starts_with("sha256")) {
                let problem = "changed since the run wrote it (damaged or edited); restore it, or \
                               start a new run from it";
                return Err(Error::damaged(file, problem));
            }
        }
        let config = Self::from_text(text).map_err(|e| Error::damaged(file, e.to_string()))?;
        Ok(Self { sealed: text.starts_with(SEAL), ..config })
    }

    fn from_text(text: &str) -> Result<Self> {
        let mut table = text
            .parse::<Table>()
            .map_err(|e| Error::unfit("not TOML", one_line(&e.to_string())))?;
        let mut about: Table =
            ABOUT_THE_RUN.iter().filter_map(|key| table.remove_entry(*key)).collect();
        complete(&mut table);
        let settings = read(&table)?;
        let network = part(&mut about, "network")?
            .ok_or_else(|| Error::unfit("network", "the part [network] is missing"))?;
        Ok(Self {
            settings,
            steps_per_epoch: part(&mut about, "steps_per_epoch")?.unwrap_or(0),
            extended: part(&mut about, "extended")?.unwrap_or_default(),
            network,
            data: part(&mut about, "data")?,
            provenance: part(&mut about, "provenance")?.unwrap_or_default(),
            sealed: false,
        })
    }

    /// Refuses data that is not what the run began with: validation images could be trained on,
    /// labels could change places, and the bits would be those of no unbroken run.
    ///
    /// # Errors
    /// In what the data differs, in one line; images that cannot be read.
    pub fn check_data(&self, dataset: &Dataset) -> Result<()> {
        let Some(before) = &self.data else { return Ok(()) };
        match dataset.train.identity()?.difference(&before.train) {
            None => Ok(()),
            Some(difference) => Err(Error::unfit(
                format!("data set {}", dataset.info.name),
                format!("its training images are not those that the run began with: {difference}"),
            )),
        }
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.steps_per_epoch * self.settings.epochs
    }
}

/// The value of `key`, taken out of `table`.
fn part<T: DeserializeOwned>(table: &mut Table, key: &str) -> Result<Option<T>> {
    let Some(value) = table.remove(key) else { return Ok(None) };
    value
        .try_into()
        .map(Some)
        .map_err(|e: toml::de::Error| Error::unfit(key, one_line(e.message())))
}
