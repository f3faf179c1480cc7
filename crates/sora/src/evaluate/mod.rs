//! Evaluates this crate's networks on its data sets, see [`robustness`].

mod builder;

pub use self::builder::{Evaluation, Suite};
pub use robustness::Identity;
pub use robustness::evaluate::*;
use robustness::{Samples, Shape, WeightsIdentity, attack};

use crate::{
    data::Split,
    error::{Error, Result},
    files,
    model::Model,
    ranks::{Alone, Communicator},
};

/// The images of a split, as samples for an evaluation.
#[derive(Clone, Debug)]
pub struct OnSplit(pub Split);

impl Samples for OnSplit {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn shape(&self) -> Shape {
        let [channels, height, width] = self.0.shape();
        Shape { channels, height, width, classes: self.0.num_classes() }
    }

    fn label(&self, position: usize) -> usize {
        self.0.label(position) as usize
    }

    fn id(&self, position: usize) -> u32 {
        self.0.ids()[position]
    }

    fn class_names(&self) -> &[String] {
        self.0.class_names()
    }

    fn sha256(&self) -> robustness::Result<String> {
        Ok(self.0.identity().map_err(Error::from)?.sha256)
    }

    fn pixels(&self, positions: &[usize]) -> robustness::Result<Vec<f32>> {
        self.0.unit_pixels(positions).map_err(|e| Error::from(e).into())
    }
}

/// Rows of pixels in [0, 1] of the samples `indices` of `split`.
///
/// # Errors
/// [`Error`] for an image that cannot be decoded.
pub fn pixels(split: &Split, indices: &[usize]) -> Result<Vec<f32>> {
    Ok(split.unit_pixels(indices)?)
}

/// Version of the library and the revision from which it was built, for an [`Identity`].
pub fn program() -> String {
    format!(
        "sora {} {}",
        env!("CARGO_PKG_VERSION"),
        option_env!("SORA_GIT_REVISION").unwrap_or("unknown")
    )
}

/// The [`Identity`]'s description of `model`, whose weights were taken at training step `step` and
/// are called `which`.
///
/// # Errors
/// [`Error`] when a device fails.
pub fn weights_identity(
    model: &Model,
    step: Option<u64>,
    which: impl Into<String>,
) -> Result<WeightsIdentity> {
    let network = serde_json::to_string(&model.config.for_identity())
        .map_err(|e| Error::defect(format!("cannot serialise the network's options: {e}")))?;
    let sha256 = files::digest(&model.to_host()?);
    Ok(WeightsIdentity { sha256, step, which: which.into(), network })
}

/// Evaluates `model` on every sample of `split` under the attacks called `names`.
///
/// # Errors
/// [`Error`] for an unknown attack, an empty split, or a device that fails.
pub fn evaluate(
    model: &Model,
    split: &Split,
    names: &[&str],
    config: EvalConfig,
) -> Result<Outcome> {
    evaluate_shared(&Alone, model, split, names, config)
}

/// As [`evaluate`], with the images shared out among the processes behind `link`: each finds what
/// one process would.
///
/// # Errors
/// As [`evaluate`], and a process that cannot be reached.
pub fn evaluate_shared(
    link: &dyn Communicator,
    model: &Model,
    split: &Split,
    names: &[&str],
    config: EvalConfig,
) -> Result<Outcome> {
    let entries = attack::entries(names, config.threat.norm)?;
    let samples = OnSplit(split.clone());
    let peers = Linked(link);
    let evaluator = Evaluator::new(model, &samples, config, Ledger::in_memory())?;
    Ok(evaluator.share(&peers).run(&entries)?)
}

/// The processes behind a link, for an [`Evaluator`] to share its images with.
#[derive(Debug)]
pub struct Linked<'a>(pub &'a dyn Communicator);

impl Peers for Linked<'_> {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world(&self) -> usize {
        self.0.world()
    }

    fn gather(&self, mine: &[u8]) -> robustness::Result<Vec<Vec<u8>>> {
        Ok(self.0.gather_each(mine)?)
    }
}
