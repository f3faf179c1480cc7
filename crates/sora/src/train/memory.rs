//! Estimates how much memory a training will take, before it takes it.

use crate::{
    config::TrainConfig,
    device,
    error::{Error, Result},
    model::Model,
    nn::Precision,
    optim::OptimizerKind,
    run::TrainPlan,
};

/// Refuses a training that needs more memory than the machine has.
///
/// # Errors
/// [`Error::Memory`] with both numbers.
pub(super) fn check(
    config: &TrainConfig,
    plan: &TrainPlan,
    model: &Model,
    world: usize,
) -> Result<()> {
    // The memory of another device is unknown.
    if config.device != "cpu" {
        return Ok(());
    }
    let images = config.batch / world;
    let needed = estimate(config, model, images);
    match device::available_memory() {
        Some(free) if needed > free => Err(Error::Memory {
            subject: format!(
                "a training step of {} images of {}x{} on {}",
                images,
                plan.network.shape.height,
                plan.network.shape.width,
                config.network()
            ),
            needed,
            free,
            advice: "choose a smaller `batch`, `width` or `image_size`, or `precision` bf16".into(),
        }),
        _ => Ok(()),
    }
}

/// Least number of bytes of a training step of `images` images: the values that the backward pass
/// reads of every layer, and the values that belong to each weight.
fn estimate(config: &TrainConfig, model: &Model, images: usize) -> u64 {
    let stored = match config.precision {
        Precision::F32 | Precision::Tf32 => 4,
        Precision::Bf16 => 2,
    };
    let values = match model.graph() {
        Some(graph) => {
            let layers = graph.layers.iter();
            let an_image: u64 =
                layers.map(|layer| layer.shape.iter().product::<usize>() as u64).sum();
            an_image * images as u64 * stored
        }
        None => model.least_bytes(images).unwrap_or(0),
    };
    let weights = model.params.num_elements() as u64;
    let moments = match config.optimizer {
        OptimizerKind::Sgd => 1,
        _ => 2,
    };
    let copies = 2 + moments + u64::from(config.ema > 0.0) + u64::from(config.accumulate > 1);
    values + weights * 4 * copies
}
