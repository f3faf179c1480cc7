//! `sora data fetch`.

use std::{cell::RefCell, path::PathBuf};

use sora::data::{self, FetchOptions};

use crate::{
    complete,
    console::{Bar, no_such, print},
    error::Result,
};

/// Which set, from where to where.
#[derive(Debug, clap::Args)]
pub struct FetchArgs {
    /// Name, see `sora data list`
    #[arg(add = complete::dataset_names())]
    pub name: String,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A mirror: files are fetched from URL/FILE instead of the official address
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
}

/// Downloads one set.
pub fn run(args: FetchArgs) -> Result<()> {
    let info = data::find(&args.name).ok_or_else(|| {
        let known = data::registry();
        let known = known.iter().map(|info| info.name.as_str());
        no_such("data set", &args.name, known, "`sora data list` lists them all")
    })?;
    let folder = data::data_dir(args.data_dir.as_deref())?;
    let bar: RefCell<Option<(String, Bar)>> = RefCell::new(None);
    let show = |progress: data::FetchProgress<'_>| {
        let mut slot = bar.borrow_mut();
        if slot.as_ref().is_none_or(|(file, _)| file != progress.file) {
            *slot = Some((progress.file.to_owned(), Bar::bytes(progress.file, progress.total)));
        }
        if let Some((_, bar)) = slot.as_mut() {
            bar.set(progress.done, String::new);
        }
    };
    let options =
        FetchOptions { base_url: args.mirror, progress: Some(&show), ..Default::default() };
    let paths = data::fetch(&info, &folder, &options)?;
    drop(bar);
    paths.iter().try_for_each(|path| print(&format!("{}\n", path.display())))
}
