//! An evaluation in one expression.

use robustness::{Norm, Threat, attack};

use super::{EvalConfig, Evaluator, Ledger, OnSplit, Outcome};
use crate::{
    data::Split,
    error::{Error, Result},
    model::Model,
};

/// Attacks that run together, and the number of images they run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// `clean`, `fgsm` and `pgd-10` on the first 1,000 images, for a quick look during work.
    #[default]
    Quick,
    /// `clean`, `fgsm`, `pgd-10`, `pgd-50x10` and `autoattack` on all images.
    Paper,
    /// `clean` and `autoattack` on all images.
    AutoAttack,
}

impl Suite {
    /// The attacks of the suite, and its number of images; `None` for all.
    pub fn protocol(self) -> (&'static [&'static str], Option<usize>) {
        match self {
            Self::Quick => (&["clean", "fgsm", "pgd-10"], Some(1000)),
            Self::Paper => (&["clean", "fgsm", "pgd-10", "pgd-50x10", "autoattack"], None),
            Self::AutoAttack => (&["clean", "autoattack"], None),
        }
    }
}

/// Measures a network: `Evaluation::of(&model).on(&split).suite(Suite::AutoAttack).run()`.
///
/// ```
/// use sora::{data::OpenOptions, prelude::*};
///
/// let options = OpenOptions { limit_train: Some(64), limit_test: Some(8), ..Default::default() };
/// let data = sora::data::open("synthetic", &options)?;
/// let run = Trainer::new("none").model("mnist-cnn", 2).epochs(1).batch(16).fit(&data)?;
/// let found = Evaluation::of(&run.model).on(&data.test).attacks(["clean", "fgsm"]).run()?;
/// let accuracy = |name| found.results.get(name).map(|result| result.accuracy.accuracy);
/// assert!(accuracy("fgsm") <= accuracy("clean"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Evaluation<'a> {
    model: &'a Model,
    split: Option<&'a Split>,
    attacks: Vec<String>,
    limit: Option<usize>,
    config: EvalConfig,
}

impl<'a> Evaluation<'a> {
    /// An evaluation of `model`, under l-inf with epsilon 8/255 unless [`threat`](Self::threat)
    /// sets another.
    pub fn of(model: &'a Model) -> Self {
        let threat = Threat { norm: Norm::Linf, epsilon: 8.0 / 255.0 };
        Self {
            model,
            split: None,
            attacks: Vec::new(),
            limit: None,
            config: EvalConfig::under(threat),
        }
        .suite(Suite::Quick)
    }

    /// Evaluates on the images of `split`.
    pub fn on(self, split: &'a Split) -> Self {
        Self { split: Some(split), ..self }
    }

    /// Evaluates under this norm and radius, in pixel units.
    pub fn threat(mut self, threat: Threat) -> Self {
        self.config.threat = threat;
        self
    }

    /// Runs the attacks of `suite`, on the suite's number of images.
    pub fn suite(self, suite: Suite) -> Self {
        let (attacks, limit) = suite.protocol();
        Self { limit, ..self.attacks(attacks.iter().copied()) }
    }

    /// Runs these attacks, by name, on all images unless [`limit`](Self::limit) sets a number.
    pub fn attacks<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Self {
        Self { attacks: names.into_iter().map(Into::into).collect(), limit: None, ..self }
    }

    /// Evaluates on the first `images` images only.
    pub fn limit(self, images: usize) -> Self {
        Self { limit: Some(images), ..self }
    }

    /// Draws random starts from this seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Evaluates `images` images at a time; the number does not change the results.
    pub fn batch(mut self, images: usize) -> Self {
        self.config.batch = images;
        self
    }

    /// Runs the attacks in order, each on the images that are classified correctly clean.
    ///
    /// # Errors
    /// [`Error`] without images, for an unknown attack, for images that the network does not take,
    /// or when a device fails.
    pub fn run(self) -> Result<Outcome> {
        let split = self.split.ok_or_else(|| {
            Error::unfit("evaluation", "no images are named; call `on` with a split")
        })?;
        let samples = OnSplit(split.take(self.limit.unwrap_or(usize::MAX)));
        let norm = self.config.threat.norm;
        let entries = attack::entries(&self.attacks, norm)?;
        let model = self.model.in_f32();
        Ok(Evaluator::new(&model, &samples, self.config, Ledger::in_memory())?.run(&entries)?)
    }
}
