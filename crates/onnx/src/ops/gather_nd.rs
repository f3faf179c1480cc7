//! Blocks of a value at given places.

use super::{Attributes, Back, Inputs, Operator};
use crate::{
    error::{Outcome, problem},
    value::{Array, Value, array, elements, to_vec},
};

/// `GatherND`: for each row of the indices, the second input, the block of the value that it names.
/// The first `batch` axes are common to both.
#[derive(Debug)]
struct GatherNd {
    batch: i64,
}

pub(super) fn build(attributes: &Attributes<'_>) -> Outcome<Option<Box<dyn Operator>>> {
    Ok((attributes.kind() == "GatherND")
        .then(|| Box::new(GatherNd { batch: attributes.int("batch_dims", 0) }) as _))
}

/// Where the blocks lie in a value in row-major order.
struct Blocks {
    starts: Vec<usize>,
    size: usize,
    shape: Vec<usize>,
}

impl GatherNd {
    fn blocks(&self, inputs: &Inputs<'_>) -> Outcome<Blocks> {
        let (shape, indices) = (inputs.value(0)?.shape(), inputs.value(1)?.int()?);
        let Some((&depth, rows)) = indices.shape().split_last() else {
            problem!("expected indices of one axis or more")
        };
        let batch = usize::try_from(self.batch).unwrap_or(usize::MAX);
        if batch > rows.len() || batch.saturating_add(depth) > shape.len() || depth == 0 {
            problem!("indices of shape {:?} for shape {shape:?}", indices.shape());
        }
        if shape[..batch] != rows[..batch] {
            problem!("{batch} common axes, shapes {shape:?} and {:?}", indices.shape());
        }
        let size: usize = shape[batch + depth..].iter().product();
        let per_batch: usize = rows[batch..].iter().product();
        let sizes = &shape[batch..batch + depth];
        let mut starts = Vec::with_capacity(rows.iter().product());
        for (row, index) in to_vec(indices).chunks_exact(depth).enumerate() {
            let mut place = row / per_batch.max(1);
            for (&k, &size) in index.iter().zip(sizes) {
                let k = if k < 0 { k + size as i64 } else { k };
                match usize::try_from(k) {
                    Ok(k) if k < size => place = place * size + k,
                    _ => problem!("index {k} on an axis of {size}"),
                }
            }
            starts.push(place * size);
        }
        let shape = [rows, &shape[batch + depth..]].concat();
        elements(&shape)?;
        Ok(Blocks { starts, size, shape })
    }
}

impl Blocks {
    fn of<T: Clone>(&self, x: &Array<T>) -> Outcome<Array<T>> {
        let x = to_vec(x);
        let all = self.starts.iter().flat_map(|&start| x[start..start + self.size].iter().cloned());
        array(&self.shape, all.collect())
    }
}

impl Operator for GatherNd {
    fn forward(&self, inputs: &Inputs<'_>) -> Outcome<Vec<Value>> {
        let blocks = self.blocks(inputs)?;
        Ok(vec![match inputs.value(0)? {
            Value::Float(x) => Value::Float(blocks.of(x)?),
            Value::Int(x) => Value::Int(blocks.of(x)?),
            Value::Bool(x) => Value::Bool(blocks.of(x)?),
        }])
    }

    fn backward(&self, back: &mut Back<'_>) -> Outcome<Vec<Option<Array<f32>>>> {
        let blocks = self.blocks(&back.inputs)?;
        let shape = back.inputs.value(0)?.shape();
        let mut sums = vec![0.0; shape.iter().product()];
        let gradient = to_vec(back.gradient()?);
        for (&start, block) in blocks.starts.iter().zip(gradient.chunks(blocks.size.max(1))) {
            sums[start..start + blocks.size].iter_mut().zip(block).for_each(|(sum, g)| *sum += g);
        }
        Ok(back.only(Some(array(shape, sums)?)))
    }
}
