//! `sora plot`: a figure of one or more runs.

use std::path::PathBuf;

use clap::ValueEnum;
use sora::{
    files,
    plot::{Figure, Format},
    report::{
        Run, Runs,
        compute::{Choice, LandscapeConfig, Opened, Plane},
        figures,
    },
};

use super::shared::ComputeArgs;
use crate::{
    complete,
    console::print,
    error::{Failure, Result},
    output_file::{Content, Overwrite, guard, make_folder},
    values::{PLANES, one_of},
};

/// Number of weights of a run in a figure of several runs.
const ACROSS: usize = 4;

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FigureName {
    /// Training and validation curves, with the onset of catastrophic overfitting
    Curves,
    /// PertAlign, step size, single-step and multi-step accuracy over steps
    Pertalign,
    /// Accuracy over the radius of the attack, over training; computed from the checkpoints
    Epsilon,
    /// Loss around a test image, over training; computed from the checkpoints
    Landscape,
    /// Clean against robust accuracy
    Tradeoff,
    /// Training time and memory against robust accuracy
    Cost,
    /// Images, perturbations and adversarial images; computed from the newest weights
    Examples,
    /// Step size, linearity and PertAlign over steps
    History,
}

/// Which figure of which runs.
#[derive(Debug, clap::Args)]
pub struct PlotArgs {
    /// Figure
    #[arg(value_enum)]
    pub figure: FigureName,
    /// Run folders; others are passed over
    #[arg(required = true, add = complete::runs())]
    pub runs: Vec<PathBuf>,
    /// File to write, .svg or .png [default: plots/FIGURE.svg in the run folder, if there is one
    /// run]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Overwrite a file that another program wrote
    #[arg(long, help_heading = "Output")]
    pub force: bool,
    /// Weights: a number of epochs, final or all [default: all, some of them if they are many]
    #[arg(long, value_name = "K|all", help_heading = "Data")]
    pub checkpoint: Option<Choice>,
    /// Plane of landscape
    #[arg(
        long,
        value_parser = one_of::<Plane>(PLANES),
        default_value = "gradient-random",
        help_heading = "Data"
    )]
    pub plane: Plane,
    /// Test image of landscape, first image of examples; from 0
    #[arg(long, value_name = "I", default_value_t = 0, help_heading = "Data")]
    pub index: usize,
    /// Images of examples
    #[arg(long, value_name = "N", default_value_t = 8, help_heading = "Data")]
    pub images: usize,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Draws a figure.
pub fn run(args: &PlotArgs) -> Result<()> {
    let out = out_file(args)?;
    Format::of(&out)?;
    let Runs { runs, skipped } = Runs::load(&args.runs)?;
    for skipped in skipped {
        tracing::warn!("{}: {}; passed over", skipped.path.display(), skipped.problem);
    }
    for run in &runs {
        run.warnings.iter().for_each(|warning| tracing::warn!("{}: {warning}", run.name));
    }
    // The default place in the run folder belongs to this program, so only a given path is guarded.
    if let Some(out) = &args.out {
        guard(out, Content::Figure, Overwrite::by(args.force))?;
    }
    let figure = draw(args, &runs)?;
    if let Some(dir) = out.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        make_folder(dir)?;
    }
    files::write_figure(&out, &figure)?;
    print(&format!("{}\n", out.display()))
}

fn out_file(args: &PlotArgs) -> Result<PathBuf> {
    match (&args.out, args.runs.as_slice()) {
        (Some(out), _) => Ok(out.clone()),
        (None, [run]) => {
            // The folder is checked to be a run first, so that no folder is made inside another
            // kind of folder.
            Run::load(run)?;
            let name = args
                .figure
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().to_owned());
            Ok(run.join("plots").join(format!("{name}.svg")))
        }
        (None, runs) => Err(Failure::input(format!(
            "--out is missing: a figure of {} runs belongs to none of their folders",
            runs.len()
        ))),
    }
}

fn draw(args: &PlotArgs, runs: &[Run]) -> Result<Figure> {
    Ok(match args.figure {
        FigureName::Curves => figures::curves(runs),
        FigureName::Pertalign => figures::pertalign(runs),
        FigureName::History => figures::history(runs),
        FigureName::Tradeoff => figures::tradeoff(runs),
        FigureName::Cost => figures::cost(runs),
        FigureName::Epsilon | FigureName::Landscape | FigureName::Examples => computed(args, runs)?,
    })
}

/// Draws a figure that needs the weights and the data set.
fn computed(args: &PlotArgs, runs: &[Run]) -> Result<Figure> {
    let options = args.compute.options()?;
    let each = args.checkpoint.clone().unwrap_or(Choice::All);
    let opened = runs.iter().map(|run| Ok(Opened::open(run, &options)?));
    Ok(match args.figure {
        FigureName::Epsilon => {
            let sweeps = opened.map(|run: Result<Opened>| Ok(run?.sweep(&each, 8)?));
            figures::epsilon(&sweeps.collect::<Result<Vec<_>>>()?)
        }
        FigureName::Landscape => {
            let config = LandscapeConfig::new(args.index, args.plane);
            let config = LandscapeConfig { seed: options.seed, ..config };
            let all = opened.map(|run: Result<Opened>| Ok(run?.landscapes(config, &each, ACROSS)?));
            figures::landscape_strip(&all.collect::<Result<Vec<_>>>()?)
        }
        _ => {
            if !(1..=64).contains(&args.images) {
                return Err(Failure::input(format!("--images {}: expected 1 to 64", args.images)));
            }
            let all = opened.map(|run: Result<Opened>| Ok(run?.examples(args.index, args.images)?));
            figures::examples(&all.collect::<Result<Vec<_>>>()?)
        }
    })
}
