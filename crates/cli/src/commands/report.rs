//! `sora report`: one page on one or more runs.

use std::path::{Path, PathBuf};

use sora::report::{self, FileKind, Formats, ReportOptions, Runs, compute::Plane};

use super::shared::ComputeArgs;
use crate::{
    complete,
    console::print,
    error::{Failure, Result},
    output_file::{Content, Overwrite, guard},
    values::{PLANES, one_of},
};

/// Which runs, and what the page holds.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Run folders; others are passed over
    #[arg(required = true, add = complete::runs())]
    pub runs: Vec<PathBuf>,
    /// Folder to write report.html, plots/ and csv/ to [default: the run folder, if there is one run]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Overwrite files that another program wrote
    #[arg(long, help_heading = "Output")]
    pub force: bool,
    /// Only what the records hold: no figure that needs the data set and the weights
    #[arg(long, help_heading = "Output")]
    pub no_compute: bool,
    /// Heading of the page
    #[arg(long, help_heading = "Output")]
    pub title: Option<String>,
    /// PNG files as well
    #[arg(long, help_heading = "Output")]
    pub png: bool,
    /// Plane of the loss landscapes
    #[arg(
        long,
        value_parser = one_of::<Plane>(PLANES),
        default_value = "gradient-random",
        help_heading = "Data"
    )]
    pub plane: Plane,
    /// Test image of the loss landscapes, from 0
    #[arg(long, value_name = "I", default_value_t = 0, help_heading = "Data")]
    pub index: usize,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Writes the page and its figures.
pub fn run(args: &ReportArgs) -> Result<()> {
    let out = match (&args.out, args.runs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [run]) => run.clone(),
        (None, runs) => {
            return Err(Failure::input(format!(
                "--out is missing: a report on {} runs belongs to none of their folders",
                runs.len()
            )));
        }
    };
    if out.is_file() {
        return Err(Failure::input(format!(
            "--out {}: is a file; expected a folder, it is made if it is not there",
            out.display()
        )));
    }
    let options = ReportOptions {
        compute: if args.no_compute { None } else { Some(args.compute.options()?) },
        index: args.index,
        title: args.title.clone(),
        plane: args.plane,
        formats: if args.png { Formats::SvgAndPng } else { Formats::Svg },
        refresh: None,
    };
    let runs = Runs::load(&args.runs)?;
    if args.out.is_some() {
        guard_all(&runs, &out, &options, Overwrite::by(args.force))?;
    }
    let page = report::write(&runs, &out, &options)?;
    for warning in report::warnings(&runs) {
        tracing::warn!("{}: {}", warning.run, warning.text);
    }
    print(&format!("{}\n", page.display()))
}

/// In a folder that the user named, files of others stay.
fn guard_all(runs: &Runs, out: &Path, options: &ReportOptions, overwrite: Overwrite) -> Result<()> {
    report::outputs(runs, out, options).iter().try_for_each(|(kind, path)| {
        if let Some(dir) = path.parent().filter(|dir| dir.is_file()) {
            let at = dir.display();
            return Err(Failure::input(format!(
                "{at}: is a file; expected a folder, it is made if it is not there"
            )));
        }
        let content = match kind {
            FileKind::Page => Content::Page,
            FileKind::Figure => Content::Figure,
            FileKind::Log => Content::Log,
        };
        guard(path, content, overwrite)
    })
}
