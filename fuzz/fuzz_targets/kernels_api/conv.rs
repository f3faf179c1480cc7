//! Convolutions and linear layers, with their epilogues.

use libfuzzer_sys::arbitrary::Result;
use sora_kernels::Element;
use sora_kernels::conv::{
    Addend, Conv2d, ConvAlgorithm, ConvGeometry, Direction, Epilogue, Moments, Normed, Overlay,
    Partial, TileIndex,
};
use sora_kernels::linear::Linear;

use crate::input::{
    Input, MOST, MOST_TERMS, Norm, addend, assert_written, isa, numbers, output, product, size,
};

fn geometry(u: &mut Input<'_>) -> Result<ConvGeometry> {
    let kernel = match u.int_in_range(0..=3u8)? {
        0 => [3, 3],
        1 => [1, 1],
        _ => [size(u)?, size(u)?],
    };
    let groups = if u.ratio(1, 4)? { size(u)? } else { 1 };
    let channels = |u: &mut Input<'_>| {
        Ok(if u.ratio(1, 8)? { size(u)? } else { size(u)?.saturating_mul(groups) })
    };
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
        norm: with_norm
            .then(|| Normed { norm: norm.get(), y: if own { Some(&mut normed) } else { None } }),
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

pub fn conv<E: Element>(u: &mut Input<'_>) -> Result<()> {
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
    let terms = product(&[out, conv.weight_len() / geometry.out_channels.max(1)]);
    if input.max(out).max(conv.weight_len()) > MOST || terms > MOST_TERMS {
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

fn overlay<'a, E>(
    u: &mut Input<'_>,
    values: &'a [E],
    size_of: [usize; 2],
) -> Result<Overlay<'a, E>> {
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
        conv.forward_partial(n, x, &packed, y, epilogue, Partial { tiles: &tiles, input, add })
            .is_ok()
    })
}

pub fn linear<E: Element>(u: &mut Input<'_>) -> Result<()> {
    let (inputs, outputs, n) = (size(u)?, size(u)?, size(u)?);
    let Ok(linear) = Linear::<E>::new(inputs, outputs, isa(u)?) else { return Ok(()) };
    if product(&[inputs, outputs]).max(product(&[n, inputs.max(outputs)])) > MOST
        || product(&[n, inputs, outputs]) > MOST_TERMS
    {
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
