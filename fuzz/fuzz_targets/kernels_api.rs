//! Calls the whole safe interface of the kernels with hostile sizes.
//!
//! A call may refuse, but not panic, and AddressSanitizer watches its memory: slices are heap
//! allocations of exactly the length that is passed. Outputs are filled with NaN before a call that
//! overwrites them, and all inputs are small numbers: an accepted call must leave numbers alone,
//! else it returned memory that it never wrote.
#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use sora_kernels::activation::{gelu, gelu_grad, relu, relu_grad};
use sora_kernels::attention::Attention;
use sora_kernels::batch_norm::{BatchNorm, Statistics};
use sora_kernels::channels::{channel_moments, channel_sums};
use sora_kernels::conv::{
    Addend, Conv2d, ConvAlgorithm, ConvGeometry, Direction, Epilogue, Moments, Normed, Overlay,
    Partial, TileIndex,
};
use sora_kernels::layer_norm::LayerNorm;
use sora_kernels::layout::{Dimensions, hwnc_to_nchw, nchw_to_hwnc};
use sora_kernels::linear::Linear;
use sora_kernels::loss::softmax_cross_entropy;
use sora_kernels::pool::{Window, global_average, global_average_grad};
use sora_kernels::sgd::Sgd;
use sora_kernels::{Buffer, Element, Isa, bf16};

/// Longest slice that is made.
const MOST: usize = 1 << 14;

type Input<'a> = Unstructured<'a>;

/// A size: mostly small, sometimes at the edge of what arithmetic can hold.
fn size(u: &mut Input<'_>) -> Result<usize> {
    Ok(match u.int_in_range(0..=15u8)? {
        0..=7 => u.int_in_range(0..=9)?,
        8..=11 => u.int_in_range(0..=70)?,
        12 => 1usize << u.int_in_range(0..=63)?,
        13 => (1usize << u.int_in_range(0..=63)?).wrapping_sub(u.int_in_range(0..=40)?),
        14 => usize::MAX - u.int_in_range(0..=70)?,
        _ => usize::arbitrary(u)?,
    })
}

/// `len`, or now and then another length.
fn length(u: &mut Input<'_>, len: usize) -> Result<usize> {
    let len = if u.ratio(1, 24)? { size(u)? } else { len };
    Ok(if len > MOST { u.int_in_range(0..=9)? } else { len })
}

/// Small numbers that `E` holds exactly.
fn numbers<E: Element>(u: &mut Input<'_>, len: usize) -> Result<Vec<E>> {
    let len = length(u, len)?;
    Ok((0..len).map(|i| E::from_f32(((i * 7 + len) % 17) as f32 / 8.0 - 1.0)).collect())
}

/// As [`numbers`], above zero.
fn positive(u: &mut Input<'_>, len: usize) -> Result<Vec<f32>> {
    Ok(numbers::<f32>(u, len)?.iter().map(|x| x.abs() + 0.25).collect())
}

/// Memory for a result.
fn output<E: Element>(u: &mut Input<'_>, len: usize) -> Result<Vec<E>> {
    let len = length(u, len)?;
    Ok(vec![E::from_f32(f32::NAN); len])
}

fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product, &d| product.saturating_mul(d))
}

#[track_caller]
fn assert_written<E: Element>(values: &[E]) {
    if let Some(at) = values.iter().position(|x| !x.to_f32().is_finite()) {
        panic!("value {at} of {} was not written", values.len());
    }
}

fn isa(u: &mut Input<'_>) -> Result<Isa> {
    u.choose(&Isa::ALL).copied()
}

fn geometry(u: &mut Input<'_>) -> Result<ConvGeometry> {
    let kernel = match u.int_in_range(0..=3u8)? {
        0 => [3, 3],
        1 => [1, 1],
        _ => [size(u)?, size(u)?],
    };
    let groups = if u.ratio(1, 4)? { size(u)? } else { 1 };
    let channels = |u: &mut Input<'_>| Ok(if u.ratio(1, 8)? { size(u)? } else { size(u)?.saturating_mul(groups) });
    Ok(ConvGeometry {
        in_channels: channels(u)?,
        out_channels: channels(u)?,
        input: [size(u)?, size(u)?],
        kernel,
        stride: if u.ratio(1, 2)? { [1, 1] } else { [size(u)?, size(u)?] },
        padding: if u.ratio(1, 2)? { kernel.map(|k| k / 2) } else { [size(u)?, size(u)?] },
        groups,
    })
}

fn addend<'a, E: Element>(u: &mut Input<'_>, tensor: &'a [E]) -> Result<Addend<'a, E>> {
    Ok(match u.int_in_range(0..=2u8)? {
        0 => Addend::None,
        1 => Addend::Tensor(tensor),
        _ => Addend::Output,
    })
}

/// Batch norm parameters for `channels`.
struct Norm([Vec<f32>; 4], bool);

impl Norm {
    fn new(u: &mut Input<'_>, channels: usize) -> Result<Self> {
        let [a, b, c, d] = [0; 4].map(|_| positive(u, channels));
        Ok(Self([a?, b?, c?, d?], u.arbitrary()?))
    }

    fn get(&self) -> BatchNorm<'_> {
        let Self([mean, variance, gamma, beta], relu) = self;
        BatchNorm { mean, variance, gamma, beta, epsilon: 1e-5, relu: *relu }
    }
}

/// Runs `run` with an epilogue for `channels`, on a result of `len` elements, and looks whether it
/// was written.
fn with_epilogue<E: Element>(
    u: &mut Input<'_>,
    channels: usize,
    len: usize,
    partial: bool,
    run: impl FnOnce(&mut [E], Epilogue<'_, E>) -> bool,
) -> Result<()> {
    let (bias, tensor) = (numbers(u, channels)?, numbers(u, len)?);
    let add = addend(u, &tensor)?;
    let mut y: Vec<E> = output(u, len)?;
    if matches!(add, Addend::Output) || partial {
        y.fill(E::from_f32(0.5));
    }
    let [mut mean, mut variance] = [output::<f32>(u, channels)?, output::<f32>(u, channels)?];
    let (norm, mut normed): (Norm, Vec<E>) = (Norm::new(u, channels)?, output(u, len)?);
    if partial {
        normed.fill(E::from_f32(0.5));
    }
    let (with_moments, with_norm, own) = (u.ratio(1, 3)?, u.ratio(1, 3)?, u.arbitrary()?);
    let epilogue = Epilogue {
        bias: if u.arbitrary()? { Some(&bias) } else { None },
        add,
        moments: with_moments.then_some(Moments { mean: &mut mean, variance: &mut variance }),
        norm: with_norm.then(|| Normed { norm: norm.get(), y: if own { Some(&mut normed) } else { None } }),
    };
    if run(&mut y, epilogue) {
        assert_written(&y);
        if with_moments {
            assert_written(&mean);
            assert_written(&variance);
        }
        if with_norm && own {
            assert_written(&normed);
        }
    }
    Ok(())
}

fn conv<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (geometry, n) = (geometry(u)?, size(u)?);
    let _ = geometry.output();
    let Ok(mut conv) = Conv2d::<E>::new(geometry, isa(u)?) else { return Ok(()) };
    if u.arbitrary()? {
        let algorithm = *u.choose(&ConvAlgorithm::ALL)?;
        let Ok(chosen) = conv.with_algorithm(algorithm) else { return Ok(()) };
        conv = chosen;
    }
    let (input, out) = (conv.input_len(n), conv.output_len(n));
    let (input, out) = (input.unwrap_or(0), out.unwrap_or(0));
    let [forward, backward] = [Direction::Forward, Direction::InputGrad];
    let _ = (conv.packed_len(forward), conv.packed_len(backward));
    if input.max(out).max(conv.weight_len()) > MOST {
        return Ok(());
    }
    let w = numbers::<f32>(u, conv.weight_len())?;
    let (x, dy): (Vec<E>, Vec<E>) = (numbers(u, input)?, numbers(u, out)?);
    match u.int_in_range(0..=3u8)? {
        0 => {
            let Ok(packed) = conv.pack(&w, if u.ratio(1, 16)? { backward } else { forward }) else {
                return Ok(());
            };
            with_epilogue(u, geometry.out_channels, out, false, |y, epilogue| {
                conv.forward(n, &x, &packed, y, epilogue).is_ok()
            })
        }
        1 => {
            let Ok(packed) = conv.pack(&w, if u.ratio(1, 16)? { forward } else { backward }) else {
                return Ok(());
            };
            with_epilogue(u, geometry.in_channels, input, false, |dx, epilogue| {
                conv.input_grad(n, &dy, &packed, dx, epilogue).is_ok()
            })
        }
        2 => {
            let mut dw: Vec<f32> = output(u, conv.weight_len())?;
            if conv.weight_grad(n, &x, &dy, &mut dw).is_ok() {
                assert_written(&dw);
            }
            Ok(())
        }
        _ => partial(u, &conv, n, &x, &w, out),
    }
}

fn overlay<'a, E>(u: &mut Input<'_>, values: &'a [E], size_of: [usize; 2]) -> Result<Overlay<'a, E>> {
    let mut bound = |size: usize| -> Result<(usize, usize)> {
        if u.ratio(1, 8)? {
            return Ok((self::size(u)?, self::size(u)?));
        }
        let most = size.min(64);
        let step = if u.arbitrary()? { 4 } else { 1 };
        Ok((u.int_in_range(0..=most)? / step * step, u.int_in_range(0..=most)? / step * step))
    };
    Ok(Overlay { values, rows: bound(size_of[0])?, columns: bound(size_of[1])? })
}

fn partial<E: Element>(
    u: &mut Input<'_>,
    conv: &Conv2d<E>,
    n: usize,
    x: &[E],
    w: &[f32],
    out: usize,
) -> Result<()> {
    let Ok(packed) = conv.pack(w, Direction::Forward) else { return Ok(()) };
    let geometry = *conv.geometry();
    let mut tiles: Vec<TileIndex> = (0..u.int_in_range(0..=9)?)
        .map(|_| Ok(TileIndex { sample: size(u)?, tile: size(u)? }))
        .collect::<Result<_>>()?;
    if u.ratio(7, 8)? {
        tiles.retain(|tile| tile.sample < n && tile.tile < 200);
        tiles.sort();
        tiles.dedup();
    }
    let (x_over, add_over) = (numbers(u, x.len())?, numbers(u, out)?);
    let input = if u.arbitrary()? { Some(overlay(u, &x_over, geometry.input)?) } else { None };
    let add = if u.arbitrary()? { Some(overlay(u, &add_over, geometry.output())?) } else { None };
    with_epilogue(u, geometry.out_channels, out, true, |y, epilogue| {
        conv.forward_partial(n, x, &packed, y, epilogue, Partial { tiles: &tiles, input, add }).is_ok()
    })
}

fn linear<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (inputs, outputs, n) = (size(u)?, size(u)?, size(u)?);
    let Ok(linear) = Linear::<E>::new(inputs, outputs, isa(u)?) else { return Ok(()) };
    if product(&[inputs, outputs]).max(product(&[n, inputs.max(outputs)])) > MOST {
        return Ok(());
    }
    let w = numbers::<f32>(u, inputs * outputs)?;
    let (x, dy): (Vec<E>, Vec<E>) = (numbers(u, n * inputs)?, numbers(u, n * outputs)?);
    let bias = numbers::<f32>(u, outputs)?;
    let (mut y, mut dx): (Vec<E>, Vec<E>) = (output(u, n * outputs)?, output(u, n * inputs)?);
    let mut dw: Vec<f32> = output(u, inputs * outputs)?;
    if let Ok(packed) = linear.pack(&w, Direction::Forward) {
        if linear.forward(n, &x, &packed, Some(&bias), &mut y).is_ok() {
            assert_written(&y);
        }
        let _ = linear.input_grad(n, &dy, &packed, &mut dx, Epilogue::default());
        let mut packed = packed;
        if linear.pack_into(&w, Direction::InputGrad, &mut packed).is_ok()
            && linear.input_grad(n, &dy, &packed, &mut dx, Epilogue::default()).is_ok()
        {
            assert_written(&dx);
        }
    }
    if linear.weight_grad(n, &x, &dy, &mut dw).is_ok() {
        assert_written(&dw);
    }
    Ok(())
}

fn batch_norm<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (isa, rows, channels) = (isa(u)?, size(u)?, size(u)?);
    let len = product(&[rows, channels]);
    let norm = Norm::new(u, channels)?;
    let (x, dy, tensor): (Vec<E>, Vec<E>, Vec<E>) =
        (numbers(u, len)?, numbers(u, len)?, numbers(u, len)?);
    let (mut y, mut dx): (Vec<E>, Vec<E>) = (output(u, len)?, output(u, len)?);
    let (mut dgamma, mut dbeta): (Vec<f32>, Vec<f32>) = (output(u, channels)?, output(u, channels)?);
    if norm.get().forward(isa, &x, &mut y).is_ok() {
        assert_written(&y);
    }
    if norm.get().parameter_grads(isa, &x, &dy, &mut dgamma, &mut dbeta).is_ok() {
        assert_written(&dgamma);
        assert_written(&dbeta);
    } else {
        dgamma.fill(0.5);
        dbeta.fill(0.5);
    }
    let statistics = if u.arbitrary()? {
        Statistics::Constant
    } else {
        Statistics::Batch { dgamma: &dgamma, dbeta: &dbeta }
    };
    let add = addend(u, &tensor)?;
    if matches!(add, Addend::Output) {
        dx.fill(E::from_f32(0.5));
    }
    if norm.get().input_grad(isa, &x, &dy, statistics, &mut dx, add).is_ok() {
        assert_written(&dx);
    }
    let mut gradient = dy;
    let add = if u.arbitrary()? { Some(&tensor[..]) } else { None };
    let _ = norm.get().input_grad_in_place(isa, &x, &mut gradient, statistics, add);
    assert_written(&gradient);
    Ok(())
}

fn layer_norm<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (rows, features) = (size(u)?, size(u)?);
    let len = product(&[rows, features]);
    let (gamma, beta) = (positive(u, features)?, positive(u, features)?);
    let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-5 };
    let (x, dy): (Vec<E>, Vec<E>) = (numbers(u, len)?, numbers(u, len)?);
    let (mut y, mut dx): (Vec<E>, Vec<E>) = (output(u, len)?, output(u, len)?);
    let (mut dgamma, mut dbeta): (Vec<f32>, Vec<f32>) = (output(u, features)?, output(u, features)?);
    if norm.forward(&x, &mut y).is_ok() {
        assert_written(&y);
    }
    if norm.backward(&x, &dy, &mut dx, &mut dgamma, &mut dbeta).is_ok() {
        assert_written(&dx);
        assert_written(&dgamma);
        assert_written(&dbeta);
    }
    Ok(())
}

fn pool<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let kernel = [size(u)?, size(u)?];
    let window = Window {
        input: [size(u)?, size(u)?],
        kernel,
        stride: [size(u)?, size(u)?],
        padding: if u.arbitrary()? { kernel.map(|k| k / 2) } else { [size(u)?, size(u)?] },
    };
    let row = size(u)?;
    let [h, w] = window.output();
    let (input, out) = (product(&[window.input[0], window.input[1], row]), product(&[h, w, row]));
    // A window larger than the image is allowed: its time is bounded by the image.
    let (x, dy): (Vec<E>, Vec<E>) = (numbers(u, input)?, numbers(u, out)?);
    let (mut y, mut dx): (Vec<E>, Vec<E>) = (output(u, out)?, output(u, input)?);
    let mut indices: Vec<u32> = vec![0; length(u, out)?];
    if window.average(row, &x, &mut y).is_ok() {
        assert_written(&y);
    }
    if window.average_grad(row, &dy, &mut dx).is_ok() {
        assert_written(&dx);
    }
    if window.max(row, &x, &mut y, &mut indices).is_ok() {
        assert_written(&y);
    }
    if u.ratio(1, 8)? {
        indices.iter_mut().for_each(|index| *index = u.arbitrary().unwrap_or(7));
    }
    if window.max_grad(row, &dy, &indices, &mut dx).is_ok() {
        assert_written(&dx);
    }
    let pixels = size(u)?;
    let x: Vec<E> = numbers(u, product(&[pixels, row]))?;
    let (mut mean, mut dx): (Vec<f32>, Vec<E>) = (output(u, row)?, output(u, x.len())?);
    if global_average(pixels, &x, &mut mean).is_ok() {
        assert_written(&mean);
        if global_average_grad(pixels, &mean, &mut dx).is_ok() {
            assert_written(&dx);
        }
    }
    Ok(())
}

fn attention(u: &mut Input<'_>) -> Result<()> {
    let shape = Attention { tokens: size(u)?, heads: size(u)?, width: size(u)? };
    let len = product(&[size(u)?.min(3), shape.tokens, shape.heads, shape.width]);
    let (qkv, dout) = (numbers::<f32>(u, len.saturating_mul(3))?, numbers::<f32>(u, len)?);
    let (mut out, mut dqkv) = (output::<f32>(u, len)?, output::<f32>(u, len.saturating_mul(3))?);
    if shape.forward(isa(u)?, &qkv, &mut out).is_ok() {
        assert_written(&out);
    }
    if shape.backward(isa(u)?, &qkv, &dout, &mut dqkv).is_ok() {
        assert_written(&dqkv);
    }
    Ok(())
}

fn elementwise<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (isa, len) = (isa(u)?, size(u)?);
    let (x, dy): (Vec<E>, Vec<E>) = (numbers(u, len)?, numbers(u, len)?);
    let mut y: Vec<E> = output(u, len)?;
    let done = match u.int_in_range(0..=3u8)? {
        0 => relu(isa, &x, &mut y),
        1 => relu_grad(isa, &x, &dy, &mut y),
        2 => gelu(isa, &x, &mut y),
        _ => gelu_grad(isa, &x, &dy, &mut y),
    };
    if done.is_ok() {
        assert_written(&y);
    }
    let sgd = Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.1, nesterov: u.arbitrary()? };
    let gradient = numbers::<f32>(u, len)?;
    let (mut p, mut buffer) = (numbers::<f32>(u, len)?, numbers::<f32>(u, len)?);
    let _ = sgd.step(isa, &mut p, &gradient, &mut buffer);
    let channels = size(u)?;
    let (mut sums, mut squares): (Vec<f32>, Vec<f32>) = (output(u, channels)?, output(u, channels)?);
    if channel_sums(isa, &x, &mut sums).is_ok() {
        assert_written(&sums);
    }
    if channel_moments(isa, &x, &mut sums, &mut squares).is_ok() {
        assert_written(&sums);
        assert_written(&squares);
    }
    let buffer = Buffer::<E>::from(&x[..]);
    assert_eq!(buffer.clone()[..], x[..]);
    Ok(())
}

fn loss(u: &mut Input<'_>) -> Result<()> {
    let (n, classes) = (size(u)?, size(u)?);
    let len = product(&[n, classes]);
    let logits = numbers::<f32>(u, len)?;
    let labels: Vec<u32> = (0..length(u, n)?).map(|_| size(u).map(|label| label as u32)).collect::<Result<_>>()?;
    let (mut loss, mut gradient) = (output::<f32>(u, n)?, output::<f32>(u, len)?);
    let smoothing = u.int_in_range(-1..=11)? as f32 / 10.0;
    let wanted = if u.arbitrary()? { Some((&mut gradient[..], 1.0)) } else { None };
    let is_wanted = wanted.is_some();
    if softmax_cross_entropy(&logits, &labels, classes, smoothing, &mut loss, wanted).is_ok() {
        assert_written(&loss);
        if is_wanted {
            assert_written(&gradient);
        }
    }
    Ok(())
}

fn layout<A: Element, B: Element>(u: &mut Input<'_>) -> Result<()> {
    let dimensions = Dimensions { n: size(u)?, c: size(u)?, h: size(u)?, w: size(u)? };
    let len = product(&[dimensions.n, dimensions.c, dimensions.h, dimensions.w]);
    let x: Vec<A> = numbers(u, len)?;
    let mut y: Vec<B> = output(u, len)?;
    if nchw_to_hwnc(dimensions, &x, &mut y).is_ok() {
        assert_written(&y);
    }
    let mut back: Vec<A> = output(u, len)?;
    if hwnc_to_nchw(dimensions, &y, &mut back).is_ok() && nchw_to_hwnc(dimensions, &x, &mut y).is_ok() {
        assert_eq!(back, x);
    }
    Ok(())
}

fn run(u: &mut Input<'_>) -> Result<()> {
    let half: bool = u.arbitrary()?;
    match u.int_in_range(0..=15u8)? {
        0..=7 if half => conv::<bf16>(u),
        0..=7 => conv::<f32>(u),
        8 if half => batch_norm::<bf16>(u),
        8 => batch_norm::<f32>(u),
        9 if half => layer_norm::<bf16>(u),
        9 => layer_norm::<f32>(u),
        10 if half => pool::<bf16>(u),
        10 => pool::<f32>(u),
        11 => attention(u),
        12 if half => elementwise::<bf16>(u),
        12 => elementwise::<f32>(u),
        13 => loss(u),
        14 if half => layout::<f32, bf16>(u),
        14 => layout::<f32, f32>(u),
        _ if half => linear::<bf16>(u),
        _ => linear::<f32>(u),
    }
}

fuzz_target!(|data: &[u8]| {
    // An input that ends too early stops there.
    let _ = run(&mut Unstructured::new(data));
});
