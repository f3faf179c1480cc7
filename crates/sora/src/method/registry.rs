//! Every method with its cost, its options and where it comes from.

use std::sync::{PoisonError, RwLock};

use super::{
    Method, Options, Passes, aaer, atas, elle, fgm, fgsm, fgsm_pgi, fgsm_rs, free, gradalign, mart,
    multigrad, n_fgsm, none, nuat, pgd, sora, trades, zerograd,
};
use crate::{
    error::{Error, Result},
    nn::BnMode,
    threat::{Norm, Threat},
};

/// One row of the registry.
#[derive(Debug)]
pub struct MethodInfo {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for `sora methods`.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// Norms it is defined for.
    pub norms: &'static [Norm],
    /// Batch-norm mode of the attack pass unless the run says otherwise.
    pub attack_bn: BnMode,
    /// What it keeps for each training image, in images of f32.
    pub stored_images: u32,
    /// Passes of one step with default options.
    pub passes: Passes,
    /// The largest |delta| (l-inf) or ||delta||_2 (l2) of a training example, in epsilons, with
    /// default options.
    pub bound: f32,
    /// Every option with its default.
    pub options: fn() -> Result<Options>,
    /// Makes the method from every option; call it through [`MethodInfo::build`].
    pub build: fn(&Options, Threat) -> Result<Box<dyn Method>>,
}

const BOTH: &[Norm] = &[Norm::Linf, Norm::L2];

const fn passes(attack: u64) -> Passes {
    Passes { forward: attack + 1, backward_input: attack, backward_full: 1 }
}

/// Every method, in the order of `sora methods`.
pub const METHODS: &[MethodInfo] = &[
    MethodInfo {
        name: "none",
        summary: "standard training on clean images",
        source: "-",
        norms: BOTH,
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(0),
        bound: 0.0,
        options: Options::none,
        build: |options, _| options.expect_none("none").map(|()| Box::new(none::Standard) as _),
    },
    MethodInfo {
        name: "fgsm",
        summary: "one step of size epsilon along the gradient's sign; suffers catastrophic overfitting",
        source: "Goodfellow et al. 2015, arXiv 1412.6572",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(1),
        bound: 1.0,
        options: Options::none,
        build: |options, _| options.expect_none("fgsm").map(|()| Box::new(fgsm::Fgsm) as _),
    },
    MethodInfo {
        name: "fgm",
        summary: "one step of length epsilon along the gradient",
        source: "Goodfellow et al. 2015, arXiv 1412.6572",
        norms: &[Norm::L2],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(1),
        bound: 1.0,
        options: Options::none,
        build: |options, _| options.expect_none("fgm").map(|()| Box::new(fgm::Fgm) as _),
    },
    MethodInfo {
        name: "fgsm-rs",
        summary: "random start in the ball, one step of 1.25 epsilon, projected on the ball",
        source: "Wong et al. 2020, arXiv 2001.03994",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(1),
        bound: 1.0,
        options: fgsm_rs::FgsmRs::options,
        build: |options, _| Ok(Box::new(options.parse::<fgsm_rs::FgsmRs>("fgsm-rs")?)),
    },
    MethodInfo {
        name: "n-fgsm",
        summary: "random start in twice the ball, one step of epsilon, no projection",
        source: "de Jorge et al. 2022, arXiv 2202.01181",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(1),
        bound: 3.0,
        options: n_fgsm::NFgsm::options,
        build: |options, _| Ok(Box::new(options.parse::<n_fgsm::NFgsm>("n-fgsm")?)),
    },
    MethodInfo {
        name: "pgd",
        summary: "random start, 10 steps of epsilon/4, projected on the ball",
        source: "Madry et al. 2018, arXiv 1706.06083",
        norms: BOTH,
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(10),
        bound: 1.0,
        options: || Options::of(&pgd::Pgd::ten()),
        build: |options, _| Ok(Box::new(options.parse::<pgd::Pgd>("pgd")?.check()?)),
    },
    MethodInfo {
        name: "pgd-2",
        summary: "random start, 2 steps of epsilon/2, projected on the ball",
        source: "Madry et al. 2018, arXiv 1706.06083",
        norms: BOTH,
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(2),
        bound: 1.0,
        options: || Options::of(&pgd::Pgd::two()),
        build: |options, _| Ok(Box::new(options.parse::<pgd::Pgd>("pgd-2")?.check()?)),
    },
    MethodInfo {
        name: "sora",
        summary: "random start, one step whose size follows a free second-order estimate and is drawn anew for each pixel",
        source: "SORA 2026, arXiv 2606.00738",
        norms: BOTH,
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(1),
        bound: 3.0,
        options: sora::SoraOptions::options,
        build: |options, _| Ok(Box::new(sora::Sora::new(options.parse("sora")?)?)),
    },
    MethodInfo {
        name: "zerograd",
        summary: "random start, one step of 2 epsilon that leaves out the smallest gradient entries, projected on the ball",
        source: "Golgooni et al. 2021, arXiv 2103.15476",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(1),
        bound: 1.0,
        options: zerograd::ZeroGrad::options,
        build: |options, _| Ok(Box::new(options.parse::<zerograd::ZeroGrad>("zerograd")?.check()?)),
    },
    MethodInfo {
        name: "multigrad",
        summary: "one step of epsilon where the gradients at 3 random points agree in sign",
        source: "Golgooni et al. 2021, arXiv 2103.15476",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(3),
        bound: 1.0,
        options: multigrad::MultiGrad::options,
        build: |options, _| {
            Ok(Box::new(options.parse::<multigrad::MultiGrad>("multigrad")?.check()?))
        },
    },
    MethodInfo {
        name: "gradalign",
        summary: "fgsm-rs with a penalty on the angle between the gradients at the image and at a random point",
        source: "Andriushchenko and Flammarion 2020, arXiv 2007.02617",
        norms: BOTH,
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: Passes { forward: 5, backward_input: 2, backward_full: 3 },
        bound: 1.0,
        options: gradalign::GradAlign::options,
        build: |options, _| {
            Ok(Box::new(options.parse::<gradalign::GradAlign>("gradalign")?.check()?))
        },
    },
    MethodInfo {
        name: "nuat",
        summary: "one step from a random corner; the nuclear norm of the change of the logits is attacked and penalised",
        source: "Sriramanan et al. 2021, NeurIPS",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: Passes { forward: 4, backward_input: 1, backward_full: 2 },
        bound: 1.0,
        options: nuat::NuAt::options,
        build: |options, _| Ok(Box::new(options.parse::<nuat::NuAt>("nuat")?.check()?)),
    },
    MethodInfo {
        name: "elle",
        summary: "fgsm-rs with a penalty on the error of linear interpolation of the loss; adaptive=true gives ELLE-A",
        source: "Abad Rocamora et al. 2024, arXiv 2401.11618",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: Passes { forward: 5, backward_input: 1, backward_full: 4 },
        bound: 1.0,
        options: elle::ElleOptions::options,
        build: |options, _| Ok(Box::new(elle::Elle::new(options.parse("elle")?)?)),
    },
    MethodInfo {
        name: "aaer",
        summary: "n-fgsm with a penalty on samples whose loss falls under the attack",
        source: "Lin et al. 2024, arXiv 2404.08154",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(1),
        bound: 3.0,
        options: aaer::Aaer::options,
        build: |options, _| Ok(Box::new(options.parse::<aaer::Aaer>("aaer")?.check()?)),
    },
    MethodInfo {
        name: "atas",
        summary: "a stored perturbation for each image, one step whose size falls with the image's gradient norm",
        source: "Huang et al. 2022, arXiv 2206.02417",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Eval,
        stored_images: 1,
        passes: passes(1),
        bound: 1.0,
        options: atas::AtasOptions::options,
        build: |options, _| Ok(Box::new(atas::Atas::new(options.parse("atas")?)?)),
    },
    MethodInfo {
        name: "fgsm-pgi",
        summary: "a start from each image's accumulated gradients, one step, and a penalty on the change of the logits",
        source: "Jia et al. 2022, arXiv 2207.08859",
        norms: &[Norm::Linf],
        attack_bn: BnMode::Train,
        stored_images: 2,
        passes: Passes { forward: 3, backward_input: 1, backward_full: 2 },
        bound: 1.0,
        options: fgsm_pgi::FgsmPgiOptions::options,
        build: |options, _| Ok(Box::new(fgsm_pgi::FgsmPgi::new(options.parse("fgsm-pgi")?)?)),
    },
    MethodInfo {
        name: "free",
        summary: "8 updates on each batch, each of which also moves the perturbation; count epochs accordingly",
        source: "Shafahi et al. 2019, arXiv 1904.12843",
        norms: BOTH,
        attack_bn: BnMode::Train,
        stored_images: 0,
        passes: passes(0),
        bound: 1.0,
        options: free::FreeOptions::options,
        build: |options, _| Ok(Box::new(free::Free::new(options.parse("free")?)?)),
    },
    MethodInfo {
        name: "trades",
        summary: "10 steps on the divergence from the clean prediction, which the loss weighs against clean accuracy",
        source: "Zhang et al. 2019, arXiv 1901.08573",
        norms: BOTH,
        attack_bn: BnMode::Eval,
        stored_images: 0,
        passes: Passes { forward: 13, backward_input: 10, backward_full: 2 },
        bound: 1.0,
        options: trades::Trades::options,
        build: |options, _| Ok(Box::new(options.parse::<trades::Trades>("trades")?.check()?)),
    },
    MethodInfo {
        name: "mart",
        summary: "pgd with a loss that weighs misclassified samples more",
        source: "Wang et al. 2020, ICLR",
        norms: BOTH,
        attack_bn: BnMode::Eval,
        stored_images: 0,
        passes: Passes { forward: 12, backward_input: 10, backward_full: 2 },
        bound: 1.0,
        options: mart::Mart::options,
        build: |options, _| Ok(Box::new(options.parse::<mart::Mart>("mart")?.check()?)),
    },
];

/// Methods that programs have added.
static ADDED: RwLock<Vec<&'static MethodInfo>> = RwLock::new(Vec::new());

fn added() -> Vec<&'static MethodInfo> {
    ADDED.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Adds a method from outside this crate to those that [`method`] finds, and with it the training
/// loop and the run's settings.
///
/// # Errors
/// A name that is taken.
pub fn register(info: &'static MethodInfo) -> Result<()> {
    let mut added = ADDED.write().unwrap_or_else(PoisonError::into_inner);
    if METHODS.iter().chain(added.iter().copied()).any(|known| known.name == info.name) {
        return Err(Error::input(format!(
            "method '{}': there is one of that name already; choose another",
            info.name
        )));
    }
    added.push(info);
    Ok(())
}

/// The registry row of `name`.
///
/// # Errors
/// An unknown name; the message lists the known ones.
pub fn method(name: &str) -> Result<&'static MethodInfo> {
    let added = added();
    METHODS.iter().chain(added.iter().copied()).find(|info| info.name == name).ok_or_else(|| {
        let known = METHODS.iter().chain(added.iter().copied()).map(|info| info.name);
        Error::unknown("method", name, known)
    })
}

impl MethodInfo {
    /// Builds the method; `options` must hold every option (start from [`options`](Self::options)).
    ///
    /// # Errors
    /// A norm the method is not defined for, or a wrong option.
    pub fn build(&self, options: &Options, threat: Threat) -> Result<Box<dyn Method>> {
        if !self.norms.contains(&threat.norm) {
            let other = METHODS
                .iter()
                .filter(|m| m.norms.contains(&threat.norm))
                .map(|m| m.name)
                .collect::<Vec<_>>();
            return Err(Error::input(format!(
                "--method {} is not defined for --norm {}; with that norm choose one of {}",
                self.name,
                threat.norm,
                other.join(", ")
            )));
        }
        (self.build)(options, threat)
    }
}
