//! `ScatterND`: rows of the third input replace rows of the first, or are added to them.

use super::{Attributes, Back, Inputs, Operator, places::place};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, array, plain, to_vec},
};

#[derive(Debug)]
struct ScatterNd {
    add: bool,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    if attributes.kind() != "ScatterND" {
        return Ok(None);
    }
    let add = match attributes.text("reduction", "none").as_str() {
        "none" => false,
        "add" => true,
        other => problem!("the reduction {other}"),
    };
    Ok(Some(Box::new(ScatterNd { add })))
}

impl ScatterNd {
    /// The start of each row of updates in the data, and the length of a row.
    fn rows(shape: &[usize], indices: &Array<i64>) -> Outcome<(Vec<usize>, usize)> {
        let Some((&depth, outer)) = indices.shape().split_last() else {
            problem!("indices without an axis");
        };
        if depth > shape.len() {
            problem!("indices of {depth} places into shape {shape:?}");
        }
        let len = shape[depth..].iter().product();
        let indices = plain(indices);
        let mut rows = Vec::with_capacity(outer.iter().product());
        for index in indices.as_slice().unwrap_or_default().chunks(depth.max(1)) {
            let mut at = 0;
            for (&index, &side) in index.iter().zip(shape) {
                at = at * side + place(index, side)?;
            }
            rows.push(at * len);
        }
        Ok((rows, len))
    }

    fn scatter<T: Copy>(
        &self,
        data: &Array<T>,
        indices: &Array<i64>,
        updates: &Array<T>,
        add: impl Fn(T, T) -> T,
    ) -> Outcome<Array<T>> {
        let (rows, len) = Self::rows(data.shape(), indices)?;
        if updates.len() != rows.len() * len {
            problem!("{} updates for {} rows of {len}", updates.len(), rows.len());
        }
        let (mut out, updates) = (to_vec(data), to_vec(updates));
        for (&start, update) in rows.iter().zip(updates.chunks(len.max(1))) {
            for (out, &update) in out[start..start + len].iter_mut().zip(update) {
                *out = if self.add { add(*out, update) } else { update };
            }
        }
        array(data.shape(), out)
    }
}

impl Operator for ScatterNd {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let indices = inputs.value(1)?.int()?;
        Ok(vec![match (inputs.value(0)?, inputs.value(2)?) {
            (Value::Float(data), Value::Float(updates)) => {
                Value::Float(self.scatter(data, indices, updates, |a, b| a + b)?)
            }
            (Value::Int(data), Value::Int(updates)) => {
                Value::Int(self.scatter(data, indices, updates, i64::wrapping_add)?)
            }
            (Value::Bool(data), Value::Bool(updates)) => {
                Value::Bool(self.scatter(data, indices, updates, |a, b| a | b)?)
            }
            _ => problem!("its inputs are of different types"),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let (shape, indices) = (back.inputs.value(0)?.shape(), back.inputs.value(1)?.int()?);
        let (rows, len) = Self::rows(shape, indices)?;
        let mut g = to_vec(back.gradient()?);
        let mut all = vec![None; 3];
        if back.wants(2) {
            let taken = rows.iter().flat_map(|&start| g[start..start + len].to_vec()).collect();
            all[2] = Some(array(back.inputs.value(2)?.shape(), taken)?);
        }
        if back.wants(0) {
            if !self.add {
                rows.iter().for_each(|&start| g[start..start + len].fill(0.0));
            }
            all[0] = Some(array(shape, g)?);
        }
        Ok(all)
    }
}
