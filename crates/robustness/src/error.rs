//! What can go wrong, each message one line.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    classifier::{Access, Shape},
    threat::Norm,
};

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No attack has this name.
    #[error("no such attack: '{name}'; choose from {}", known.join(", "))]
    UnknownAttack {
        /// The name given.
        name: String,
        /// Names and patterns of the attacks there are.
        known: Vec<String>,
    },
    /// An attack of this name, in a form that it does not have.
    #[error("attack '{name}': {problem}")]
    AttackForm {
        /// The name given.
        name: String,
        /// What is wrong with it, and what is expected.
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
        /// What it asks for.
        needs: Access,
        /// What the classifier answers.
        access: Access,
    },
    /// No class to attack towards.
    #[error("target class {target}: the network has {classes} classes, from 0")]
    Target {
        /// The class.
        target: usize,
        /// Classes of the network.
        classes: usize,
    },
    /// The same attack twice.
    #[error("attack '{0}' is there twice; name each attack once")]
    Repeated(String),
    /// A text that is no epsilon.
    #[error(
        "epsilon '{0}': expected a fraction such as 8/255 or a number from 0 to 1000, such as 0.0314"
    )]
    Epsilon(String),
    /// An epsilon of 1 or more in l-inf.
    #[error(
        "epsilon {text} in linf reaches every image from every other; did you mean {meant}? Pixels lie in [0, 1]"
    )]
    EpsilonUnits {
        /// The epsilon.
        text: String,
        /// What was probably meant.
        meant: String,
    },
    /// A text that is no norm.
    #[error("norm '{0}': expected linf or l2")]
    Norm(String),
    /// A text that is no list of epsilons.
    #[error(
        "epsilons '{text}': {problem}; expected a range such as 1..32/255, or a list such as 2/255,8/255 or 0.01,0.03"
    )]
    Epsilons {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is no image.
    #[error("nothing to evaluate: there is no image")]
    NoImages,
    /// Images and classifier do not go together.
    #[error(
        "the network takes images of {}x{}x{} in {} classes, those given have {}x{}x{} in {}",
        network.channels, network.height, network.width, network.classes,
        images.channels, images.height, images.width, images.classes
    )]
    Shape {
        /// What the network takes.
        network: Shape,
        /// What it was given.
        images: Shape,
    },
    /// Rows that do not fill their shape.
    #[error("{what}: {found} values, expected {expected}")]
    Length {
        /// Which rows.
        what: String,
        /// Values there are.
        found: usize,
        /// Values there should be.
        expected: usize,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The state of an evaluation is held by another process.
    #[error("{} is in use by another evaluation that is running", .0.display())]
    InUse(PathBuf),
    /// A file that was to hold the state of an evaluation and holds something else.
    #[error("{} is not the state of an evaluation and stays as it is; name another file", .0.display())]
    NotAState(PathBuf),
    /// The state of another evaluation.
    #[error(
        "{} is the state of another evaluation ({difference}); name another file, or start anew", path.display()
    )]
    OtherEvaluation {
        /// The file.
        path: PathBuf,
        /// What is different, in words.
        difference: String,
    },
    /// Adversarial examples that were not kept.
    #[error("the adversarial examples were not kept: their file could not be written")]
    ExamplesLost,
    /// A value that has no JSON form.
    #[error("cannot serialise {what}: {source}")]
    Json {
        /// Which value.
        what: &'static str,
        /// The reason.
        source: serde_json::Error,
    },
    /// The classifier failed.
    #[error("{0}")]
    Classifier(Box<dyn std::error::Error + Send + Sync>),
    /// Images could not be read.
    #[error("{0}")]
    Samples(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A failure of a classifier.
    pub fn classifier(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Classifier(e.into())
    }

    /// Images that could not be read.
    pub fn samples(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Samples(e.into())
    }

    /// Whether the call or its input is wrong, not the work itself.
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
