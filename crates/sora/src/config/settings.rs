//! Every setting of a training, listed once: its name in files, its meaning, its type and its
//! default.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::OnCo;
use crate::{
    data::{Augment, Orientation},
    method::Options,
    model::{Shortcut, Stem},
    nn::{Activation, BnMode, Precision},
    optim::{OptimizerKind, Schedule},
    ranks::BatchNormScope,
    threat::{Epsilon, EpsilonConvention, Norm},
};

/// The form of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Any text; the type of the field decides which texts are valid.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Switch,
    /// Whole numbers, in a text separated by commas.
    Integers,
    /// Numbers, in a text separated by commas.
    Numbers,
    /// One of these names.
    Choice(&'static [&'static str]),
}

/// The description of a setting, for a program that offers it.
#[derive(Clone, Copy, Debug)]
pub struct SettingInfo {
    /// Key in config.toml, and field of [`TrainConfig`].
    pub name: &'static str,
    /// Description, with the default at the end, as the lines of a doc comment; see
    /// [`description`](Self::description).
    pub help: &'static str,
    /// A word for the value.
    pub value_name: &'static str,
    /// The form of the value.
    pub values: Values,
}

impl SettingInfo {
    /// The description in one line.
    pub fn description(&self) -> String {
        super::one_line(self.help)
    }
}

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:expr, $value_name:literal $values:expr;
    )*) => {
        /// All settings of a training.
        ///
        /// `TrainConfig { epochs: 3, ..TrainConfig::default() }` takes every field as it is.
        /// [`from_table`](Self::from_table) also derives the settings that are not given from those
        /// that are (the radius from the norm, the learning rate from the optimizer, ...).
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct TrainConfig {
            $($(#[doc = $doc])+ pub $name: $type,)*
            /// Hyperparameters of the method; those that are not given have the method's defaults.
            pub options: Options,
        }

        impl Default for TrainConfig {
            fn default() -> Self {
                Self { $($name: $default,)* options: Options::default() }
            }
        }

        /// Every setting, except the method's hyperparameters, in the order of the help.
        pub const SETTINGS: &[SettingInfo] = &[$(SettingInfo {
            name: stringify!($name),
            help: concat!($($doc, "\n"),+),
            value_name: $value_name,
            values: $values,
        }),*];
    };
}

settings! {
    /// Data set: a name of `sora data list`, folder:PATH, imagefolder:PATH, or the path of an image
    /// folder
    dataset: String = "synthetic".into(), "NAME|PATH" Values::Text;
    /// Where data sets are kept [default: $SORA_DATA, else the platform's cache folder]
    data_dir: Option<PathBuf> = None, "DIR" Values::Text;
    /// Height and width of the images, for folders, the ImageNet family, synthetic and MedMNIST
    /// (28, 64, 128 or 224)
    image_size: Option<usize> = None, "PIXELS" Values::Integer;
    /// How photographs lie that carry an orientation tag (EXIF), in folders and the ImageNet family:
    /// stored, as torchvision takes them, or exif, turned as viewers show them [default: stored]
    orientation: Orientation = Orientation::AsStored, "ORIENTATION" Values::Choice(&["stored", "exif"]);
    /// Extra training data, mixed into every batch: a data set with the classes of `dataset`, of which
    /// the training images are taken, never to validate or test
    extra_data: Option<String> = None, "NAME|PATH" Values::Text;
    /// Share of a batch that comes from `extra_data`, above 0 and below 1; an epoch is a pass over
    /// `dataset` [default: 0.5]
    extra_fraction: Option<f64> = None, "SHARE" Values::Number;
    /// Augmentation, for example none, flip or crop:4,flip [default: the data set's]
    augment: Option<Augment> = None, "AUGMENT" Values::Text;
    /// Training method, see `sora methods` [default: sora]
    method: String = "sora".into(), "NAME" Values::Text;
    /// Network, see `sora models` [default: preact-resnet18]
    model: String = "preact-resnet18".into(), "NAME" Values::Text;
    /// Begin with the weights of a run folder, weights file or ONNX file instead of random ones. The
    /// network is theirs unless `model` is given; with other classes its head is new
    init: Option<PathBuf> = None, "RUN|FILE" Values::Text;
    /// For an ONNX file as `init` that expects normalised images: mean of each channel, pixels in
    /// [0, 1] [default: the pixels go in as they are]
    mean: Vec<f64> = Vec::new(), "VALUES" Values::Numbers;
    /// As `mean`: standard deviation of each channel
    std: Vec<f64> = Vec::new(), "VALUES" Values::Numbers;
    /// Channels of the network's first stage [default: the paper's]
    width: usize = 64, "WIDTH" Values::Integer;
    /// Activation function [default: the network's, see `sora models`]
    activation: Option<Activation> = None, "ACTIVATION" Values::Choice(&["relu", "silu", "gelu", "softplus"]);
    /// Dropout rate, for networks that have it; in training mode, the attack pass included
    /// [default: 0]
    dropout: f32 = 0.0, "RATE" Values::Number;
    /// First layers of a ResNet [default: cifar, imagenet for images from 96x96]
    stem: Option<Stem> = None, "STEM" Values::Choice(&["cifar", "imagenet"]);
    /// Patch side of a vision transformer [default: 4, 8 from 48x48, 16 from 96x96]
    patch: Option<usize> = None, "PIXELS" Values::Integer;
    /// What PreActResNet's projection shortcuts take: the block's input, or what its first batch
    /// norm and activation make of it [default: input; of preact-resnet50, 101 and 152 activated]
    shortcut: Option<Shortcut> = None, "SHORTCUT" Values::Choice(&["input", "activated"]);
    /// Radius of the perturbations in pixel units, for example 8/255 [default: 8/255 for linf,
    /// 128/255 for l2]
    epsilon: Epsilon = Epsilon::ratio(8, 255), "EPSILON" Values::Text;
    /// How epsilon counts in l2 training: in pixel space, or as in the SORA reference, sqrt(channels)
    /// times that; evaluations are always in pixel space [default: pixel]
    epsilon_convention: EpsilonConvention = EpsilonConvention::Pixel,
        "CONVENTION" Values::Choice(&["pixel", "reference"]);
    /// Norm that bounds the perturbations [default: linf]
    norm: Norm = Norm::Linf, "NORM" Values::Choice(&["linf", "l2"]);
    /// Batch-norm statistics in the attack pass [default: train; eval for trades, mart and atas]
    attack_bn: BnMode = BnMode::Train, "MODE" Values::Choice(&["train", "eval"]);
    /// Whose batch statistics batch norm takes where several processes share a batch: those of all, or
    /// each its own [default: sync]
    batch_norm: BatchNormScope = BatchNormScope::Sync, "WHOSE" Values::Choice(&["sync", "local"]);
    /// Passes over the training images [default: 30, divided by the replays of free]
    epochs: u64 = 30, "EPOCHS" Values::Integer;
    /// Images of a step [default: 128]
    batch: usize = 128, "BATCH" Values::Integer;
    /// Largest learning rate [default: 0.2 for sgd, 0.001 for adam and adamw]
    lr_max: f64 = 0.2, "LR_MAX" Values::Number;
    /// How the learning rate moves [default: cyclic]
    schedule: Schedule = Schedule::Cyclic, "SCHEDULE"
        Values::Choice(&["cyclic", "multistep", "cosine", "warmup-cosine", "constant"]);
    /// Smallest learning rate: the ends of cyclic, where the cosines end, the floor of multistep
    /// [default: a twentieth of the largest for cyclic, else 0]
    lr_min: Option<f64> = None, "LR_MIN" Values::Number;
    /// Epochs after which multistep takes a tenth of the rate, for example 100,105 [default: at one
    /// half and three quarters of the run]
    milestones: Vec<u64> = Vec::new(), "EPOCHS" Values::Integers;
    /// Whether cyclic moves the momentum of sgd, too, from `momentum` to 0.8 and back, as PyTorch's
    /// CyclicLR does [default: true for cyclic with sgd]
    cycle_momentum: bool = true, "BOOL" Values::Switch;
    /// Optimizer [default: sgd]
    optimizer: OptimizerKind = OptimizerKind::Sgd, "OPTIMIZER" Values::Choice(&["sgd", "adam", "adamw"]);
    /// Momentum of sgd [default: 0.9]
    momentum: f32 = 0.9, "MOMENTUM" Values::Number;
    /// Weight decay [default: 0.0005]
    weight_decay: f32 = 5e-4, "WEIGHT_DECAY" Values::Number;
    /// Label smoothing of the training loss, 0 to 1 [default: 0]
    label_smoothing: f32 = 0.0, "SHARE" Values::Number;
    /// Adversarial weight perturbation: size relative to the weights, for example 0.005 [default:
    /// 0, off]
    awp: f32 = 0.0, "GAMMA" Values::Number;
    /// Weight averaging: decay of the moving average that is validated and written at the end, for
    /// example 0.999 [default: 0, off]
    ema: f32 = 0.0, "DECAY" Values::Number;
    /// Clip the gradient to this norm [default: 0, off]
    clip_grad: f32 = 0.0, "NORM" Values::Number;
    /// Batches whose mean gradient makes one update [default: 1]
    accumulate: u32 = 1, "N" Values::Integer;
    /// Epochs over which epsilon grows linearly to its value [default: 0]
    epsilon_warmup: f64 = 0.0, "EPOCHS" Values::Number;
    /// How activations and their gradients are stored and multiplied; evaluations are always f32
    /// [default: f32]
    precision: Precision = Precision::F32, "PRECISION" Values::Choice(&["f32", "tf32", "bf16"]);
    /// Where to compute: cpu, `cuda[:N]`, `rocm[:N]`, wgpu, vulkan or metal [default: cpu]
    device: String = "cpu".into(), "DEVICE" Values::Text;
    /// CPU threads [default: one a core]
    threads: usize = 0, "THREADS" Values::Integer;
    /// Seed of everything random [default: 0]
    seed: u64 = 0, "SEED" Values::Integer;
    /// Train on the first N training images only
    limit_train: Option<usize> = None, "N" Values::Integer;
    /// Keep only the first N test images
    limit_test: Option<usize> = None, "N" Values::Integer;
    /// Leave out the last, smaller batch of an epoch [default: true]
    drop_last: bool = true, "BOOL" Values::Switch;
    /// Images held out of the training split for validation after each epoch; 0 turns it off
    /// [default: 1000, at most a tenth]
    val: Option<usize> = None, "N" Values::Integer;
    /// Also validate every N steps (clean, fgsm, pgd-10), into metrics.jsonl
    val_steps: Option<u64> = None, "N" Values::Integer;
    /// Stop when the validation accuracy under pgd-10 has not risen for N epochs [default: 0, off]
    early_stop: u64 = 0, "N" Values::Integer;
    /// On catastrophic overfitting [default: warn]
    on_co: OnCo = OnCo::Warn, "REACTION" Values::Choice(&["warn", "stop", "rollback"]);
    /// Method to go on with after a rollback, with its default hyperparameters [default: sora]
    on_co_method: String = "sora".into(), "NAME" Values::Text;
    /// Checkpoints to keep [default: 3]
    keep: usize = 3, "N" Values::Integer;
    /// Also write a checkpoint every N steps [default: 100 with `on_co` rollback, else only after
    /// each epoch]
    checkpoint_steps: Option<u64> = None, "N" Values::Integer;
    /// Also write TensorBoard event files, to DIR/tensorboard
    tensorboard: bool = false, "BOOL" Values::Switch;
}
