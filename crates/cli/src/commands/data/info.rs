//! `sora data info`.

use std::path::PathBuf;

use sora::data::{self, Info, OpenOptions};

use super::how_to_get;
use crate::{
    complete,
    console::{Table, no_such, print_json},
    error::Result,
};

/// Number of class names that are printed; the JSON has all of them.
const CLASSES: usize = 50;

/// Which set, and how to print.
#[derive(Debug, clap::Args)]
pub struct InfoArgs {
    /// Name, folder:PATH, imagefolder:PATH or the path of an image folder
    #[arg(add = complete::datasets())]
    pub name: String,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// Prints one set.
pub fn run(args: &InfoArgs) -> Result<()> {
    let info = match data::find(&args.name) {
        Some(info) => info,
        None => open(args)?,
    };
    if args.json { print_json(&info) } else { show(&info) }
}

fn open(args: &InfoArgs) -> Result<Info> {
    let is_path = args.name.contains([':', '/', '\\']) || std::path::Path::new(&args.name).exists();
    if !is_path {
        let known = data::registry();
        let known = known.iter().map(|info| info.name.as_str());
        return Err(no_such("data set", &args.name, known, "`sora data list` lists them all"));
    }
    let options = OpenOptions { data_dir: args.data_dir.clone(), ..Default::default() };
    Ok(data::open(&args.name, &options)?.info)
}

fn show(info: &Info) -> Result<()> {
    let mut table = Table::plain();
    table.row(["name", &info.name]);
    for (key, text) in facts(info) {
        table.row([key, &text]);
    }
    table.print()
}

/// Everything there is to say: a key and a text, some of several lines.
pub(super) fn facts(info: &Info) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("title", info.title.clone()),
        ("images", images(info)),
        ("classes", classes(info)),
        ("mean, std", normalisation(info)),
        ("augmentation", info.augment.to_string()),
        ("licence", info.licence.clone()),
        ("homepage", info.homepage.clone()),
        ("how to get", how_to_get(info)),
    ];
    for (kind, sources) in [("file", &info.sources), ("or", &info.also)] {
        for source in sources {
            let size =
                source.size.map_or("size not published".into(), |size| format!("{size} bytes"));
            facts.push((
                kind,
                format!("{}\n{}\n{size}, {}", source.file, source.url, source.checksum),
            ));
        }
    }
    facts
}

fn images(info: &Info) -> String {
    // The count is 0 where it depends on the files.
    let count = |n: usize| if n == 0 { "any number of".into() } else { n.to_string() };
    format!(
        "{}x{}x{}, {} train, {} test",
        info.channels,
        info.height,
        info.width,
        count(info.train),
        count(info.test)
    )
}

fn classes(info: &Info) -> String {
    let named = info.classes.iter().take(CLASSES).cloned().collect::<Vec<_>>().join(", ");
    match info.classes.len().saturating_sub(CLASSES) {
        0 => format!("{}: {named}", info.num_classes),
        more => format!("{}: {named} and {more} more (--json has all)", info.num_classes),
    }
}

fn normalisation(info: &Info) -> String {
    if info.mean.is_empty() {
        return "computed from the training images when opened".into();
    }
    let list =
        |values: &[f64]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
    format!("{}, {}", list(&info.mean), list(&info.std))
}
