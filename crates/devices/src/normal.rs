//! Normal draws by the ziggurat method (Marsaglia and Tsang 2000), as sora's generator on the CPU makes
//! them, to the same values: a sample's stream is cut into draws of 64 bits, nearly each of which is a
//! value; some take a second one to decide, or more, and may be none.
//!
//! The draws of a tile are judged side by side; one thread then goes over them and says which are values
//! and where they stand, since that depends on all before.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2};

use burn::tensor::{DType, TensorData};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use crate::{contiguous, draws::block_of};

/// Threads for each sample, each of which makes a block of the stream.
const THREADS: usize = 256;

/// Draws of a block.
const DRAWS: usize = 8;

/// Draws that are judged side by side.
const TILE: usize = THREADS * DRAWS;

/// Layers of the ziggurat.
const LAYERS: usize = 256;

/// Draws of a block that are values, in the bits from 0 on.
const VALUE: u32 = 0;
/// Draws that are values if the next one is their second, in the bits from 8 on.
const BY_NEXT: u32 = 8;
/// Draws of the tail, in the bits from 16 on.
const TAIL: u32 = 16;

/// Whether a device has what [`normal`] computes in.
pub fn is_possible(device: &burn::tensor::Device) -> bool {
    device.supports_dtype(DType::F64)
}

/// The widths of the ziggurat's 256 layers, and 0.
#[derive(Clone, Copy, Debug)]
pub struct Layers(pub &'static [f64; LAYERS + 1]);

/// Standard normal values, `len` for each of `samples` `[N]` (i32), `[N, len]`. The stream of a sample has
/// its number, and the eight words of `key`.
pub fn normal(
    samples: CubeTensor,
    key: [u32; 8],
    len: usize,
    Layers(layers): Layers,
) -> CubeTensor {
    use burn::backend::ops::FloatTensorOps;
    let samples = into_contiguous(samples);
    let [n] = samples.meta.shape().dims();
    let out = contiguous(&samples, [n, len], DType::F32);
    let density = |width: &f64| (-width * width / 2.0).exp();
    let tables: Vec<f64> = layers.iter().copied().chain(layers.iter().map(density)).collect();
    let tables = TensorData::new(tables, [2 * (LAYERS + 1)]);
    let tables = CubeBackend::float_from_data(tables, &samples.device);
    let [a, b, c, d, e, f, g, h] = key;
    normal_kernel::launch(
        &samples.client.clone(),
        CubeCount::Static(n as u32, 1, 1),
        CubeDim::new_1d(THREADS as u32),
        samples.into_tensor_arg(),
        tables.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        len,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    );
    out
}

#[cube(launch)]
fn normal_kernel(
    samples: &Tensor<i32>,
    tables: &Tensor<f64>,
    out: &mut Tensor<f32>,
    len: usize,
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    e: u32,
    f: u32,
    g: u32,
    h: u32,
) {
    let unit = UNIT_POS_X as usize;
    let row = CUBE_POS_X as usize;
    let sample = u32::cast_from(samples[row]);
    let mut low = Shared::<[u32]>::new_slice(TILE);
    let mut high = Shared::<[u32]>::new_slice(TILE);
    let mut kinds = Shared::<[u32]>::new_slice(THREADS);
    let mut places = Shared::<[u32]>::new_slice(THREADS);
    // The first block of the tile, draws of it that are used up, values so far.
    let mut at = Shared::<[u32]>::new_slice(3usize);
    if unit == 0 {
        at[0] = 0u32;
        at[1] = 0u32;
        at[2] = 0u32;
    }
    sync_cube();
    while (at[2] as usize) < len {
        let words = block_of(at[0] + UNIT_POS_X, sample, a, b, c, d, e, f, g, h);
        #[unroll]
        for i in 0..8 {
            low[unit * DRAWS + i] = words[2 * i];
            high[unit * DRAWS + i] = words[2 * i + 1];
        }
        sync_cube();
        kinds[unit] = judged(&low, &high, tables, unit);
        sync_cube();
        if unit == 0 {
            walked(&low, &high, &mut kinds, &mut places, &mut at, tables, out, row * len, len);
        }
        sync_cube();
        let made = kinds[unit];
        let mut place = places[unit] as usize;
        for i in 0..DRAWS {
            let bit = i as u32;
            let is_value = (made >> (bit + VALUE)) & 1u32;
            if is_value == 1u32 && place < len {
                let draw = unit * DRAWS + i;
                out[row * len + place] = f32::cast_from(point(low[draw], high[draw], tables));
            }
            place += (is_value + ((made >> (bit + TAIL)) & 1u32)) as usize;
        }
        sync_cube();
    }
}

/// What each draw of block `unit` is, by itself and by the next.
#[cube]
fn judged(low: &Shared<[u32]>, high: &Shared<[u32]>, tables: &Tensor<f64>, unit: usize) -> u32 {
    let mut kind = 0u32;
    for i in 0..DRAWS {
        let bit = i as u32;
        let draw = unit * DRAWS + i;
        let layer = (low[draw] & 255u32) as usize;
        let x = f64::abs(point(low[draw], high[draw], tables));
        if x < tables[layer + 1] {
            kind |= 1u32 << (bit + VALUE);
        } else if layer == 0 {
            kind |= 1u32 << (bit + TAIL);
        } else if draw + 1 < TILE {
            let (edge, outer) = (tables[layer], tables[LAYERS + 1 + layer]);
            let inner = tables[LAYERS + 2 + layer];
            let share = fraction(low[draw + 1], high[draw + 1], 11u32);
            // The density there, from that at the edge: exp of at most 1.
            let density = outer * exp((edge - x) * (edge + x) * 0.5f64);
            if inner + (outer - inner) * share < density {
                kind |= 1u32 << (bit + BY_NEXT);
            }
        }
    }
    kind
}

/// Goes over the draws of a tile in order. Says in `kinds` which are values (or values of the tail, which
/// it writes to `out`), in `places` which value is the first of each block, and where the next tile begins.
#[cube]
fn walked(
    low: &Shared<[u32]>,
    high: &Shared<[u32]>,
    kinds: &mut Shared<[u32]>,
    places: &mut Shared<[u32]>,
    at: &mut Shared<[u32]>,
    tables: &Tensor<f64>,
    out: &mut Tensor<f32>,
    first: usize,
    len: usize,
) {
    let mut next = at[1] as usize;
    let mut values = at[2];
    let mut going = true;
    for block in 0..THREADS {
        let kind = kinds[block];
        let mut made = 0u32;
        places[block] = values;
        for i in 0..DRAWS {
            let bit = i as u32;
            let draw = block * DRAWS + i;
            if going && draw == next {
                if (kind >> (bit + VALUE)) & 1u32 == 1u32 {
                    made |= 1u32 << (bit + VALUE);
                    values += 1u32;
                    next += 1;
                } else if (kind >> (bit + TAIL)) & 1u32 == 1u32 {
                    // Of draws that this tile may not have: then the next one begins here.
                    let mut behind = draw + 1;
                    let mut value = 0.0f64;
                    let mut found = false;
                    while !found && behind + 1 < TILE {
                        let x = ln(open(low[behind], high[behind])) / tables[1];
                        let y = ln(open(low[behind + 1], high[behind + 1]));
                        behind += 2;
                        if -2.0f64 * y >= x * x {
                            found = true;
                            value = x - tables[1];
                        }
                    }
                    if found {
                        if high[draw] >= 0x80000000u32 {
                            value = -value;
                        }
                        if (values as usize) < len {
                            out[first + values as usize] = f32::cast_from(value);
                        }
                        made |= 1u32 << (bit + TAIL);
                        values += 1u32;
                        next = behind;
                    } else {
                        going = false;
                    }
                } else if draw + 1 < TILE {
                    let is_value = (kind >> (bit + BY_NEXT)) & 1u32;
                    made |= is_value << (bit + VALUE);
                    values += is_value;
                    next += 2;
                } else {
                    going = false;
                }
            }
        }
        kinds[block] = made;
    }
    at[0] += (next / DRAWS) as u32;
    at[1] = (next % DRAWS) as u32;
    at[2] = values;
}

/// The point that a draw names in its layer.
#[cube]
fn point(low: u32, high: u32, tables: &Tensor<f64>) -> f64 {
    (fraction(low, high, 12u32) * 2.0f64 - 1.0f64) * tables[(low & 255u32) as usize]
}

/// In [0, 1): the bits of a draw but the `dropped` lowest.
#[cube]
fn fraction(low: u32, high: u32, #[comptime] dropped: u32) -> f64 {
    let below = f64::cast_from(low >> dropped);
    let scale = comptime!(f64::from(2.0f32).powi(dropped as i32 - 32));
    (f64::cast_from(high) + below * scale) * comptime!(1.0 / 4294967296.0)
}

/// In (0, 1): the 52 high bits of a draw and a half.
#[cube]
fn open(low: u32, high: u32) -> f64 {
    fraction(low, high, 12u32) + 1.1102230246251565e-16f64
}

/// Of a number from 0 to 1, by its series.
#[cube]
fn exp(x: f64) -> f64 {
    let mut sum = 1.0f64;
    #[unroll]
    for i in 0..19 {
        sum = 1.0f64 + sum * x * comptime!(1.0 / (19 - i) as f64);
    }
    sum
}

/// Of a number in (0, 1), by the series of the inverse hyperbolic tangent.
#[cube]
fn ln(x: f64) -> f64 {
    let mut part = x;
    let mut halvings = 0.0f64;
    while part < FRAC_1_SQRT_2 {
        part *= 2.0f64;
        halvings += 1.0f64;
    }
    let ratio = (part - 1.0f64) / (part + 1.0f64);
    let square = ratio * ratio;
    let mut sum = 0.0f64;
    #[unroll]
    for i in 0..13 {
        sum = sum * square + comptime!(1.0 / (25 - 2 * i) as f64);
    }
    2.0f64 * ratio * sum - halvings * LN_2
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use burn::{backend::ops::IntTensorOps, tensor::TensorData};
    use burn_cubecl::CubeBackend;
    use sora_rng::{Key, Purpose, fill_normal, normal_layers};

    use super::*;
    use crate::testing::{device, read};

    /// A million values, among them some thousand of the edges of the layers and a hundred of the tail.
    #[test]
    fn draws_are_the_values_of_the_cpu() {
        for (n, len) in [(4usize, 1usize), (3, 100), (64, 3072), (2, 300_000), (100, 2049)] {
            let key = Key { seed: 7, purpose: Purpose::Method(3), epoch: 1, step: len as u64 };
            let samples: Vec<u32> = (0..n as u32).map(|i| i * 77_777).collect();
            let mut expected = vec![0.0; n * len];
            fill_normal(&mut expected, key, &samples);
            let ids: Vec<i32> = samples.iter().map(|id| *id as i32).collect();
            let ids = CubeBackend::int_from_data(TensorData::new(ids, [n]), &device());
            let found = read(normal(ids, key.words(), len, Layers(normal_layers())));
            let off = found.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(off.count(), 0, "of {} values", n * len);
            assert!(
                n * len < 100_000 || expected.iter().any(|v| v.abs() > 3.7),
                "none of the tail"
            );
        }
    }
}
