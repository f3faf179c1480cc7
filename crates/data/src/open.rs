//! Opens a data set by its name.

use std::path::Path;

use crate::dataset::Dataset;
use crate::error::{DataError, Result};
use crate::info::{Info, Reader};
use crate::options::OpenOptions;
use crate::paths::{data_dir, expand_home};
use crate::registry::{find, in_size, registry};
use crate::source::{
    Parts, cifar, folder, idx, imagenet, imagenette, mat, npz, synthetic, tiny_imagenet,
};
use crate::split::Split;
use crate::text::one_line;

/// Opens the data set `spec`. `spec` is a [registered](registry) name, `synthetic:N` (N training
/// and N/5 test images), `folder:PATH`, `imagefolder:PATH`, or the path of an existing folder
/// (which means `folder:`); a registered name wins over a folder of that name.
///
/// The images of a folder lie in `PATH/train/CLASS/` and `PATH/test/CLASS/` as `.png`, `.jpg` or
/// `.jpeg` files; the sorted names of train's sub-folders are the classes. The images of an
/// `imagefolder:` may have any size. They lie in `PATH/train/CLASS/` and `PATH/val/CLASS/` or in
/// Parquet or WebDataset shards, and are decoded on demand.
///
/// Mean and standard deviation are the published ones where the registry has them (CIFAR-10;
/// ImageNet's for its family). Otherwise they are computed from the whole training split (from the
/// limited split, for sets that are decoded within the limits).
///
/// # Errors
/// [`DataError::Unknown`], [`DataError::Missing`] (with the command that gets the set),
/// [`DataError::Bad`] for a file that is not what it should be, [`DataError::Io`], and
/// [`DataError::Value`] for options out of range and for ChestMNIST, whose images have several
/// labels each.
pub fn open(spec: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    options.check()?;
    let (mut info, parts) = read(spec, options)?;
    if info.mean.is_empty() {
        (info.mean, info.std) = parts.train.channel_stats()?;
    }
    let cut = |split: Split, limit: Option<usize>| match limit {
        Some(n) if n < split.len() => split.take(n),
        _ => split,
    };
    let named = |split: Split| match info.classes.len() == split.num_classes() {
        true => split.with_class_names(info.classes.clone()),
        false => Ok(split),
    };
    let train = named(cut(parts.train, options.limit_train))?;
    let test = named(cut(parts.test, options.limit_test))?;
    [info.channels, info.height, info.width] = train.shape();
    (info.train, info.test) = (train.len(), test.len());
    Ok(Dataset { info, train: train.into(), test: test.into() })
}

fn read(spec: &str, options: &OpenOptions<'_>) -> Result<(Info, Parts)> {
    if let Some(path) = spec.strip_prefix("folder:") {
        return own("folder", path, options);
    }
    if let Some(path) = spec.strip_prefix("imagefolder:") {
        return own("imagefolder", path, options);
    }
    let (name, count) = match spec.split_once(':') {
        Some(("synthetic", count)) => ("synthetic", Some(count)),
        _ => (spec, None),
    };
    let Some(info) = find(name) else {
        if expand_home(Path::new(spec)).is_dir() {
            return own("folder", spec, options);
        }
        let known = registry().into_iter().map(|i| i.name).collect();
        return Err(DataError::Unknown { name: one_line(spec), known });
    };
    let mut info = in_the_size_wanted(info, options.image_size)?;
    let dir = || data_dir(options.data_dir.as_deref());
    let parts = match info.reader {
        Reader::Synthetic => synthetic::draw(&mut info, count, options)?,
        Reader::Folder | Reader::ImageFolder => {
            let expected = format!("a path: {}:PATH", info.name);
            return Err(DataError::value("data set", format!("'{}'", info.name), expected));
        }
        Reader::Idx => idx::open(&info, &dir()?)?,
        Reader::Npz | Reader::Findings => npz::open(&info, &dir()?, options)?,
        Reader::Mat => mat::open(&info, &dir()?)?,
        Reader::Cifar10 => cifar::open(&info, &dir()?, cifar::Layout::Cifar10)?,
        Reader::Cifar100 => cifar::open(&info, &dir()?, cifar::Layout::Cifar100)?,
        Reader::TinyImageNet => tiny_imagenet::open(&mut info, &dir()?, options)?,
        Reader::Imagenette => imagenette::open(&mut info, &dir()?, options)?,
        Reader::ImageNet => imagenet::open(&mut info, &dir()?, options)?,
    };
    Ok((info, parts))
}

/// Opens a folder of the user's own, of the registered kind `kind`.
fn own(kind: &str, path: &str, options: &OpenOptions<'_>) -> Result<(Info, Parts)> {
    let name = format!("{kind}:{path}");
    let mut info =
        find(kind).ok_or_else(|| DataError::value("data set", &name, "a registered kind"))?;
    info.title.clone_from(&name);
    info.name = name;
    let path = expand_home(Path::new(path));
    let parts = match info.reader {
        Reader::Folder => folder::open(&mut info, &path, options)?,
        _ => imagenet::open_path(&mut info, &path, options)?,
    };
    Ok((info, parts))
}

/// Whether the data set `spec` can be opened in square images of `size` pixels a side.
#[must_use]
pub fn comes_in(spec: &str, size: usize) -> bool {
    let name = match spec.split_once(':') {
        Some(("folder" | "imagefolder", _)) => return true,
        Some(("synthetic", _)) => "synthetic",
        _ => spec,
    };
    match find(name) {
        Some(info) => in_the_size_wanted(info, Some(size)).is_ok(),
        None => expand_home(Path::new(spec)).is_dir(),
    }
}

/// Returns the description of the set in images of `size` pixels, where it has them.
fn in_the_size_wanted(info: Info, size: Option<usize>) -> Result<Info> {
    let Some(size) = size.filter(|&size| size != info.height) else { return Ok(info) };
    let takes_any = matches!(
        info.reader,
        Reader::Synthetic
            | Reader::Folder
            | Reader::ImageNet
            | Reader::ImageFolder
            | Reader::Imagenette
    );
    match in_size(&info, size) {
        Some(other) => Ok(other),
        None if takes_any => Ok(info),
        None => {
            let sizes = match in_size(&info, info.height) {
                Some(_) => "28, 64, 128 or 224".into(),
                None => info.height.to_string(),
            };
            let expected = format!(
                "none, or {sizes}, for {}: only folder:, imagefolder:, synthetic and the ImageNet \
                 family take any",
                info.name
            );
            Err(DataError::value("image size", size, expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Remedy;

    #[test]
    fn the_sizes_that_a_set_comes_in_are_known_without_its_files() {
        for (spec, size, comes) in [
            ("cifar10", 32, true),
            ("cifar10", 64, false),
            ("pathmnist", 28, true),
            ("pathmnist", 64, true),
            ("pathmnist", 50, false),
            ("synthetic:100", 8, true),
            ("folder:anywhere", 48, true),
            ("imagefolder:anywhere", 224, true),
            ("nonesuch", 32, false),
        ] {
            assert_eq!(comes_in(spec, size), comes, "{spec} {size}");
        }
    }

    #[test]
    fn names_that_cannot_be_opened_say_what_to_do() {
        let nowhere = tempfile::tempdir().unwrap();
        let options = OpenOptions { data_dir: Some(nowhere.path().into()), ..Default::default() };
        let message = |spec: &str| open(spec, &options).unwrap_err().to_string();
        for (spec, wanted) in [
            (
                "nonesuch",
                "unknown data set 'nonesuch'; expected one of synthetic, fashion-mnist, mnist",
            ),
            ("mnist", "data set 'mnist' is not here"),
            ("cifar10", "data set 'cifar10' is not here"),
            ("pathmnist", "data set 'pathmnist' is not here"),
            ("tiny-imagenet", "data set 'tiny-imagenet' is not here"),
            ("svhn", "data set 'svhn' is not here"),
            ("pathmnist-224", "data set 'pathmnist-224' is not here"),
            ("chestmnist", "data set 'chestmnist' is not here"),
            ("chestmnist-64", "data set 'chestmnist-64' is not here"),
            ("imagenette", "data set 'imagenette' is not here"),
            ("imagenet100", "image-net.org"),
            ("imagenet", "image-net.org"),
            ("folder", "folder:PATH"),
            ("imagefolder", "imagefolder:PATH"),
            ("imagefolder:/nonexistent", "/nonexistent"),
            ("folder:/nonexistent", "/nonexistent"),
            ("synthetic:x", "synthetic:N"),
            ("synthetic:0", "synthetic:N"),
        ] {
            let text = message(spec);
            assert!(text.contains(wanted) && !text.contains('\n'), "{spec}: {text}");
        }
        assert!(message("mnist").contains(&*nowhere.path().to_string_lossy()));
        assert!(message("cifar-10").contains("did you mean 'cifar10'?"));
        for name in ["mnist", "chestmnist-64", "imagenette"] {
            let remedy = open(name, &options).unwrap_err().remedy();
            assert_eq!(remedy, Some(Remedy::Fetch { name: name.into() }));
        }
        assert_eq!(open("imagenet", &options).unwrap_err().remedy(), None);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for options in [
            OpenOptions { image_size: Some(0), ..Default::default() },
            OpenOptions { image_size: Some(5000), ..Default::default() },
            OpenOptions { limit_train: Some(0), ..Default::default() },
            OpenOptions { limit_test: Some(0), ..Default::default() },
        ] {
            assert!(open("synthetic", &options).unwrap_err().to_string().starts_with("wrong "));
        }
        let sized = OpenOptions { image_size: Some(32), ..Default::default() };
        assert!(open("mnist", &sized).unwrap_err().to_string().contains("28, for mnist"));
        let error = open("pathmnist", &OpenOptions { image_size: Some(50), ..Default::default() })
            .unwrap_err()
            .to_string();
        assert!(error.contains("28, 64, 128 or 224"), "{error}");
    }
}
