//! A report's folder: the page, and every figure as a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    compute::{
        Choice, ComputeOptions, ExampleSet, LandscapeConfig, Landscapes, Opened, Sweep, evenly,
    },
    figures,
    page::{PageFigure, Warning, page, warnings},
    records::Run,
};
use crate::{
    error::{Error, Result},
    files,
    plot::{Figure, gif},
};

/// Weights of a run in a sweep.
const SWEPT: usize = 6;
/// Weights of a run in an animation.
const FRAMES: usize = 6;
/// Weights of a run in a strip.
const STRIP: usize = 4;
/// Images of the examples.
const IMAGES: usize = 8;

/// How to make a report.
#[derive(Clone, Debug, Default)]
pub struct ReportOptions {
    /// How to compute what the records do not hold; `None`: leave those figures out.
    pub compute: Option<ComputeOptions>,
    /// Test image of the loss landscapes.
    pub index: usize,
    /// Heading.
    pub title: Option<String>,
    /// Whether to write PNG files beside the SVG ones.
    pub png: bool,
}

/// What was computed for the runs, as far as it could be.
#[derive(Default)]
struct Computed {
    sweeps: Vec<Sweep>,
    landscapes: Vec<Landscapes>,
    examples: Vec<ExampleSet>,
}

/// Writes `report.html` and `plots/` for `runs` to the folder `out`; gives the page's path.
///
/// Everything is drawn before anything is written. A run whose data set or weights are not here is
/// left out of the figures that need them, with a warning on the page.
///
/// # Errors
/// A folder that cannot be written, or a wrong setting.
pub fn write(runs: &[Run], out: &Path, options: &ReportOptions) -> Result<PathBuf> {
    let mut said = warnings(runs);
    let computed = match &options.compute {
        Some(compute) => computed(runs, compute, options.index, &mut said)?,
        None => Computed::default(),
    };
    let mut figures = vec![
        ("pertalign", figures::pertalign(runs)),
        ("curves", figures::curves(runs)),
        ("history", figures::history(runs)),
        ("tradeoff", figures::tradeoff(runs)),
        ("cost", figures::cost(runs)),
    ];
    if !computed.sweeps.is_empty() {
        figures.push(("epsilon", figures::epsilon(&computed.sweeps)));
    }
    let mut animations = Vec::new();
    if !computed.landscapes.is_empty() {
        for of in computed.landscapes.iter().filter(|of| of.rows.len() > 1) {
            let frames: Vec<_> = figures::landscape_frames(of).iter().map(Figure::draw).collect();
            let name = if runs.len() == 1 {
                "landscape.gif".into()
            } else {
                format!("landscape-{}.gif", file_name(&of.name))
            };
            animations.push((name, gif(&frames, 1.0, 60)?));
        }
        let strips: Vec<_> = computed
            .landscapes
            .iter()
            .map(|of| Landscapes { rows: evenly(&of.rows, STRIP), ..of.clone() })
            .collect();
        figures.push(("landscape", figures::landscape_strip(&strips)));
    }
    if !computed.examples.is_empty() {
        figures.push(("examples", figures::examples(&computed.examples)));
    }

    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let mut shown = Vec::new();
    let plots = out.join("plots");
    for (name, figure) in &figures {
        let svg = figure.to_svg()?;
        files.push((plots.join(format!("{name}.svg")), svg.clone().into_bytes()));
        if options.png {
            files.push((plots.join(format!("{name}.png")), figure.to_png(2.0)?));
        }
        let animation = if *name == "landscape" {
            animations.iter().map(|(name, _)| name.clone()).collect()
        } else {
            Vec::new()
        };
        shown.push(PageFigure { name: (*name).to_owned(), svg, animations: animation });
    }
    files.extend(animations.into_iter().map(|(name, bytes)| (plots.join(name), bytes)));
    let path = out.join("report.html");
    let html = page(runs, &shown, &said, options.title.as_deref())?;
    // Last, so that a page is never there without its figures.
    files.push((path.clone(), html.into_bytes()));
    fs::create_dir_all(&plots).map_err(|e| {
        Error::input(format!("--out {}: cannot make the folder: {e}", out.display()))
    })?;
    files.iter().try_for_each(|(path, bytes)| files::write_atomic(path, bytes))?;
    Ok(path)
}

fn computed(
    runs: &[Run],
    options: &ComputeOptions,
    index: usize,
    said: &mut Vec<Warning>,
) -> Result<Computed> {
    if options.limit == 0 {
        return Err(Error::input("--limit 0: expected at least 1"));
    }
    crate::device::device(&options.device)?;
    let config = LandscapeConfig { index, grid: 41, span: 1.0, seed: options.seed };
    let mut all = Computed::default();
    for run in runs {
        let mut warn = |what: &str, e: Error| {
            tracing::warn!("{}: {what}: {e}", run.name);
            // The page is passed on: the paths of this machine stay out of it.
            said.push(Warning {
                run: run.name.clone(),
                text: format!("{what}; `sora report` says why when it runs"),
            });
        };
        let mut opened = match Opened::open(run, options) {
            Ok(opened) => opened,
            Err(e) => {
                warn(
                    "left out of the epsilon, landscape and example figures: its weights or its data set cannot be read",
                    e,
                );
                continue;
            }
        };
        match opened.sweep(&Choice::All, SWEPT) {
            Ok(sweep) => all.sweeps.push(sweep),
            Err(e) => warn("left out of the epsilon figure", e),
        }
        match opened.landscapes(config, &Choice::All, FRAMES) {
            Ok(landscapes) => all.landscapes.push(landscapes),
            Err(e) => warn("left out of the landscape figure", e),
        }
        match opened.examples(index, IMAGES) {
            Ok(examples) => all.examples.push(examples),
            Err(e) => warn("left out of the example figure", e),
        }
    }
    Ok(all)
}

/// A run's name as part of a file's name.
fn file_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect()
}
