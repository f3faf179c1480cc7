//! Finds which tensors of a file belong to a network: under which prefix, and in which of several
//! copies.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::StoredTensor;
use crate::model::NetworkInfo;

/// The tensors under one prefix, by the network's names.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    /// The text before the names, with its last dot.
    pub(super) prefix: String,
    pub(super) weights: BTreeMap<String, &'a StoredTensor>,
}

impl Candidate<'_> {
    /// Shape of the tensor with the network's name `name`.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.weights.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Whether the prefix belongs to a running average of weights or to a part of an optimizer's
    /// state.
    fn is_average(&self) -> bool {
        const WORDS: [&str; 8] =
            ["ema", "swa", "avg", "averag", "optim", "momentum", "shadow", "teacher"];
        words(&self.prefix).iter().any(|word| WORDS.iter().any(|known| word.starts_with(known)))
    }

    /// Whether both hold the same numbers under two names, as a module and its wrapper do.
    fn is_alias_of(&self, other: &Self) -> bool {
        self.weights.len() == other.weights.len()
            && self.weights.iter().all(|(name, entry)| {
                other.weights.get(name).is_some_and(|other| entry.is_alias_of(other))
            })
    }
}

/// The words of a name in lower case: `modelEMA_state` has model, ema, state.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in name.chars() {
        let begins = letter.is_uppercase() && before.is_lowercase();
        if (begins || !letter.is_alphanumeric()) && words.last().is_some_and(|w| !w.is_empty()) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (letter.is_alphanumeric(), words.last_mut()) {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    words
}

/// The result of a search for a network's tensors.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// One set of tensors, and the prefixes of copies beside it.
    One(Candidate<'a>, Vec<String>),
    /// Several sets, none of which can be preferred; their prefixes.
    Several(Vec<String>),
    /// No set.
    Nothing,
}

/// Finds the tensors of the network in a file: under `wanted`, or else the longest list that
/// belongs to no average and no optimizer.
pub(super) fn find<'a>(
    entries: &'a [StoredTensor],
    info: &NetworkInfo,
    wanted: Option<&str>,
) -> Found<'a> {
    let mut all = candidates(entries, info);
    if let Some(wanted) = wanted {
        let wanted = wanted.trim_end_matches('.');
        let chosen = all.iter().position(|found| found.prefix.trim_end_matches('.') == wanted);
        return match chosen {
            Some(index) => Found::One(all.swap_remove(index), Vec::new()),
            None => Found::Several(all.into_iter().map(|found| found.prefix).collect()),
        };
    }
    // A wrapper's other parts lie under the same prefix or under none, so the longest list is the
    // network's own.
    let longest = all.iter().map(|found| found.weights.len()).max().unwrap_or(0);
    let (whole, partial): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|found| found.weights.len() == longest);
    let (averages, mut own): (Vec<_>, Vec<_>) = whole.into_iter().partition(Candidate::is_average);
    // A list that is longer only by an average's counters is not better than the network's own.
    own.extend(partial.into_iter().filter(|found| {
        !averages.is_empty()
            && !found.is_average()
            && averages.iter().all(|average| covers(&found.weights, &average.weights))
    }));
    if own.is_empty() {
        own = averages.clone();
    }
    own.sort_by_key(|found| found.prefix.len());
    let mut distinct: Vec<Candidate<'a>> = Vec::new();
    for found in own {
        if !distinct.iter().any(|known| found.is_alias_of(known)) {
            distinct.push(found);
        }
    }
    let prefixes = |all: &[Candidate<'_>]| all.iter().map(|found| found.prefix.clone()).collect();
    match distinct.len() {
        0 => Found::Nothing,
        1 => {
            let chosen = distinct.swap_remove(0);
            let mut copies: Vec<String> = prefixes(&averages);
            copies.retain(|prefix| *prefix != chosen.prefix);
            Found::One(chosen, copies)
        }
        _ => Found::Several(prefixes(&distinct)),
    }
}

/// Whether `weights` has all tensors of `other` except counters.
fn covers(
    weights: &BTreeMap<String, &StoredTensor>,
    other: &BTreeMap<String, &StoredTensor>,
) -> bool {
    other.iter().all(|(name, entry)| !entry.is_float() || weights.contains_key(name))
}

/// Finds every prefix under which the file has the weight that gives the network's width.
fn candidates<'a>(entries: &'a [StoredTensor], info: &NetworkInfo) -> Vec<Candidate<'a>> {
    let prefixes: BTreeSet<&str> = entries
        .iter()
        .filter_map(|entry| entry.name.strip_suffix(info.width_from))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .collect();
    let under = |prefix: &str| -> BTreeMap<String, &'a StoredTensor> {
        entries
            .iter()
            .filter_map(|entry| Some((renamed(entry.name.strip_prefix(prefix)?, info), entry)))
            .collect()
    };
    prefixes
        .into_iter()
        .map(|prefix| Candidate { prefix: prefix.to_owned(), weights: under(prefix) })
        .collect()
}

/// The network's name for a file's name.
fn renamed(name: &str, info: &NetworkInfo) -> String {
    info.aliases.iter().fold(name.to_owned(), |name, (from, to)| match from.strip_prefix('.') {
        // The text may occur anywhere in the name, or at its beginning.
        Some(_) => name.replace(from, to),
        None => name.strip_prefix(from).map_or(name.clone(), |rest| format!("{to}{rest}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_known_in_any_spelling() {
        for (prefix, average) in [
            ("EMA.", true),
            ("modelEma.", true),
            ("model_ema.", true),
            ("state_dict-averaged.", true),
            ("swa_model.module.", true),
            ("optimizer.state.", true),
            ("schema.", false),
            ("model.", false),
            ("state_dict-best.", false),
        ] {
            let candidate = Candidate { prefix: prefix.into(), weights: BTreeMap::new() };
            assert_eq!(candidate.is_average(), average, "{prefix}");
        }
    }
}
