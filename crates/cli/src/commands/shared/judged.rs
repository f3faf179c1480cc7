//! The network to evaluate: one of this program, from a run folder or a weights file, or an ONNX
//! file.

use std::path::{Path, PathBuf};

use sora::{
    evaluate,
    robustness::{Classifier, Shape, WeightsIdentity},
    run::{About, RunConfig, RunDir, Subject, Which},
};
use sora_onnx::{Network, Normalisation, Options};

use super::{Machine, OnnxArgs};
use crate::error::{Failure, Result};

/// The network to evaluate, and the facts known about it.
#[derive(Debug)]
pub enum Judged {
    /// A network of this program.
    Ours(Box<Subject>),
    /// A network of an ONNX file.
    Onnx {
        /// The network.
        network: Box<Network>,
        /// The file.
        path: PathBuf,
    },
}

impl Judged {
    /// Loads the network at `path`.
    ///
    /// # Errors
    /// A path that is neither, or arguments that do not fit the file.
    pub fn load(
        path: &Path,
        which: Option<Which>,
        onnx: &OnnxArgs,
        machine: &Machine,
    ) -> Result<Self> {
        let device = sora::device::device(&machine.device)?;
        if !path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
            onnx.refuse()?;
            let which = which.unwrap_or(Which::Final);
            return Ok(Self::Ours(Box::new(Subject::load_weights(path, which, &device)?)));
        }
        if which.is_some() {
            return Err(Failure::input("--weights: an ONNX file holds one set of weights"));
        }
        if machine.device != "cpu" {
            return Err(Failure::input(format!(
                "--device {}: ONNX files are computed on the cpu",
                machine.device
            )));
        }
        let network =
            Network::open(path, &onnx.options()?).map_err(|e| Failure::input(e.to_string()))?;
        for note in network.notes() {
            tracing::info!("{}: {note}", path.display());
        }
        Ok(Self::Onnx { network: Box::new(network), path: path.to_owned() })
    }

    /// The network as a classifier for attacks.
    pub fn classifier(&self) -> &dyn Classifier {
        match self {
            Self::Ours(subject) => &subject.model,
            Self::Onnx { network, .. } => &**network,
        }
    }

    /// Sizes of its images, and its number of classes.
    pub fn shape(&self) -> Shape {
        self.classifier().shape()
    }

    /// The description in the weights file.
    pub fn about(&self) -> Option<&About> {
        match self {
            Self::Ours(subject) => Some(&subject.about),
            Self::Onnx { .. } => None,
        }
    }

    /// The run of the weights, if they come from one.
    pub fn run(&self) -> Option<&(RunDir, RunConfig)> {
        match self {
            Self::Ours(subject) => subject.run.as_ref(),
            Self::Onnx { .. } => None,
        }
    }

    /// The identity of the weights and of all values computed with them. `which` selects the
    /// weights of a run.
    ///
    /// # Errors
    /// A device that fails.
    pub fn weights(&self, which: Which) -> Result<WeightsIdentity> {
        match self {
            Self::Ours(subject) => {
                let name = which_weights(subject, which);
                Ok(evaluate::weights_identity(&subject.model, subject.source.step, name)?)
            }
            Self::Onnx { network, .. } => Ok(WeightsIdentity {
                sha256: network.digest().to_owned(),
                step: None,
                which: String::new(),
                network: format!(
                    "ONNX {:?}, normalisation {:?}",
                    network.shape(),
                    network.normalisation()
                ),
            }),
        }
    }

    /// A warning about the probable cause, if the clean accuracy is at the level of chance.
    pub fn warn_of_units(&self, correct: u64, images: u64) -> Option<String> {
        let Self::Onnx { network, path } = self else { return None };
        let chance = images as f64 / network.shape().classes as f64;
        (images >= 20 && (correct as f64) < 1.5 * chance).then(|| {
            format!(
                "{}: {correct} of {images} images are classified correctly, as by chance: does the \
                 network expect normalised images (--mean and --std), another range, or classes in \
                 another order?",
                path.display()
            )
        })
    }
}

impl OnnxArgs {
    fn options(&self) -> Result<Options> {
        let normalisation = match (&self.mean[..], &self.std[..]) {
            ([], []) => None,
            (mean, std) if mean.len() == std.len() => {
                // A mean of 125 means that the file expects pixels from 0 to 255.
                if let Some(value) = mean.iter().chain(std).find(|v| !(-10.0..=10.0).contains(*v)) {
                    return Err(Failure::input(format!(
                        "--mean and --std: {value} is no value for pixels in [0, 1]; divide by 255?"
                    )));
                }
                Some(Normalisation { mean: mean.to_vec(), std: std.to_vec() })
            }
            _ => return Err(Failure::input("--mean and --std: give one value a channel for each")),
        };
        Ok(Options {
            image_size: self.onnx_size.map(|side| [side, side]),
            normalisation,
            output: self.output.clone(),
        })
    }

    fn refuse(&self) -> Result<()> {
        let given = [
            ("mean", !self.mean.is_empty()),
            ("std", !self.std.is_empty()),
            ("image-size", self.onnx_size.is_some()),
            ("output", self.output.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Failure::input(format!(
                "--{name}: is for ONNX files; a run or a weights file knows what it takes"
            ))),
            None => Ok(()),
        }
    }
}

/// The name of the weights in a record.
fn which_weights(subject: &Subject, which: Which) -> String {
    match (which, subject.source.complete, subject.source.step) {
        (Which::Best, ..) => "best".into(),
        (Which::Final, true, _) => "final".into(),
        (_, _, Some(step)) => format!("step {step}"),
        (_, _, None) => String::new(),
    }
}
