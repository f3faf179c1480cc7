//! `config.toml` of a run: its settings, the facts that the data set decided, and the program and
//! machine.
//!
//! The first line is the SHA-256 of the text after it, so that a changed byte is noticed. The line
//! is a comment, because a new run can also start from the file.

use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::Table;

use crate::{
    config::{ABOUT_THE_RUN, TrainConfig, complete, one_line, read},
    data::{Dataset, DatasetIdentity, SplitIdentity},
    device,
    error::{Error, Result},
    files,
    model::{ModelConfig, Shape},
    run::InitialWeights,
};

/// The beginning of the first line of config.toml.
const SEAL: &str = "# sha256 of what follows: ";

/// Facts about the program and the machine, kept with the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Version of the program.
    pub sora: String,
    /// Revision of the program's sources.
    pub git_revision: String,
    /// Version of Burn.
    pub burn: String,
    /// Device.
    pub device: String,
    /// Instruction set of the CPU engine; another one changes the last bits.
    pub instruction_set: String,
    /// Operating system.
    pub os: String,
}

impl Provenance {
    /// The facts about this process.
    ///
    /// # Errors
    /// [`Error`] for an instruction set that is requested but not known.
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

/// All values that decide a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunConfig {
    /// The requested settings, completed with augmentation and validation size.
    #[serde(flatten)]
    pub settings: TrainConfig,
    /// Number of steps of an epoch.
    pub steps_per_epoch: u64,
    /// Earlier numbers of epochs of a run that was extended, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extended: Vec<u64>,
    /// SHA-256 of the tensors of the weights that the run began with, where `init` names some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_sha256: Option<String>,
    /// Processes that share each batch.
    #[serde(skip_serializing_if = "is_one")]
    pub world: usize,
    /// How many there were before their number changed, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub worlds: Vec<usize>,
    /// The network, with the values that the data set decides.
    pub network: ModelConfig,
    /// Identity of the images and labels at the begin of the run; absent in files of older
    /// versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DatasetIdentity>,
    /// Identity of the extra training images, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra: Option<SplitIdentity>,
    /// Program and machine of the run.
    pub provenance: Provenance,
    /// Whether the file carries its own digest; files of versions without manifests do not.
    #[serde(skip)]
    pub sealed: bool,
}

/// Whether the text of a config.toml is another than the run wrote, as far as its first line tells.
pub(crate) fn is_changed(text: &str) -> bool {
    let sealed = text.strip_prefix(SEAL).and_then(|sealed| sealed.split_once('\n'));
    match sealed {
        Some((sum, rest)) => sum != files::sha256(rest.as_bytes()),
        None => text.is_empty() || text.starts_with("# sha256"),
    }
}

impl RunConfig {
    /// The text of config.toml.
    ///
    /// # Errors
    /// [`Error::Defect`] for settings that cannot be serialised.
    pub fn to_text(&self) -> Result<String> {
        let text = toml::to_string(self).map_err(|e| {
            Error::defect(format!("cannot serialise the settings: {}", one_line(&e.to_string())))
        })?;
        Ok(format!("{SEAL}{}\n{text}", files::sha256(text.as_bytes())))
    }

    /// Reads the text of the config.toml `file`. A file of an older version has no seal.
    ///
    /// # Errors
    /// [`Error`] for a text that was changed, is not TOML, or has an unknown key or a wrong value.
    pub fn parse(text: &str, file: &Path) -> Result<Self> {
        if is_changed(text) {
            let problem = "changed since the run wrote it (damaged or edited); restore it, or \
                           start a new run from it";
            return Err(Error::damaged(file, problem));
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
            init_sha256: part(&mut about, "init_sha256")?,
            world: part(&mut about, "world")?.unwrap_or(1),
            worlds: part(&mut about, "worlds")?.unwrap_or_default(),
            network,
            data: part(&mut about, "data")?,
            extra: part(&mut about, "extra")?,
            provenance: part(&mut about, "provenance")?.unwrap_or_default(),
            sealed: false,
        })
    }

    /// Refuses data that differ from those at the run's begin. Otherwise validation images could be
    /// trained on, labels could change places, and the bits would not be those of an unbroken run.
    ///
    /// # Errors
    /// [`Error`] with the difference in one line, or for images that cannot be read.
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

    /// Reads the weights that the run began with, if `init` names some.
    ///
    /// # Errors
    /// [`Error`] for weights that cannot be read, or that are others than then.
    pub fn initial_weights(&self) -> Result<Option<InitialWeights>> {
        let Shape { height, width, .. } = self.network.shape;
        let found = InitialWeights::of(&self.settings, [height, width])?;
        let Some((path, found)) = self.settings.init.as_deref().zip(found) else {
            return Ok(None);
        };
        if self.init_sha256.as_ref().is_some_and(|then| *then != found.sha256()) {
            let problem = "not the weights that the run began with, which it needs to begin \
                           again; restore them, or start a new run";
            return Err(Error::mismatch(path, problem));
        }
        Ok(Some(found))
    }

    /// Number of steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.steps_per_epoch * self.settings.epochs
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it in like this")]
fn is_one(count: &usize) -> bool {
    *count == 1
}

/// Takes the value of `key` out of `table`.
fn part<T: DeserializeOwned>(table: &mut Table, key: &str) -> Result<Option<T>> {
    let Some(value) = table.remove(key) else { return Ok(None) };
    value
        .try_into()
        .map(Some)
        .map_err(|e: toml::de::Error| Error::unfit(key, one_line(e.message())))
}
