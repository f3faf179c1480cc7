//! Values of single images that ranks give each other.

use super::scope;
use crate::nn::HostTensor;

/// The rows of all ranks, in their order, and where those of this rank begin: as many on each.
pub(crate) fn rows(mine: Vec<f32>) -> (Vec<f32>, usize) {
    let Some(ranks) = scope::current() else { return (mine, 0) };
    let (place, len) = (ranks.link().rank() * mine.len(), mine.len() * ranks.world());
    let all: Vec<f32> = scope::gather_each(bytemuck::cast_slice(&mine).to_vec())
        .iter()
        .flat_map(|part| floats(part))
        .collect();
    // Cut short by a rank that cannot be reached, which the end of the step tells.
    if all.len() == len { (all, place) } else { (mine, 0) }
}

/// What the other ranks have of their images, `len` values each; `None` where there are none.
/// `of` gives what this rank has of one of its `ids`.
pub(crate) fn by_image<'a>(
    ids: &[u32],
    len: usize,
    of: impl Fn(&u32) -> Option<&'a [f32]>,
) -> Option<Vec<(u32, Vec<f32>)>> {
    let ranks = scope::current()?;
    let mut bytes = Vec::with_capacity(ids.len() * (1 + len) * size_of::<f32>());
    for id in ids {
        if let Some(values) = of(id) {
            bytes.extend_from_slice(&id.to_ne_bytes());
            bytes.extend_from_slice(bytemuck::cast_slice(values));
        }
    }
    let row = (1 + len) * size_of::<f32>();
    let mine = ranks.link().rank();
    let all = scope::gather_each(bytes);
    let others = all.iter().enumerate().filter(|(rank, _)| *rank != mine);
    let rows = others.flat_map(|(_, part)| part.chunks_exact(row)).filter_map(|row| {
        let (id, values) = row.split_first_chunk::<4>()?;
        Some((u32::from_ne_bytes(*id), floats(values)))
    });
    Some(rows.collect())
}

/// A tensor whose first dimension is the place in the batch, of the whole batch. Every rank must
/// ask.
pub(crate) fn whole_batch(part: HostTensor) -> HostTensor {
    let HostTensor { name, mut shape, data } = part;
    let (data, _) = rows(data);
    let row: usize = shape.iter().skip(1).product();
    if let Some(images) = shape.first_mut() {
        *images = data.len() / row.max(1);
    }
    HostTensor { name, shape, data }
}

/// The part of it that this rank works on.
pub(crate) fn part_of_batch(whole: &HostTensor) -> HostTensor {
    let Some(ranks) = scope::current() else { return whole.clone() };
    let len = whole.data.len() / ranks.world();
    let start = ranks.link().rank() * len;
    let mut shape = whole.shape.clone();
    if let Some(images) = shape.first_mut() {
        *images /= ranks.world();
    }
    let data = whole.data.get(start..start + len).unwrap_or_default().to_vec();
    HostTensor { name: whole.name.clone(), shape, data }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
}
