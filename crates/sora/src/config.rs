//! A run's settings: what the user gives (flags over config file over defaults) and what it
//! resolves to.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

pub use crate::nn::Precision;
use crate::{
    data::Augment,
    error::{Error, Result},
    method::{self, Extras, Options},
    model::{self, ModelConfig, NetworkOptions, Shortcut, Stem},
    nn::{Activation, BnMode, TensorSet},
    optim::{
        Accumulated, CYCLIC_MOMENTUM_AT_PEAK, Clipped, MILESTONES, Optimizer, OptimizerKind,
        RatePlan, Schedule,
    },
    threat::{Epsilon, EpsilonConvention, Norm, Threat},
};

/// What to do when catastrophic overfitting is detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnCo {
    /// Say so and go on.
    Warn,
    /// Write a checkpoint and stop with exit status 1.
    Stop,
    /// Go back to the last checkpoint before the onset and go on with another method.
    Rollback,
}

/// Settings of `sora train` as the user gives them; every one may be absent. Field names are the
/// keys of config.toml.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// Data set: a name of `sora data list`, folder:PATH, imagefolder:PATH, or the path of an image
    /// folder [default: synthetic]
    #[arg(long, value_name = "NAME|PATH")]
    pub dataset: Option<String>,
    /// Where data sets are kept [default: $SORA_DATA, else the platform's cache folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Height and width of the images, for folders, the ImageNet family, synthetic and MedMNIST
    /// (28, 64, 128 or 224)
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Augmentation, for example none, flip or crop:4,flip [default: the data set's]
    #[arg(long)]
    pub augment: Option<Augment>,
    /// Training method, see `sora methods` [default: sora]
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Network, see `sora models` [default: preact-resnet18]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Channels of the network's first stage [default: the paper's]
    #[arg(long)]
    pub width: Option<usize>,
    /// Activation function [default: the network's, see `sora models`]
    #[arg(long, value_enum)]
    pub activation: Option<Activation>,
    /// Dropout rate, for networks that have it; in training mode, the attack pass included
    /// [default: 0]
    #[arg(long, value_name = "RATE")]
    pub dropout: Option<f32>,
    /// First layers of a ResNet [default: cifar, imagenet for images from 96x96]
    #[arg(long, value_enum)]
    pub stem: Option<Stem>,
    /// Patch side of a vision transformer [default: 4, 8 from 48x48, 16 from 96x96]
    #[arg(long, value_name = "PIXELS")]
    pub patch: Option<usize>,
    /// What PreActResNet's projection shortcuts take: the block's input, or what its first batch
    /// norm and activation make of it [default: input]
    #[arg(long, value_enum)]
    pub shortcut: Option<Shortcut>,
    /// Radius of the perturbations in pixel units, for example 8/255 [default: 8/255 for linf,
    /// 128/255 for l2]
    #[arg(long, allow_hyphen_values = true)]
    pub epsilon: Option<Epsilon>,
    /// How epsilon counts in l2 training: in pixel space, or as in the SORA reference, sqrt(channels)
    /// times that; evaluations are always in pixel space [default: pixel]
    #[arg(long, value_enum)]
    pub epsilon_convention: Option<EpsilonConvention>,
    /// Norm that bounds the perturbations [default: linf]
    #[arg(long, value_enum)]
    pub norm: Option<Norm>,
    /// Batch-norm statistics in the attack pass [default: train; eval for trades, mart and atas]
    #[arg(long, value_enum)]
    pub attack_bn: Option<BnMode>,
    /// Passes over the training images [default: 30, divided by the replays of free]
    #[arg(long)]
    pub epochs: Option<u64>,
    /// Images of a step [default: 128]
    #[arg(long)]
    pub batch: Option<usize>,
    /// Largest learning rate [default: 0.2 for sgd, 0.001 for adam and adamw]
    #[arg(long)]
    pub lr_max: Option<f64>,
    /// How the learning rate moves [default: cyclic]
    #[arg(long, value_enum)]
    pub schedule: Option<Schedule>,
    /// Smallest learning rate: the ends of cyclic, where the cosines end, the floor of multistep
    /// [default: a twentieth of the largest for cyclic, else 0]
    #[arg(long)]
    pub lr_min: Option<f64>,
    /// Epochs after which multistep takes a tenth of the rate, for example 100,105 [default: at one
    /// half and three quarters of the run]
    #[arg(long, value_name = "EPOCHS", value_delimiter = ',')]
    pub milestones: Option<Vec<u64>>,
    /// Whether cyclic moves the momentum of sgd, too, from --momentum to 0.8 and back, as PyTorch's
    /// CyclicLR does [default: true for cyclic with sgd]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cycle_momentum: Option<bool>,
    /// Optimizer [default: sgd]
    #[arg(long, value_enum)]
    pub optimizer: Option<OptimizerKind>,
    /// Momentum of sgd [default: 0.9]
    #[arg(long)]
    pub momentum: Option<f32>,
    /// Weight decay [default: 0.0005]
    #[arg(long)]
    pub weight_decay: Option<f32>,
    /// Label smoothing of the training loss, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub label_smoothing: Option<f32>,
    /// Adversarial weight perturbation: size relative to the weights, for example 0.005 [default:
    /// 0, off]
    #[arg(long, value_name = "GAMMA")]
    pub awp: Option<f32>,
    /// Weight averaging: decay of the moving average that is validated and written at the end, for
    /// example 0.999 [default: 0, off]
    #[arg(long, value_name = "DECAY")]
    pub ema: Option<f32>,
    /// Clip the gradient to this norm [default: 0, off]
    #[arg(long, value_name = "NORM")]
    pub clip_grad: Option<f32>,
    /// Batches whose mean gradient makes one update [default: 1]
    #[arg(long, value_name = "N")]
    pub accumulate: Option<u32>,
    /// Epochs over which epsilon grows linearly to its value [default: 0]
    #[arg(long, value_name = "EPOCHS")]
    pub epsilon_warmup: Option<f64>,
    /// How activations and their gradients are stored; evaluations are always f32 [default: f32]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// Where to compute: cpu, `cuda[:N]`, `rocm[:N]`, wgpu, vulkan or metal [default: cpu]
    #[arg(long)]
    pub device: Option<String>,
    /// CPU threads [default: one a core]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Seed of everything random [default: 0]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Train on the first N training images only
    #[arg(long, value_name = "N")]
    pub limit_train: Option<usize>,
    /// Keep only the first N test images
    #[arg(long, value_name = "N")]
    pub limit_test: Option<usize>,
    /// Leave out the last, smaller batch of an epoch [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub drop_last: Option<bool>,
    /// Images held out of the training split for validation after each epoch; 0 turns it off
    /// [default: 1000, at most a tenth]
    #[arg(long, value_name = "N")]
    pub val: Option<usize>,
    /// Also validate every N steps (clean, fgsm, pgd-10), into metrics.jsonl
    #[arg(long, value_name = "N")]
    pub val_steps: Option<u64>,
    /// On catastrophic overfitting [default: warn]
    #[arg(long, value_enum)]
    pub on_co: Option<OnCo>,
    /// Method to go on with after a rollback, with its default hyperparameters [default: sora]
    #[arg(long, value_name = "NAME")]
    pub on_co_method: Option<String>,
    /// Checkpoints to keep [default: 3]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Also write a checkpoint every N steps [default: 100 with --on-co rollback, else only after
    /// each epoch]
    #[arg(long, value_name = "N")]
    pub checkpoint_steps: Option<u64>,
    /// Also write TensorBoard event files, to DIR/tensorboard
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tensorboard: Option<bool>,
    /// A hyperparameter of the method; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    #[serde(skip)]
    pub set: Vec<String>,
    /// The method's hyperparameters in a config file
    #[arg(skip)]
    pub options: Option<Options>,
    /// Facts about the run that wrote the file; not read.
    #[arg(skip)]
    #[serde(rename = "provenance")]
    #[doc(hidden)]
    pub _provenance: Option<serde::de::IgnoredAny>,
    #[arg(skip)]
    #[serde(rename = "network")]
    #[doc(hidden)]
    pub _network: Option<serde::de::IgnoredAny>,
    #[arg(skip)]
    #[serde(rename = "steps_per_epoch")]
    #[doc(hidden)]
    pub _steps_per_epoch: Option<serde::de::IgnoredAny>,
}

impl TrainOptions {
    /// Reads a config file, such as the one that a run wrote.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, or has an unknown key or a wrong value.
    pub fn from_file(path: &std::path::Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::input(format!("--config {}: cannot read it: {e}", path.display()))
        })?;
        toml::from_str(&text).map_err(|e| {
            Error::input(format!("--config {}: {}", path.display(), one_line(&e.to_string())))
        })
    }

    /// These options, and where one is absent, those of `file`.
    pub fn over(self, file: Self) -> Self {
        macro_rules! first {
            ($($field:ident),*) => {
                Self { $($field: self.$field.or(file.$field),)* set: self.set, options: file.options, _provenance: file._provenance, _network: None, _steps_per_epoch: None }
            };
        }
        first!(
            dataset,
            data_dir,
            image_size,
            augment,
            method,
            model,
            width,
            activation,
            dropout,
            stem,
            patch,
            shortcut,
            epsilon,
            epsilon_convention,
            norm,
            attack_bn,
            epochs,
            batch,
            drop_last,
            lr_max,
            schedule,
            lr_min,
            milestones,
            cycle_momentum,
            optimizer,
            momentum,
            weight_decay,
            label_smoothing,
            awp,
            ema,
            clip_grad,
            accumulate,
            epsilon_warmup,
            precision,
            device,
            threads,
            seed,
            limit_train,
            limit_test,
            val,
            val_steps,
            on_co,
            on_co_method,
            keep,
            checkpoint_steps,
            tensorboard
        )
    }

    /// Fills in the defaults and checks every value. `augment` of the result stays the default
    /// until the data set is known.
    ///
    /// # Errors
    /// The first wrong value, in one line.
    pub fn resolve(self) -> Result<TrainConfig> {
        let method_name = self.method.unwrap_or_else(|| "sora".into());
        let info = method::method(&method_name)?;
        let mut options = (info.options)()?;
        if let Some(from_file) = &self.options {
            options.merge(from_file, &method_name)?;
        }
        for pair in &self.set {
            options.set(pair, &method_name)?;
        }
        let norm = self.norm.unwrap_or(Norm::Linf);
        let default_epsilon = match norm {
            Norm::Linf => "8/255",
            Norm::L2 => "128/255",
        };
        let epsilon = self.epsilon.map_or_else(|| default_epsilon.parse(), Ok)?;
        let model = self.model.unwrap_or_else(|| "preact-resnet18".into());
        let width = self.width.unwrap_or(model::network(&model)?.default_width);
        let optimizer = self.optimizer.unwrap_or(OptimizerKind::Sgd);
        let lr_max =
            self.lr_max.unwrap_or(if optimizer == OptimizerKind::Sgd { 0.2 } else { 0.001 });
        let threat = Threat { norm, epsilon: epsilon.value() };
        let updates_per_batch = info.build(&options, threat)?.updates_per_batch().max(1);
        let on_co = self.on_co.unwrap_or(OnCo::Warn);
        let schedule = self.schedule.unwrap_or(Schedule::Cyclic);
        // The file of a run that was made before momentum moved stands for a constant one.
        let cycles = schedule == Schedule::Cyclic
            && optimizer == OptimizerKind::Sgd
            && self._provenance.is_none();
        let config = TrainConfig {
            dataset: self.dataset.unwrap_or_else(|| "synthetic".into()),
            data_dir: self.data_dir,
            image_size: self.image_size,
            augment: self.augment,
            method: method_name,
            model,
            width,
            network_options: NetworkOptions {
                activation: self.activation,
                dropout: self.dropout.unwrap_or(0.0),
                stem: self.stem,
                patch: self.patch,
                shortcut: self.shortcut,
            },
            epsilon,
            epsilon_convention: self.epsilon_convention.unwrap_or_default(),
            norm,
            attack_bn: self.attack_bn.unwrap_or(info.attack_bn),
            epochs: self.epochs.unwrap_or(30u64.div_ceil(u64::from(updates_per_batch))),
            batch: self.batch.unwrap_or(128),
            drop_last: self.drop_last.unwrap_or(true),
            lr_max,
            schedule,
            lr_min: self.lr_min,
            milestones: self.milestones.unwrap_or_default(),
            cycle_momentum: self.cycle_momentum.unwrap_or(cycles),
            optimizer,
            momentum: self.momentum.unwrap_or(0.9),
            weight_decay: self.weight_decay.unwrap_or(5e-4),
            label_smoothing: self.label_smoothing.unwrap_or(0.0),
            awp: self.awp.unwrap_or(0.0),
            ema: self.ema.unwrap_or(0.0),
            clip_grad: self.clip_grad.unwrap_or(0.0),
            accumulate: self.accumulate.unwrap_or(1),
            epsilon_warmup: self.epsilon_warmup.unwrap_or(0.0),
            precision: self.precision.unwrap_or(Precision::F32),
            device: self.device.unwrap_or_else(|| "cpu".into()),
            threads: self.threads.unwrap_or(0),
            seed: self.seed.unwrap_or(0),
            limit_train: self.limit_train,
            limit_test: self.limit_test,
            val: self.val,
            val_steps: self.val_steps,
            on_co,
            on_co_method: self.on_co_method.unwrap_or_else(sora),
            keep: self.keep.unwrap_or(3),
            checkpoint_steps: self
                .checkpoint_steps
                .or((on_co == OnCo::Rollback).then_some(ROLLBACK_STEPS)),
            tensorboard: self.tensorboard.unwrap_or(false),
            steps_per_epoch: None,
            options,
            network: None,
        };
        config.check()?;
        Ok(config)
    }
}

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Data set.
    pub dataset: String,
    /// Data folder; `None`: the default one.
    pub data_dir: Option<PathBuf>,
    /// Size that folder images are brought to.
    pub image_size: Option<usize>,
    /// Augmentation; `None` until the data set's default is known.
    pub augment: Option<Augment>,
    /// Method's registry name.
    pub method: String,
    /// Network's registry name.
    pub model: String,
    /// Channels of the first stage.
    pub width: usize,
    /// What was chosen of the network besides its width.
    #[serde(flatten)]
    pub network_options: NetworkOptions,
    /// Radius, pixel units.
    pub epsilon: Epsilon,
    /// How epsilon counts in l2 training.
    #[serde(default)]
    pub epsilon_convention: EpsilonConvention,
    /// Norm.
    pub norm: Norm,
    /// Batch-norm mode of the attack pass.
    pub attack_bn: BnMode,
    /// Epochs.
    pub epochs: u64,
    /// Images of a step.
    pub batch: usize,
    /// Whether the last, smaller batch of an epoch is left out.
    #[serde(default = "yes")]
    pub drop_last: bool,
    /// Largest learning rate.
    pub lr_max: f64,
    /// Schedule.
    pub schedule: Schedule,
    /// Smallest learning rate; `None`: the schedule's own.
    #[serde(default)]
    pub lr_min: Option<f64>,
    /// Epochs at which `multistep` takes a tenth of the rate; empty: at one half and three quarters
    /// of the run.
    #[serde(default)]
    pub milestones: Vec<u64>,
    /// Whether `cyclic` moves the momentum. Runs from before it did have no such line: theirs is
    /// constant.
    #[serde(default)]
    pub cycle_momentum: bool,
    /// Optimizer.
    pub optimizer: OptimizerKind,
    /// Momentum of SGD.
    pub momentum: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// Label smoothing of the training loss.
    #[serde(default)]
    pub label_smoothing: f32,
    /// Relative size of the adversarial weight perturbation; 0: off.
    #[serde(default)]
    pub awp: f32,
    /// Decay of the weight average; 0: off.
    #[serde(default)]
    pub ema: f32,
    /// Largest norm of the gradient; 0: any.
    #[serde(default)]
    pub clip_grad: f32,
    /// Batches of an update.
    #[serde(default = "one")]
    pub accumulate: u32,
    /// Epochs over which epsilon grows to its value.
    #[serde(default)]
    pub epsilon_warmup: f64,
    /// How activations and their gradients are stored in training.
    pub precision: Precision,
    /// Device.
    pub device: String,
    /// CPU threads; 0 until the machine is known.
    pub threads: usize,
    /// Seed.
    pub seed: u64,
    /// Training images to use.
    pub limit_train: Option<usize>,
    /// Test images to use.
    pub limit_test: Option<usize>,
    /// Validation images; `None` until the data set is known.
    pub val: Option<usize>,
    /// Steps between validations within an epoch.
    #[serde(default)]
    pub val_steps: Option<u64>,
    /// On catastrophic overfitting.
    pub on_co: OnCo,
    /// Method after a rollback.
    #[serde(default = "sora")]
    pub on_co_method: String,
    /// Checkpoints to keep.
    pub keep: usize,
    /// Steps between extra checkpoints.
    pub checkpoint_steps: Option<u64>,
    /// Whether to write TensorBoard event files.
    #[serde(default)]
    pub tensorboard: bool,
    /// Steps of an epoch; `None` until the data set is known.
    #[serde(default)]
    pub steps_per_epoch: Option<u64>,
    /// The method's hyperparameters.
    pub options: Options,
    /// The network as the data set decides it; `None` until it is known.
    pub network: Option<ModelConfig>,
}

/// Steps between checkpoints when a run may have to go back to one.
const ROLLBACK_STEPS: u64 = 100;

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn sora() -> String {
    "sora".into()
}

impl TrainConfig {
    /// Norm and epsilon.
    pub fn threat(&self) -> Threat {
        Threat { norm: self.norm, epsilon: self.epsilon.value() }
    }

    /// Norm and epsilon in pixel space of the training examples: [`threat`](Self::threat), unless
    /// epsilon counts as in the reference, which bounds the length of delta / std in l2 by that of
    /// epsilon / std over the channels.
    pub fn training_threat(&self) -> Threat {
        let mut threat = self.threat();
        if self.norm == Norm::L2 && self.epsilon_convention == EpsilonConvention::Reference {
            let channels = self.network.as_ref().map_or(1, |network| network.shape.channels);
            threat.epsilon *= (channels as f32).sqrt();
        }
        threat
    }

    /// Norm and epsilon at `step`, of `steps_per_epoch` an epoch: epsilon grows linearly during the
    /// warm-up and is never 0 because of it.
    pub fn threat_at(&self, step: u64, steps_per_epoch: u64) -> Threat {
        let mut threat = self.training_threat();
        let warmup = self.epsilon_warmup * steps_per_epoch as f64;
        let done = (step + 1) as f64;
        if done < warmup {
            threat.epsilon *= (done / warmup) as f32;
        }
        threat
    }

    /// Whether epsilon is still growing at `step`.
    pub fn warming_up(&self, step: u64, steps_per_epoch: u64) -> bool {
        self.threat_at(step, steps_per_epoch) != self.training_threat()
    }

    /// Additions to the training loss.
    pub fn extras(&self) -> Extras {
        Extras { label_smoothing: self.label_smoothing, awp: self.awp }
    }

    /// Learning rate and momentum of every step.
    pub fn rates(&self) -> RatePlan {
        let milestones = self.milestones.iter().map(|&m| m as f64 / self.epochs as f64);
        RatePlan {
            schedule: self.schedule,
            lr_max: self.lr_max,
            lr_min: self.lr_min,
            milestones: if self.milestones.is_empty() {
                MILESTONES.to_vec()
            } else {
                milestones.collect()
            },
            momentum: self.momentum,
            momentum_at_peak: self
                .cycle_momentum
                .then_some(self.momentum.min(CYCLIC_MOMENTUM_AT_PEAK)),
        }
    }

    /// A fresh optimizer for `params`, with clipping and accumulation.
    pub fn optimizer(&self, params: &TensorSet) -> Box<dyn Optimizer> {
        let mut optimizer = self.optimizer.build(params, self.weight_decay);
        if self.clip_grad > 0.0 {
            optimizer = Box::new(Clipped::new(optimizer, self.clip_grad));
        }
        if self.accumulate > 1 {
            optimizer = Box::new(Accumulated::new(optimizer, params, self.accumulate));
        }
        optimizer
    }

    /// Refuses what the schedule would not look at.
    fn check_schedule(&self) -> Result<()> {
        let unused = |setting: &'static str, value: &str, with: &str| {
            let Self { schedule, optimizer, .. } = self;
            Err(Error::setting(
                setting,
                value,
                format!(
                    "{schedule} with {optimizer} does not use it; leave it out or choose {with}"
                ),
            ))
        };
        let cyclic = self.schedule == Schedule::Cyclic;
        if self.cycle_momentum && !(cyclic && self.optimizer == OptimizerKind::Sgd) {
            return unused("cycle_momentum", "true", "cyclic with sgd");
        }
        if !self.milestones.is_empty() && self.schedule != Schedule::Multistep {
            return unused("milestones", "", "multistep");
        }
        if self.lr_min.is_some() && self.schedule == Schedule::Constant {
            return unused("lr_min", "", "a schedule that moves");
        }
        if self.epsilon_convention == EpsilonConvention::Reference && self.norm != Norm::L2 {
            return Err(Error::setting(
                "epsilon_convention",
                "reference",
                "it differs from pixel in l2 only",
            ));
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let range = |flag: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(Error::input(format!("--{flag} {value}: expected {low} to {high}")))
            }
        };
        range("epochs", self.epochs as f64, 1.0, 100_000.0)?;
        range("batch", self.batch as f64, 1.0, 65_536.0)?;
        range("lr-max", self.lr_max, 0.0, 1000.0)?;
        if let Some(lr_min) = self.lr_min {
            range("lr-min", lr_min, 0.0, self.lr_max)?;
        }
        for &milestone in &self.milestones {
            range("milestones", milestone as f64, 1.0, self.epochs as f64)?;
        }
        self.check_schedule()?;
        range("momentum", f64::from(self.momentum), 0.0, 1.0)?;
        range("weight-decay", f64::from(self.weight_decay), 0.0, 10.0)?;
        range("label-smoothing", f64::from(self.label_smoothing), 0.0, 1.0)?;
        range("awp", f64::from(self.awp), 0.0, 1.0)?;
        range("ema", f64::from(self.ema), 0.0, 1.0)?;
        range("clip-grad", f64::from(self.clip_grad), 0.0, 1e9)?;
        range("accumulate", f64::from(self.accumulate), 1.0, 65_536.0)?;
        range("epsilon-warmup", self.epsilon_warmup, 0.0, self.epochs as f64)?;
        range("keep", self.keep as f64, 1.0, 1e9)?;
        range("threads", self.threads as f64, 0.0, 4096.0)?;
        range("width", self.width as f64, 1.0, 4096.0)?;
        if let Some(steps) = self.checkpoint_steps {
            range("checkpoint-steps", steps as f64, 1.0, 1e12)?;
        }
        if let Some(steps) = self.val_steps {
            range("val-steps", steps as f64, 1.0, 1e12)?;
            if self.val == Some(0) {
                return Err(Error::input(
                    "--val-steps: there is nothing to validate on with --val 0; leave one of the two out",
                ));
            }
        }
        for (flag, value) in [("limit-train", self.limit_train), ("limit-test", self.limit_test)] {
            if value == Some(0) {
                return Err(Error::input(format!("--{flag} 0: expected at least 1")));
            }
        }
        if self.on_co == OnCo::Rollback {
            let after = method::method(&self.on_co_method).map_err(|e| {
                Error::input(format!("--on-co-{}", e.to_string().trim_start_matches('-')))
            })?;
            if after.name == "none" || after.stored_images > 0 || after.name == "free" {
                return Err(Error::input(format!(
                    "--on-co-method {}: cannot take over in the middle of a run; choose a method that keeps nothing by image, such as sora or pgd",
                    after.name
                )));
            }
            after.build(&(after.options)()?, self.threat())?;
        }
        // A norm or option that the method does not know fails before any data is read.
        method::method(&self.method)?.build(&self.options, self.threat()).map(drop)
    }
}

/// Joins the lines of a library's message.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
