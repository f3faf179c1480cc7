//! Operators against values that were worked out by hand or stand in ONNX's own tests of its nodes.

use std::collections::HashMap;

use super::{Attributes, Back, Inputs, Operator, build};
use crate::{
    error::{Outcome, Problem},
    proto::{AttributeProto, NodeProto, attribute_type},
    value::{Value, array, to_vec},
};

/// A whole number as an option.
fn int(name: &str, i: i64) -> AttributeProto {
    let kind = attribute_type::INT;
    AttributeProto { name: name.into(), i, r#type: kind, ..AttributeProto::default() }
}

/// A text as an option.
fn text(name: &str, text: &str) -> AttributeProto {
    let (s, kind) = (text.as_bytes().to_vec(), attribute_type::STRING);
    AttributeProto { name: name.into(), s, r#type: kind, ..AttributeProto::default() }
}

/// The operator `kind` of `opset` with these options and outputs.
fn operator(
    kind: &str,
    opset: i64,
    attribute: Vec<AttributeProto>,
    outputs: &[&str],
) -> Outcome<Box<dyn Operator>> {
    let output = outputs.iter().map(|&name| name.into()).collect();
    let node = NodeProto { op_type: kind.into(), attribute, output, ..NodeProto::default() };
    let built = build(&Attributes::new(&node, opset, &HashMap::new()))?;
    built.ok_or_else(|| Problem::new("no such operator"))
}

fn floats(shape: &[usize], data: &[f32]) -> Value {
    Value::Float(array(shape, data.to_vec()).unwrap())
}

fn ints(data: &[i64]) -> Value {
    Value::Int(array(&[data.len()], data.to_vec()).unwrap())
}

/// The first output.
fn run(operator: &dyn Operator, inputs: &[Option<&Value>]) -> Outcome<Value> {
    Ok(operator.forward(&Inputs(inputs))?.remove(0))
}

fn numbers(value: &Value) -> Vec<f32> {
    to_vec(value.float().unwrap())
}

/// The numbers from 0, one a place.
fn counted(shape: &[usize]) -> Value {
    let count: usize = shape.iter().product();
    floats(shape, &(0..count).map(|v| v as f32).collect::<Vec<_>>())
}

/// A row of `side` numbers from 0, resized by `scale`.
fn row(opset: i64, options: &[(&str, &str)], side: usize, scale: f32) -> Vec<f32> {
    let options = options.iter().map(|(name, value)| text(name, value)).collect();
    let resize = operator("Resize", opset, options, &["y"]).unwrap();
    let (x, scale) = (counted(&[1, side]), floats(&[2], &[1.0, scale]));
    let inputs = match opset {
        ..11 => vec![Some(&x), Some(&scale)],
        _ => vec![Some(&x), None, Some(&scale)],
    };
    numbers(&run(&*resize, &inputs).unwrap())
}

const FLOOR: [(&str, &str); 2] =
    [("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor")];

#[test]
fn a_side_is_the_product_in_f32() {
    for (side, scale, expected) in [
        (10, 0.7, 7),
        (5, 1.4, 7),
        (10, 2.3, 23),
        (10, 1.1, 11),
        (5, 0.6, 3),
        (10, 0.3, 3),
        (30, 0.7, 21),
        (40, 0.35, 14),
        (7, 1.5, 10),
        (3, 0.3, 0),
    ] {
        for opset in [10, 13] {
            assert_eq!(row(opset, &FLOOR, side, scale).len(), expected, "{side} by {scale}");
        }
    }
}

/// The values are onnxruntime's; those of 2x4 by 0.6 stand in ONNX's tests, too.
#[test]
fn up_to_opset_10_an_axis_that_shrinks_takes_the_place_behind() {
    assert_eq!(row(10, &[], 4, 0.6), [0.0, 2.0]);
    assert_eq!(row(10, &[], 8, 0.75), [0.0, 2.0, 3.0, 4.0, 6.0, 7.0]);
    assert_eq!(row(10, &[], 8, 0.4), [0.0, 3.0, 5.0]);
    assert_eq!(row(10, &[], 4, 1.5), [0.0, 0.0, 1.0, 2.0, 2.0, 3.0]);
    assert_eq!(row(13, &FLOOR, 8, 0.75), [0.0, 1.0, 2.0, 4.0, 5.0, 6.0]);
}

/// As in onnxruntime: 9 / 1.2 is a half, though not in f32, and so is 19.5 / 1.3 - 0.5.
#[test]
fn a_coordinate_in_the_middle_is_one_in_spite_of_rounding() {
    let mode =
        [("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "round_prefer_ceil")];
    let found = row(13, &mode, 15, 1.2);
    assert_eq!((found[9], found[15]), (8.0, 13.0));
    assert_eq!(row(13, &[], 16, 1.3)[19], 14.0);
    assert_eq!(row(13, &[("nearest_mode", "round_prefer_ceil")], 16, 1.3)[19], 15.0);
}

/// As in onnxruntime and PyTorch: an axis that keeps its side is still scaled with the others.
#[test]
fn a_scale_counts_where_another_axis_changes() {
    let options = || FLOOR.map(|(name, value)| text(name, value)).to_vec();
    let resize = operator("Resize", 13, options(), &["y"]).unwrap();
    let x = counted(&[4, 2]);
    let by = |scales: [f32; 2]| {
        let scales = floats(&[2], &scales);
        numbers(&run(&*resize, &[Some(&x), None, Some(&scales)]).unwrap())
    };
    assert_eq!(by([1.2, 0.5]), [0.0, 0.0, 2.0, 4.0]);
    assert_eq!(by([1.2, 1.0]), numbers(&x));
    assert_eq!(by([1.0, 0.5]), [0.0, 2.0, 4.0, 6.0]);
}

#[test]
fn sizes_keep_the_ratio_of_the_sides_as_the_policy_says() {
    let resized = |policy: &str, before: [usize; 2], sizes: [i64; 2]| -> Outcome<Vec<usize>> {
        let options = vec![text("keep_aspect_ratio_policy", policy)];
        let resize = operator("Resize", 18, options, &["y"])?;
        let (x, sizes) = (counted(&before), ints(&sizes));
        let y = run(&*resize, &[Some(&x), None, None, Some(&sizes)])?;
        Ok(y.shape().to_vec())
    };
    for (policy, before, sizes, expected) in [
        ("stretch", [4, 4], [7, 9], [7, 9]),
        ("not_larger", [4, 4], [7, 9], [7, 7]),
        ("not_smaller", [4, 4], [7, 9], [9, 9]),
        // Of ONNX's tests.
        ("not_larger", [2, 4], [7, 8], [4, 8]),
        ("not_smaller", [2, 4], [7, 8], [7, 14]),
        ("not_larger", [2, 4], [1, 3], [1, 2]),
        ("not_smaller", [2, 4], [1, 3], [2, 3]),
        // Halves are rounded up.
        ("not_larger", [5, 2], [9, 1], [3, 1]),
        ("not_smaller", [5, 2], [1, 3], [8, 3]),
        ("not_larger", [4, 6], [6, 5], [3, 5]),
    ] {
        let found = resized(policy, before, sizes);
        assert_eq!(found.unwrap(), expected, "{policy}: {before:?} to {sizes:?}");
    }
    let Err(Problem(text)) = resized("wider", [4, 4], [7, 9]) else { panic!("a policy wider") };
    assert!(text.contains("wider"), "{text}");
}

#[test]
fn nothing_is_made_of_an_axis_without_places() {
    let resize = operator("Resize", 13, Vec::new(), &["y"]).unwrap();
    let (x, sizes, none) = (counted(&[2, 0]), ints(&[2, 5]), ints(&[4, 0]));
    assert!(run(&*resize, &[Some(&x), None, None, Some(&sizes)]).is_err());
    let y = run(&*resize, &[Some(&x), None, None, Some(&none)]).unwrap();
    assert_eq!(y.shape(), [4, 0]);
}

#[test]
fn a_rest_of_whole_numbers_is_floored_or_truncated() {
    let (a, b) = (ints(&[-4, 7, 5, 4, -7, 8, i64::MIN]), ints(&[2, -3, 8, -2, 3, 5, -1]));
    for (fmod, expected) in [(0, [0, -2, 5, 0, 2, 3, 0]), (1, [0, 1, 5, 0, -1, 3, 0])] {
        let rest = operator("Mod", 13, vec![int("fmod", fmod)], &["y"]).unwrap();
        assert_eq!(run(&*rest, &[Some(&a), Some(&b)]).unwrap(), ints(&expected), "fmod {fmod}");
    }
    let rest = operator("Mod", 13, Vec::new(), &["y"]).unwrap();
    let (found, zero) = (run(&*rest, &[Some(&a), Some(&b)]).unwrap(), ints(&[0]));
    assert_eq!(found, ints(&[0, -2, 5, 0, 2, 3, 0]), "0 if it is not said");
    assert!(run(&*rest, &[Some(&a), Some(&zero)]).is_err());
}

#[test]
fn a_rest_of_numbers_is_floored_or_truncated() {
    let (a, b) = ([-4.25, 7.5, 5.0, 4.25, -7.5, 8.0], [2.0, -3.5, 8.0, -2.0, 3.5, 5.0]);
    let (x, y) = (floats(&[6], &a), floats(&[6], &b));
    let rest = |fmod: i64| operator("Mod", 13, vec![int("fmod", fmod)], &["y"]).unwrap();
    let of = |fmod: i64| numbers(&run(&*rest(fmod), &[Some(&x), Some(&y)]).unwrap());
    assert_eq!(of(0), [1.75, -3.0, 5.0, -1.75, 3.0, 3.0]);
    assert_eq!(of(1), [-0.25, 0.5, 5.0, 0.25, -0.5, 3.0]);
    // By the divisor: the quotient, floored or truncated.
    for (fmod, slopes) in
        [(0, [3.0, 3.0, 0.0, 3.0, 3.0, -1.0]), (1, [2.0, 2.0, 0.0, 2.0, 2.0, -1.0])]
    {
        let rest = rest(fmod);
        let result = run(&*rest, &[Some(&x), Some(&y)]).unwrap();
        let mut back = Back {
            inputs: Inputs(&[Some(&x), Some(&y)]),
            outputs: &[Some(&result)],
            gradients: &mut [Some(array(&[6], vec![1.0; 6]).unwrap())],
            wanted: &[true, true],
        };
        let found = rest.backward(&mut back).unwrap();
        assert_eq!(to_vec(found[0].as_ref().unwrap()), [1.0; 6]);
        assert_eq!(to_vec(found[1].as_ref().unwrap()), slopes, "fmod {fmod}");
    }
}

/// The special cases of the specification: zeros, infinities and NaN.
#[test]
fn a_floored_rest_has_the_sign_of_the_divisor() {
    let inf = f32::INFINITY;
    let rest = operator("Mod", 13, Vec::new(), &["y"]).unwrap();
    for (a, b, expected) in [
        (0.0, 2.0, 0.0),
        (-0.0, 2.0, 0.0),
        (0.0, -2.0, -0.0),
        (4.0, -2.0, -0.0),
        (-3.0, inf, inf),
        (3.0, -inf, -inf),
        (-1.0, -inf, -1.0),
        (1.0, inf, 1.0),
        (inf, 2.0, f32::NAN),
        (-inf, -2.0, f32::NAN),
        (1.0, 0.0, f32::NAN),
        (1.0, -0.0, f32::NAN),
        (f32::NAN, 1.0, f32::NAN),
        (1.0, f32::NAN, f32::NAN),
    ] {
        let found = run(&*rest, &[Some(&floats(&[1], &[a])), Some(&floats(&[1], &[b]))]).unwrap();
        let found = numbers(&found)[0];
        let same = found.to_bits() == f32::to_bits(expected) || found.is_nan() && expected.is_nan();
        assert!(same, "{a} by {b}: {found}, expected {expected}");
    }
}

#[test]
fn a_batch_norm_of_the_batch_is_refused() {
    let refused = |opset: i64, options: Vec<AttributeProto>, outputs: &[&str]| match operator(
        "BatchNormalization",
        opset,
        options,
        outputs,
    ) {
        Ok(_) => false,
        Err(Problem(text)) => text.contains("training mode") && text.contains("eval mode"),
    };
    let five = ["y", "mean", "variance", "saved mean", "saved variance"];
    for opset in [7, 9, 12, 13] {
        assert!(refused(opset, Vec::new(), &five), "opset {opset}");
        assert!(refused(opset, Vec::new(), &["y", "", "variance"]), "opset {opset}");
        assert!(!refused(opset, Vec::new(), &["y"]), "opset {opset}");
        assert!(!refused(opset, Vec::new(), &["y", "", ""]), "opset {opset}");
    }
    assert!(refused(14, vec![int("training_mode", 1)], &["y"]));
    assert!(!refused(14, vec![int("training_mode", 0)], &["y"]));
}

#[test]
fn a_dropout_that_draws_is_refused() {
    let dropout = operator("Dropout", 13, Vec::new(), &["y"]).unwrap();
    let (x, ratio) = (counted(&[2, 3]), floats(&[], &[0.5]));
    let mode = |training: bool| Value::Bool(array(&[], vec![training]).unwrap());
    let (on, off) = (mode(true), mode(false));
    let same: [&[Option<&Value>]; 4] = [
        &[Some(&x)],
        &[Some(&x), Some(&ratio)],
        &[Some(&x), Some(&ratio), Some(&off)],
        &[Some(&x), None, Some(&off)],
    ];
    for inputs in same {
        assert_eq!(run(&*dropout, inputs).unwrap(), x);
    }
    for mode in [&on, &ratio] {
        let refused = run(&*dropout, &[Some(&x), Some(&ratio), Some(mode)]);
        let Err(Problem(text)) = refused else { panic!("not refused") };
        assert!(text.contains("eval mode"), "{text}");
    }
    let mut back = Back {
        inputs: Inputs(&[Some(&x)]),
        outputs: &[Some(&x)],
        gradients: &mut [Some(array(&[2, 3], vec![2.0; 6]).unwrap())],
        wanted: &[true],
    };
    let found = dropout.backward(&mut back).unwrap().remove(0).unwrap();
    assert_eq!(to_vec(&found), [2.0; 6]);
}
