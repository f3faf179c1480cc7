//! `sora landscape`: the loss around a test image.

use std::path::{Path, PathBuf};

use sora::{
    files,
    plot::{self, Figure},
    report::{
        Run,
        compute::{Choice, LandscapeConfig, Opened, Plane, evenly},
        figures::{LossScale, landscape as draw, landscape_frames, landscape_strip},
    },
};

use super::shared::ComputeArgs;
use crate::{
    complete,
    console::print,
    error::{Failure, Result},
    output_file::{Content, Overwrite, make_folder, prepare},
    values::{PLANES, one_of},
};

/// Hundredths of a second that a frame of the animation is shown.
const FRAME: u16 = 60;
/// Weights in a strip.
const STRIP: usize = 8;

/// Where to look, and how closely.
#[derive(Debug, clap::Args)]
pub struct LandscapeArgs {
    /// Run folder
    #[arg(add = complete::runs())]
    pub run: PathBuf,
    /// Weights: a number of epochs, final or all
    #[arg(long, value_name = "K|all", default_value = "final", help_heading = "Data")]
    pub checkpoint: Choice,
    /// Test image, from 0
    #[arg(long, value_name = "I", default_value_t = 0, help_heading = "Data")]
    pub index: usize,
    /// Points along each direction
    #[arg(long, default_value_t = 41, help_heading = "Data")]
    pub grid: usize,
    /// Plane through the image
    #[arg(
        long,
        value_parser = one_of::<Plane>(PLANES),
        default_value = "gradient-random",
        help_heading = "Data"
    )]
    pub plane: Plane,
    /// How far to look along both directions, from -S to S [default: -1 to 1, fgsm-pgd: 0 to 1]
    #[arg(long, value_name = "S", help_heading = "Data")]
    pub span: Option<f32>,
    /// Most weights to draw with --checkpoint all, evenly spaced
    #[arg(long, value_name = "N", default_value_t = 24, help_heading = "Data")]
    pub frames: usize,
    /// PNG files as well
    #[arg(long, help_heading = "Output")]
    pub png: bool,
    /// Folder to write to [default: plots in the run folder]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Overwrite files that another program wrote
    #[arg(long, help_heading = "Output")]
    pub force: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Draws the loss around an image of a run.
pub fn run(args: &LandscapeArgs) -> Result<()> {
    let config = LandscapeConfig {
        grid: args.grid,
        seed: args.compute.seed,
        ..LandscapeConfig::new(args.index, args.plane)
    };
    let config = args.span.map_or(config, |span| config.span(span));
    config.check()?;
    if args.frames == 0 {
        return Err(Failure::input("--frames 0: expected at least 1"));
    }
    let options = args.compute.options()?;
    let run = Run::load(&args.run)?;
    let mut found =
        Opened::open(&run, &options)?.landscapes(config, &args.checkpoint, args.frames)?;
    let dir = args.out.clone().unwrap_or_else(|| args.run.join("plots"));
    make_folder(&dir)?;
    let stem = match args.plane {
        Plane::GradientRandom => format!("landscape-{}", args.index),
        plane @ Plane::FgsmPgd => format!("landscape-{}-{plane}", args.index),
    };
    let mut written = Vec::new();
    if args.checkpoint == Choice::All {
        let scale = LossScale::of(std::slice::from_ref(&found));
        let frames: Vec<_> = landscape_frames(&found, scale).iter().map(Figure::draw).collect();
        let path = dir.join(format!("{stem}.gif"));
        guard(args, &path)?;
        files::write_atomic(&path, &plot::gif(&frames, 1.0, FRAME)?)?;
        found.rows = evenly(&found.rows, STRIP);
        let strip = landscape_strip(std::slice::from_ref(&found));
        written.extend(write(args, &strip, &dir.join(format!("{stem}-strip")))?);
        written.push(path);
    } else {
        for row in &found.rows {
            let name = match args.checkpoint {
                Choice::Epoch(epoch) => format!("{stem}-epoch-{epoch:03}"),
                _ => stem.clone(),
            };
            written.extend(write(args, &draw(&found, row), &dir.join(name))?);
        }
    }
    print(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>())
}

/// In a folder that the user named, files of others stay.
fn guard(args: &LandscapeArgs, path: &Path) -> Result<()> {
    if args.out.is_some() {
        prepare(path, Content::Figure, Overwrite::by(args.force))
    } else {
        Ok(())
    }
}

/// Writes `figure` to `stem.svg`, and to `stem.png` if that is asked for.
fn write(args: &LandscapeArgs, figure: &Figure, stem: &Path) -> Result<Vec<PathBuf>> {
    let endings: &[&str] = if args.png { &["svg", "png"] } else { &["svg"] };
    let mut written = Vec::new();
    for ending in endings {
        let path = stem.with_extension(ending);
        guard(args, &path)?;
        files::write_figure(&path, figure)?;
        written.push(path);
    }
    Ok(written)
}
