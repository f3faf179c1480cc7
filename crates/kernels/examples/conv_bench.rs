//! GFLOP/s of each convolution shape of PreActResNet-18, in each direction, next to the machine's FMA peak.
//!
//! `cargo run --release -p sora-kernels --example conv_bench -- [--width 64] [--batch 128] [--seconds 0.3]`
//!
//! Work is counted as direct-convolution floating-point operations, whatever the algorithm, so Winograd can exceed the
//! peak. Each figure is the best of several repetitions. The thread count is rayon's (`RAYON_NUM_THREADS`).

use std::time::Instant;

use sora_kernels::conv::{Addend, Conv2d, ConvGeometry, Direction, Epilogue, Moments};
use sora_kernels::{Buffer, Isa};

type AnyError = Box<dyn std::error::Error>;

fn argument<T: std::str::FromStr>(name: &str, default: T) -> Result<T, AnyError> {
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == name {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            return value.parse().map_err(|_| format!("{name}: cannot read {value:?}").into());
        }
    }
    Ok(default)
}

/// Deterministic values in `[-1, 1)`.
fn values(len: usize, seed: u32) -> Buffer {
    let mut state = seed | 1;
    let mut buffer = Buffer::zeroed(len);
    for x in buffer.iter_mut() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *x = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
    }
    buffer
}

/// Shortest time of `run` in seconds, repeated for `budget` seconds and at least twice.
fn best(budget: f64, mut run: impl FnMut() -> Result<(), AnyError>) -> Result<f64, AnyError> {
    let start = Instant::now();
    let (mut best, mut count) = (f64::INFINITY, 0);
    while count < 3 || start.elapsed().as_secs_f64() < budget {
        let t = Instant::now();
        run()?;
        best = best.min(t.elapsed().as_secs_f64());
        count += 1;
    }
    Ok(best)
}

/// The largest rate of a 1x1 convolution that stays in the first-level cache: a matrix product at the machine's peak.
fn peak(isa: Isa, threads: usize) -> Result<f64, AnyError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let n = 126;
    let conv = Conv2d::new(ConvGeometry::square(256, 32, [16 * threads, 4], 1, 1), isa)?;
    let weights = conv.pack(&values(conv.weight_len(), 1), Direction::Forward)?;
    let x = values(conv.input_len(n)?, 2);
    let mut y = Buffer::zeroed(conv.output_len(n)?);
    let flops = 2.0 * y.len() as f64 * 256.0;
    let time = best(0.5, || {
        pool.install(|| conv.forward(n, &x, &weights, &mut y, Epilogue::default()))?;
        Ok(())
    })?;
    Ok(flops / time / 1e9)
}

fn main() -> Result<(), AnyError> {
    let isa = Isa::current()?;
    let width: usize = argument("--width", 64)?;
    let n: usize = argument("--batch", 128)?;
    let budget: f64 = argument("--seconds", 0.3)?;
    let threads = rayon::current_num_threads();
    println!("isa {isa}, batch {n}, width {width}, {threads} threads");
    println!("matrix product peak: 1 thread {:.0} GFLOP/s, {threads} threads {:.0} GFLOP/s", peak(isa, 1)?, peak(isa, threads)?);
    // Occurrences in PreActResNet-18, geometry.
    let mut shapes = vec![(1, ConvGeometry::square(3, width, [32; 2], 3, 1))];
    for (stage, size) in [(0, 32), (1, 16), (2, 8), (3, 4)] {
        let c = width << stage;
        if stage > 0 {
            shapes.push((1, ConvGeometry::square(c / 2, c, [size * 2; 2], 3, 2)));
            let mut shortcut = ConvGeometry::square(c / 2, c, [size * 2; 2], 1, 2);
            shortcut.padding = [0; 2];
            shapes.push((1, shortcut));
        }
        let count = if stage == 0 { 4 } else { 3 };
        shapes.push((count, ConvGeometry::square(c, c, [size; 2], 3, 1)));
    }
    println!(
        "{:>2} {:>4} {:>4} {:>5} {:>2} {:>2} | {:>9} {:>9} {:>9} {:>9} | ms {:>7} {:>7} {:>7} {:>7} | algorithms",
        "#", "in", "out", "size", "k", "s", "forward", "+stats", "dx", "dw", "forward", "+stats", "dx", "dw"
    );
    let mut total = [0.0; 4];
    for (count, geometry) in shapes {
        let conv = Conv2d::new(geometry, isa)?;
        let w = values(conv.weight_len(), 3);
        let forward = conv.pack(&w, Direction::Forward)?;
        let backward = conv.pack(&w, Direction::InputGrad)?;
        let x = values(conv.input_len(n)?, 4);
        let dy = values(conv.output_len(n)?, 5);
        let mut y = Buffer::zeroed(dy.len());
        let mut dx = Buffer::zeroed(x.len());
        let mut dw = vec![0.0; w.len()];
        let (mut mean, mut variance) = (vec![0.0; geometry.out_channels], vec![0.0; geometry.out_channels]);
        let flops = 2.0 * dy.len() as f64 * (w.len() / geometry.out_channels) as f64;
        let times = [
            best(budget, || Ok(conv.forward(n, &x, &forward, &mut y, Epilogue::default())?))?,
            best(budget, || {
                let epilogue = Epilogue {
                    add: Addend::Tensor(&dy),
                    moments: Some(Moments { mean: &mut mean, variance: &mut variance }),
                    ..Epilogue::default()
                };
                Ok(conv.forward(n, &x, &forward, &mut y, epilogue)?)
            })?,
            best(budget, || Ok(conv.input_grad(n, &dy, &backward, &mut dx, Addend::None)?))?,
            best(budget, || Ok(conv.weight_grad(n, &x, &dy, &mut dw)?))?,
        ];
        let rate = times.map(|t| flops / t / 1e9);
        let ms = times.map(|t| t * 1e3);
        for (sum, t) in total.iter_mut().zip(ms) {
            *sum += f64::from(count) * t;
        }
        println!(
            "{count:>2} {:>4} {:>4} {:>5} {:>2} {:>2} | {:>9.0} {:>9.0} {:>9.0} {:>9.0} | ms {:>7.2} {:>7.2} {:>7.2} {:>7.2} | {:?}",
            geometry.in_channels,
            geometry.out_channels,
            geometry.input[0],
            geometry.kernel[0],
            geometry.stride[0],
            rate[0],
            rate[1],
            rate[2],
            rate[3],
            ms[0],
            ms[1],
            ms[2],
            ms[3],
            conv.algorithms(),
        );
    }
    println!(
        "all convolutions: forward {:.1} ms (with shortcut and statistics {:.1}), input gradient {:.1}, weight gradient {:.1}, sum of the three {:.1}",
        total[0],
        total[1],
        total[2],
        total[3],
        total[0] + total[2] + total[3]
    );
    Ok(())
}
