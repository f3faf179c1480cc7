//! The normalisation of an imported network: from a layer of the file, or from the caller.

use super::{ImportOptions, checkpoint::StoredTensor};
use crate::model::ModelConfig;

/// Last parts of the names of the mean and the standard deviation in normalisation layers.
const PAIRS: [[&str; 2]; 3] = [["mean", "std"], ["mu", "sigma"], ["new_mean", "new_std"]];
/// Words in the name of a normalisation layer that is not the network itself.
const LAYERS: [&str; 4] = ["norm", "pre", "transform", "data"];

/// Means and standard deviations in pixel space, and their source.
#[derive(Debug, PartialEq)]
pub(super) struct Normalisation {
    pub(super) mean: Vec<f32>,
    pub(super) std: Vec<f32>,
    pub(super) source: &'static str,
}

/// Whether the last part of `name` is that of a normalisation's value.
pub(super) fn is_value(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    PAIRS.iter().flatten().any(|known| *known == last)
}

/// The normalisation of the network whose tensors lie under `prefix`. `own` is the network as a file
/// of this program describes it.
///
/// # Errors
/// A description when no normalisation is known, or when the values fit neither pixels in [0, 1]
/// nor 0..255.
pub(super) fn find(
    entries: &[StoredTensor],
    prefix: &str,
    options: &ImportOptions,
    channels: usize,
    own: Option<&ModelConfig>,
) -> Result<Normalisation, String> {
    // One value stands for every channel.
    let each = |values: Vec<f32>| match values.as_slice() {
        &[value] => vec![value; channels.min(1 << 16)],
        _ => values,
    };
    if let Some([mean, std]) = options.normalisation.clone() {
        return in_pixel_space(each(mean), each(std), ["as given", "as given, for 0..255"]);
    }
    if let Some([mean, std]) = layer(entries, prefix) {
        for entry in [mean, std] {
            if ![Some(1), Some(channels)].contains(&entry.len()) {
                return Err(format!(
                    "its normalisation layer has {} with {} values, and images have {channels} \
                     channels; give `mean` and `std` in [0, 1]",
                    entry.name,
                    entry.len().unwrap_or(0)
                ));
            }
        }
        let read = |entry: &StoredTensor| entry.values().map(each).map_err(|e| e.to_string());
        return in_pixel_space(
            read(mean)?,
            read(std)?,
            [
                "from the file's normalisation layer",
                "from the file's normalisation layer, for 0..255",
            ],
        );
    }
    let is_own =
        |[mean, std]: &[Vec<f32>; 2]| own.is_some_and(|own| own.mean == *mean && own.std == *std);
    let source = match options.fallback.as_ref().is_some_and(is_own) {
        true => "from the file's metadata",
        false => "of the data set",
    };
    let [mean, std] = options.fallback.clone().ok_or(
        "has no normalisation layer; give `mean` and `std` in [0, 1], one value or one a channel \
         (mean 0 and std 1 for a network that takes pixels as they are), or `dataset` for the \
         set's own",
    )?;
    Ok(Normalisation { mean, std, source })
}

/// Converts values to pixels in [0, 1]: those for 0..255 are divided by 255. `sources` names both
/// cases.
fn in_pixel_space(
    mean: Vec<f32>,
    std: Vec<f32>,
    sources: [&'static str; 2],
) -> Result<Normalisation, String> {
    let largest = |values: &[f32]| values.iter().fold(0f32, |most, value| most.max(value.abs()));
    let smallest = std.iter().fold(f32::INFINITY, |least, value| least.min(*value));
    let bytes = smallest > 2.0 && (largest(&mean) > 1.0 || mean.iter().all(|mean| *mean == 0.0));
    if bytes && largest(&mean) <= 255.0 && largest(&std) <= 255.0 {
        let scaled = |values: Vec<f32>| values.into_iter().map(|value| value / 255.0).collect();
        return Ok(Normalisation { mean: scaled(mean), std: scaled(std), source: sources[1] });
    }
    if largest(&mean) > 1.0 || largest(&std) > 2.0 {
        return Err(format!(
            "a normalisation with mean {mean:?} and std {std:?} is for neither pixels in [0, 1] \
             nor 0..255; give `mean` and `std` in [0, 1]"
        ));
    }
    Ok(Normalisation { mean, std, source: sources[0] })
}

/// Finds mean and standard deviation of one layer before the network: a sibling of the network in a
/// wrapper, or one of its own layers.
fn layer<'a>(entries: &'a [StoredTensor], prefix: &str) -> Option<[&'a StoredTensor; 2]> {
    let value = |parent: &str, name: &str| {
        entries
            .iter()
            .find(|entry| entry.is_float() && entry.name.strip_prefix(parent) == Some(name))
    };
    let mut found: Vec<(usize, [&StoredTensor; 2])> = Vec::new();
    for [mean, std] in PAIRS {
        for entry in entries {
            let Some(parent) = entry.name.strip_suffix(mean) else { continue };
            let stands = parent.is_empty() || parent.ends_with('.');
            if !stands || !is_before(parent, prefix) {
                continue;
            }
            if let (Some(mean), Some(std)) = (value(parent, mean), value(parent, std)) {
                found.push((shared(parent, prefix), [mean, std]));
            }
        }
    }
    // Of several layers, the one nearest to the network is taken.
    found.into_iter().max_by_key(|(near, _)| *near).map(|(_, pair)| pair)
}

/// Whether a layer `parent` can stand before the network under `prefix`.
fn is_before(parent: &str, prefix: &str) -> bool {
    if prefix.starts_with(parent) {
        // The parent is the network itself, or its wrapper.
        return true;
    }
    let last = parent.trim_end_matches('.').rsplit('.').next().unwrap_or(parent).to_lowercase();
    LAYERS.iter().any(|word| last.contains(word)) || last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Number of letters that two prefixes share at their beginning.
fn shared(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [&str; 2] = ["unit", "bytes"];

    #[test]
    fn values_for_bytes_become_values_for_pixels() {
        let found = in_pixel_space(vec![125.0, 0.0], vec![63.75, 255.0], SOURCES).unwrap();
        assert_eq!((found.mean, found.std), (vec![125.0 / 255.0, 0.0], vec![0.25, 1.0]));
        assert_eq!(found.source, "bytes");
        let zero = in_pixel_space(vec![0.0], vec![255.0], SOURCES).unwrap();
        assert_eq!((zero.mean, zero.std), (vec![0.0], vec![1.0]));
        for (mean, std) in [(0.5, 0.25), (0.0, 1.0), (0.5, 1.0)] {
            let found = in_pixel_space(vec![mean], vec![std], SOURCES).unwrap();
            assert_eq!((found.mean, found.std, found.source), (vec![mean], vec![std], "unit"));
        }
        for (mean, std) in [(125.0, 0.25), (0.5, 63.0), (300.0, 60.0), (2.0, 1.0)] {
            assert!(in_pixel_space(vec![mean], vec![std], SOURCES).is_err(), "{mean} {std}");
        }
    }

    #[test]
    fn a_layer_before_the_network_is_told_from_parts_of_it() {
        for (parent, prefix, before) in [
            ("", "", true),
            ("model.0.", "model.1.", true),
            ("normalize.", "", true),
            ("state_dict.", "state_dict.model.", true),
            ("head.", "", false),
            ("model.tail.", "model.", false),
        ] {
            assert_eq!(is_before(parent, prefix), before, "{parent} {prefix}");
        }
    }
}
