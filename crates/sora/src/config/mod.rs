//! The settings of a training. They are listed once ([`SETTINGS`]), read from tables (a file, a
//! command line, a recipe), completed with defaults, and checked.

mod check;
mod settings;
mod table;

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

pub(crate) use self::table::{ABOUT_THE_RUN, complete, read, read_text};
pub use self::{
    settings::{SETTINGS, SettingInfo, TrainConfig, Values},
    table::{default_epsilon, over, parse, put_option, read_file},
};
pub use crate::nn::Precision;
use crate::{
    data::Augment,
    method::Extras,
    model::{IMPORTED, NetworkOptions},
    nn::TensorSet,
    optim::{Accumulated, CYCLIC_MOMENTUM_AT_PEAK, Clipped, MILESTONES, Optimizer, RatePlan},
    threat::{EpsilonConvention, Norm, Threat},
};

/// The reaction to catastrophic overfitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCo {
    /// Report it and go on.
    Warn,
    /// Write a checkpoint and stop with an error.
    Stop,
    /// Return to the last checkpoint before the onset and go on with another method.
    Rollback,
}

impl fmt::Display for OnCo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warn => "warn",
            Self::Stop => "stop",
            Self::Rollback => "rollback",
        })
    }
}

impl TrainConfig {
    /// Norm and epsilon.
    pub fn threat(&self) -> Threat {
        Threat { norm: self.norm, epsilon: self.epsilon.value() }
    }

    /// Norm and epsilon in pixel space for training images of `channels` channels. This is
    /// [`threat`](Self::threat), unless `epsilon_convention` is the reference's, which bounds the
    /// length of delta / std in l2 by the length of epsilon / std over the channels.
    pub fn training_threat(&self, channels: usize) -> Threat {
        let mut threat = self.threat();
        if self.norm == Norm::L2 && self.epsilon_convention == EpsilonConvention::Reference {
            threat.epsilon *= (channels as f32).sqrt();
        }
        threat
    }

    /// The share of epsilon that is reached at `step`, with `steps_per_epoch` steps in an epoch. It
    /// grows linearly during the warm-up, beginning above 0, and is 1 from the warm-up's end on.
    pub fn warm_up(&self, step: u64, steps_per_epoch: u64) -> f32 {
        let warmup = self.epsilon_warmup * steps_per_epoch as f64;
        let done = (step + 1) as f64;
        if done < warmup { (done / warmup) as f32 } else { 1.0 }
    }

    /// Whether epsilon is still growing at `step`.
    pub fn warming_up(&self, step: u64, steps_per_epoch: u64) -> bool {
        self.warm_up(step, steps_per_epoch) < 1.0
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

    /// Makes a new optimizer for `params`, with clipping and accumulation.
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

    /// The augmentation; none until [`TrainPlan::new`](crate::run::TrainPlan::new) has set the data
    /// set's.
    pub fn augment(&self) -> Augment {
        self.augment.unwrap_or(Augment::NONE)
    }

    /// The options of the network, apart from its width.
    pub fn network_options(&self) -> NetworkOptions {
        NetworkOptions {
            activation: self.activation,
            dropout: self.dropout,
            stem: self.stem,
            patch: self.patch,
            shortcut: self.shortcut,
        }
    }

    /// Whether the training begins with an ONNX file.
    pub fn begins_with_onnx(&self) -> bool {
        self.init.as_deref().is_some_and(is_onnx)
    }

    /// The network in words: its name and width, or its file.
    pub fn network(&self) -> String {
        match &self.init {
            Some(file) if self.model == IMPORTED => {
                format!("the network of {}", file.file_name().unwrap_or_default().display())
            }
            _ => format!("{} of width {}", self.model, self.width),
        }
    }

    /// Makes the paths absolute, so that a run can be resumed from any working folder.
    pub fn make_absolute(&mut self) {
        // Only an empty path fails here; the checks refuse it later with its name.
        let absolute = |path: &Path| {
            let path = crate::data::expand_home(path);
            std::path::absolute(&path).unwrap_or(path)
        };
        self.data_dir = self.data_dir.as_deref().map(absolute);
        self.init = self.init.as_deref().map(absolute);
        let settle = |spec: &mut String| {
            let named = crate::data::find(spec).is_some();
            if let Some(path) = spec.strip_prefix("imagefolder:") {
                *spec = format!("imagefolder:{}", absolute(Path::new(path)).display());
            } else if let Some(path) =
                spec.strip_prefix("folder:").or((!named).then_some(spec.as_str()))
                && crate::data::expand_home(Path::new(path)).is_dir()
            {
                *spec = format!("folder:{}", absolute(Path::new(path)).display());
            }
        };
        settle(&mut self.dataset);
        self.extra_data.as_mut().map(settle);
        let settle = |path: &str| absolute(Path::new(path)).display().to_string();
        METHOD_PATHS.iter().for_each(|name| self.options.replace_text(name, settle));
    }
}

/// Options of methods that name a file.
const METHOD_PATHS: [&str; 1] = ["replay"];

/// Whether `path` is called like an ONNX file.
pub(crate) fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"))
}

/// Joins the lines of a library's message into one.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
