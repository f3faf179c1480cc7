//! `sora report`.

use sora::{
    error::{Error, Result},
    report::{self, ReportOptions, records::Run},
};

use super::{plot::options, print};
use crate::cli::ReportArgs;

/// Writes the page and its figures.
pub fn report(args: &ReportArgs) -> Result<()> {
    let out = match (&args.out, args.runs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [run]) => run.clone(),
        (None, runs) => {
            return Err(Error::input(format!(
                "--out is missing: a report on {} runs belongs to none of their folders",
                runs.len()
            )));
        }
    };
    if out.is_file() {
        return Err(Error::input(format!(
            "--out {}: is a file; expected a folder, it is made if it is not there",
            out.display()
        )));
    }
    let runs = Run::load_all(&args.runs)?;
    let options = ReportOptions {
        compute: (!args.no_compute).then(|| options(&args.compute)),
        index: args.index,
        title: args.title.clone(),
        png: args.png,
    };
    let page = report::write(&runs, &out, &options)?;
    for warning in report::warnings(&runs) {
        tracing::warn!("{}: {}", warning.run, warning.text);
    }
    print(&format!("{}\n", page.display()))
}
