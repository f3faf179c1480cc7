//! The identity of an evaluation: all values that decide its result.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    attack::Entry,
    threat::{Norm, Threat},
};

/// The identity of a network: its values and how they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsIdentity {
    /// SHA-256 of all weights and buffers, in hexadecimal.
    pub sha256: String,
    /// The training step at which the weights were taken.
    #[serde(default)]
    pub step: Option<u64>,
    /// Which of a run's weights: `final`, `best` or `step 1200`; empty where there is only one set.
    #[serde(default)]
    pub which: String,
    /// The network with its normalisation and every option, as text.
    #[serde(default)]
    pub network: String,
}

/// The identity of the images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataIdentity {
    /// Name of the data set.
    pub name: String,
    /// Split of the data set.
    pub split: String,
    /// SHA-256 of every image and every label in their order, in hexadecimal.
    pub sha256: String,
    /// Number of images.
    pub images: usize,
    /// Class names in the order of the labels; empty where the classes have no names.
    #[serde(default)]
    pub classes: Vec<String>,
}

/// All values that decide the result of an evaluation. Kept results are reused, and shown as a
/// network's results, only where the identities are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The program with its version.
    pub program: String,
    /// The network.
    pub weights: WeightsIdentity,
    /// The images.
    pub data: DataIdentity,
    /// Norm of the threat.
    pub norm: Norm,
    /// Epsilon in pixel units; identities compare all its bits.
    pub epsilon: f32,
    /// Seed of the random draws.
    pub seed: u64,
    /// Further settings that decide the results, such as `eight-bit` or `target 3`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Attacks with their options, in order. Empty in the state of an evaluation, which keeps the
    /// results of each attack separately.
    #[serde(default)]
    pub attacks: Vec<String>,
}

impl Identity {
    /// The identity of an evaluation by `program` of `weights` on `data`.
    pub fn new(
        program: impl Into<String>,
        weights: WeightsIdentity,
        data: DataIdentity,
        threat: Threat,
        seed: u64,
    ) -> Self {
        let Threat { norm, epsilon } = threat;
        Self {
            program: program.into(),
            weights,
            data,
            norm,
            epsilon,
            seed,
            options: Vec::new(),
            attacks: Vec::new(),
        }
    }

    /// The identity of the same evaluation under another threat.
    #[must_use]
    pub fn under(&self, threat: Threat) -> Self {
        Self { norm: threat.norm, epsilon: threat.epsilon, ..self.clone() }
    }

    /// The identity of the same evaluation with these attacks.
    #[must_use]
    pub fn with_attacks(&self, entries: &[Entry]) -> Self {
        Self { attacks: entries.iter().map(Entry::description).collect(), ..self.clone() }
    }

    /// SHA-256 of the whole identity, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        part("sora evaluation 1");
        let Self { program, weights, data, norm, epsilon, seed, options, attacks } = self;
        let WeightsIdentity { sha256, step, which, network } = weights;
        [program, sha256, which, network].into_iter().for_each(|text| part(text));
        part(&format!("{step:?}"));
        let DataIdentity { name, split, sha256, images, classes } = data;
        [name, split, sha256].into_iter().for_each(|text| part(text));
        part(&format!("{images} {norm} {:08x} {seed}", epsilon.to_bits()));
        for list in [classes, options, attacks] {
            part(&list.len().to_string());
            list.iter().for_each(|text| part(text));
        }
        hex(&hash.finalize())
    }

    /// The first ten digits of [`digest`](Self::digest), for names of files.
    pub fn short(&self) -> String {
        self.digest().chars().take(10).collect()
    }

    /// Says how this evaluation differs from `before`, in words; `None` where both are the same.
    pub fn difference(&self, before: &Self) -> Option<String> {
        let of = |what: &str, now: &str, then: &str| Some(format!("{what} {now}, {then} before"));
        let (weights, old) = (&self.weights, &before.weights);
        let (data, images) = (&self.data, &before.data);
        if self == before {
            None
        } else if self.program != before.program {
            of("program", &self.program, &before.program)
        } else if weights.network != old.network {
            Some("another network or normalisation".into())
        } else if weights != old {
            Some("other weights".into())
        } else if data.name != images.name || data.split != images.split {
            let name = |data: &DataIdentity| format!("{} {}", data.name, data.split);
            of("data set", &name(data), &name(images))
        } else if data.images != images.images {
            Some(format!("{} images, {} before", data.images, images.images))
        } else if data.classes != images.classes {
            Some("other class names".into())
        } else if data != images {
            Some("other images or labels".into())
        } else if self.norm != before.norm || self.epsilon.to_bits() != before.epsilon.to_bits() {
            let threat = |it: &Self| format!("{} {}", it.norm, it.epsilon);
            of("threat", &threat(self), &threat(before))
        } else if self.seed != before.seed {
            of("seed", &self.seed.to_string(), &before.seed.to_string())
        } else if self.options != before.options {
            Some("other options".into())
        } else {
            Some("other attacks".into())
        }
    }
}

/// SHA-256 of labelled images, one after another.
#[derive(Default)]
pub(crate) struct Images(Sha256);

impl Images {
    pub fn add(&mut self, label: usize, pixels: &[f32]) {
        self.0.update((label as u64).to_le_bytes());
        self.0.update((pixels.len() as u64).to_le_bytes());
        let bytes: Vec<u8> = pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.update(bytes);
    }

    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::attack::entry;

    pub fn identity() -> Identity {
        Identity::new(
            "program 1",
            WeightsIdentity {
                sha256: "ab".into(),
                step: Some(3),
                which: "final".into(),
                network: "linear mean=0.5".into(),
            },
            DataIdentity {
                name: "set".into(),
                split: "test".into(),
                sha256: "cd".into(),
                images: 7,
                classes: vec!["a".into(), "b".into()],
            },
            Threat { norm: Norm::Linf, epsilon: 8.0 / 255.0 },
            5,
        )
    }

    /// One example for each way in which two evaluations can differ.
    pub fn others() -> Vec<(&'static str, Identity)> {
        let changed = |change: fn(&mut Identity)| {
            let mut identity = identity();
            change(&mut identity);
            identity
        };
        vec![
            ("program", changed(|i| i.program = "program 2".into())),
            ("weights", changed(|i| i.weights.sha256 = "ac".into())),
            ("step", changed(|i| i.weights.step = Some(4))),
            ("no step", changed(|i| i.weights.step = None)),
            ("which", changed(|i| i.weights.which = "best".into())),
            ("network", changed(|i| i.weights.network = "linear mean=0.25".into())),
            ("set", changed(|i| i.data.name = "other".into())),
            ("split", changed(|i| i.data.split = "train".into())),
            ("images", changed(|i| i.data.sha256 = "ce".into())),
            ("count", changed(|i| i.data.images = 8)),
            ("class", changed(|i| i.data.classes[1] = "c".into())),
            ("classes joined", changed(|i| i.data.classes = vec!["ab".into()])),
            ("norm", changed(|i| i.norm = Norm::L2)),
            ("epsilon", changed(|i| i.epsilon = i.epsilon.next_up())),
            ("seed", changed(|i| i.seed = 6)),
            ("option", changed(|i| i.options = vec!["eight-bit".into()])),
        ]
    }

    #[test]
    fn each_ingredient_changes_the_digest_and_is_named() {
        let own = identity();
        assert_eq!((own.difference(&own), own.short().len()), (None, 10));
        let mut digests = vec![own.digest()];
        for (what, other) in others() {
            assert!(other.difference(&own).is_some(), "{what}");
            digests.push(other.digest());
        }
        let entries = |names: &[&str]| {
            names.iter().map(|name| entry(name, Norm::Linf).unwrap()).collect::<Vec<_>>()
        };
        for names in
            [&["clean"][..], &["pgd-10"], &["pgd-10x2"], &["pgd-10", "clean"], &["clean", "pgd-10"]]
        {
            digests.push(own.with_attacks(&entries(names)).digest());
        }
        let count = digests.len();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn an_identity_comes_back_from_json_to_the_bit() {
        let own = Identity { epsilon: f32::from_bits(0x3d00_8081), ..identity() };
        let back: Identity = serde_json::from_str(&serde_json::to_string(&own).unwrap()).unwrap();
        assert_eq!((back.digest(), back.epsilon.to_bits()), (own.digest(), own.epsilon.to_bits()));
    }
}
