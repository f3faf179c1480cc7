//! Every setting of a run: its key, what it means, what it takes.

/// What a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// A text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Whole numbers behind commas.
    Integers,
    /// Yes or no.
    Switch,
    /// One of some words.
    Choice(&'static [&'static str]),
}

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct SettingInfo {
    /// Key of config.toml.
    pub name: &'static str,
    /// What it means, with its default.
    pub help: &'static str,
    /// What stands for its value; empty: the name.
    pub value_name: &'static str,
    /// What it takes.
    pub values: Values,
}

/// Every setting.
pub const SETTINGS: &[SettingInfo] = &[
    SettingInfo {
        name: "dataset",
        help: "Data set: a name of `sora data list`, folder:PATH, imagefolder:PATH, or the path of an image folder [default: synthetic]",
        value_name: "NAME|PATH",
        values: Values::Text,
    },
    SettingInfo {
        name: "data_dir",
        help: "Where data sets are kept [default: $SORA_DATA, else the platform's cache folder]",
        value_name: "DIR",
        values: Values::Text,
    },
    SettingInfo {
        name: "image_size",
        help: "Height and width of the images, for folders, the ImageNet family, synthetic and MedMNIST (28, 64, 128 or 224)",
        value_name: "PIXELS",
        values: Values::Integer,
    },
    SettingInfo {
        name: "augment",
        help: "Augmentation, for example none, flip or crop:4,flip [default: the data set's]",
        value_name: "",
        values: Values::Text,
    },
    SettingInfo {
        name: "method",
        help: "Training method, see `sora methods` [default: sora]",
        value_name: "NAME",
        values: Values::Text,
    },
    SettingInfo {
        name: "model",
        help: "Network, see `sora models` [default: preact-resnet18]",
        value_name: "NAME",
        values: Values::Text,
    },
    SettingInfo {
        name: "width",
        help: "Channels of the network's first stage [default: the paper's]",
        value_name: "",
        values: Values::Integer,
    },
    SettingInfo {
        name: "activation",
        help: "Activation function [default: the network's, see `sora models`]",
        value_name: "",
        values: Values::Choice(&["relu", "gelu", "silu", "softplus"]),
    },
    SettingInfo {
        name: "dropout",
        help: "Dropout rate, for networks that have it; in training mode, the attack pass included [default: 0]",
        value_name: "RATE",
        values: Values::Number,
    },
    SettingInfo {
        name: "stem",
        help: "First layers of a ResNet [default: cifar, imagenet for images from 96x96]",
        value_name: "",
        values: Values::Choice(&["cifar", "imagenet"]),
    },
    SettingInfo {
        name: "patch",
        help: "Patch side of a vision transformer [default: 4, 8 from 48x48, 16 from 96x96]",
        value_name: "PIXELS",
        values: Values::Integer,
    },
    SettingInfo {
        name: "shortcut",
        help: "What PreActResNet's projection shortcuts take: the block's input, or what its first batch norm and activation make of it [default: input]",
        value_name: "",
        values: Values::Choice(&["input", "activated"]),
    },
    SettingInfo {
        name: "epsilon",
        help: "Radius of the perturbations in pixel units, for example 8/255 [default: 8/255 for linf, 128/255 for l2]",
        value_name: "",
        values: Values::Text,
    },
    SettingInfo {
        name: "epsilon_convention",
        help: "How epsilon counts in l2 training: in pixel space, or as in the SORA reference, sqrt(channels) times that; evaluations are always in pixel space [default: pixel]",
        value_name: "",
        values: Values::Choice(&["pixel", "reference"]),
    },
    SettingInfo {
        name: "norm",
        help: "Norm that bounds the perturbations [default: linf]",
        value_name: "",
        values: Values::Choice(&["linf", "l2"]),
    },
    SettingInfo {
        name: "attack_bn",
        help: "Batch-norm statistics in the attack pass [default: train; eval for trades, mart and atas]",
        value_name: "",
        values: Values::Choice(&["train", "eval"]),
    },
    SettingInfo {
        name: "epochs",
        help: "Passes over the training images [default: 30, divided by the replays of free]",
        value_name: "",
        values: Values::Integer,
    },
    SettingInfo {
        name: "batch",
        help: "Images of a step [default: 128]",
        value_name: "",
        values: Values::Integer,
    },
    SettingInfo {
        name: "lr_max",
        help: "Largest learning rate [default: 0.2 for sgd, 0.001 for adam and adamw]",
        value_name: "",
        values: Values::Number,
    },
    SettingInfo {
        name: "schedule",
        help: "How the learning rate moves [default: cyclic]",
        value_name: "",
        values: Values::Choice(&["cyclic", "multistep", "cosine", "warmup-cosine", "constant"]),
    },
    SettingInfo {
        name: "lr_min",
        help: "Smallest learning rate: the ends of cyclic, where the cosines end, the floor of multistep [default: a twentieth of the largest for cyclic, else 0]",
        value_name: "",
        values: Values::Number,
    },
    SettingInfo {
        name: "milestones",
        help: "Epochs after which multistep takes a tenth of the rate, for example 100,105 [default: at one half and three quarters of the run]",
        value_name: "EPOCHS",
        values: Values::Integers,
    },
    SettingInfo {
        name: "cycle_momentum",
        help: "Whether cyclic moves the momentum of sgd, too, from --momentum to 0.8 and back, as PyTorch's CyclicLR does [default: true for cyclic with sgd]",
        value_name: "BOOL",
        values: Values::Switch,
    },
    SettingInfo {
        name: "optimizer",
        help: "Optimizer [default: sgd]",
        value_name: "",
        values: Values::Choice(&["sgd", "adam", "adamw"]),
    },
    SettingInfo {
        name: "momentum",
        help: "Momentum of sgd [default: 0.9]",
        value_name: "",
        values: Values::Number,
    },
    SettingInfo {
        name: "weight_decay",
        help: "Weight decay [default: 0.0005]",
        value_name: "",
        values: Values::Number,
    },
    SettingInfo {
        name: "label_smoothing",
        help: "Label smoothing of the training loss, 0 to 1 [default: 0]",
        value_name: "SHARE",
        values: Values::Number,
    },
    SettingInfo {
        name: "awp",
        help: "Adversarial weight perturbation: size relative to the weights, for example 0.005 [default: 0, off]",
        value_name: "GAMMA",
        values: Values::Number,
    },
    SettingInfo {
        name: "ema",
        help: "Weight averaging: decay of the moving average that is validated and written at the end, for example 0.999 [default: 0, off]",
        value_name: "DECAY",
        values: Values::Number,
    },
    SettingInfo {
        name: "clip_grad",
        help: "Clip the gradient to this norm [default: 0, off]",
        value_name: "NORM",
        values: Values::Number,
    },
    SettingInfo {
        name: "accumulate",
        help: "Batches whose mean gradient makes one update [default: 1]",
        value_name: "N",
        values: Values::Integer,
    },
    SettingInfo {
        name: "epsilon_warmup",
        help: "Epochs over which epsilon grows linearly to its value [default: 0]",
        value_name: "EPOCHS",
        values: Values::Number,
    },
    SettingInfo {
        name: "precision",
        help: "How activations and their gradients are stored; evaluations are always f32 [default: f32]",
        value_name: "",
        values: Values::Choice(&["f32", "bf16"]),
    },
    SettingInfo {
        name: "device",
        help: "Where to compute: cpu, `cuda[:N]`, `rocm[:N]`, wgpu, vulkan or metal [default: cpu]",
        value_name: "",
        values: Values::Text,
    },
    SettingInfo {
        name: "threads",
        help: "CPU threads [default: one a core]",
        value_name: "",
        values: Values::Integer,
    },
    SettingInfo {
        name: "seed",
        help: "Seed of everything random [default: 0]",
        value_name: "",
        values: Values::Integer,
    },
    SettingInfo {
        name: "limit_train",
        help: "Train on the first N training images only",
        value_name: "N",
        values: Values::Integer,
    },
    SettingInfo {
        name: "limit_test",
        help: "Keep only the first N test images",
        value_name: "N",
        values: Values::Integer,
    },
    SettingInfo {
        name: "drop_last",
        help: "Leave out the last, smaller batch of an epoch [default: true]",
        value_name: "BOOL",
        values: Values::Switch,
    },
    SettingInfo {
        name: "val",
        help: "Images held out of the training split for validation after each epoch; 0 turns it off [default: 1000, at most a tenth]",
        value_name: "N",
        values: Values::Integer,
    },
    SettingInfo {
        name: "val_steps",
        help: "Also validate every N steps (clean, fgsm, pgd-10), into metrics.jsonl",
        value_name: "N",
        values: Values::Integer,
    },
    SettingInfo {
        name: "on_co",
        help: "On catastrophic overfitting [default: warn]",
        value_name: "",
        values: Values::Choice(&["warn", "stop", "rollback"]),
    },
    SettingInfo {
        name: "on_co_method",
        help: "Method to go on with after a rollback, with its default hyperparameters [default: sora]",
        value_name: "NAME",
        values: Values::Text,
    },
    SettingInfo {
        name: "keep",
        help: "Checkpoints to keep [default: 3]",
        value_name: "N",
        values: Values::Integer,
    },
    SettingInfo {
        name: "checkpoint_steps",
        help: "Also write a checkpoint every N steps [default: 100 with --on-co rollback, else only after each epoch]",
        value_name: "N",
        values: Values::Integer,
    },
    SettingInfo {
        name: "tensorboard",
        help: "Also write TensorBoard event files, to DIR/tensorboard",
        value_name: "BOOL",
        values: Values::Switch,
    },
];
