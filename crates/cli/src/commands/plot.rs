//! `sora plot`.

use std::path::PathBuf;

use sora::{
    error::{Error, Result},
    plot::{Figure, Format},
    report::{
        compute::{Choice, ComputeOptions, LandscapeConfig, Opened},
        figures,
        records::Run,
    },
};

use super::print;
use crate::cli::{ComputeArgs, FigureName, PlotArgs};

/// Weights of a run in a figure of several.
const ACROSS: usize = 4;

/// Draws a figure.
pub fn plot(args: &PlotArgs) -> Result<()> {
    let out = out_file(args)?;
    Format::of(&out)?;
    let runs = Run::load_all(&args.runs)?;
    for run in &runs {
        run.warnings.iter().for_each(|warning| tracing::warn!("{}: {warning}", run.name));
    }
    let figure = draw(args, &runs)?;
    if let Some(dir) = out.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|e| {
            Error::input(format!("--out {}: cannot make its folder: {e}", out.display()))
        })?;
    }
    sora::files::write_figure(&out, &figure)?;
    print(&format!("{}\n", out.display()))
}

fn out_file(args: &PlotArgs) -> Result<PathBuf> {
    match (&args.out, args.runs.as_slice()) {
        (Some(out), _) => Ok(out.clone()),
        (None, [run]) => {
            // Not before it is known to be a run: no folder is made in what is none.
            Run::load(run)?;
            let name = clap::ValueEnum::to_possible_value(&args.figure)
                .map_or_else(String::new, |v| v.get_name().to_owned());
            Ok(run.join("plots").join(format!("{name}.svg")))
        }
        (None, runs) => Err(Error::input(format!(
            "--out is missing: a figure of {} runs belongs to none of their folders",
            runs.len()
        ))),
    }
}

fn draw(args: &PlotArgs, runs: &[Run]) -> Result<Figure> {
    let options = options(&args.compute);
    let each = args.checkpoint.clone().unwrap_or(Choice::All);
    Ok(match args.figure {
        FigureName::Curves => figures::curves(runs),
        FigureName::Pertalign => figures::pertalign(runs),
        FigureName::History => figures::history(runs),
        FigureName::Tradeoff => figures::tradeoff(runs),
        FigureName::Cost => figures::cost(runs),
        FigureName::Epsilon => {
            let sweeps = runs
                .iter()
                .map(|run| Opened::open(run, &options)?.sweep(&each, 8))
                .collect::<Result<Vec<_>>>()?;
            figures::epsilon(&sweeps)
        }
        FigureName::Landscape => {
            let config =
                LandscapeConfig { index: args.index, grid: 41, span: 1.0, seed: options.seed };
            let all = runs
                .iter()
                .map(|run| Opened::open(run, &options)?.landscapes(config, &each, ACROSS))
                .collect::<Result<Vec<_>>>()?;
            figures::landscape_strip(&all)
        }
        FigureName::Examples => {
            if !(1..=64).contains(&args.images) {
                return Err(Error::input(format!("--images {}: expected 1 to 64", args.images)));
            }
            let open = |run| Opened::open(run, &options)?.examples(args.index, args.images);
            figures::examples(&runs.iter().map(open).collect::<Result<Vec<_>>>()?)
        }
    })
}

/// The options as the library has them.
pub fn options(args: &ComputeArgs) -> ComputeOptions {
    ComputeOptions {
        device: args.device.clone(),
        threads: args.threads,
        data_dir: args.data_dir.clone(),
        limit: args.limit,
        seed: args.seed,
        ..ComputeOptions::default()
    }
}
