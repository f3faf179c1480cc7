//! What a graph takes and gives: the images that go in, and the logits that come out.

use crate::{
    proto::{Dimension, DimensionProto, GraphProto, NodeProto, ValueInfoProto},
    value::MOST_ELEMENTS,
};

/// Finds the one input that is not a constant.
pub(super) fn input(graph: &GraphProto) -> Result<&ValueInfoProto, String> {
    let constant = |name: &str| graph.initializer.iter().any(|t| t.name == name);
    let inputs: Vec<_> = graph.input.iter().filter(|input| !constant(&input.name)).collect();
    match inputs[..] {
        [input] => Ok(input),
        [] => Err("it has no input".into()),
        _ => {
            let names: Vec<_> = inputs.iter().take(5).map(|i| i.name.as_str()).collect();
            Err(format!("it has {} inputs ({}, ...); expected one", inputs.len(), names.join(", ")))
        }
    }
}

/// Finds the batch size, if it is fixed, and the channels, height and width of the images.
pub(super) fn image(
    input: &ValueInfoProto,
    size: Option<[usize; 2]>,
) -> Result<(Option<usize>, [usize; 3]), String> {
    const LARGEST: i64 = 1 << 14;
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map(|shape| &shape.dim[..]);
    let Some([batch, channels, height, width]) = dims else {
        return Err(format!(
            "its input '{}' has {} dimensions; expected images [N, C, H, W]",
            input.name,
            dims.map_or("unknown".into(), |dims| dims.len().to_string())
        ));
    };
    let fixed = |dim: &DimensionProto| match dim.value {
        Some(Dimension::Size(size @ 1..=LARGEST)) => usize::try_from(size).ok(),
        _ => None,
    };
    let Some(channels) = fixed(channels).filter(|&c| c <= 4096) else {
        return Err("its number of channels is open or out of range".into());
    };
    let side = |dim, given: Option<usize>| match (fixed(dim), given) {
        (Some(side), Some(given)) if side != given => {
            Err(format!("its images have {side} pixels a side, not {given}"))
        }
        (Some(side), _) => Ok(side),
        (None, Some(given)) => Ok(given),
        (None, None) => Err("its image size is open: say which, for example 224".into()),
    };
    let sides = [side(height, size.map(|s| s[0]))?, side(width, size.map(|s| s[1]))?];
    let batch = fixed(batch);
    if batch.unwrap_or(1).saturating_mul(channels * sides[0] * sides[1]) > MOST_ELEMENTS {
        return Err("its input is too large".into());
    }
    Ok((batch, [channels, sides[0], sides[1]]))
}

/// Finds the name of the value with the logits, and the final activation that is left out.
pub(super) fn output<'a>(
    graph: &'a GraphProto,
    asked: Option<&str>,
) -> Result<(String, Option<&'a str>), String> {
    let known = || graph.output.iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ");
    let output = match asked {
        Some(name) => graph.output.iter().find(|output| output.name == name),
        None => graph.output.first(),
    };
    let Some(output) = output else {
        return Err(match asked {
            Some(name) => format!("no output is called '{name}'; it has {}", known()),
            None => "it has no output".into(),
        });
    };
    let made_by = |name: &str| -> Option<&'a NodeProto> {
        graph.node.iter().rev().find(|node| node.output.iter().any(|out| out == name))
    };
    // Attacks on probabilities meet slopes that round to zero; their logarithm has the same order.
    match made_by(&output.name) {
        Some(node)
            if matches!(node.op_type.as_str(), "Softmax" | "LogSoftmax" | "Sigmoid")
                && !node.input.is_empty() =>
        {
            Ok((node.input[0].clone(), Some(node.op_type.as_str())))
        }
        _ => Ok((output.name.clone(), None)),
    }
}
