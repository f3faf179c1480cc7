//! Gradients that a device records once and replays.
//!
//! The first passes of a kind (network, mode, shape) run as they are, which compiles and tunes their
//! kernels. The next one is recorded over memory that keeps its place: pixels, labels and values of the
//! network are copied there before each replay, as far as they have changed. Passes are recorded for
//! each thread by itself, and a thread's last ones are kept.

use std::{cell::RefCell, env, mem::ManuallyDrop};

use burn::tensor::{Device, Tensor};
use sora_devices::{Recording, Slot, snapshot};

use super::{
    LossAt,
    gradient::{InputGradient, TrainGradient, recorded_input_gradient, recorded_training_gradient},
};
use crate::{
    model::Model,
    nn::{BatchStats, BnMode, Precision, Products, TensorSet},
    profile::{self, Stage},
    ranks::scope,
};

/// With the value 0, nothing is recorded.
const VARIABLE: &str = "SORA_RECORD";

/// Passes that run as they are before one is recorded.
const PLAIN: u32 = 4;

/// Kinds of passes that a thread keeps, recorded or counted.
const KEPT: usize = 6;

/// As [`recorded_input_gradient`], replayed where the device can.
pub(super) fn input_gradient(loss: LossAt<'_>) -> InputGradient {
    let Some(Outputs { grad, loss, logits, stats, .. }) = replayed(&loss, Wanted::Pixels) else {
        return recorded_input_gradient(loss);
    };
    InputGradient { grad, loss, logits, stats }
}

/// As [`recorded_training_gradient`], replayed where the device can.
pub(super) fn training_gradient(loss: LossAt<'_>) -> TrainGradient {
    let Some(Outputs { params, grad, loss, logits, stats }) = replayed(&loss, Wanted::Weights)
    else {
        return recorded_training_gradient(loss);
    };
    TrainGradient { params, input: grad, loss, logits, stats, forwards: 1 }
}

/// The gradient that a pass computes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Pixels,
    Weights,
}

/// What one recording serves.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    network: usize,
    wanted: Wanted,
    device: Device,
    shape: [usize; 4],
    mode: BnMode,
    smoothing: u32,
    precision: Precision,
    products: Products,
    normalisation: Vec<u32>,
}

impl Kind {
    /// `None` for a pass that cannot be recorded: other processes take part, or it draws masks.
    fn of(loss: &LossAt<'_>, wanted: Wanted) -> Option<Self> {
        let LossAt { model, ref x, mode, smoothing, .. } = *loss;
        let mode = if wanted == Wanted::Weights { BnMode::Train } else { mode };
        let draws = mode == BnMode::Train && model.config.options.dropout > 0.0;
        let (mean, std) = (&model.config.mean, &model.config.std);
        (scope::world() == 1 && !draws).then(|| Self {
            network: model.network_address(),
            wanted,
            device: model.device().clone(),
            shape: x.dims(),
            mode,
            smoothing: smoothing.to_bits(),
            precision: model.precision(),
            products: model.products(),
            normalisation: mean.iter().chain(std).map(|value| value.to_bits()).collect(),
        })
    }
}

/// The results of a pass.
struct Outputs {
    params: Vec<Tensor<1>>,
    grad: Tensor<4>,
    loss: Tensor<1>,
    logits: Tensor<2>,
    stats: Vec<BatchStats>,
}

impl Outputs {
    /// Copies, which the next replay does not overwrite; but the gradients by the parameters and the
    /// statistics, whose readers take them into an update before it.
    fn kept(&self) -> Self {
        Self {
            params: self.params.clone(),
            grad: snapshot(self.grad.clone()),
            loss: snapshot(self.loss.clone()),
            logits: snapshot(self.logits.clone()),
            stats: self.stats.clone(),
        }
    }
}

/// A network's parameters and buffers in slots, and the versions of what they hold.
struct Values {
    /// The network with the slots' memory for its values. It keeps the network's address its own.
    model: Model,
    params: Vec<(u64, Slot)>,
    buffers: Vec<(u64, Slot)>,
}

impl Values {
    fn of(model: &Model) -> Self {
        let slots = |set: &TensorSet| -> Vec<(u64, Slot)> {
            let values = set.values().iter().zip(set.versions());
            values.map(|(value, version)| (*version, Slot::new(value.clone()))).collect()
        };
        let tensors = |slots: &[(u64, Slot)]| slots.iter().map(|(_, slot)| slot.tensor()).collect();
        let (params, buffers) = (slots(&model.params), slots(&model.buffers));
        let mut over = model.clone();
        over.params = model.params.with_values(tensors(&params));
        over.buffers = model.buffers.with_values(tensors(&buffers));
        Self { model: over, params, buffers }
    }

    fn network(&self) -> usize {
        self.model.network_address()
    }

    /// `model` with the slots' memory for its values.
    fn model(&self, model: &Model) -> Model {
        let mut over = model.clone();
        over.params = self.model.params.with_values(self.model.params.values().to_vec());
        over.buffers = self.model.buffers.with_values(self.model.buffers.values().to_vec());
        over
    }

    fn refresh(&mut self, model: &Model, mode: BnMode) {
        refresh(&mut self.params, &model.params);
        if mode == BnMode::Eval {
            refresh(&mut self.buffers, &model.buffers);
        }
    }

    fn slots(&self) -> Vec<Slot> {
        self.params.iter().chain(&self.buffers).map(|(_, slot)| slot.clone()).collect()
    }
}

fn refresh(slots: &mut [(u64, Slot)], set: &TensorSet) {
    for ((held, slot), (value, version)) in
        slots.iter_mut().zip(set.values().iter().zip(set.versions()))
    {
        if held != version {
            slot.write(value.clone());
            *held = *version;
        }
    }
}

/// A kind of pass, in one of three states.
enum State {
    /// Runs as it is, so many times so far.
    Plain(u32),
    /// The device refused to record it.
    Refused,
    Recorded(Box<Recorded>),
}

/// A recording, with the slots of what each pass brings.
struct Recorded {
    pixels: Slot,
    labels: Slot,
    recording: Recording<Outputs>,
}

#[derive(Default)]
struct Passes {
    values: Vec<Values>,
    /// The last used stands last.
    kinds: Vec<(Kind, State)>,
}

thread_local! {
    // Never dropped: at the end of a thread, what tensors need for that may be gone.
    static PASSES: ManuallyDrop<RefCell<Passes>> = ManuallyDrop::default();
}

/// The results of the pass by a replay, or `None` if it is to run as it is.
fn replayed(loss: &LossAt<'_>, wanted: Wanted) -> Option<Outputs> {
    if env::var_os(VARIABLE).is_some_and(|value| value == "0") {
        return None;
    }
    let kind = Kind::of(loss, wanted)?;
    PASSES.with(|passes| passes.borrow_mut().replayed(kind, loss))
}

impl Passes {
    fn replayed(&mut self, kind: Kind, loss: &LossAt<'_>) -> Option<Outputs> {
        let found = self.kinds.iter().position(|(other, _)| *other == kind);
        let mut entry = match found {
            Some(place) => self.kinds.remove(place),
            None => (kind, State::Plain(0)),
        };
        if let State::Plain(runs) = &mut entry.1 {
            *runs += 1;
            if *runs > PLAIN {
                entry.1 = self.record(&entry.0, loss);
            }
        }
        let out = match &mut entry.1 {
            State::Recorded(recorded) => {
                let Recorded { pixels, labels, recording } = &mut **recorded;
                let values = self.values.iter_mut().find(|v| v.network() == entry.0.network)?;
                Some(profile::time(Stage::Network, || {
                    values.refresh(loss.model, entry.0.mode);
                    pixels.write(flat(loss.x.clone()));
                    labels.write(loss.labels.clone().float());
                    recording.replay().kept()
                }))
            }
            State::Plain(_) | State::Refused => None,
        };
        self.kinds.push(entry);
        if self.kinds.len() > KEPT {
            self.kinds.remove(0);
            let kinds = &self.kinds;
            let used = |network| {
                kinds.iter().any(|(kind, state)| {
                    kind.network == network && matches!(state, State::Recorded(_))
                })
            };
            self.values.retain(|values| used(values.network()));
        }
        out
    }

    fn record(&mut self, kind: &Kind, loss: &LossAt<'_>) -> State {
        let place = self.values.iter().position(|values| values.network() == kind.network);
        let place = place.unwrap_or_else(|| {
            self.values.push(Values::of(loss.model));
            self.values.len() - 1
        });
        let values = &mut self.values[place];
        values.refresh(loss.model, BnMode::Eval);
        let model = values.model(loss.model);
        let pixels = Slot::new(flat(loss.x.clone()));
        let labels = Slot::new(loss.labels.clone().float());
        let slots = [vec![pixels.clone(), labels.clone()], values.slots()].concat();
        let (of_pixels, of_labels, kind) = (pixels.clone(), labels.clone(), kind.clone());
        let pass = move || {
            let loss = LossAt {
                model: &model,
                x: of_pixels.tensor().reshape(kind.shape),
                labels: of_labels.tensor().int(),
                mode: kind.mode,
                smoothing: f32::from_bits(kind.smoothing),
            };
            match kind.wanted {
                Wanted::Pixels => {
                    let InputGradient { grad, loss, logits, stats } = recorded_input_gradient(loss);
                    Outputs { params: Vec::new(), grad, loss, logits, stats }
                }
                Wanted::Weights => {
                    let TrainGradient { params, input, loss, logits, stats, .. } =
                        recorded_training_gradient(loss);
                    Outputs { params, grad: input, loss, logits, stats }
                }
            }
        };
        match Recording::new(loss.model.device(), slots, pass) {
            Some(recording) => State::Recorded(Box::new(Recorded { pixels, labels, recording })),
            None => {
                tracing::debug!("the device does not record passes; each launches its kernels");
                State::Refused
            }
        }
    }
}

fn flat(x: Tensor<4>) -> Tensor<1> {
    let len: usize = x.dims().iter().product();
    x.reshape([len])
}
