//! `--model-info NAME`: an entry of RobustBench's model zoo, `model_info/DATASET/NORM/NAME.json`
//! below the current folder, where its own `benchmark(..., to_disk=True)` writes it.
//!
//! What only the authors know (link, name, authors, venue, ...) stays as it is in a file that is
//! there already, and is left open in a new one.

use std::{fs, io::ErrorKind, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sora::{
    evaluate::Report,
    files,
    threat::{Epsilon, Norm},
};

use crate::{
    commands::shared::Judged,
    error::{Failure, Result},
};

/// Attacks that an entry is made of.
const NEEDED: [&str; 2] = ["clean", "autoattack"];

/// The fields of an entry, in the order of RobustBench's files.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    link: Option<String>,
    name: Option<String>,
    authors: Option<String>,
    additional_data: Option<bool>,
    number_forward_passes: Option<u64>,
    dataset: Option<String>,
    venue: Option<String>,
    architecture: Option<String>,
    eps: Option<String>,
    clean_acc: Option<String>,
    reported: Option<String>,
    autoattack_acc: Option<String>,
    footnote: Option<String>,
    unreliable: Option<bool>,
    /// What else an existing file holds.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// An entry to be written, whose place has been looked at.
#[derive(Debug)]
pub struct ModelInfo {
    path: PathBuf,
    entry: Entry,
}

impl ModelInfo {
    /// The entry called `name` of an evaluation under `attacks` of `images` of the data set
    /// `dataset`.
    ///
    /// # Errors
    /// A name that is none for a file, attacks that make no entry, a file of that name that is no
    /// entry.
    pub fn open(name: &str, attacks: &[String], dataset: &str, norm: Norm) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(Failure::input(format!(
                "--model-info '{name}': expected a name of letters, digits and -_.+, such as \
                 Doe2026Robust"
            )));
        }
        if let Some(missing) = NEEDED.iter().find(|needed| !attacks.iter().any(|a| a == *needed)) {
            return Err(Failure::input(format!(
                "--model-info: an entry of RobustBench has the accuracy under {missing}; add \
                 --suite autoattack"
            )));
        }
        // A folder of images is called by its own name.
        let set = dataset.rsplit([':', '/', '\\']).find(|part| !part.is_empty()).unwrap_or("data");
        let folder = match norm {
            Norm::Linf => "Linf",
            Norm::L2 => "L2",
            Norm::L1 => {
                let problem = "--model-info: RobustBench has entries in linf and l2, none in l1";
                return Err(Failure::input(problem));
            }
        };
        let path = PathBuf::from("model_info").join(set).join(folder).join(format!("{name}.json"));
        let entry = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Failure::input(format!(
                    "--model-info: {} is there and is no entry of RobustBench: {e}",
                    path.display()
                ))
            })?,
            Err(e) if e.kind() == ErrorKind::NotFound => Entry::default(),
            Err(e) => return Err(Failure::io("read", &path, &e)),
        };
        Ok(Self { path, entry: Entry { dataset: Some(set.to_owned()), ..entry } })
    }

    /// Writes the entry with the figures of `report`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(self, report: &Report, epsilon: &Epsilon, subject: &Judged) -> Result<()> {
        let Self { path, mut entry } = self;
        let percent = |attack| {
            let result = report.results.get(attack)?;
            Some(format!("{:.2}", 100.0 * result.accuracy.accuracy))
        };
        entry.eps = Some(epsilon.to_string());
        entry.clean_acc = percent("clean");
        entry.autoattack_acc = percent("autoattack");
        entry.reported = entry.reported.or_else(|| entry.autoattack_acc.clone());
        entry.unreliable = Some(!report.warnings.is_empty());
        // What imported weights were trained on, only their authors know.
        let ours = subject.about().filter(|about| about.method != "imported");
        let extra = ours.map(|about| !about.extra.is_empty());
        entry.additional_data = entry.additional_data.or(extra);
        entry.number_forward_passes = entry.number_forward_passes.or(Some(1));
        entry.architecture = entry.architecture.or_else(|| architecture(subject));
        let open = entry.open();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| Failure::io("create", folder, &e))?;
        }
        files::write_json(&path, &entry)?;
        let missing =
            if open.is_empty() { String::new() } else { format!("; fill in {}", open.join(", ")) };
        tracing::info!("RobustBench's entry, of {} images: {}{missing}", report.n, path.display());
        Ok(())
    }
}

impl Entry {
    /// What only the authors can say and nobody has said yet.
    fn open(&self) -> Vec<&'static str> {
        [
            ("link", self.link.is_none()),
            ("name", self.name.is_none()),
            ("authors", self.authors.is_none()),
            ("additional_data", self.additional_data.is_none()),
            ("venue", self.venue.is_none()),
            ("architecture", self.architecture.is_none()),
        ]
        .into_iter()
        .filter_map(|(field, open)| open.then_some(field))
        .collect()
    }
}

/// The network as RobustBench spells it; `None` for a network that is not ours.
fn architecture(subject: &Judged) -> Option<String> {
    let network = &subject.about()?.network;
    Some(spell(&network.name, network.width))
}

fn spell(name: &str, width: usize) -> String {
    let rest = |prefix| name.strip_prefix(prefix);
    if let Some(depth) = rest("dm-preact-resnet").or(rest("preact-resnet")) {
        let narrow = if width == 64 { String::new() } else { format!(" (width {width})") };
        format!("PreActResNet-{depth}{narrow}")
    } else if let Some(depth) = rest("resnet") {
        let narrow = if width == 64 { String::new() } else { format!(" (width {width})") };
        format!("ResNet-{depth}{narrow}")
    } else if let Some(sizes) = rest("dm-wideresnet-").or(rest("wideresnet-")) {
        // The width is 16 times the widening factor.
        let depth = sizes.split('-').next().unwrap_or(sizes);
        match width % 16 {
            0 => format!("WideResNet-{depth}-{}", width / 16),
            _ => format!("WideResNet-{depth} (width {width})"),
        }
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_spelt_as_in_the_model_zoo() {
        for (name, width, spelt) in [
            ("preact-resnet18", 64, "PreActResNet-18"),
            ("resnet50", 64, "ResNet-50"),
            ("resnet18", 8, "ResNet-18 (width 8)"),
            ("wideresnet-34-10", 160, "WideResNet-34-10"),
            ("wideresnet-34-10", 320, "WideResNet-34-20"),
            ("dm-wideresnet-70-16", 256, "WideResNet-70-16"),
            ("wideresnet-28-10", 8, "WideResNet-28 (width 8)"),
            ("vit-small", 384, "vit-small"),
        ] {
            assert_eq!(spell(name, width), spelt);
        }
    }

    #[test]
    fn what_makes_no_entry_is_refused() {
        let attacks = ["clean", "autoattack"].map(str::to_owned);
        let open = |name: &str, attacks: &[String]| {
            ModelInfo::open(name, attacks, "folder:data/birds", Norm::L2)
                .map(|info| info.path)
                .map_err(|e| crate::render::text(&e))
        };
        assert_eq!(open("A1", &attacks).unwrap(), PathBuf::from("model_info/birds/L2/A1.json"));
        for name in ["", "../A", "a/b", ".hidden"] {
            assert!(open(name, &attacks).unwrap_err().contains("--model-info"), "{name}");
        }
        assert!(open("A1", &attacks[..1]).unwrap_err().contains("autoattack"));
    }
}
