//! Evaluation attacks: how a perturbation is searched for. Whether it succeeded is the evaluator's to say.

mod fgsm;
mod pgd;

use std::fmt::Debug;

use burn::tensor::{Int, Tensor};

use crate::{
    error::{Error, Result},
    gradient,
    loss::cross_entropy_per_sample,
    model::Model,
    nn::BnMode,
    noise::Noise,
    threat::{Norm, Threat},
};

/// What an attack works with: one batch of images that still stand, at one restart.
#[derive(Debug)]
pub struct AttackContext<'a> {
    /// The network under attack, in eval mode.
    pub model: &'a Model,
    /// Norm and epsilon.
    pub threat: Threat,
    /// Random draws of this attack, restart and these samples.
    pub noise: Noise,
}

impl AttackContext<'_> {
    /// Gradient of the summed cross-entropy with respect to the pixels: the sum, so that a sample's gradient does not depend on the batch size.
    pub fn gradient(&self, x: Tensor<4>, labels: &Tensor<1, Int>) -> Tensor<4> {
        gradient::input_gradient(self.model, x, BnMode::Eval, |logits| cross_entropy_per_sample(logits, labels.clone()).sum()).grad
    }
}

/// An attack. It returns candidate images; the evaluator projects, clips and scores them itself.
pub trait Attack: Debug + Send + Sync {
    /// Candidate adversarial images `[N, C, H, W]` for the pixels `x` of the classes `labels`.
    fn run(&self, cx: &mut AttackContext<'_>, x: Tensor<4>, labels: Tensor<1, Int>) -> Tensor<4>;

    /// Random restarts; a sample stands only if it survives every one.
    fn restarts(&self) -> u64 {
        1
    }

    /// Forward-and-backward passes of one restart, for the progress bar.
    fn passes(&self) -> u64;
}

/// One row of the registry.
#[derive(Debug)]
pub struct AttackInfo {
    /// Name or pattern on the command line.
    pub name: &'static str,
    /// One line for `sora attacks`.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// Norms it is defined for.
    pub norms: &'static [Norm],
    /// Reads a name; `None` if it is not this attack's.
    parse: fn(&str) -> Option<Box<dyn Attack>>,
}

const BOTH: &[Norm] = &[Norm::Linf, Norm::L2];

/// Every attack, in the order of `sora attacks`.
pub const ATTACKS: &[AttackInfo] = &[
    AttackInfo {
        name: "fgsm",
        summary: "one step of epsilon along the gradient (its sign in l-inf)",
        source: "Goodfellow et al. 2015, arXiv 1412.6572",
        norms: BOTH,
        parse: |name| (name == "fgsm").then(|| Box::new(fgsm::Fgsm) as _),
    },
    AttackInfo {
        name: "pgd-K[xR]",
        summary: "K steps of epsilon/4 from a random start (50x10: steps of 2/255), R restarts; for example pgd-10 or pgd-50x10",
        source: "Madry et al. 2018, arXiv 1706.06083; Wong et al. 2020, arXiv 2001.03994",
        norms: BOTH,
        parse: |name| pgd::Pgd::parse(name).map(|attack| Box::new(attack) as _),
    },
];

/// A named entry of `--attacks`: `clean`, or an attack.
#[derive(Debug)]
pub enum Entry {
    /// Accuracy on clean images.
    Clean,
    /// Accuracy under an attack.
    Attack(Box<dyn Attack>),
}

/// Reads one name of `--attacks`.
///
/// # Errors
/// An unknown attack, or one that is not defined for `norm`.
pub fn entry(name: &str, norm: Norm) -> Result<Entry> {
    if name == "clean" {
        return Ok(Entry::Clean);
    }
    let found = ATTACKS.iter().find_map(|info| (info.parse)(name).map(|attack| (info, attack)));
    match found {
        Some((info, attack)) if info.norms.contains(&norm) => Ok(Entry::Attack(attack)),
        Some(_) => Err(Error::input(format!("--attacks '{name}': not defined for --norm {norm}"))),
        None => {
            let known: Vec<_> = ATTACKS.iter().map(|info| info.name).collect();
            Err(Error::input(format!("--attacks '{name}': no such attack; choose from clean, {}", known.join(", "))))
        }
    }
}
