//! `sora bench conv` on a device other than the CPU: times Burn's convolutions, each shape and
//! direction alone, in the form in which a training step runs them.

use std::time::Instant;

use burn::tensor::{Device, Distribution, FloatDType, Tensor, ops::ConvOptions};
use serde_json::json;
use sora::{config::Precision, nn::Products};
use sora_kernels::conv::ConvGeometry;

use super::conv::ConvBench;
use crate::{
    console::print_json,
    error::{Failure, Result},
};

/// The gradient that is computed besides the forward pass.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    InputGrad,
    WeightGrad,
}

/// Runs every shape in every precision.
///
/// # Errors
/// A precision that the device does not have, or a device that fails.
pub fn run(args: &ConvBench, device: &Device) -> Result<()> {
    let precisions = match args.precision {
        Some(precision) => vec![precision],
        None => [Precision::F32, Precision::Tf32, Precision::Bf16]
            .into_iter()
            .filter(|precision| Products::of(*precision, device).is_ok())
            .collect(),
    };
    for precision in precisions {
        let products = Products::of(precision, device)?;
        for (count, geometry) in args.model.convolutions(args.width, args.image_size) {
            let case = Case { geometry, batch: args.batch, products, device };
            let forward = case.seconds(Direction::Forward, args.seconds)?;
            let told = |direction: &str, seconds: Option<f64>| {
                case.print(count, precision, direction, seconds, &args.device)
            };
            told("forward", Some(forward))?;
            // The input of the first convolution is the images, whose gradient an attack needs too.
            for (name, direction) in
                [("input-grad", Direction::InputGrad), ("weight-grad", Direction::WeightGrad)]
            {
                // Where other work disturbs, the difference may be none.
                let both = case.seconds(direction, args.seconds)?;
                told(name, (both > forward).then_some(both - forward))?;
            }
        }
    }
    Ok(())
}

/// One convolution.
struct Case<'a> {
    geometry: ConvGeometry,
    batch: usize,
    products: Products,
    device: &'a Device,
}

impl Case<'_> {
    /// Shortest time of a forward pass and the gradient of `direction`, from at least three calls
    /// and as many as take `at_least` seconds. The first call, which chooses the kernels, does not
    /// count.
    fn seconds(&self, direction: Direction, at_least: f64) -> Result<f64> {
        let g = &self.geometry;
        // As a network has them: the weights' cast is a matter of microseconds, the map's is not.
        let stored =
            if self.products == Products::Bf16 { FloatDType::BF16 } else { FloatDType::F32 };
        let noise =
            |shape| Tensor::<4>::random(shape, Distribution::Default, self.device).cast(stored);
        let x = noise([self.batch, g.in_channels, g.input[0], g.input[1]]);
        let w = noise([g.out_channels, g.in_channels / g.groups, g.kernel[0], g.kernel[1]]);
        let (mut best, mut spent, mut calls) = (f64::INFINITY, 0.0, 0);
        while calls < 4 || spent < at_least {
            let started = Instant::now();
            self.once(x.clone(), w.clone(), direction);
            self.device.sync().map_err(|e| Failure::work(format!("the device failed: {e}")))?;
            let seconds = started.elapsed().as_secs_f64();
            if calls > 0 {
                best = best.min(seconds);
                spent += seconds;
            }
            calls += 1;
        }
        Ok(best)
    }

    fn once(&self, x: Tensor<4>, w: Tensor<4>, direction: Direction) {
        let g = &self.geometry;
        let (mut x, mut w) = (x.autodiff(), w.autodiff());
        match direction {
            Direction::Forward => {}
            Direction::InputGrad => x = x.require_grad(),
            Direction::WeightGrad => w = w.require_grad(),
        }
        let options = ConvOptions::new(g.stride, g.padding, [1, 1], g.groups);
        let y = self.products.conv2d(x, w, None, options);
        if direction != Direction::Forward {
            y.backward();
        }
    }

    fn print(
        &self,
        count: usize,
        precision: Precision,
        direction: &str,
        seconds: Option<f64>,
        device: &str,
    ) -> Result<()> {
        let g = &self.geometry;
        let [height, width] = g.output();
        let taps = g.in_channels / g.groups * g.kernel[0] * g.kernel[1];
        let operations = 2.0 * (self.batch * g.out_channels * height * width * taps) as f64;
        print_json(&json!({
            "kind": "conv",
            "framework": concat!("sora ", env!("CARGO_PKG_VERSION")),
            "device": device,
            "count": count,
            "in": g.in_channels,
            "out": g.out_channels,
            "image": g.input,
            "kernel": g.kernel[0],
            "stride": g.stride[0],
            "batch": self.batch,
            "precision": precision,
            "direction": direction,
            "ms": seconds.map(|seconds| seconds * 1e3),
            "gflops": seconds.map(|seconds| operations / seconds / 1e9),
        }))
    }
}
