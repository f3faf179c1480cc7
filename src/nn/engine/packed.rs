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

use crate::profile::{self, Part};

/// A packed form and what it was packed for.
type Form = (Direction, ConvGeometry, Arc<PackedWeights>);

#[derive(Default)]
struct Cache {
    /// By version of the content.
    valid: HashMap<u64, Vec<Form>>,
    /// Of contents that are no more: their memory serves the next ones, one a weight and direction.
    spent: Vec<Form>,
}

static CACHE: Mutex<Option<Cache>> = Mutex::new(None);

fn with_cache<T>(work: impl FnOnce(&mut Cache) -> T) -> T {
    work(CACHE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Cache::default))
}

/// `weights`, known as `version`, packed for `direction` of `conv`.
pub(super) fn packed(conv: &Conv2d, weights: &[f32], direction: Direction, version: u64) -> Result<Arc<PackedWeights>, ShapeError> {
    let geometry = *conv.geometry();
    let is_it = |(d, g, _): &Form| (*d, *g) == (direction, geometry);
    let found = with_cache(|cache| cache.valid.get(&version)?.iter().find(|form| is_it(form)).map(|(_, _, packed)| packed.clone()));
    if let Some(found) = found {
        return Ok(found);
    }
    let spent = with_cache(|cache| cache.spent.iter().position(is_it).map(|index| cache.spent.swap_remove(index).2));
    let fresh = profile::time(Part::Pack, || match spent.and_then(Arc::into_inner) {
        Some(mut packed) => conv.pack_into(weights, direction, &mut packed).map(|()| packed),
        None => conv.pack(weights, direction),
    })?;
    let fresh = Arc::new(fresh);
    with_cache(|cache| cache.valid.entry(version).or_default().push((direction, geometry, fresh.clone())));
    Ok(fresh)
}

/// Says that the content `version` is no more, and that another takes its place.
pub fn replaced(version: u64) {
    with_cache(|cache| {
        let forms = cache.valid.remove(&version).unwrap_or_default();
        cache.spent.extend(forms);
    });
}

/// Drops what was packed from the content `version`, which is no more.
pub fn forget(version: u64) {
    with_cache(|cache| {
        let forms = cache.valid.remove(&version);
        // The network is gone with its weights: what its earlier contents left behind waits for nobody.
        forms.into_iter().flatten().for_each(|(direction, geometry, _)| cache.spent.retain(|(d, g, _)| (*d, *g) != (direction, geometry)));
    });
}
