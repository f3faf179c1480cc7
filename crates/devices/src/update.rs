//! Updates that Burn's operations would make of several: one kernel for each tensor.

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{
    prelude::*,
    std::tensor::layout::linear::{LinearView, LinearViewMut},
};

use crate::{contiguous, one_each};

/// The numbers of a step of stochastic gradient descent.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Learning rate.
    pub learning_rate: f32,
    /// Factor of the momentum buffer.
    pub momentum: f32,
    /// Weight decay, added to the gradient.
    pub weight_decay: f32,
    /// Whether the step looks ahead (Nesterov).
    pub nesterov: bool,
}

/// Value and momentum buffer, `[len]` in f32, after one step with `gradient`, by PyTorch's formula.
pub fn sgd(
    value: CubeTensor,
    buffer: CubeTensor,
    gradient: CubeTensor,
    rule: Sgd,
) -> (CubeTensor, CubeTensor) {
    let [value, buffer, gradient] = [value, buffer, gradient].map(into_contiguous);
    let [new_value, new_buffer] =
        [0, 1].map(|_| contiguous(&value, value.meta.shape().clone(), DType::F32));
    let (count, dim) = one_each(&value.client, value.meta.num_elements());
    sgd_kernel::launch(
        &value.client.clone(),
        count,
        dim,
        value.into_linear_view(),
        buffer.into_linear_view(),
        gradient.into_linear_view(),
        new_value.clone().into_linear_view(),
        new_buffer.clone().into_linear_view(),
        rule.learning_rate,
        rule.momentum,
        rule.weight_decay,
        rule.nesterov,
    );
    (new_value, new_buffer)
}

#[cube(launch)]
fn sgd_kernel(
    value: LinearView<'_, f32>,
    buffer: LinearView<'_, f32>,
    gradient: LinearView<'_, f32>,
    mut new_value: LinearViewMut<'_, f32>,
    mut new_buffer: LinearViewMut<'_, f32>,
    learning_rate: f32,
    momentum: f32,
    weight_decay: f32,
    #[comptime] nesterov: bool,
) {
    if !new_value.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let old = value.read(ABSOLUTE_POS);
    let gradient = gradient.read(ABSOLUTE_POS) + old * weight_decay;
    let moved = buffer.read(ABSOLUTE_POS) * momentum + gradient;
    let step = if nesterov { gradient + moved * momentum } else { moved };
    new_buffer.write(ABSOLUTE_POS, moved);
    new_value.write(ABSOLUTE_POS, old - step * learning_rate);
}

/// `old (1 - share) + new share`, element by element, `[len]` in f32.
pub fn blend(old: CubeTensor, new: CubeTensor, share: f32) -> CubeTensor {
    let [old, new] = [old, new].map(into_contiguous);
    let out = contiguous(&old, old.meta.shape().clone(), DType::F32);
    let (count, dim) = one_each(&old.client, old.meta.num_elements());
    blend_kernel::launch(
        &old.client.clone(),
        count,
        dim,
        old.into_linear_view(),
        new.into_linear_view(),
        out.clone().into_linear_view(),
        share,
    );
    out
}

#[cube(launch)]
fn blend_kernel(
    old: LinearView<'_, f32>,
    new: LinearView<'_, f32>,
    mut out: LinearViewMut<'_, f32>,
    share: f32,
) {
    if !out.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    out.write(
        ABSOLUTE_POS,
        old.read(ABSOLUTE_POS) * (1.0f32 - share) + new.read(ABSOLUTE_POS) * share,
    );
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use super::*;
    use crate::testing::{close, noise, read, tensor};

    #[test]
    fn an_update_is_pytorchs_formula() {
        let [value, buffer, gradient] = [1, 2, 3].map(|seed| noise(1000, seed));
        for nesterov in [false, true] {
            let rule = Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.05, nesterov };
            let of = |values: &[f32]| tensor(values, [1000]);
            let (new_value, new_buffer) = sgd(of(&value), of(&buffer), of(&gradient), rule);
            let (mut values, mut buffers) = (Vec::new(), Vec::new());
            for at in 0..1000 {
                let gradient = gradient[at] + 0.05 * value[at];
                let moved = 0.9 * buffer[at] + gradient;
                let step = if nesterov { gradient + 0.9 * moved } else { moved };
                buffers.push(moved);
                values.push(value[at] - 0.1 * step);
            }
            close(&read(new_value), &values, 1e-6);
            close(&read(new_buffer), &buffers, 1e-6);
        }
        let mixed: Vec<f32> =
            value.iter().zip(&buffer).map(|(old, new)| 0.75 * old + 0.25 * new).collect();
        close(&read(blend(tensor(&value, [1000]), tensor(&buffer, [1000]), 0.25)), &mixed, 1e-6);
    }
}
