//! Functions are operators that a file defines by other operators; this module replaces them by
//! their nodes.

use std::collections::HashMap;

use prost::Message;

use crate::{
    graph::Fault,
    proto::{FunctionProto, NodeProto},
};

/// Greatest depth of functions within functions.
const DEPTH: usize = 16;
/// Most nodes of a graph after all its functions are expanded.
const MOST_NODES: usize = 1 << 20;
/// Most bytes of the nodes that come from functions; each call has its own copy of their constants.
const MOST_BYTES: usize = if cfg!(any(test, fuzzing)) { 1 << 20 } else { 1 << 28 };

/// Operator set, name and overload: what tells functions apart, and what a call names.
type Key<'a> = [&'a str; 3];

/// What is expanded so far.
#[derive(Default)]
struct Expanded {
    nodes: Vec<NodeProto>,
    calls: usize,
    /// Bytes of the nodes that came from functions.
    bytes: usize,
}

/// Returns `nodes` with every call of one of `functions` replaced by the function's nodes.
pub(crate) fn expand(
    nodes: &[NodeProto],
    functions: &[FunctionProto],
) -> Result<Vec<NodeProto>, Fault> {
    let known: HashMap<Key<'_>, _> =
        functions.iter().map(|f| ([&*f.domain, &*f.name, &*f.overload], f)).collect();
    let mut out = Expanded::default();
    for node in nodes {
        add(node.clone(), &known, DEPTH, &mut out)?;
    }
    Ok(out.nodes)
}

fn add(
    node: NodeProto,
    known: &HashMap<Key<'_>, &FunctionProto>,
    depth: usize,
    out: &mut Expanded,
) -> Result<(), Fault> {
    let Some(function) = known.get(&[&*node.domain, &*node.op_type, &*node.overload]) else {
        if depth < DEPTH {
            out.bytes = out.bytes.saturating_add(node.encoded_len());
        }
        out.nodes.push(node);
        if out.nodes.len() > MOST_NODES || out.bytes > MOST_BYTES {
            return Err(Fault::Graph("its functions make too many nodes".into()));
        }
        return Ok(());
    };
    if depth == 0 {
        return Err(Fault::Graph(format!("function {} calls itself", function.name)));
    }
    out.calls += 1;
    let prefix = format!("{}#{}/", function.name, out.calls);
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
        add(inner, known, depth - 1, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::AttributeProto;

    fn node(op_type: &str, overload: &str, [input, output]: [&str; 2]) -> NodeProto {
        NodeProto {
            op_type: op_type.into(),
            overload: overload.into(),
            domain: if op_type == "f" { "my".into() } else { String::new() },
            input: vec![input.into()],
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    #[test]
    fn a_call_gets_the_function_of_its_overload() {
        let function = |overload: &str, op_type: &str| FunctionProto {
            name: "f".into(),
            domain: "my".into(),
            overload: overload.into(),
            input: vec!["a".into()],
            output: vec!["b".into()],
            node: vec![node(op_type, "", ["a", "b"])],
            ..FunctionProto::default()
        };
        let functions = [function("one", "Neg"), function("two", "Exp"), function("", "Abs")];
        let calls = [
            node("f", "one", ["x", "y"]),
            node("f", "two", ["y", "z"]),
            node("f", "", ["z", "u"]),
            node("f", "three", ["u", "v"]),
        ];
        let Ok(nodes) = expand(&calls, &functions) else { panic!("not expanded") };
        let kinds: Vec<&str> = nodes.iter().map(|node| &*node.op_type).collect();
        assert_eq!(kinds, ["Neg", "Exp", "Abs", "f"], "the last one names no function");
        assert_eq!((&*nodes[1].input[0], &*nodes[1].output[0]), ("y", "z"));
    }

    #[test]
    fn copies_of_a_functions_constants_are_bounded() {
        let text = AttributeProto { s: vec![0; 1 << 12], ..AttributeProto::default() };
        let mut large = node("Constant", "", ["", "b"]);
        large.attribute.push(text);
        let function = FunctionProto {
            name: "f".into(),
            domain: "my".into(),
            output: vec!["b".into()],
            node: vec![large.clone()],
            ..FunctionProto::default()
        };
        let calls = |count: usize| vec![node("f", "", ["", "y"]); count];
        assert!(expand(&calls(200), std::slice::from_ref(&function)).is_ok());
        assert!(expand(&calls(300), std::slice::from_ref(&function)).is_err());
        // Those that the file holds itself are as large as the file.
        assert!(expand(&vec![large; 300], &[]).is_ok());
    }
}
