//! Uniform draws: ChaCha with 8 rounds (Bernstein 2008), as sora's generator on the CPU draws them.

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{prelude::*, std::FastDivmod};

use crate::{contiguous, one_each};

/// Words of a block.
const BLOCK: usize = 16;

/// Uniform values, `len` for each of `samples` `[N]` (i32): multiples of 2^-24 in [0, 1), times `width`
/// and plus `low`, `[N, len]`. The stream of a sample has its number, and the eight words of `key`.
pub fn uniform(
    samples: CubeTensor,
    key: [u32; 8],
    len: usize,
    [width, low]: [f32; 2],
) -> CubeTensor {
    let samples = into_contiguous(samples);
    let [n] = samples.meta.shape().dims();
    let out = contiguous(&samples, [n, len], DType::F32);
    let blocks = len.div_ceil(BLOCK);
    let client = samples.client.clone();
    let (count, dim) = one_each(&client, n * blocks);
    let [a, b, c, d, e, f, g, h] = key;
    uniform_kernel::launch(
        &client,
        count,
        dim,
        samples.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        blocks,
        n * blocks,
        len,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        width,
        low,
    );
    out
}

#[cube(launch)]
fn uniform_kernel(
    samples: &Tensor<i32>,
    out: &mut Tensor<f32>,
    blocks: FastDivmod<usize>,
    all: usize,
    len: usize,
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    e: u32,
    f: u32,
    g: u32,
    h: u32,
    width: f32,
    low: f32,
) {
    if ABSOLUTE_POS >= all {
        terminate!();
    }
    let (row, block) = blocks.div_mod(ABSOLUTE_POS);
    let sample = u32::cast_from(samples[row]);
    let words = block_of(block as u32, sample, a, b, c, d, e, f, g, h);
    let first = block * BLOCK;
    #[unroll]
    for i in 0..16 {
        if first + i < len {
            out[row * len + first + i] =
                f32::cast_from(words[i] >> 8u32) * (1.0f32 / 16777216.0f32) * width + low;
        }
    }
}

/// The words of block `block` of the stream `sample` under the key `a` to `h`.
#[cube]
pub(crate) fn block_of(
    block: u32,
    sample: u32,
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    e: u32,
    f: u32,
    g: u32,
    h: u32,
) -> Array<u32> {
    let mut start = Array::<u32>::new(16usize);
    // "expand 32-byte k"
    start[0] = 0x61707865u32;
    start[1] = 0x3320646eu32;
    start[2] = 0x79622d32u32;
    start[3] = 0x6b206574u32;
    start[4] = a;
    start[5] = b;
    start[6] = c;
    start[7] = d;
    start[8] = e;
    start[9] = f;
    start[10] = g;
    start[11] = h;
    start[12] = block;
    start[13] = 0u32;
    start[14] = sample;
    start[15] = 0u32;
    let mut state = Array::<u32>::new(16usize);
    #[unroll]
    for i in 0..16 {
        state[i] = start[i];
    }
    #[unroll]
    for _ in 0..4 {
        quarter(&mut state, 0usize, 4usize, 8usize, 12usize);
        quarter(&mut state, 1usize, 5usize, 9usize, 13usize);
        quarter(&mut state, 2usize, 6usize, 10usize, 14usize);
        quarter(&mut state, 3usize, 7usize, 11usize, 15usize);
        quarter(&mut state, 0usize, 5usize, 10usize, 15usize);
        quarter(&mut state, 1usize, 6usize, 11usize, 12usize);
        quarter(&mut state, 2usize, 7usize, 8usize, 13usize);
        quarter(&mut state, 3usize, 4usize, 9usize, 14usize);
    }
    #[unroll]
    for i in 0..16 {
        state[i] += start[i];
    }
    state
}

#[cube]
fn quarter(
    state: &mut Array<u32>,
    #[comptime] a: usize,
    #[comptime] b: usize,
    #[comptime] c: usize,
    #[comptime] d: usize,
) {
    state[a] += state[b];
    state[d] = rotated(state[d] ^ state[a], 16u32);
    state[c] += state[d];
    state[b] = rotated(state[b] ^ state[c], 12u32);
    state[a] += state[b];
    state[d] = rotated(state[d] ^ state[a], 8u32);
    state[c] += state[d];
    state[b] = rotated(state[b] ^ state[c], 7u32);
}

#[cube]
#[allow(clippy::manual_rotate, reason = "CubeCL has no rotation")]
fn rotated(x: u32, by: u32) -> u32 {
    (x << by) | (x >> (32u32 - by))
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use burn::{backend::ops::IntTensorOps, tensor::TensorData};
    use burn_cubecl::CubeBackend;
    use sora_rng::{Key, Purpose, fill_uniform};

    use super::*;
    use crate::testing::{close, device, read};

    #[test]
    fn draws_are_the_values_of_the_cpu() {
        let key = Key {
            seed: 0x0123_4567_89ab_cdef,
            purpose: Purpose::Method(258),
            epoch: 3,
            step: 70_000,
        };
        let samples = [7u32, 0, 49_999, 1 << 30];
        for len in [1, 16, 100] {
            let mut expected = vec![0.0; 4 * len];
            fill_uniform(&mut expected, key, &samples);
            let ids = TensorData::new(samples.map(|id| id as i32).to_vec(), [4]);
            let ids = CubeBackend::int_from_data(ids, &device());
            assert_eq!(read(uniform(ids.clone(), key.words(), len, [1.0, 0.0])), expected);
            let scaled: Vec<f32> = expected.iter().map(|v| v * 0.5 - 0.25).collect();
            close(&read(uniform(ids, key.words(), len, [0.5, -0.25])), &scaled, 1e-6);
        }
    }
}
