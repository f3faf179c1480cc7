//! The learning state of a training: the network, the method, the optimizer and the average of the
//! weights.

use burn::tensor::Device;

use super::average::WeightAverage;
use crate::{
    config::TrainConfig,
    device,
    error::Result,
    method::{self, Method},
    model::{Model, ModelConfig},
    nn::BnMode,
    optim::Optimizer,
    run::{
        InitialWeights,
        checkpoint::{Checkpoint, State},
    },
};

/// Everything that a step changes, except the run's position.
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) device: Device,
    pub(super) model: Model,
    pub(super) method: Box<dyn Method>,
    pub(super) attack_bn: BnMode,
    pub(super) optimizer: Box<dyn Optimizer>,
    pub(super) average: Option<WeightAverage>,
    /// Number of updates that the run's own method makes on each batch; a method that replaces it
    /// makes the same number.
    pub(super) updates: u64,
}

impl Learner {
    /// The state at the start of a run, with random weights or those in `initial`.
    ///
    /// # Errors
    /// [`Error`](crate::Error) for a network, method or device that is not available, or for initial
    /// weights of another network.
    pub(super) fn new(
        config: &TrainConfig,
        network: &ModelConfig,
        initial: Option<&InitialWeights>,
    ) -> Result<Self> {
        let device = device::device(&config.device)?;
        let mut model = Model::init(network.clone(), config.seed, &device)?;
        if let Some(initial) = initial {
            let head = initial.give(&mut model)?;
            if !head.is_empty() {
                let classes = network.shape.classes;
                tracing::info!("a new head for {classes} classes: {} are random", head.join(", "));
            }
        }
        model.set_precision(config.precision)?;
        let method = method::method(&config.method)?.build(&config.options, config.threat())?;
        Ok(Self {
            updates: u64::from(method.updates_per_batch().max(1)),
            method,
            attack_bn: config.attack_bn,
            optimizer: config.optimizer(&model.params),
            average: (config.ema > 0.0).then(|| WeightAverage::new(&model, config.ema)),
            device,
            model,
        })
    }

    /// Restores the whole state from a checkpoint.
    ///
    /// # Errors
    /// [`Error`](crate::Error) for a tensor that is missing or has another shape; other tensors may then be
    /// restored already.
    pub(super) fn restore(&mut self, config: &TrainConfig, found: &Checkpoint) -> Result<()> {
        self.restore_weights(found)?;
        match &found.progress.rollback {
            Some(rollback) => self.take_over(config, &rollback.method)?,
            None => {
                let info = method::method(&config.method)?;
                self.method = info.build(&config.options, config.threat())?;
                self.attack_bn = config.attack_bn;
            }
        }
        self.method.load_state(&found.method)
    }

    /// Restores the state from a checkpoint, except the method and its state.
    ///
    /// # Errors
    /// Those of [`restore`](Self::restore).
    pub(super) fn restore_weights(&mut self, found: &Checkpoint) -> Result<()> {
        let origin = found.path.display().to_string();
        self.model.load(&found.model, &origin)?;
        self.optimizer.load_state(&found.optimizer, &origin)?;
        match &mut self.average {
            Some(average) => average.load_state(&found.optimizer, &origin),
            None => Ok(()),
        }
    }

    /// Continues with the method `name` and its default hyperparameters.
    ///
    /// # Errors
    /// [`Error`](crate::Error) for a method that is unknown or does not fit the threat.
    pub(super) fn take_over(&mut self, config: &TrainConfig, name: &str) -> Result<()> {
        let (before, after) = (method::method(&config.method)?, method::method(name)?);
        let (threat, options) = (config.threat(), (after.options)()?);
        self.method = after.build(&options, threat)?;
        // A mode that is the old method's default was not requested, so it is not kept.
        let asked = config.attack_bn != before.attack_bn_with(&config.options, threat)?;
        self.attack_bn =
            if asked { config.attack_bn } else { after.attack_bn_with(&options, threat)? };
        Ok(())
    }

    /// The state that a checkpoint keeps.
    ///
    /// # Errors
    /// [`Error`](crate::Error) when a device fails.
    pub(super) fn state(&self) -> Result<State> {
        let mut optimizer = self.optimizer.state()?;
        if let Some(average) = &self.average {
            optimizer.extend(average.state()?);
        }
        Ok(State { model: self.model.to_host()?, optimizer, method: self.method.state()? })
    }

    /// The network that the training produces: with averaged weights if there is an average.
    pub(super) fn result(&self) -> Model {
        self.average
            .as_ref()
            .map_or_else(|| self.model.clone(), |average| average.applied(&self.model))
    }
}
