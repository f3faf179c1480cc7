//! The list of networks by name. The row of each network stands in the network's own file.

use std::sync::{PoisonError, RwLock};

use super::{
    Builder, Id, NetworkOptions, Shape, Shortcut, Stem, Structure, cct, dm_preact_resnet,
    dm_wide_resnet, mnist_cnn, preact_resnet, resnet, senet, vgg, vit, wide_resnet,
};
use crate::{
    error::{Error, Result},
    nn::Activation,
};

/// Side in pixels from which images count as large: networks with two forms take the one for
/// ImageNet.
pub(crate) const LARGE_IMAGE: usize = 96;

/// One row of the registry.
#[derive(Clone, Debug)]
pub struct NetworkInfo {
    /// Name.
    pub name: &'static str,
    /// A description in one line.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// The source of the weights' names and initialisation.
    pub names: &'static str,
    /// The paper's width.
    pub default_width: usize,
    /// The paper's activation.
    pub activation: Activation,
    /// The options that the network takes: `activation`, `dropout`, `stem`, `patch`, `shortcut`.
    pub options: &'static [&'static str],
    /// What projection shortcuts take in the public implementations, if the network has the option.
    pub shortcut: Shortcut,
    /// The weight whose first dimension is the width.
    pub width_from: &'static str,
    /// The weight whose first dimension is the number of classes, in any of the network's forms.
    pub classes_from: &'static [&'static str],
    /// Other names that files have for parts of the weights' names.
    pub aliases: &'static [(&'static str, &'static str)],
    /// Adds the layers from the input on; the last one gives the logits.
    pub build: fn(&mut Builder, Id),
}

impl NetworkInfo {
    /// A base for other rows (`..NetworkInfo::BASE`): ReLU, width 64, no options.
    pub const BASE: NetworkInfo = NetworkInfo {
        name: "",
        summary: "",
        source: "",
        names: "",
        default_width: 64,
        activation: Activation::Relu,
        options: &[],
        shortcut: Shortcut::Input,
        width_from: "conv1.weight",
        classes_from: &["linear.weight"],
        aliases: &[],
        build: |_, _| {},
    };

    /// The structure, with its parameters and buffers.
    ///
    /// # Errors
    /// [`Error`] for images that the network does not take.
    pub(super) fn structure(
        &self,
        width: usize,
        shape: Shape,
        options: NetworkOptions,
    ) -> Result<Structure> {
        let activation = options.activation.unwrap_or(self.activation);
        let mut builder = Builder::with_options(width, shape, options, activation);
        let input = builder.input();
        (self.build)(&mut builder, input);
        builder.finish()
    }

    /// Number of parameters for images of `shape`, with default options.
    ///
    /// # Errors
    /// [`Error`] for images that the network does not take.
    pub fn parameters(&self, width: usize, shape: Shape) -> Result<u64> {
        let structure = self.structure(width, shape, NetworkOptions::default())?;
        Ok(structure.specs.params.iter().map(|spec| spec.len() as u64).sum())
    }

    /// The options of a new network: adds those that the size of the images and the literature
    /// decide, and refuses options that the network does not take.
    ///
    /// # Errors
    /// [`Error`] for an option that the network does not take, or a wrong value.
    pub fn resolve(&self, options: NetworkOptions, shape: Shape) -> Result<NetworkOptions> {
        self.check(options)?;
        let takes = |name| self.options.contains(&name);
        let side = shape.height.min(shape.width);
        let stem = if side < LARGE_IMAGE { Stem::Cifar } else { Stem::Imagenet };
        Ok(NetworkOptions {
            activation: Some(options.activation.unwrap_or(self.activation)),
            dropout: options.dropout,
            stem: takes("stem").then(|| options.stem.unwrap_or(stem)),
            patch: takes("patch")
                .then(|| options.patch.unwrap_or_else(|| vit::default_patch(side))),
            shortcut: takes("shortcut").then(|| options.shortcut.unwrap_or(self.shortcut)),
        })
    }

    /// Refuses options that the network does not take.
    pub(super) fn check(&self, options: NetworkOptions) -> Result<()> {
        let given = [
            ("activation", options.activation.is_some()),
            ("dropout", options.dropout != 0.0),
            ("stem", options.stem.is_some()),
            ("patch", options.patch.is_some()),
            ("shortcut", options.shortcut.is_some()),
        ];
        let taken = |name: &str| self.options.contains(&name);
        if let Some((name, _)) = given.into_iter().find(|(name, given)| *given && !taken(name)) {
            let names: Vec<_> = self.options.iter().map(|name| format!("`{name}`")).collect();
            let taken = match names.as_slice() {
                [] => "it has none".to_owned(),
                names => format!("it takes {}", names.join(", ")),
            };
            let problem = format!("the network {} has no such option; {taken}", self.name);
            return Err(Error::setting(name, "", problem));
        }
        if !(0.0..1.0).contains(&options.dropout) {
            return Err(Error::setting(
                "dropout",
                options.dropout,
                "expected at least 0 and below 1",
            ));
        }
        Ok(())
    }
}

/// Every network of this crate.
pub const NETWORKS: &[NetworkInfo] = &[
    preact_resnet::PREACT_RESNET18,
    preact_resnet::PREACT_RESNET34,
    preact_resnet::PREACT_RESNET50,
    preact_resnet::PREACT_RESNET101,
    preact_resnet::PREACT_RESNET152,
    resnet::RESNET18,
    resnet::RESNET34,
    resnet::RESNET50,
    resnet::RESNET101,
    resnet::RESNET152,
    wide_resnet::WIDERESNET_28_10,
    wide_resnet::WIDERESNET_34_10,
    dm_wide_resnet::DM_WIDERESNET_28_10,
    dm_wide_resnet::DM_WIDERESNET_34_10,
    dm_wide_resnet::DM_WIDERESNET_70_16,
    dm_preact_resnet::DM_PREACT_RESNET18,
    dm_preact_resnet::DM_PREACT_RESNET34,
    senet::SENET18,
    vgg::VGG16_BN,
    vit::VIT_TINY,
    vit::VIT_SMALL,
    cct::CCT_7_3X1,
    mnist_cnn::MNIST_CNN,
];

/// Networks of other crates.
static ADDED: RwLock<Vec<&'static NetworkInfo>> = RwLock::new(Vec::new());

/// Adds a network of another crate to the registry; from then on its name works like one of
/// [`NETWORKS`].
///
/// # Errors
/// [`Error`] for a name that is taken.
pub fn register(info: &'static NetworkInfo) -> Result<()> {
    let mut added = ADDED.write().unwrap_or_else(PoisonError::into_inner);
    if NETWORKS.iter().chain(added.iter().copied()).any(|known| known.name == info.name) {
        let problem = "there is one of that name already; choose another";
        return Err(Error::unfit(format!("network '{}'", info.name), problem));
    }
    added.push(info);
    Ok(())
}

/// Every network, those that were [registered](register) included.
pub fn networks() -> Vec<&'static NetworkInfo> {
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner);
    NETWORKS.iter().chain(added.iter().copied()).collect()
}

/// Finds the registry row of `name`.
///
/// # Errors
/// [`Error`] for an unknown name.
pub fn network(name: &str) -> Result<&'static NetworkInfo> {
    let all = networks();
    let found = all.iter().find(|info| info.name == name).copied();
    found.ok_or_else(|| Error::unknown("network", name, all.iter().map(|info| info.name)))
}
