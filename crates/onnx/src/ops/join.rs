//! Values that are joined along an axis, or cut into parts.

use ndarray::{Axis, IxDyn};

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, elements, to_axis, to_shape, unpermute, zeros},
};

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    let axis = attributes.int("axis", 0);
    Ok(Some(match attributes.kind() {
        "Concat" => Box::new(Concat { axis }),
        "Split" => {
            let parts = attributes.outputs();
            match attributes.int("num_outputs", 0) {
                0 => {}
                asked if usize::try_from(asked) == Ok(parts) => {}
                asked => problem!("{asked} parts for {parts} outputs"),
            }
            Box::new(Split { axis, sizes: attributes.ints("split"), parts })
        }
        _ => return Ok(None),
    }))
}

#[derive(Debug)]
struct Concat {
    axis: i64,
}

#[derive(Debug)]
struct Split {
    axis: i64,
    sizes: Option<Vec<i64>>,
    parts: usize,
}

fn concat<T: Copy>(parts: &[&Array<T>], axis: i64) -> Outcome<Array<T>> {
    let Some(first) = parts.first() else { problem!("nothing to join") };
    let axis = to_axis(axis, first.ndim())?;
    if parts.iter().any(|part| part.ndim() != first.ndim()) {
        problem!("its inputs have different numbers of axes");
    }
    let mut shape = first.shape().to_vec();
    shape[axis] = parts.iter().map(|part| part.shape()[axis]).sum();
    elements(&shape)?;
    // The result has the kernels' order in memory if the first part has it.
    let hwnc = first.ndim() == 4 && !first.is_standard_layout();
    let order: &[usize] = if hwnc { &[2, 3, 0, 1] } else { &[] };
    let views: Vec<_> = parts
        .iter()
        .map(|part| match order {
            [] => part.view(),
            order => part.view().permuted_axes(IxDyn(order)),
        })
        .collect();
    let at = if hwnc { (axis + 2) % 4 } else { axis };
    let joined = ndarray::concatenate(Axis(at), &views)?.into_shared();
    Ok(if hwnc { unpermute(&joined, order) } else { joined })
}

impl Operator for Concat {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let all = (0..inputs.len()).map(|i| inputs.value(i)).collect::<Outcome<Vec<_>>>()?;
        Ok(vec![match all.first() {
            Some(Value::Float(_)) => {
                let parts = all.iter().map(|v| v.float()).collect::<Outcome<Vec<_>>>()?;
                Value::Float(concat(&parts, self.axis)?)
            }
            Some(Value::Int(_)) => {
                let parts = all.iter().map(|v| v.int()).collect::<Outcome<Vec<_>>>()?;
                Value::Int(concat(&parts, self.axis)?)
            }
            _ => problem!("expected numbers"),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let g = back.gradient()?;
        let axis = to_axis(self.axis, g.ndim())?;
        let (mut all, mut start) = (vec![None; back.inputs.len()], 0);
        for (index, place) in all.iter_mut().enumerate() {
            let side = back.inputs.value(index)?.shape()[axis];
            if back.wants(index) {
                let part = g.slice_axis(Axis(axis), ndarray::Slice::from(start..start + side));
                *place = Some(part.to_shared());
            }
            start += side;
        }
        Ok(all)
    }
}

impl Split {
    fn sizes(&self, side: usize, inputs: &Inputs<'_>) -> Outcome<Vec<usize>> {
        let given = self.sizes.clone().map_or_else(|| inputs.list(1), |sizes| Ok(Some(sizes)))?;
        let sizes = match given {
            Some(sizes) => to_shape(&sizes)?,
            None => {
                let each = side.div_ceil(self.parts.max(1));
                (0..self.parts).map(|i| each.min(side.saturating_sub(i * each))).collect()
            }
        };
        if sizes.iter().sum::<usize>() != side {
            problem!("parts of {sizes:?} of an axis of {side}");
        }
        Ok(sizes)
    }

    fn parts<T: Clone>(&self, x: &Array<T>, inputs: &Inputs<'_>) -> Outcome<Vec<Array<T>>> {
        let axis = to_axis(self.axis, x.ndim())?;
        let mut start = 0;
        let parts = self.sizes(x.shape()[axis], inputs)?.into_iter().map(|size| {
            let part = x.slice_axis(Axis(axis), ndarray::Slice::from(start..start + size));
            start += size;
            part.to_shared()
        });
        Ok(parts.collect())
    }
}

impl Operator for Split {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        Ok(match inputs.value(0)? {
            Value::Float(x) => self.parts(x, inputs)?.into_iter().map(Value::Float).collect(),
            Value::Int(x) => self.parts(x, inputs)?.into_iter().map(Value::Int).collect(),
            Value::Bool(x) => self.parts(x, inputs)?.into_iter().map(Value::Bool).collect(),
        })
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let x = back.inputs.float(0)?;
        let axis = to_axis(self.axis, x.ndim())?;
        let sizes = self.sizes(x.shape()[axis], &back.inputs)?;
        let parts = sizes.iter().enumerate().map(|(index, &size)| {
            let mut shape = x.shape().to_vec();
            shape[axis] = size;
            back.gradients.get(index).cloned().flatten().unwrap_or_else(|| zeros(&shape))
        });
        let parts: Vec<_> = parts.collect();
        Ok(back.only(Some(concat(&parts.iter().collect::<Vec<_>>(), self.axis)?)))
    }
}
