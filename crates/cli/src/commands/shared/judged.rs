//! What is judged: a network of ours, from a run folder or a weights file, an ONNX file, or a model
//! that runs elsewhere.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use sora::{
    evaluate,
    model::Model,
    nn::Precision,
    robustness::{Classifier, OneOutput, Samples, Shape, WeightsIdentity},
    run::{About, RunConfig, RunDir, Subject, Which},
};
use sora_onnx::{Network, Normalisation, Options};
use sora_served::Served;

use super::{ForeignArgs, SubjectArgs, subject::CPU_BATCH};
use crate::error::{Failure, Result};

/// The network to evaluate, and the facts known about it.
#[derive(Debug)]
pub enum Judged {
    /// A network of ours.
    Ours {
        /// The network.
        subject: Box<Subject>,
        /// The run folder or the weights file.
        path: PathBuf,
    },
    /// A network of an ONNX file.
    Onnx {
        /// The network.
        network: Box<Network>,
        /// The file.
        path: PathBuf,
    },
    /// A model that runs elsewhere.
    Served(Box<Served>),
}

impl Judged {
    /// Loads what `args` name.
    ///
    /// # Errors
    /// A path that is neither, a model that does not answer, or arguments that do not go with it.
    pub fn load(args: &SubjectArgs) -> Result<Self> {
        let foreign = &args.foreign;
        let Some(path) = &args.subject else {
            refuse_weights(args, "a served model")?;
            let batch = args.batch.unwrap_or(CPU_BATCH);
            return Ok(Self::Served(Box::new(args.served.open(foreign, batch)?)));
        };
        args.served.refuse()?;
        if !path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
            foreign.refuse()?;
            let device = sora::device::device(&args.machine.device)?;
            let which = args.weights.unwrap_or(Which::Final);
            let subject = Box::new(Subject::load_weights(path, which, &device)?);
            return Ok(Self::Ours { subject, path: path.clone() });
        }
        refuse_weights(args, "an ONNX file")?;
        let network =
            Network::open(path, &foreign.options()?).map_err(|e| Failure::input(e.to_string()))?;
        for note in network.notes() {
            tracing::info!("{}: {note}", path.display());
        }
        Ok(Self::Onnx { network: Box::new(network), path: path.clone() })
    }

    /// The network as a classifier for attacks.
    pub fn classifier(&self) -> &dyn Classifier {
        match self {
            Self::Ours { subject, .. } => &subject.model,
            Self::Onnx { network, .. } => &**network,
            Self::Served(model) => &**model,
        }
    }

    /// The network computed in `precision`, for attacks to search on.
    ///
    /// # Errors
    /// A network that is not ours, or a precision that its device does not have.
    pub fn computed_in(&self, precision: Precision) -> Result<Model> {
        let Self::Ours { subject, .. } = self else {
            return Err(Failure::input(format!(
                "--attack-precision {precision}: for a run or a weights file; {} is computed as it is",
                self.name()
            )));
        };
        let mut model = subject.model.clone();
        model.set_precision(precision)?;
        Ok(model)
    }

    /// Sizes of its images, and its number of classes.
    pub fn shape(&self) -> Shape {
        self.classifier().shape()
    }

    /// The description in the weights file.
    pub fn about(&self) -> Option<&About> {
        match self {
            Self::Ours { subject, .. } => Some(&subject.about),
            Self::Onnx { .. } | Self::Served(_) => None,
        }
    }

    /// The run of the weights, if they come from one.
    pub fn run(&self) -> Option<&(RunDir, RunConfig)> {
        match self {
            Self::Ours { subject, .. } => subject.run.as_ref(),
            Self::Onnx { .. } | Self::Served(_) => None,
        }
    }

    /// What it is called in messages.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Ours { path, .. } | Self::Onnx { path, .. } => path.to_string_lossy(),
            Self::Served(model) => model.name().into(),
        }
    }

    /// The path of a file called `name` beside it; of a served model, in the current folder.
    pub fn beside(&self, name: &str) -> PathBuf {
        match self {
            Self::Ours { path, .. } | Self::Onnx { path, .. } => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                path.with_file_name(format!("{stem}-{name}"))
            }
            Self::Served(_) => Path::new(&format!("black-box-{name}")).to_owned(),
        }
    }

    /// What names the weights and everything that is computed with them. `which`: of a run's
    /// weights. A served model is named by its answers to `samples`, `batch` at a time.
    ///
    /// # Errors
    /// A device, a model or images that fail.
    pub fn weights(
        &self,
        which: Which,
        samples: &dyn Samples,
        batch: usize,
    ) -> Result<WeightsIdentity> {
        match self {
            Self::Ours { subject, .. } => {
                let name = which_weights(subject, which);
                Ok(evaluate::weights_identity(&subject.model, subject.source.step, name)?)
            }
            Self::Onnx { network, .. } => Ok(WeightsIdentity {
                sha256: network.digest().to_owned(),
                step: None,
                which: String::new(),
                network: format!(
                    "ONNX {:?}, normalisation {:?}{}",
                    network.shape(),
                    network.normalisation(),
                    as_probability(network.one_output())
                ),
            }),
            Self::Served(model) => Ok(WeightsIdentity {
                sha256: model.digest(samples, batch)?,
                step: None,
                which: String::new(),
                network: format!(
                    "{}, {:?}{}",
                    model.name(),
                    model.description(),
                    as_probability(model.one_output())
                ),
            }),
        }
    }

    /// Says what the one output of a network of two classes is, where it has one.
    ///
    /// # Errors
    /// An output that leaves it open, or that is not what it is said to be.
    pub fn look_at_one_output(&self, samples: &dyn Samples) -> Result<()> {
        let said = match self {
            Self::Onnx { network, .. } if network.has_one_output() => network.one_output(),
            Self::Served(model) if model.description().classes == 1 => model.one_output(),
            _ => return Ok(()),
        };
        let note = OneOutput::check(said, self.classifier(), samples)?;
        tracing::info!("{}: {note}", self.name());
        Ok(())
    }

    /// A warning about the probable cause, if the clean accuracy is at the level of chance.
    pub fn warn_of_units(&self, correct: u64, images: u64) -> Option<String> {
        if let Self::Ours { .. } = self {
            return None;
        }
        let chance = images as f64 / self.shape().classes as f64;
        (images >= 20 && (correct as f64) < 1.5 * chance).then(|| {
            format!(
                "{}: {correct} of {images} images are classified correctly, as by chance: does the \
                 network expect normalised images (--mean and --std), another range, or classes in \
                 another order?",
                self.name()
            )
        })
    }
}

/// The part of an identity that says that one output is a probability.
fn as_probability(one_output: Option<OneOutput>) -> &'static str {
    match one_output {
        Some(OneOutput::Probability) => ", the output is a probability",
        _ => "",
    }
}

/// Refuses what goes with a run alone.
fn refuse_weights(args: &SubjectArgs, kind: &str) -> Result<()> {
    if args.weights.is_some() {
        return Err(Failure::input(format!("--weights: {kind} holds one set of weights")));
    }
    match &args.machine.device {
        device if device == "cpu" => Ok(()),
        device => Err(Failure::input(format!(
            "--device {device}: is for networks of this program; {kind} is not computed there"
        ))),
    }
}

impl ForeignArgs {
    fn options(&self) -> Result<Options> {
        Ok(Options {
            image_size: self.side.map(|side| [side, side]),
            normalisation: self.normalisation()?.map(|(mean, std)| Normalisation { mean, std }),
            output: self.output.clone(),
            one_output: self.one_output,
        })
    }

    /// Mean and standard deviation of each channel.
    ///
    /// # Errors
    /// One without the other, or values of another range.
    pub fn normalisation(&self) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        match (&self.mean[..], &self.std[..]) {
            ([], []) => Ok(None),
            (mean, std) if mean.len() == std.len() => {
                // A mean of 125 means that the file expects pixels from 0 to 255.
                if let Some(value) = mean.iter().chain(std).find(|v| !(-10.0..=10.0).contains(*v)) {
                    return Err(Failure::input(format!(
                        "--mean and --std: {value} is no value for pixels in [0, 1]; divide by 255?"
                    )));
                }
                Ok(Some((mean.to_vec(), std.to_vec())))
            }
            _ => Err(Failure::input("--mean and --std: give one value a channel for each")),
        }
    }

    fn refuse(&self) -> Result<()> {
        let given = [
            ("mean", !self.mean.is_empty()),
            ("std", !self.std.is_empty()),
            ("image-size", self.side.is_some()),
            ("output", self.output.is_some()),
            ("one-output", self.one_output.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Failure::input(format!(
                "--{name}: is for ONNX files and served models; a run or a weights file knows what it takes"
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
