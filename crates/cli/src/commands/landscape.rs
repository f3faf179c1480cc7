//! `sora landscape`.

use std::path::PathBuf;

use sora::{
    error::{Error, Result},
    files,
    plot::{self, Figure},
    report::{
        compute::{Choice, LandscapeConfig, Opened},
        figures::{landscape as draw, landscape_frames, landscape_strip},
        records::Run,
    },
};

use super::{plot::options, print};
use crate::cli::LandscapeArgs;

/// Hundredths of a second that a frame of the animation is shown.
const FRAME: u16 = 60;

/// Draws the loss around an image of a run.
pub fn landscape(args: &LandscapeArgs) -> Result<()> {
    let options = options(&args.compute);
    let config = LandscapeConfig {
        index: args.index,
        grid: args.grid,
        span: args.span,
        seed: args.compute.seed,
    };
    config.check()?;
    if args.frames == 0 {
        return Err(Error::input("--frames 0: expected at least 1"));
    }
    let run = Run::load(&args.run)?;
    let mut found =
        Opened::open(&run, &options)?.landscapes(config, &args.checkpoint, args.frames)?;
    let dir = args.out.clone().unwrap_or_else(|| args.run.join("plots"));
    std::fs::create_dir_all(&dir).map_err(|e| {
        Error::input(format!("--out {}: cannot make the folder: {e}", dir.display()))
    })?;
    let mut written = Vec::new();
    let mut write = |figure: &Figure, name: String| -> Result<()> {
        for ending in if args.png { &["svg", "png"][..] } else { &["svg"] } {
            let path = dir.join(format!("{name}.{ending}"));
            sora::files::write_figure(&path, figure)?;
            written.push(path);
        }
        Ok(())
    };
    let stem = format!("landscape-{}", args.index);
    if args.checkpoint == Choice::All {
        let frames: Vec<_> = landscape_frames(&found).iter().map(Figure::draw).collect();
        let path = dir.join(format!("{stem}.gif"));
        files::write_atomic(&path, &plot::gif(&frames, 1.0, FRAME)?)?;
        found.rows = sora::report::compute::evenly(&found.rows, 8);
        write(&landscape_strip(std::slice::from_ref(&found)), format!("{stem}-strip"))?;
        written.push(path);
    } else {
        for row in &found.rows {
            let name = match args.checkpoint {
                Choice::Epoch(epoch) => format!("{stem}-epoch-{epoch:03}"),
                _ => stem.clone(),
            };
            write(&draw(&found, row), name)?;
        }
    }
    print(&written.iter().map(|path: &PathBuf| format!("{}\n", path.display())).collect::<String>())
}
