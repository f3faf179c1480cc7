//! The library's values as words of the command line.
//!
//! A word is read into the library's type by its serde name, so that a flag and a config file
//! accept the same words.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::de::{DeserializeOwned, IntoDeserializer, value::Error};

/// The words for a value, each with its meaning in one line.
pub type Words = &'static [(&'static str, &'static str)];

/// Norms of a threat.
pub const NORMS: Words = &[
    ("linf", "largest absolute change of any value"),
    ("l2", "Euclidean length over all values of an image"),
    ("l1", "sum of the absolute changes over all values of an image"),
];
/// Activation functions.
pub const ACTIVATIONS: Words = &[
    ("relu", "max(x, 0)"),
    ("gelu", "x Phi(x), exact"),
    ("silu", "x sigmoid(x)"),
    ("softplus", "log(1 + exp x)"),
];
/// What a projection shortcut of a pre-activation network takes.
pub const SHORTCUTS: Words = &[
    ("input", "the block's input"),
    ("activated", "the block's input behind its first norm and activation"),
];
/// The first layers of a ResNet.
pub const STEMS: Words = &[
    ("cifar", "a 3x3 convolution at full resolution"),
    ("imagenet", "a 7x7 convolution of stride 2 and a max pool"),
];
/// Storage and products of activations.
pub const PRECISIONS: Words = &[
    ("f32", "single precision throughout"),
    ("tf32", "products with 11 significant bits, stored in f32 (CUDA only)"),
    ("bf16", "bfloat16 where a layer's result is stored; sums are f32"),
];
/// What computes the layers.
pub const BACKENDS: Words =
    &[("engine", "the CPU engine (CPU only)"), ("burn", "Burn's own operations (any device)")];
/// Planes of a loss landscape.
pub const PLANES: Words = &[
    ("gradient-random", "the gradient's direction and a random one"),
    ("fgsm-pgd", "the perturbations that fgsm and pgd-10 find"),
];
/// Sizes of a recipe.
pub const SCALES: Words = &[
    ("smoke", "minutes: shows that everything works, not what the paper claims"),
    ("small", "an hour or so on two cores: narrow networks, parts of the data"),
    ("full", "the paper's setting"),
];

/// Reads one of `words` into a `T`.
pub fn one_of<T>(words: Words) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    let possible = words.iter().map(|(word, help)| PossibleValue::new(*word).help(*help));
    PossibleValuesParser::new(possible).try_map(|word: String| value(&word))
}

/// The value that is called `word`.
///
/// # Errors
/// A word that the library does not know.
pub fn value<T: DeserializeOwned>(word: &str) -> Result<T, Error> {
    T::deserialize(word.into_deserializer())
}

#[cfg(test)]
mod tests {
    use sora::{
        config::Precision,
        model::{Shortcut, Stem},
        nn::{Activation, Backend},
        run::recipe::Scale,
        threat::Norm,
    };

    use super::*;

    #[test]
    fn the_library_knows_every_word() {
        fn all<T: DeserializeOwned>(words: Words) {
            for (word, help) in words {
                assert!(value::<T>(word).is_ok(), "{word}");
                assert!(!help.is_empty());
            }
            assert!(value::<T>("magic").is_err());
        }
        all::<Norm>(NORMS);
        all::<Activation>(ACTIVATIONS);
        all::<Precision>(PRECISIONS);
        all::<Shortcut>(SHORTCUTS);
        all::<Stem>(STEMS);
        all::<Backend>(BACKENDS);
        all::<Scale>(SCALES);
    }
}
