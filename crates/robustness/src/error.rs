//! The errors of an evaluation; each message is one line.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    classifier::{Access, Shape},
    corruption::Corruption,
    threat::Norm,
};

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No attack has this name.
    #[error("no such attack: '{name}'; choose from {}", known.join(", "))]
    UnknownAttack {
        /// The name given.
        name: String,
        /// Names and patterns of all attacks.
        known: Vec<String>,
    },
    /// No corruption has this name.
    #[error(
        "no such corruption: '{0}'; expected all, noise, blur, weather, digital, or {names}",
        names = corruption_names()
    )]
    UnknownCorruption(String),
    /// The attack exists, but not in the form that the name asks for.
    #[error("attack '{name}': {problem}")]
    AttackForm {
        /// The name given.
        name: String,
        /// What is wrong with the form, and which forms are expected.
        problem: String,
    },
    /// The attack is not defined for the norm.
    #[error("attack '{attack}' is not defined in {norm}")]
    Undefined {
        /// The attack.
        attack: String,
        /// The norm.
        norm: Norm,
    },
    /// The attack asks for more than the classifier answers.
    #[error("attack '{attack}' needs {needs}, and the classifier gives {access} only")]
    Access {
        /// The attack.
        attack: String,
        /// The access that the attack needs.
        needs: Access,
        /// What the classifier answers.
        access: Access,
    },
    /// The network has no class of this number to attack towards.
    #[error("target class {target}: the network has {classes} classes, from 0")]
    Target {
        /// The class.
        target: usize,
        /// Number of classes of the network.
        classes: usize,
    },
    /// It is open what the one output of a network of two classes is, or it is not what was said.
    #[error("the network has one output, {0}")]
    OneOutput(&'static str),
    /// The same attack is named twice.
    #[error("attack '{0}' is there twice; name each attack once")]
    Repeated(String),
    /// The text is not an epsilon.
    #[error(
        "epsilon '{0}': expected a fraction such as 8/255 or a number from 0 to 1000, such as 0.0314"
    )]
    Epsilon(String),
    /// The epsilon is 1 or more in l-inf.
    #[error(
        "epsilon {text} in linf reaches every image from every other; did you mean {meant}? \
         Pixels lie in [0, 1]"
    )]
    EpsilonUnits {
        /// The text of the epsilon.
        text: String,
        /// The value that was probably meant.
        meant: String,
    },
    /// The text is not a norm.
    #[error("norm '{0}': expected linf, l2 or l1")]
    Norm(String),
    /// The text is not a list of epsilons.
    #[error(
        "epsilons '{text}': {problem}; expected a range such as 1..32/255, or a list such as \
         2/255,8/255 or 0.01,0.03"
    )]
    Epsilons {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The evaluation has no image.
    #[error("nothing to evaluate: there is no image")]
    NoImages,
    /// The images do not fit the classifier.
    #[error(
        "the network takes images of {}x{}x{} in {} classes, those given have {}x{}x{} in {}",
        network.channels, network.height, network.width, network.classes,
        images.channels, images.height, images.width, images.classes
    )]
    Shape {
        /// The shape that the network takes.
        network: Shape,
        /// The shape of the images.
        images: Shape,
    },
    /// The number of values does not fit the shape.
    #[error("{what}: {found} values, expected {expected}")]
    Length {
        /// The name of the rows.
        what: String,
        /// Number of values that were given.
        found: usize,
        /// Number of values that were expected.
        expected: usize,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation that was tried.
        action: &'static str,
        /// The file or folder of the operation.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process holds the state of the evaluation.
    #[error("{} is in use by another evaluation that is running", .0.display())]
    InUse(PathBuf),
    /// The file that should hold the state of an evaluation holds something else.
    #[error("{} is not the state of an evaluation and stays as it is; name another file", .0.display())]
    NotAState(PathBuf),
    /// The file holds the state of another evaluation.
    #[error(
        "{} is the state of another evaluation ({difference}); name another file, or start \
         anew", path.display()
    )]
    OtherEvaluation {
        /// The file.
        path: PathBuf,
        /// The difference between the two evaluations, in words.
        difference: String,
    },
    /// The adversarial examples could not be kept.
    #[error("the adversarial examples were not kept: their file could not be written")]
    ExamplesLost,
    /// A value has no JSON form.
    #[error("cannot serialise {what}: {source}")]
    Json {
        /// The name of the value.
        what: &'static str,
        /// The reason given by the serialiser.
        source: serde_json::Error,
    },
    /// The classifier failed.
    #[error("{0}")]
    Classifier(Box<dyn std::error::Error + Send + Sync>),
    /// The images could not be read.
    #[error("{0}")]
    Samples(Box<dyn std::error::Error + Send + Sync>),
}

fn corruption_names() -> String {
    Corruption::ALL.map(Corruption::name).join(", ")
}

impl Error {
    /// Wraps the error of a classifier.
    pub fn classifier(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Classifier(e.into())
    }

    /// Wraps the error of images that could not be read.
    pub fn samples(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Samples(e.into())
    }

    /// Whether the call or its input is wrong, as against work that failed.
    pub fn is_input(&self) -> bool {
        !matches!(
            self,
            Self::Io { .. }
                | Self::InUse(_)
                | Self::ExamplesLost
                | Self::Length { .. }
                | Self::Json { .. }
                | Self::Classifier(_)
                | Self::Samples(_)
        )
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
