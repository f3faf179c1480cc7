//! Packed weights, kept until their content changes: the attack pass and the training pass of a step share them, and so do all steps of PGD
//! and all batches of an evaluation.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sora_kernels::{
    ShapeError,
    conv::{Conv2d, ConvGeometry, Direction, PackedWeights},
};

/// The packed forms of one content.
type Forms = Vec<(Direction, ConvGeometry, Arc<PackedWeights>)>;

static PACKED: Mutex<Option<HashMap<u64, Forms>>> = Mutex::new(None);

fn with_packed<T>(work: impl FnOnce(&mut HashMap<u64, Forms>) -> T) -> T {
    work(PACKED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(HashMap::new))
}

/// `weights`, known as `version`, packed for `direction` of `conv`.
pub(super) fn packed(conv: &Conv2d, weights: &[f32], direction: Direction, version: u64) -> Result<Arc<PackedWeights>, ShapeError> {
    let geometry = *conv.geometry();
    let found = with_packed(|all| {
        let forms = all.get(&version)?;
        forms.iter().find(|(d, g, _)| (*d, *g) == (direction, geometry)).map(|(_, _, packed)| packed.clone())
    });
    if let Some(found) = found {
        return Ok(found);
    }
    let fresh = Arc::new(conv.pack(weights, direction)?);
    with_packed(|all| all.entry(version).or_default().push((direction, geometry, fresh.clone())));
    Ok(fresh)
}

/// Drops what was packed from the content `version`, which is no more.
pub fn forget(version: u64) {
    with_packed(|all| all.remove(&version));
}
