//! The sums from which the figures of a training step are computed, in one kernel.

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use crate::contiguous;

/// Threads for each sample.
const THREADS: usize = 256;

/// Sums of a sample: see [`sums`].
pub const SUMS: usize = 8;

/// Sums over the values of each sample of the gradients `attack` and `train` and of the perturbation
/// `delta`, all `[N, C, H, W]` in f32, `[N, 8]`: with `a` and `t` for the gradients divided by their
/// largest absolute values `A` and `T` (so that squares of tiny ones do not vanish) and `s` for the
/// direction of the step, the sign of `a` or `a` itself: `A`, `T`, `a a`, `t t`, `a t`, `s t`, `s a`,
/// `|delta|`.
pub fn sums(
    attack: CubeTensor,
    train: CubeTensor,
    delta: CubeTensor,
    along_sign: bool,
) -> CubeTensor {
    let [attack, train, delta] = [attack, train, delta].map(into_contiguous);
    let [n, channels, height, width] = attack.meta.shape().dims();
    let out = contiguous(&attack, [n, SUMS], DType::F32);
    sums_kernel::launch(
        &attack.client.clone(),
        CubeCount::Static(n as u32, 1, 1),
        CubeDim::new_1d(THREADS as u32),
        attack.into_tensor_arg(),
        train.into_tensor_arg(),
        delta.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        channels * height * width,
        along_sign,
    );
    out
}

/// The linearity of a batch from the `sums` `[N, 8]` of its samples, `[1]`: the mean over them of the
/// slope at the end of the step divided by that at its start (at least 1e-12), in [-1, 1].
pub fn linearity(sums: CubeTensor, along_sign: bool) -> CubeTensor {
    let sums = into_contiguous(sums);
    let [n, _] = sums.meta.shape().dims();
    let out = contiguous(&sums, [1], DType::F32);
    linearity_kernel::launch(
        &sums.client.clone(),
        CubeCount::Static(1, 1, 1),
        CubeDim::new_1d(THREADS as u32),
        sums.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        n,
        along_sign,
    );
    out
}

#[cube(launch)]
fn linearity_kernel(
    sums: &Tensor<f32>,
    out: &mut Tensor<f32>,
    n: usize,
    #[comptime] along_sign: bool,
) {
    let unit = UNIT_POS_X as usize;
    let mut ratios = 0.0f32;
    let mut sample = unit;
    while sample < n {
        let place = sample * SUMS;
        let most_a = sums[place];
        let mut top = sums[place + 5] * sums[place + 1];
        let mut bottom = sums[place + 6] * most_a;
        if !along_sign {
            top *= most_a;
            bottom *= most_a;
        }
        ratios += top / f32::max(bottom, 1.0e-12f32);
        sample += THREADS;
    }
    let ratios = over_cube(ratios, false);
    if unit == 0 {
        let mean = ratios / f32::cast_from(n);
        // Comparisons keep NaN.
        out[0] = select(mean > 1.0f32, 1.0f32, select(mean < -1.0f32, -1.0f32, mean));
    }
}

/// The Newton step to where a slope vanishes that is 1 at first and `slope` `[1]` after a step of
/// length `first`, `[1]`: `first / (1 - slope)`, at most `longest`, and `longest` where the slope does
/// not fall, or is not a number.
pub fn newton_step(slope: CubeTensor, first: f32, longest: f32) -> CubeTensor {
    let slope = into_contiguous(slope);
    let out = contiguous(&slope, [1], DType::F32);
    newton_kernel::launch(
        &slope.client.clone(),
        CubeCount::Static(1, 1, 1),
        CubeDim::new_1d(1),
        slope.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        first,
        longest,
    );
    out
}

#[cube(launch)]
fn newton_kernel(slope: &Tensor<f32>, out: &mut Tensor<f32>, first: f32, longest: f32) {
    let mut step = longest;
    if slope[0] < 1.0f32 {
        step = f32::min(longest, first / (1.0f32 - slope[0]));
    }
    out[0] = step;
}

/// The sum, or the largest, of `value` over the threads of the cube.
#[cube]
fn over_cube(value: f32, #[comptime] largest: bool) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(THREADS);
    let unit = UNIT_POS_X as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..8 {
        let half = comptime!(THREADS >> (level + 1));
        if unit < half {
            let other = shared[unit + half];
            if largest {
                shared[unit] = f32::max(shared[unit], other);
            } else {
                shared[unit] += other;
            }
        }
        sync_cube();
    }
    let result = shared[0];
    // Before the next call overwrites it.
    sync_cube();
    result
}

#[cube(launch)]
fn sums_kernel(
    attack: &Tensor<f32>,
    train: &Tensor<f32>,
    delta: &Tensor<f32>,
    out: &mut Tensor<f32>,
    len: usize,
    #[comptime] along_sign: bool,
) {
    let sample = CUBE_POS_X as usize;
    let unit = UNIT_POS_X as usize;
    let first = sample * len;
    let mut most_a = 0.0f32;
    let mut most_t = 0.0f32;
    let mut i = unit;
    while i < len {
        most_a = f32::max(most_a, f32::abs(attack[first + i]));
        most_t = f32::max(most_t, f32::abs(train[first + i]));
        i += THREADS;
    }
    let most_a = over_cube(most_a, true);
    let most_t = over_cube(most_t, true);
    let by_a = 1.0f32 / f32::max(most_a, 1.0e-37f32);
    let by_t = 1.0f32 / f32::max(most_t, 1.0e-37f32);
    let mut aa = 0.0f32;
    let mut tt = 0.0f32;
    let mut at = 0.0f32;
    let mut st = 0.0f32;
    let mut sa = 0.0f32;
    let mut moved = 0.0f32;
    let mut i = unit;
    while i < len {
        let a = attack[first + i] * by_a;
        let t = train[first + i] * by_t;
        let mut s = a;
        if along_sign {
            // 0 for 0; NaN stays NaN by the sums of `a` itself.
            s = select(a > 0.0f32, 1.0f32, select(a < 0.0f32, -1.0f32, 0.0f32));
        }
        aa += a * a;
        tt += t * t;
        at += a * t;
        st += s * t;
        sa += s * a;
        moved += f32::abs(delta[first + i]);
        i += THREADS;
    }
    let aa = over_cube(aa, false);
    let tt = over_cube(tt, false);
    let at = over_cube(at, false);
    let st = over_cube(st, false);
    let sa = over_cube(sa, false);
    let moved = over_cube(moved, false);
    if unit == 0 {
        let place = sample * SUMS;
        out[place] = most_a;
        out[place + 1] = most_t;
        out[place + 2] = aa;
        out[place + 3] = tt;
        out[place + 4] = at;
        out[place + 5] = st;
        out[place + 6] = sa;
        out[place + 7] = moved;
    }
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use super::*;
    use crate::testing::{close, noise, read, tensor};

    #[test]
    fn sums_are_those_of_each_sample_whatever_the_gradients_size() {
        let shape = [3, 2, 13, 17];
        let len = 2 * 13 * 17;
        for size in [1.0, 1e-30, 1e30] {
            let [a, t] = [(1, size), (2, size * 0.5)].map(|(seed, size)| {
                noise(3 * len, seed).iter().map(|v| v * size).collect::<Vec<_>>()
            });
            let delta = noise(3 * len, 3);
            for along_sign in [true, false] {
                let [ta, tt, td] = [&a, &t, &delta].map(|values| tensor(values, shape));
                let found = read(sums(ta, tt, td, along_sign));
                for sample in 0..3 {
                    let of = |values: &[f32]| values[sample * len..][..len].to_vec();
                    let (a, t, delta) = (of(&a), of(&t), of(&delta));
                    let most = |v: &[f32]| v.iter().fold(0f32, |most, v| most.max(v.abs()));
                    let (most_a, most_t) = (most(&a), most(&t));
                    let a: Vec<f32> = a.iter().map(|v| v / most_a).collect();
                    let t: Vec<f32> = t.iter().map(|v| v / most_t).collect();
                    let s: Vec<f32> =
                        a.iter().map(|v| if along_sign { v.signum() } else { *v }).collect();
                    let dot =
                        |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
                    let moved = delta.iter().map(|v| v.abs()).sum();
                    let found = &found[sample * SUMS..][..SUMS];
                    close(&found[..1], &[most_a], 1e-6);
                    close(&found[1..2], &[most_t], 1e-6);
                    let expected =
                        [dot(&a, &a), dot(&t, &t), dot(&a, &t), dot(&s, &t), dot(&s, &a), moved];
                    close(&found[2..], &expected, 1e-5);
                }
            }
        }
    }

    #[test]
    fn linearity_is_the_mean_ratio_of_slopes_and_stays_in_its_range() {
        for n in [1, 3, 300] {
            for (size, along_sign) in [(0.5, true), (0.5, false), (5.0, true), (f32::NAN, true)] {
                // The slope at the start is that of a step of the gradient itself: above 0.
                let mut values: Vec<f32> = noise(n * SUMS, 1).iter().map(|v| v * size).collect();
                for sample in values.chunks_mut(SUMS) {
                    for place in [0, 1, 6] {
                        sample[place] = sample[place].abs() + 0.1;
                    }
                }
                // Along the gradient, both slopes are longer by `A`.
                let ratio = |s: &[f32]| s[5] * s[1] / (s[6] * s[0]);
                let mean = values.chunks(SUMS).map(ratio).sum::<f32>() / n as f32;
                let found = read(linearity(tensor(&values, [n, SUMS]), along_sign))[0];
                if size.is_nan() {
                    assert!(found.is_nan(), "{found}");
                } else {
                    let expected = mean.clamp(-1.0, 1.0);
                    assert!((found - expected).abs() < 1e-4, "{n} {size}: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn newton_steps_are_those_of_the_definition() {
        for (slope, expected) in
            [(0.99, 2.0), (0.9, 0.4), (0.0, 0.04), (-1.0, 0.02), (1.0, 2.0), (f32::NAN, 2.0)]
        {
            let found = read(newton_step(tensor(&[slope], [1]), 0.04, 2.0))[0];
            assert!((found - expected).abs() < 1e-6, "{slope}: {found}, not {expected}");
        }
    }
}
