//! Running sums.

use ndarray::Axis;

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, plain, to_axis},
};

/// `CumSum`: each element with all before it along an axis, the second input.
#[derive(Debug)]
struct CumSum {
    /// Without the element itself.
    exclusive: bool,
    /// With all behind it, in place of all before it.
    reverse: bool,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let flag = |name| attributes.int(name, 0) != 0;
    Ok((attributes.kind() == "CumSum")
        .then(|| Box::new(CumSum { exclusive: flag("exclusive"), reverse: flag("reverse") }) as _))
}

impl CumSum {
    fn axis(inputs: &Inputs<'_>) -> Outcome<Axis> {
        let rank = inputs.value(0)?.shape().len();
        match inputs.list(1)?.as_deref() {
            Some(&[axis]) => Ok(Axis(to_axis(axis, rank)?)),
            _ => problem!("expected one axis"),
        }
    }

    fn sums<T: Copy>(
        &self,
        x: &Array<T>,
        axis: Axis,
        reverse: bool,
        zero: T,
        add: impl Fn(T, T) -> T,
    ) -> Array<T> {
        let mut y = plain(x);
        for mut lane in y.lanes_mut(axis) {
            let (mut sum, last) = (zero, lane.len());
            for k in 0..last {
                let value = &mut lane[if reverse { last - 1 - k } else { k }];
                let with = add(sum, *value);
                *value = if self.exclusive { sum } else { with };
                sum = with;
            }
        }
        y
    }
}

impl Operator for CumSum {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let axis = Self::axis(inputs)?;
        Ok(vec![match inputs.value(0)? {
            Value::Float(x) => Value::Float(self.sums(x, axis, self.reverse, 0.0, |a, b| a + b)),
            Value::Int(x) => Value::Int(self.sums(x, axis, self.reverse, 0, i64::wrapping_add)),
            Value::Bool(_) => problem!("expected numbers"),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let axis = Self::axis(&back.inputs)?;
        // What an element went into lies on its other side.
        let back_sums = self.sums(back.gradient()?, axis, !self.reverse, 0.0, |a, b| a + b);
        Ok(back.only(Some(back_sums)))
    }
}
