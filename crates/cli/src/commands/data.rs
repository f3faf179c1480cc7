//! `sora data list|info|fetch`.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use sora::{
    data::{self, FetchOptions, Info, OpenOptions, Reader},
    error::{Error, Result},
};

use super::{print, print_json, print_table};

/// Every registered set.
pub fn list(data_dir: Option<&Path>, json: bool) -> Result<()> {
    let folder = data::data_dir(data_dir)?;
    let mut rows = vec![
        ["data set", "images", "classes", "train", "test", "here", "how to get it"]
            .map(String::from)
            .to_vec(),
    ];
    let mut object = Map::new();
    for info in data::registry() {
        // The sizes of a folder's images are known when it is opened.
        let of =
            |text: String| if info.channels == 0 || text == "0" { "-".to_owned() } else { text };
        let here = info.is_kept().then(|| info.is_here(&folder));
        rows.push(vec![
            info.name.clone(),
            of(format!("{}x{}x{}", info.channels, info.height, info.width)),
            of(info.num_classes.to_string()),
            of(info.train.to_string()),
            of(info.test.to_string()),
            here.map_or("-", |here| if here { "yes" } else { "no" }).into(),
            how_to_get(&info),
        ]);
        object.insert(info.name.clone(), json!({"title": info.title, "classes": info.num_classes, "shape": [info.channels, info.height, info.width], "train": info.train, "test": info.test, "here": here}));
    }
    if json {
        return print_json(&Value::Object(object));
    }
    print_table(&rows)?;
    print(
        "MedMNIST sets come in larger sizes, too: NAME-64, NAME-128, NAME-224. docs/datasets.md says where files go and how they are read.\n",
    )
}

/// One set.
pub fn info(name: &str, data_dir: Option<PathBuf>, json: bool) -> Result<()> {
    let info = match data::find(name) {
        Some(info) => info,
        None => data::open(name, &OpenOptions { data_dir, ..Default::default() })?.info,
    };
    if json {
        return print_json(&info);
    }
    let mut rows = vec![
        vec!["name".into(), info.name.clone()],
        vec!["title".into(), info.title.clone()],
        vec![
            "images".into(),
            format!(
                "{}x{}x{}, {} train, {} test",
                info.channels,
                info.height,
                info.width,
                count(info.train),
                count(info.test)
            ),
        ],
        vec!["classes".into(), format!("{}: {}", info.num_classes, info.classes.join(", "))],
        vec![
            "mean, std".into(),
            if info.mean.is_empty() {
                "computed from the training images when opened".into()
            } else {
                format!("{:?}, {:?}", info.mean, info.std)
            },
        ],
        vec!["augmentation".into(), info.augment.to_string()],
        vec!["licence".into(), info.licence.clone()],
        vec!["homepage".into(), info.homepage.clone()],
        vec!["how to get".into(), how_to_get(&info)],
    ];
    for (kind, sources) in [("file", &info.sources), ("or", &info.also)] {
        for source in sources {
            rows.push(vec![kind.into(), source.file.clone()]);
            rows.push(vec!["".into(), source.url.clone()]);
            let size =
                source.size.map_or("size not published".into(), |size| format!("{size} bytes"));
            rows.push(vec!["".into(), format!("{size}, {}", source.checksum)]);
        }
    }
    print_table(&rows)
}

/// The ways to get a set: a package of the system, a command, or where to ask.
fn how_to_get(info: &Info) -> String {
    let package = info.package.as_ref().map(|p| format!("`apt-get install {p}`"));
    let fetch = (!info.sources.is_empty()).then(|| format!("`sora data fetch {}`", info.name));
    match (package, fetch) {
        (Some(a), Some(b)) => format!("{a} or {b}"),
        (Some(a), None) | (None, Some(a)) => a,
        (None, None) => match info.reader {
            Reader::Synthetic => "nothing to get: drawn from the seed".into(),
            Reader::Folder => "your own images: `--dataset folder:PATH`".into(),
            Reader::ImageFolder => "your own images: `--dataset imagefolder:PATH`".into(),
            _ => format!("an account at {}, unpacked as docs/datasets.md says", info.homepage),
        },
    }
}

/// A number of images; 0 where it depends on the files.
fn count(n: usize) -> String {
    if n == 0 { "any number of".into() } else { n.to_string() }
}

/// Downloads one set.
pub fn fetch(name: &str, data_dir: Option<&Path>, mirror: Option<String>) -> Result<()> {
    let info = data::find(name).ok_or_else(|| {
        let known: Vec<_> = data::registry().into_iter().map(|info| info.name).collect();
        Error::input(format!(
            "data fetch '{name}': no such data set; choose one of {}",
            known.join(", ")
        ))
    })?;
    let folder = data::data_dir(data_dir)?;
    let bar: RefCell<Option<(String, ProgressBar)>> = RefCell::new(None);
    let show = |progress: data::Progress<'_>| {
        let mut slot = bar.borrow_mut();
        if slot.as_ref().is_none_or(|(file, _)| file != progress.file) {
            let bar =
                ProgressBar::new(progress.total.unwrap_or(0)).with_prefix(progress.file.to_owned());
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
            ) {
                bar.set_style(style);
            }
            *slot = Some((progress.file.to_owned(), bar));
        }
        if let Some((_, bar)) = slot.as_ref() {
            bar.set_position(progress.done);
        }
    };
    let paths = data::fetch(
        &info,
        &folder,
        &FetchOptions { base_url: mirror, progress: Some(&show), ..Default::default() },
    )?;
    drop(bar);
    paths.iter().try_for_each(|path| print(&format!("{}\n", path.display())))
}
