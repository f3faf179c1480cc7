//! Files that are written: a structure without numbers, and a file with other numbers.

use half::{bf16, f16};
use prost::Message;

use super::Normalisation;
use crate::{
    error::Problem,
    file::{self, Model},
    proto::{
        Dimension, DimensionProto, GraphProto, LARGEST, ModelProto, NodeProto,
        StringStringEntryProto, TensorProto, ValueInfoProto, data_type,
    },
};

/// First version of the format in which initializers need not be inputs as well.
const LEAST_IR: i64 = 4;

/// Removes the numbers of the initializers `weights`, and takes those of the others that lie beside
/// the file into it.
pub(super) fn without_numbers(model: &mut Model, weights: &[&str]) -> Result<(), String> {
    let Model { proto, beside } = model;
    proto.ir_version = proto.ir_version.max(LEAST_IR);
    let Some(graph) = &mut proto.graph else { return Err("it holds no graph".into()) };
    for tensor in &mut graph.initializer {
        if weights.contains(&tensor.name.as_str()) {
            put(tensor, Vec::new());
        } else if tensor.data_location == 1 {
            let bytes = file::external(tensor, beside).map_err(|Problem(text)| text)?;
            put(tensor, bytes);
        }
    }
    let GraphProto { input, initializer, .. } = graph;
    input.retain(|input| initializer.iter().all(|tensor| tensor.name != input.name));
    Ok(())
}

/// Makes `bytes` the content of a tensor.
fn put(tensor: &mut TensorProto, bytes: Vec<u8>) {
    *tensor = TensorProto {
        dims: std::mem::take(&mut tensor.dims),
        data_type: tensor.data_type,
        name: std::mem::take(&mut tensor.name),
        raw_data: bytes,
        ..TensorProto::default()
    };
}

/// Gives the axis `axis` of the initializer `name` the size `size`.
pub(super) fn resize(model: &mut ModelProto, name: &str, axis: usize, size: usize) {
    let tensors = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for tensor in tensors.filter(|tensor| tensor.name == name) {
        if let Some(side) = tensor.dims.get_mut(axis) {
            *side = size as i64;
        }
    }
}

/// Says that the output `name` has `classes` values an image.
pub(super) fn resize_output(model: &mut ModelProto, name: &str, classes: usize) {
    let outputs = model.graph.iter_mut().flat_map(|graph| &mut graph.output);
    for dims in outputs.filter(|output| output.name == name).filter_map(dims) {
        if let [_, side] = &mut dims[..] {
            side.value = Some(Dimension::Size(classes as i64));
        }
    }
}

fn dims(value: &mut ValueInfoProto) -> Option<&mut Vec<DimensionProto>> {
    Some(&mut value.r#type.as_mut()?.tensor_type.as_mut()?.shape.as_mut()?.dim)
}

/// Gives each initializer the numbers under its name.
pub(super) fn fill(model: &mut ModelProto, values: &[(&str, &[f32])]) -> Result<(), String> {
    let Some(graph) = &mut model.graph else { return Err("it holds no graph".into()) };
    for (name, data) in values {
        let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == *name);
        let Some(tensor) = tensor else { return Err(format!("no tensor is called '{name}'")) };
        let count: i64 = tensor.dims.iter().product();
        if usize::try_from(count) != Ok(data.len()) {
            return Err(format!("{} numbers for '{name}' of shape {:?}", data.len(), tensor.dims));
        }
        let bytes = bytes(data, tensor.data_type)?;
        put(tensor, bytes);
    }
    Ok(())
}

/// Numbers as the bytes of a type.
fn bytes(data: &[f32], data_type: i32) -> Result<Vec<u8>, String> {
    let values = data.iter();
    Ok(match data_type {
        data_type::FLOAT => values.flat_map(|v| v.to_le_bytes()).collect(),
        data_type::DOUBLE => values.flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
        data_type::FLOAT16 => values.flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        data_type::BFLOAT16 => values.flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        other => return Err(format!("weights of type {other}")),
    })
}

/// Puts `(x - mean) / std` before the graph.
pub(super) fn normalise(
    model: &mut ModelProto,
    normalisation: &Normalisation,
) -> Result<(), String> {
    let Some(graph) = &mut model.graph else { return Err("it holds no graph".into()) };
    let constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let input = graph.input.iter().find(|input| !constant(&input.name));
    let Some(input) = input.cloned() else { return Err("it has no input".into()) };
    let kind = input.r#type.and_then(|kind| kind.tensor_type);
    let kind = kind.map_or(data_type::FLOAT, |kind| kind.elem_type);
    let free = |name: &str| {
        let taken = |name: &str| {
            let nodes = graph.node.iter().flat_map(|node| node.input.iter().chain(&node.output));
            nodes.chain(graph.initializer.iter().map(|t| &t.name)).any(|known| known == name)
        };
        let mut name = format!("normalise.{name}");
        while taken(&name) {
            name.push('_');
        }
        name
    };
    let [mean, std, centred, out] = ["mean", "std", "centred", "out"].map(free);
    for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if *name == input.name {
            name.clone_from(&out);
        }
    }
    for (name, data) in [(&mean, &normalisation.mean), (&std, &normalisation.std)] {
        graph.initializer.push(TensorProto {
            dims: vec![1, data.len() as i64, 1, 1],
            data_type: kind,
            name: name.clone(),
            raw_data: bytes(data, kind)?,
            ..TensorProto::default()
        });
    }
    let node = |op_type: &str, input: [&String; 2], output: &String| NodeProto {
        op_type: op_type.into(),
        name: output.clone(),
        input: input.map(String::clone).into(),
        output: vec![output.clone()],
        ..NodeProto::default()
    };
    let first = node("Sub", [&input.name, &mean], &centred);
    let second = node("Div", [&centred, &std], &out);
    graph.node.splice(0..0, [first, second]);
    Ok(())
}

/// The bytes of a file that this crate wrote.
pub(super) fn finish(
    mut model: ModelProto,
    metadata: &[(String, String)],
) -> Result<Vec<u8>, String> {
    model.producer_name = "sora".into();
    model.producer_version = env!("CARGO_PKG_VERSION").into();
    model.metadata_props.retain(|known| metadata.iter().all(|(key, _)| *key != known.key));
    model.metadata_props.extend(
        metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() }),
    );
    match model.encoded_len() {
        len if len > LARGEST => {
            Err(format!("{} MiB as ONNX, whose files end at 2048 MiB", len >> 20))
        }
        _ => Ok(model.encode_to_vec()),
    }
}
