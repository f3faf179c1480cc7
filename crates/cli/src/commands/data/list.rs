//! `sora data list`.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use sora::data::{self, Info};

use crate::{
    console::{Table, print, print_json, wrap},
    error::Result,
};

/// Where to look, and how to print.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Where data sets are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// Prints every registered set.
pub fn run(args: &ListArgs) -> Result<()> {
    let folder = data::data_dir(args.data_dir.as_deref())?;
    let sets = data::registry();
    if args.json {
        let object: Map<String, Value> = sets
            .iter()
            .map(|info| (info.name.clone(), as_json(info, info.is_here(&folder))))
            .collect();
        return print_json(&Value::Object(object));
    }
    let mut table = Table::new(["data set", "images", "classes", "train", "test", "here"]);
    for info in &sets {
        // The sizes of a folder's images are not known before it is opened.
        let known = |text: String| {
            if info.channels == 0 || text == "0" { "-".to_owned() } else { text }
        };
        let here = info.is_kept().then(|| info.is_here(&folder));
        table.row([
            info.name.clone(),
            known(format!("{}x{}x{}", info.channels, info.height, info.width)),
            known(info.num_classes.to_string()),
            known(info.train.to_string()),
            known(info.test.to_string()),
            here.map_or("-", |here| if here { "yes" } else { "no" }).into(),
        ]);
    }
    table.print()?;
    print(&wrap(
        "\nMedMNIST sets come in larger sizes, too: NAME-64, NAME-128, NAME-224. `sora data info \
         NAME` says how to get a set, `sora data fetch NAME` gets it.\n",
    ))
}

fn as_json(info: &Info, here: bool) -> Value {
    json!({
        "title": info.title,
        "classes": info.num_classes,
        "shape": [info.channels, info.height, info.width],
        "train": info.train,
        "test": info.test,
        "here": info.is_kept().then_some(here),
    })
}
