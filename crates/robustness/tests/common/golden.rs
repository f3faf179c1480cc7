//! Values computed by independent scripts.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};

/// A golden file made by `scripts/golden/make.py`.
pub struct Golden {
    name: String,
    values: BTreeMap<String, Vec<f32>>,
    pub labels: BTreeMap<String, Vec<usize>>,
}

impl Golden {
    pub fn load(name: &str) -> Self {
        let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (mut values, mut labels) = (BTreeMap::new(), BTreeMap::new());
        for (key, view) in file.iter() {
            if view.dtype() == Dtype::I64 {
                let data = view.data().as_chunks::<8>().0.iter();
                labels.insert(
                    key.to_owned(),
                    data.map(|b| i64::from_le_bytes(*b) as usize).collect(),
                );
            } else {
                let data = view.data().as_chunks::<4>().0.iter();
                values.insert(key.to_owned(), data.map(|b| f32::from_le_bytes(*b)).collect());
            }
        }
        Self { name: name.to_owned(), values, labels }
    }

    #[track_caller]
    pub fn values(&self, key: &str) -> &[f32] {
        self.values.get(key).unwrap_or_else(|| panic!("{}: no tensor '{key}'", self.name))
    }

    /// Asserts that `found` agrees within `tolerance` relative to the largest expected value.
    #[track_caller]
    pub fn check(&self, key: &str, found: &[f32], tolerance: f32) {
        let expected = self.values(key);
        assert_eq!(found.len(), expected.len(), "{} {key}", self.name);
        let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= tolerance * largest.max(f32::MIN_POSITIVE),
                "{} {key}[{i}]: {found} instead of {expected}",
                self.name
            );
        }
    }
}
