//! Class names in the files' metadata.

use parquet::file::metadata::ParquetMetaData;
use serde::Deserialize;

use super::shard::LABELS;
use crate::text::one_line;

/// The class names that the Hub writes into the metadata.
pub(super) fn class_names(metadata: &ParquetMetaData) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Hub {
        info: DatasetInfo,
    }
    #[derive(Deserialize)]
    struct DatasetInfo {
        features: std::collections::BTreeMap<String, serde_json::Value>,
    }
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|e| e.key == "huggingface")?.value.as_deref()?;
    let hub: Hub = serde_json::from_str(text).ok()?;
    let names =
        LABELS.iter().find_map(|label| hub.info.features.get(*label)?.get("names")?.as_array())?;
    let names: Vec<String> =
        names.iter().map(|n| n.as_str().map(one_line)).collect::<Option<_>>()?;
    (names.len() >= 2).then_some(names)
}
