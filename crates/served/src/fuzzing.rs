//! Readers of what programs and servers send by its bytes, for the fuzz targets of the repository
//! (`fuzz/`), which build this crate with `--cfg fuzzing`, and for the test that replays their seeds.
//! No part of the library.
#![allow(missing_docs)]

use crate::{Description, Options, inference::Metadata, npy, process};

/// What a model sends: by the first byte its description, an array, the metadata of an inference
/// server and, behind a zero byte, its answer, or all that a program writes. It is read or refused.
pub fn served_messages(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    match how % 4 {
        0 => {
            let Ok(found) = Description::read(&String::from_utf8_lossy(rest)) else { return };
            assert!(found.seen().classes >= 2 && found.check_labels(&[f32::NAN]).is_err());
        }
        1 => array(rest),
        2 => inference(rest),
        _ => process::read_all(rest, |description, n, values| {
            assert_eq!(values, description.answer_shape(n).iter().product::<usize>());
        }),
    }
}

fn array(bytes: &[u8]) {
    let Ok((shape, values)) = npy::read(bytes) else { return };
    assert_eq!(shape.iter().product::<usize>(), values.len(), "an array of another size");
    // Longer ones than messages have would not fit a header.
    if shape.len() > 8 {
        return;
    }
    let (again, same) = npy::read(&npy::write(&shape, &values)).unwrap_or_default();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(
        again == shape && bits(&same) == bits(&values),
        "an array is not what is written of it"
    );
}

fn inference(bytes: &[u8]) {
    let cut = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let Ok(metadata) = serde_json::from_slice::<Metadata>(&bytes[..cut]) else { return };
    let options = Options { image_size: Some([4, 4]), ..Options::default() };
    let Ok((description, names)) = metadata.read(&options) else { return };
    assert!(names.request(&[0.5], [1; 4]).is_ok());
    if let Ok((shape, values)) = names.answer(bytes.get(cut + 1..).unwrap_or_default())
        && description.fits(&shape, 2).is_ok()
    {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "an answer of another size");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// See `fuzz/seeds` (not in the published package).
    #[test]
    fn every_seed_of_the_fuzz_target_is_read_or_refused() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        if !seeds.is_dir() {
            return;
        }
        let files: Vec<_> = fs::read_dir(seeds.join("served_messages")).unwrap().collect();
        assert!(!files.is_empty());
        for file in files {
            served_messages(&fs::read(file.unwrap().path()).unwrap());
        }
    }
}
