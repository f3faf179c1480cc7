//! The list of methods, and the methods that programs add.

use std::sync::{PoisonError, RwLock};

use super::{
    Method, Options, Passes, aaer, atas, elle, fgm, fgsm, fgsm_pgi, fgsm_rs, free, gradalign, lap,
    lp_fgsm, mart, multigrad, n_fgsm, none, nuat, pgd, sora, trades, zerograd,
};
use crate::{
    error::{Error, Result},
    nn::BnMode,
    threat::{Norm, Threat},
};

/// One row of the registry.
#[derive(Debug)]
pub struct MethodInfo {
    /// Name of the method in settings.
    pub name: &'static str,
    /// A description in one line, for lists.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// Norms in which the method is defined.
    pub norms: &'static [Norm],
    /// Batch-norm mode of the attack pass, unless the run sets another.
    pub attack_bn: BnMode,
    /// Number of f32 images that the method keeps for each training image.
    pub stored_images: u32,
    /// Passes of one step with default options.
    pub passes: Passes,
    /// The largest |delta| (l-inf) or ||delta||_2 (l2) of a training example, in epsilons, with
    /// default options.
    pub bound: f32,
    /// Every option with its default: [`Options::defaults`].
    pub options: fn() -> Result<Options>,
    /// Makes the method from every option, [`Options::build`]; call it through
    /// [`MethodInfo::build`].
    pub build: fn(&Options, Threat) -> Result<Box<dyn Method>>,
}

/// Every norm.
pub(super) const BOTH: &[Norm] = &[Norm::Linf, Norm::L2];

/// The passes of a step with `attack` attack passes and one training pass.
pub(super) const fn passes(attack: u64) -> Passes {
    Passes { forward: attack + 1, backward_input: attack, backward_full: 1 }
}

/// Every method, in the order of lists.
pub static METHODS: &[&MethodInfo] = &[
    &none::INFO,
    &fgsm::INFO,
    &fgm::INFO,
    &fgsm_rs::INFO,
    &n_fgsm::INFO,
    &pgd::INFO,
    &pgd::INFO_2,
    &sora::INFO,
    &zerograd::INFO,
    &multigrad::INFO,
    &gradalign::INFO,
    &nuat::INFO,
    &elle::INFO,
    &elle::INFO_N_FGSM,
    &aaer::INFO,
    &lp_fgsm::INFO,
    &lap::INFO,
    &atas::INFO,
    &fgsm_pgi::INFO,
    &free::INFO,
    &trades::INFO,
    &mart::INFO,
];

/// Methods that programs have added.
static ADDED: RwLock<Vec<&'static MethodInfo>> = RwLock::new(Vec::new());

/// Every method; the methods of programs come last.
fn all() -> Vec<&'static MethodInfo> {
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner);
    METHODS.iter().chain(added.iter()).copied().collect()
}

/// Adds a method from outside this crate to the methods that [`method`] finds; the training loop
/// and the run's settings then accept it.
///
/// # Errors
/// [`Error`] for a name that is taken.
pub fn register(info: &'static MethodInfo) -> Result<()> {
    let mut added = ADDED.write().unwrap_or_else(PoisonError::into_inner);
    if METHODS.iter().chain(added.iter()).any(|known| known.name == info.name) {
        return Err(Error::unfit(
            format!("method '{}'", info.name),
            "there is one of that name already; choose another",
        ));
    }
    added.push(info);
    Ok(())
}

/// Finds the registry row of `name`.
///
/// # Errors
/// [`Error`] for an unknown name; it lists the known ones.
pub fn method(name: &str) -> Result<&'static MethodInfo> {
    let all = all();
    let known = || all.iter().map(|info| info.name);
    all.iter()
        .copied()
        .find(|info| info.name == name)
        .ok_or_else(|| Error::unknown("method", name, known()))
}

impl MethodInfo {
    /// Builds the method; `options` must hold every option (start from [`options`](Self::options)).
    ///
    /// # Errors
    /// [`Error`] for a norm in which the method is not defined, or a wrong option.
    pub fn build(&self, options: &Options, threat: Threat) -> Result<Box<dyn Method>> {
        if !self.norms.contains(&threat.norm) {
            let other = METHODS
                .iter()
                .filter(|m| m.norms.contains(&threat.norm))
                .map(|m| m.name)
                .collect::<Vec<_>>();
            return Err(Error::setting(
                "method",
                self.name,
                format!(
                    "not defined for `norm` {}; with that norm choose one of {}",
                    threat.norm,
                    other.join(", ")
                ),
            ));
        }
        (self.build)(options, threat)
    }

    /// The batch-norm mode of the attack pass with `options`, unless the run says otherwise.
    ///
    /// # Errors
    /// Those of [`build`](Self::build).
    pub fn attack_bn_with(&self, options: &Options, threat: Threat) -> Result<BnMode> {
        Ok(self.build(options, threat)?.attack_bn().unwrap_or(self.attack_bn))
    }
}
