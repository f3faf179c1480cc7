//! Each layer of a network as operators of ONNX.

use super::writer::{Writer, float, int, ints, node};
use crate::{
    error::{Error, Result},
    model::{Layer, Norm, Op},
    nn::{Activation, HostTensor, ParamId},
};

/// Epsilon of batch norm.
const BN_EPSILON: f32 = 1e-5;

impl Writer<'_> {
    /// The images with the normalisation.
    pub(super) fn normalise(&mut self) -> Result<String> {
        let config = &self.model.config;
        let wide = [1, config.mean.len(), 1, 1];
        let scale: Vec<f32> = config.std.iter().map(|std| std.recip()).collect();
        let mean = self.floats("normalisation.mean", &wide, &config.mean);
        let scale = self.floats("normalisation.scale", &wide, &scale);
        let centred = self.op("Sub", &["images", &mean], vec![]);
        Ok(self.op("Mul", &[&centred, &scale], vec![]))
    }

    fn activate(&mut self, x: &str, activation: Activation) -> String {
        match activation {
            Activation::Relu => self.op("Relu", &[x], vec![]),
            Activation::Softplus => self.op("Softplus", &[x], vec![]),
            Activation::Silu => {
                let s = self.op("Sigmoid", &[x], vec![]);
                self.op("Mul", &[x, &s], vec![])
            }
            Activation::Gelu => {
                let (root, one, half) = (
                    self.scalar(std::f32::consts::FRAC_1_SQRT_2),
                    self.scalar(1.0),
                    self.scalar(0.5),
                );
                let scaled = self.op("Mul", &[x, &root], vec![]);
                let erf = self.op("Erf", &[&scaled], vec![]);
                let shifted = self.op("Add", &[&erf, &one], vec![]);
                let phi = self.op("Mul", &[&shifted, &half], vec![]);
                self.op("Mul", &[x, &phi], vec![])
            }
        }
    }

    /// Adds a layer's operators; `before` is the shape of its first input. Returns the name of its
    /// output.
    pub(super) fn layer(
        &mut self,
        layer: &Layer,
        before: &[usize],
        inputs: &[String],
    ) -> Result<String> {
        let x = inputs.first().map_or("", String::as_str);
        let y = inputs.get(1).map_or("", String::as_str);
        Ok(match &layer.op {
            Op::Input | Op::Dropout { .. } => x.to_owned(),
            Op::Conv { conv, kernel } | Op::ConvNorm { conv, kernel, .. } => {
                let weight = self.weight(conv.weight)?;
                let bias = conv.bias.map(|id| self.weight(id)).transpose()?;
                let attributes = vec![
                    ints("kernel_shape", &[*kernel; 2]),
                    ints("strides", &[conv.stride; 2]),
                    ints("pads", &[conv.padding; 4]),
                ];
                let taken: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
                let out = self.op("Conv", &taken, attributes);
                if y.is_empty() { out } else { self.op("Add", &[&out, y], vec![]) }
            }
            Op::Norm(norm) => self.norm(x, norm)?,
            // The caller has added its operator together with the convolution's.
            Op::Normed => x.to_owned(),
            Op::Activate(activation) => self.activate(x, *activation),
            Op::Add => self.op("Add", &[x, y], vec![]),
            Op::AddActivate(activation) => {
                let sum = self.op("Add", &[x, y], vec![]);
                self.activate(&sum, *activation)
            }
            Op::MaxPool { kernel, stride, padding } => {
                let attributes = vec![
                    ints("kernel_shape", &[*kernel; 2]),
                    ints("strides", &[*stride; 2]),
                    ints("pads", &[*padding; 4]),
                ];
                self.op("MaxPool", &[x], attributes)
            }
            Op::PadEnd { pixels } => {
                let end = *pixels as i64;
                let pads =
                    self.integers(&format!("pads_{end}"), &[8], &[0, 0, 0, 0, 0, 0, end, end]);
                self.op("Pad", &[x, &pads], vec![])
            }
            Op::AdaptivePool { side } => self.adaptive_pool(x, before, *side),
            Op::GlobalPool(_) => {
                let mean = self.op("GlobalAveragePool", &[x], vec![]);
                self.op("Flatten", &[&mean], vec![int("axis", 1)])
            }
            Op::Flatten => self.op("Flatten", &[x], vec![int("axis", 1)]),
            Op::Gate => {
                let factor = self.op("Sigmoid", &[y], vec![]);
                let axes = self.integers("axes_2_3", &[2], &[2, 3]);
                let wide = self.op("Unsqueeze", &[&factor, &axes], vec![]);
                self.op("Mul", &[x, &wide], vec![])
            }
            Op::Linear(linear) => self.dense(x, before, linear.weight, Some(linear.bias))?,
            Op::Dense(dense) => self.dense(x, before, dense.weight, dense.bias)?,
            Op::Tokens => {
                let &[channels, height, width] = before else { return Err(mistaken(layer)) };
                let flat = self.reshape(x, &[0, channels as i64, (height * width) as i64]);
                self.transpose(&flat, &[0, 2, 1])
            }
            Op::Prepend(token) => {
                let token = self.weight(*token)?;
                let count = self.op("Shape", &[x], vec![int("start", 0), int("end", 1)]);
                let features = before.last().copied().unwrap_or(0) as i64;
                let rest = self.integers(&format!("token_1_{features}"), &[2], &[1, features]);
                let shape = self.op("Concat", &[&count, &rest], vec![int("axis", 0)]);
                let tokens = self.op("Expand", &[&token, &shape], vec![]);
                self.op("Concat", &[&tokens, x], vec![int("axis", 1)])
            }
            Op::Position(position) => {
                let position = self.weight(*position)?;
                self.op("Add", &[x, &position], vec![])
            }
            Op::LayerNorm(norm) => {
                let (scale, shift) = (self.weight(norm.weight)?, self.weight(norm.bias)?);
                self.op(
                    "LayerNormalization",
                    &[x, &scale, &shift],
                    vec![int("axis", -1), float("epsilon", norm.epsilon as f32)],
                )
            }
            Op::Attention { heads } => {
                let &[tokens, features] = layer.shape.as_slice() else {
                    return Err(mistaken(layer));
                };
                self.attention(x, *heads, tokens, features)
            }
            Op::First => {
                let zero = self.integers("index_0", &[], &[0]);
                self.op("Gather", &[x, &zero], vec![int("axis", 1)])
            }
            Op::PoolTokens => {
                let share = self.op("Softmax", &[y], vec![int("axis", 1)]);
                let share = self.transpose(&share, &[0, 2, 1]);
                let mean = self.op("MatMul", &[&share, x], vec![]);
                let axes = self.integers("axes_1", &[1], &[1]);
                self.op("Squeeze", &[&mean, &axes], vec![])
            }
        })
    }

    pub(super) fn norm(&mut self, x: &str, norm: &Norm) -> Result<String> {
        let Norm { norm, activation, .. } = norm;
        let (scale, shift) = (self.weight(norm.weight)?, self.weight(norm.bias)?);
        let mut taken = vec![x.to_owned(), scale, shift];
        for id in [norm.running_mean, norm.running_var] {
            let HostTensor { name, shape, data } = self.model.buffers.host(id.0)?;
            taken.push(self.floats(&name, &shape, &data));
        }
        let taken: Vec<&str> = taken.iter().map(String::as_str).collect();
        let out = self.op("BatchNormalization", &taken, vec![float("epsilon", BN_EPSILON)]);
        Ok(match activation {
            Some(activation) => self.activate(&out, *activation),
            None => out,
        })
    }

    fn dense(
        &mut self,
        x: &str,
        before: &[usize],
        weight: ParamId,
        bias: Option<ParamId>,
    ) -> Result<String> {
        let HostTensor { name, shape, data } = self.param(weight)?;
        let out = shape.first().copied().unwrap_or(0);
        let features = data.len() / out.max(1);
        let bias = bias.map(|id| self.weight(id)).transpose()?;
        if before.len() == 1 {
            let weight = self.floats(&name, &[out, features], &data);
            let taken: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
            return Ok(self.op("Gemm", &taken, vec![int("transB", 1)]));
        }
        // For sequences ONNX defines only the plain matrix product, so the constant is the
        // transposed weight.
        let transposed: Vec<f32> = (0..features)
            .flat_map(|i| data.iter().skip(i).step_by(features.max(1)).copied())
            .collect();
        let weight = self.floats(&format!("{name}.transposed"), &[features, out], &transposed);
        let product = self.op("MatMul", &[x, &weight], vec![]);
        Ok(match bias {
            Some(bias) => self.op("Add", &[&product, &bias], vec![]),
            None => product,
        })
    }

    fn attention(&mut self, qkv: &str, heads: usize, tokens: usize, features: usize) -> String {
        let parts: Vec<String> = ["q", "k", "v"]
            .iter()
            .map(|part| format!("{part}_{}", self.graph.node.len()))
            .collect();
        let outputs: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.graph.node.push(node(
            "Split",
            &[qkv],
            &outputs,
            &format!("split_{}", self.graph.node.len()),
            vec![int("axis", 2)],
        ));
        let width = features / heads.max(1);
        let orders = [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]];
        let split: Vec<String> = parts
            .iter()
            .zip(orders)
            .map(|(part, order)| {
                let headed = self.reshape(part, &[0, tokens as i64, heads as i64, width as i64]);
                self.transpose(&headed, &order)
            })
            .collect();
        let [q, k, v] = split.as_slice() else { return qkv.to_owned() };
        let scale = self.scalar((width as f32).sqrt().recip());
        let q = self.op("Mul", &[q, &scale], vec![]);
        let scores = self.op("MatMul", &[&q, k], vec![]);
        let share = self.op("Softmax", &[&scores], vec![int("axis", -1)]);
        let mixed = self.op("MatMul", &[&share, v], vec![]);
        let mixed = self.transpose(&mixed, &[0, 2, 1, 3]);
        self.reshape(&mixed, &[0, tokens as i64, features as i64])
    }

    /// Computes means over regions as two products with matrices of shares, because ONNX has no
    /// such pool for sizes that do not divide.
    fn adaptive_pool(&mut self, x: &str, before: &[usize], side: usize) -> String {
        let (Some(&height), Some(&width)) = (before.get(1), before.get(2)) else {
            return x.to_owned();
        };
        let shares = |size: usize| {
            let mut matrix = vec![0.0; side * size];
            for region in 0..side {
                let (from, to) = (region * size / side, ((region + 1) * size).div_ceil(side));
                (from..to)
                    .for_each(|pixel| matrix[region * size + pixel] = ((to - from) as f32).recip());
            }
            matrix
        };
        let rows =
            self.floats(&format!("regions_{side}_{height}"), &[side, height], &shares(height));
        let across = shares(width);
        let transposed: Vec<f32> =
            (0..width).flat_map(|i| across.iter().skip(i).step_by(width).copied()).collect();
        let columns =
            self.floats(&format!("regions_{width}_{side}_transposed"), &[width, side], &transposed);
        let pooled = self.op("MatMul", &[&rows, x], vec![]);
        self.op("MatMul", &[&pooled, &columns], vec![])
    }
}

fn mistaken(layer: &Layer) -> Error {
    Error::defect(format!("a layer has a shape that it cannot have: {layer:?}"))
}
