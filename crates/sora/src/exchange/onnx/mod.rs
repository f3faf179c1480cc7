//! Exports a network as an ONNX graph with pixels in [0, 1] as input, logits as output, the
//! normalisation inside, and any number of images at a time.
//!
//! Layers become operators of ONNX's own set, with batch norm on the running statistics and without
//! dropout. The constants are the weights, under PyTorch's names.

mod layers;
mod writer;

use std::collections::BTreeSet;

use prost::Message;
use sora_onnx::proto::{
    Dimension, DimensionProto, GraphProto, LARGEST, ModelProto, OperatorSetIdProto,
    StringStringEntryProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
    data_type::FLOAT,
};

use self::writer::{Writer, node};
use crate::{
    error::{Error, Result},
    model::{Model, Op, imported_to_onnx},
};

/// Version of the operator set: the first with layer norm.
pub const OPSET: i64 = 17;
/// Version of the file format that came with this operator set.
const IR_VERSION: i64 = 8;
/// The bytes of an `.onnx` file: input `images` `[N, C, H, W]` in [0, 1], output `logits` `[N,
/// classes]`. `metadata` goes into the file's properties. A network that was read from an ONNX file
/// keeps that file's graph, with its names.
///
/// # Errors
/// [`Error`] for a network of another crate that is not a list of layers, or one too large for the
/// format.
pub fn to_onnx(model: &Model, metadata: &[(String, String)]) -> Result<Vec<u8>> {
    if model.config.is_imported() {
        return imported_to_onnx(model, metadata);
    }
    let graph = model.graph().ok_or_else(|| {
        let problem = "the network is no list of layers; use safetensors";
        Error::unfit(model.config.name.as_str(), problem)
    })?;
    let mut writer = Writer {
        model,
        graph: GraphProto { name: model.config.name.clone(), ..Default::default() },
        named: BTreeSet::new(),
    };
    let shape = model.config.shape;
    let images = [shape.channels, shape.height, shape.width];
    let mut values = vec![writer.normalise()?];
    // The batch norm of the convolution before, whose result is the next layer's.
    let mut fused = None;
    for layer in graph.layers.iter().skip(1) {
        let inputs: Vec<String> =
            layer.inputs.iter().filter_map(|&id| values.get(id).cloned()).collect();
        let before = layer
            .inputs
            .first()
            .and_then(|&id| graph.layers.get(id))
            .map_or(&[][..], |input| &input.shape);
        let out = writer.layer(layer, before, &inputs)?;
        values.push(match fused.take() {
            Some(norm) => writer.norm(&out, norm)?,
            None => out,
        });
        if let Op::ConvNorm { norm, .. } = &layer.op {
            fused = Some(norm);
        }
    }
    if let Some(last) = values.last() {
        writer.graph.node.push(node("Identity", &[last], &["logits"], "logits", vec![]));
    }
    writer.graph.input = vec![value("images", &images)];
    writer.graph.output = vec![value("logits", &[shape.classes])];
    let file = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "sora".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(writer.graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() })
            .collect(),
        functions: Vec::new(),
    };
    if file.encoded_len() > LARGEST {
        let problem = format!(
            "{} MiB as ONNX, whose files end at 2048 MiB; use safetensors",
            file.encoded_len() >> 20
        );
        return Err(Error::unfit(model.config.name.as_str(), problem));
    }
    Ok(file.encode_to_vec())
}

/// A float tensor of any number of images.
fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let sizes = shape.iter().map(|&size| Dimension::Size(size as i64));
    let dim = std::iter::once(Dimension::Named("N".into()))
        .chain(sizes)
        .map(|value| DimensionProto { value: Some(value) })
        .collect();
    let tensor_type = TensorTypeProto { elem_type: FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
