//! Functions are operators that a file defines by other operators; this module replaces them by
//! their nodes.

use std::collections::HashMap;

use crate::{
    graph::Fault,
    proto::{FunctionProto, NodeProto},
};

/// Greatest depth of functions within functions.
const DEPTH: usize = 16;
/// Most nodes of a graph after all its functions are expanded.
const MOST_NODES: usize = 1 << 20;

/// Returns `nodes` with every call of one of `functions` replaced by the function's nodes.
pub(crate) fn expand(
    nodes: &[NodeProto],
    functions: &[FunctionProto],
) -> Result<Vec<NodeProto>, Fault> {
    let known: HashMap<_, _> =
        functions.iter().map(|f| ((f.domain.as_str(), f.name.as_str()), f)).collect();
    let mut out = Vec::with_capacity(nodes.len());
    let mut calls = 0;
    for node in nodes {
        add(node.clone(), &known, DEPTH, &mut calls, &mut out)?;
    }
    Ok(out)
}

fn add(
    node: NodeProto,
    known: &HashMap<(&str, &str), &FunctionProto>,
    depth: usize,
    calls: &mut usize,
    out: &mut Vec<NodeProto>,
) -> Result<(), Fault> {
    let Some(function) = known.get(&(node.domain.as_str(), node.op_type.as_str())) else {
        out.push(node);
        if out.len() > MOST_NODES {
            return Err(Fault::Graph("its functions make too many nodes".into()));
        }
        return Ok(());
    };
    if depth == 0 {
        return Err(Fault::Graph(format!("function {} calls itself", function.name)));
    }
    *calls += 1;
    let prefix = format!("{}#{calls}/", function.name);
    let outer = |list: &[String], names: &[String]| -> HashMap<String, String> {
        let given = names.iter().map(Some).chain(std::iter::repeat(None));
        let name = |given: Option<&String>| given.cloned().unwrap_or_default();
        list.iter().zip(given).map(|(inner, given)| (inner.clone(), name(given))).collect()
    };
    let mut renamed = outer(&function.input, &node.input);
    renamed.extend(outer(&function.output, &node.output));
    let rename = |name: &String| match renamed.get(name) {
        Some(outer) => outer.clone(),
        None if name.is_empty() => String::new(),
        None => format!("{prefix}{name}"),
    };
    for inner in &function.node {
        let mut inner = inner.clone();
        inner.name = format!("{prefix}{}", inner.name);
        inner.input = inner.input.iter().map(rename).collect();
        inner.output = inner.output.iter().map(rename).collect();
        // Replace the attributes that refer to those of the call.
        inner.attribute.retain_mut(|attribute| {
            if attribute.ref_attr_name.is_empty() {
                return true;
            }
            let given = node.attribute.iter().chain(&function.attribute_proto);
            match given.into_iter().find(|given| given.name == attribute.ref_attr_name) {
                Some(given) => {
                    let name = std::mem::take(&mut attribute.name);
                    *attribute = given.clone();
                    attribute.name = name;
                    true
                }
                None => false,
            }
        });
        add(inner, known, depth - 1, calls, out)?;
    }
    Ok(())
}
