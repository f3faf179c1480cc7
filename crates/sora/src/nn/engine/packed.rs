//! Packed weights, kept until their content changes: the attack pass and the training pass of a
//! step share them, and so do all steps of PGD and all batches of an evaluation. Large forms are
//! packed for each use instead, into memory that they share, because the packed forms of the
//! deepest layers would take as much memory as all activations. Weights that stay the same over
//! many passes (an evaluation) are kept whatever their size.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sora_kernels::{
    Element, ElementType, ShapeError,
    conv::{Conv2d, ConvGeometry, Direction, PackedWeights},
};

use crate::profile::{self, Stage};

/// Number of (unpacked) weights from which on a form is packed for each use: the weights of a 3x3
/// convolution of 256 to 256 channels, which take 9 MiB packed for Winograd.
const LARGE: usize = 1 << 19;

/// Number of uses of a large form in one direction after which it is kept: more than the passes of
/// a training step of any usual method.
const USES: u32 = 64;

/// The convolution and direction for which weights are packed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Use {
    direction: Direction,
    geometry: ConvGeometry,
    /// Storage type of the activations.
    precision: ElementType,
}

/// A packed form, and the use that it was packed for.
type Form = (Use, Arc<PackedWeights>);

#[derive(Default)]
struct Cache {
    /// Forms of current contents, by version of the content.
    valid: HashMap<u64, Vec<Form>>,
    /// Forms of contents that have been replaced. Their memory serves the next forms, one per
    /// weight and direction.
    spent: Vec<Form>,
    /// How often large forms were packed, by version of the content.
    uses: HashMap<u64, Vec<(Use, u32)>>,
    /// The newest large forms that are not kept. Forms without a reader provide memory for the next
    /// ones.
    shared: Vec<Form>,
}

static CACHE: Mutex<Option<Cache>> = Mutex::new(None);

fn with_cache<T>(work: impl FnOnce(&mut Cache) -> T) -> T {
    work(CACHE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Cache::default))
}

/// Returns `weights`, whose content is identified by `version`, packed for `direction` of `conv`.
pub(super) fn packed<E: Element>(
    conv: &Conv2d<E>,
    weights: &[f32],
    direction: Direction,
    version: u64,
) -> Result<Arc<PackedWeights>, ShapeError> {
    let wanted = Use { direction, geometry: *conv.geometry(), precision: E::PRECISION };
    let is_it = |(found, _): &Form| *found == wanted;
    let found = with_cache(|cache| {
        cache.valid.get(&version)?.iter().find(|form| is_it(form)).map(|(_, packed)| packed.clone())
    });
    if let Some(found) = found {
        return Ok(found);
    }
    let once =
        weights.len() >= LARGE && !with_cache(|cache| is_worth_keeping(cache, version, wanted));
    let memory = with_cache(|cache| {
        let list = if once { &mut cache.shared } else { &mut cache.spent };
        // Any form with shared memory will do, because its memory grows to the largest form.
        let fits = |form: &Form| if once { Arc::strong_count(&form.1) == 1 } else { is_it(form) };
        let index = list.iter().position(fits)?;
        Arc::into_inner(list.swap_remove(index).1)
    });
    let fresh = profile::time(Stage::Pack, || {
        let mut packed = memory.unwrap_or_default();
        conv.pack_into(weights, direction, &mut packed).map(|()| Arc::new(packed))
    })?;
    let form = (wanted, fresh);
    Ok(with_cache(|cache| {
        let list = if once { &mut cache.shared } else { cache.valid.entry(version).or_default() };
        // Threads begin a pass together, so another may have kept the same form meanwhile.
        let kept = if once { None } else { list.iter().find(|form| is_it(form)) };
        let packed = kept.unwrap_or(&form).1.clone();
        if kept.is_none() {
            list.push(form);
        }
        packed
    }))
}

/// Counts a use of a large form.
fn is_worth_keeping(cache: &mut Cache, version: u64, wanted: Use) -> bool {
    let uses = cache.uses.entry(version).or_default();
    match uses.iter_mut().find(|(known, _)| *known == wanted) {
        Some((_, count)) => {
            *count += 1;
            *count > USES
        }
        None => {
            uses.push((wanted, 1));
            false
        }
    }
}

/// Declares that the content `version` has been replaced by another.
pub fn replaced(version: u64) {
    with_cache(|cache| {
        let forms = cache.valid.remove(&version).unwrap_or_default();
        // A large form was kept because its content stayed the same; the content that replaces it
        // is being trained.
        cache
            .spent
            .extend(forms.into_iter().filter(|(known, _)| weights_of(&known.geometry) < LARGE));
        cache.uses.remove(&version);
    });
}

fn weights_of(geometry: &ConvGeometry) -> usize {
    geometry.out_channels
        * (geometry.in_channels / geometry.groups.max(1))
        * geometry.kernel[0]
        * geometry.kernel[1]
}

/// Drops the forms that were packed from the content `version`, which no longer exists.
pub fn forget(version: u64) {
    with_cache(|cache| {
        let forms = cache.valid.remove(&version);
        // The network is gone with its weights, so the memory of its earlier contents has no
        // further use.
        forms
            .into_iter()
            .flatten()
            .for_each(|(gone, _)| cache.spent.retain(|(known, _)| *known != gone));
        cache.uses.remove(&version);
    });
}

#[cfg(test)]
mod tests {
    use sora_kernels::Isa;

    use super::*;

    fn conv(channels: usize) -> Conv2d<f32> {
        Conv2d::new(ConvGeometry::square(channels, channels, [4, 4], 3, 1), Isa::Portable).unwrap()
    }

    #[test]
    fn large_forms_share_memory_until_they_are_used_often() {
        // No tensor of this process has these versions.
        let (small, large) = (u64::MAX - 1, u64::MAX - 2);
        let narrow = conv(8);
        let weights = vec![0.5; narrow.weight_len()];
        let kept = |version: u64| with_cache(|cache| cache.valid.contains_key(&version));
        packed(&narrow, &weights, Direction::Forward, small).unwrap();
        assert!(kept(small));

        let wide = Conv2d::<f32>::new(ConvGeometry::square(LARGE, 1, [1, 1], 1, 1), Isa::Portable)
            .unwrap();
        let weights = vec![0.25; wide.weight_len()];
        for _ in 0..USES {
            packed(&wide, &weights, Direction::Forward, large).unwrap();
            assert!(!kept(large));
            let holds = |cache: &mut Cache| {
                cache.shared.iter().filter(|(known, _)| known.geometry == *wide.geometry()).count()
            };
            assert!(with_cache(holds) <= 1, "one memory serves every use");
        }
        packed(&wide, &weights, Direction::Forward, large).unwrap();
        assert!(kept(large));
        replaced(large);
        packed(&wide, &weights, Direction::Forward, large).unwrap();
        assert!(!kept(large), "a new content counts anew");
        replaced(large);
        forget(small);
    }

    #[test]
    fn threads_that_pack_together_keep_one_form() {
        let version = u64::MAX - 3;
        let conv = conv(16);
        let weights = vec![0.5; conv.weight_len()];
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    packed(&conv, &weights, Direction::Forward, version).unwrap();
                });
            }
        });
        assert_eq!(with_cache(|cache| cache.valid[&version].len()), 1);
        forget(version);
    }
}
