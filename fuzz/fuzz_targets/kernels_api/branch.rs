//! Residual branches of transformer blocks.

use libfuzzer_sys::arbitrary::Result;
use sora_kernels::Element;
use sora_kernels::branch::{Branch, Gradients, Middle, Parameters, WeightOperands};
use sora_kernels::conv::Direction;
use sora_kernels::layer_norm::LayerNorm;

use crate::input::{Input, MOST, assert_written, isa, numbers, output, product, size};

pub fn branch<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let middle = match u.arbitrary()? {
        true => Middle::Gelu { hidden: size(u)? },
        false => Middle::Attention { heads: size(u)? },
    };
    let (tokens, features) = (size(u)?, size(u)?);
    let Ok(branch) = Branch::<E>::new(tokens, features, middle, isa(u)?) else { return Ok(()) };
    let [inner, outer] = branch.inner();
    let rows = product(&[size(u)?.min(3), tokens]);
    let widest = product(&[rows.max(features), inner.max(features)]);
    if widest > MOST {
        return Ok(());
    }
    let weights = [numbers(u, inner * features)?, numbers(u, outer * features)?];
    let pack = |direction| -> Option<Vec<_>> {
        let layers = branch.layers().into_iter().zip(&weights);
        layers.map(|(layer, weights)| layer.pack(weights, direction).ok()).collect()
    };
    let (Some(forward), Some(backward)) = (pack(Direction::Forward), pack(Direction::InputGrad))
    else {
        return Ok(());
    };
    let (gamma, beta) = (numbers(u, features)?, numbers(u, features)?);
    let (first, second) = (numbers(u, inner)?, numbers(u, features)?);
    let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
    let parameters =
        Parameters { norm, weights: [&forward[0], &forward[1]], biases: [&first, &second] };
    let (x, dy) = (numbers(u, rows * features)?, numbers(u, rows * features)?);
    let (mut kept, mut y) = (output::<E>(u, rows * inner)?, output(u, rows * features)?);
    if branch.forward(&x, parameters, Some(&mut kept), &mut y).is_err() {
        return Ok(());
    }
    assert_written(&kept);
    assert_written(&y);
    let parameters = Parameters { weights: [&backward[0], &backward[1]], ..parameters };
    let (mut dx, mut dgamma, mut dbeta) =
        (output(u, x.len())?, output(u, features)?, output(u, features)?);
    let gradients = Gradients { x: &mut dx, gamma: &mut dgamma, beta: &mut dbeta };
    let (mut normed, mut d_inner, mut again) = (
        output::<E>(u, rows * features)?,
        output::<E>(u, rows * inner)?,
        output::<E>(u, rows * outer)?,
    );
    let operands: bool = u.arbitrary()?;
    let operands = operands.then(|| WeightOperands {
        normed: &mut normed,
        inner: &mut d_inner,
        outer: &mut again,
        dy: None,
    });
    if branch.backward(&x, parameters, &kept, &dy, gradients, operands).is_ok() {
        [dx, dgamma, dbeta].iter().for_each(|gradient| assert_written(gradient));
    }
    Ok(())
}
