//! Writes a report's folder: the page, and every figure as a file.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{
    compute::{
        Choice, ComputeOptions, ExampleSet, LandscapeConfig, Landscapes, Opened, Plane, Sweep,
        evenly,
    },
    csv::csv,
    figures::{self, LossScale},
    load::Runs,
    page::{PageContent, PageFigure, Warning, page, warnings},
    run::Run,
};
use crate::{
    error::{Error, Result},
    files,
    plot::{Figure, gif},
    run::RunDir,
};

/// Most weights of a run in a sweep.
const SWEPT: usize = 6;
/// Most weights of a run in an animation.
const FRAMES: usize = 6;
/// Most weights of a run in a strip.
const STRIP: usize = 4;
/// Number of images in the examples.
const IMAGES: usize = 8;

/// Name of the page.
const PAGE: &str = "report.html";
/// Name of the folder of the figures.
const PLOTS: &str = "plots";
/// Name of the folder of the logs.
const LOGS: &str = "csv";

/// The figures of the records, in the order of the page, each with its name.
const RECORDED: [(&str, OfRecords); 5] = [
    ("pertalign", figures::pertalign),
    ("curves", figures::curves),
    ("history", figures::history),
    ("tradeoff", figures::tradeoff),
    ("cost", figures::cost),
];
/// The figures of computed data, which stand below the others.
const COMPUTED: [(&str, OfComputed); 3] =
    [("epsilon", epsilon), (LANDSCAPE, landscape), ("examples", examples)];
/// Name of the figure that has animations.
const LANDSCAPE: &str = "landscape";

/// Draws a figure of the records.
type OfRecords = fn(&[Run]) -> Figure;
/// Draws a figure of computed data, if there are any for it.
type OfComputed = fn(&Computed) -> Option<Figure>;

/// Options of a report.
#[derive(Clone, Debug, Default)]
pub struct ReportOptions {
    /// Options of computing data that the records do not hold; `None` leaves those figures out.
    pub compute: Option<ComputeOptions>,
    /// Index of the test image of the loss landscapes.
    pub index: usize,
    /// Plane of the loss landscapes.
    pub plane: Plane,
    /// Heading.
    pub title: Option<String>,
    /// Formats of the figures' files.
    pub formats: Formats,
    /// Seconds after which the page looks for a newer version; `None` for never.
    pub refresh: Option<u64>,
}

/// Formats of the files of a report's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Formats {
    /// SVG.
    #[default]
    Svg,
    /// SVG and PNG.
    SvgAndPng,
}

/// What a file of a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The page.
    Page,
    /// A figure: SVG, PNG or GIF.
    Figure,
    /// The log of a run as CSV.
    Log,
}

/// The computed data of the runs, as far as they could be computed.
#[derive(Default)]
struct Computed {
    sweeps: Vec<Sweep>,
    landscapes: Vec<Landscapes>,
    examples: Vec<ExampleSet>,
}

/// Files to write.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// Every file that [`write()`] may write for the runs to the folder `out`, so that a caller can
/// look at what is there before anything is computed. Which figures of computed data there will be
/// shows only then: all of them are among the files.
pub fn outputs(all: &Runs, out: &Path, options: &ReportOptions) -> Vec<(FileKind, PathBuf)> {
    let runs = &all.runs;
    let mut names: Vec<&str> = RECORDED.iter().map(|(name, _)| *name).collect();
    let mut plots = Vec::new();
    if options.compute.is_some() {
        names.extend(COMPUTED.iter().map(|(name, _)| *name));
        plots.extend(runs.iter().map(|run| animation_name(runs, &run.name)));
    }
    for name in names {
        plots.push(format!("{name}.svg"));
        if options.formats == Formats::SvgAndPng {
            plots.push(format!("{name}.png"));
        }
    }
    let plots = plots.iter().map(|name| (FileKind::Figure, out.join(PLOTS).join(name)));
    let logged = runs.iter().filter(|run| !run.steps.is_empty());
    let logs = logged.map(|run| (FileKind::Log, out.join(LOGS).join(log_name(runs, &run.name))));
    plots.chain(logs).chain([(FileKind::Page, out.join(PAGE))]).collect()
}

/// Writes `report.html`, `plots/` and `csv/` for the runs to the folder `out`; returns the page's
/// path.
///
/// Everything is drawn before anything is written. Files that are there already, which [`outputs`]
/// names, are overwritten. A run whose data set or weights are not on this machine is left out of
/// the figures that need them, and the page has a warning.
///
/// # Errors
/// [`Error`] for a folder that cannot be written, or a wrong setting.
pub fn write(all: &Runs, out: &Path, options: &ReportOptions) -> Result<PathBuf> {
    let runs = &all.runs;
    let mut said = warnings(all);
    let computed = match &options.compute {
        Some(compute) => computed(runs, compute, options, &mut said)?,
        None => Computed::default(),
    };
    let plots = out.join(PLOTS);
    let mut files = Files::new();
    let animations = animations(runs, &computed, &plots, &mut files)?;
    let mut shown = Vec::new();
    for (name, figure) in drawn(runs, &computed) {
        let svg = figure.to_svg()?;
        files.push((plots.join(format!("{name}.svg")), svg.clone().into_bytes()));
        if options.formats == Formats::SvgAndPng {
            files.push((plots.join(format!("{name}.png")), figure.to_png(2.0)?));
        }
        let animations = if name == LANDSCAPE { animations.clone() } else { Vec::new() };
        shown.push(PageFigure { name: name.to_owned(), svg, animations });
    }
    let links = logs(runs, out, &mut files);
    let path = out.join(PAGE);
    let content = PageContent {
        figures: shown,
        warnings: said,
        title: options.title.clone(),
        links,
        refresh: options.refresh,
    };
    // The page is written last, so that it never exists without its figures.
    files.push((path.clone(), page(runs, &content)?.into_bytes()));
    // No file is written where a later one would have no folder.
    for dir in files.iter().filter_map(|(path, _)| path.parent()) {
        RunDir::refuse_link(dir)?;
        fs::create_dir_all(dir).map_err(|e| {
            Error::setting("out", out.display(), format!("cannot make the folder: {e}"))
        })?;
    }
    for (path, bytes) in &files {
        files::write_atomic(path, bytes)?;
    }
    Ok(path)
}

/// The figures, in the order of the page.
fn drawn(runs: &[Run], computed: &Computed) -> Vec<(&'static str, Figure)> {
    let recorded = RECORDED.into_iter().map(|(name, draw)| (name, draw(runs)));
    let found = COMPUTED.into_iter().filter_map(|(name, draw)| Some((name, draw(computed)?)));
    recorded.chain(found).collect()
}

fn epsilon(computed: &Computed) -> Option<Figure> {
    let sweeps = &computed.sweeps;
    (!sweeps.is_empty()).then(|| figures::epsilon(sweeps))
}

fn landscape(computed: &Computed) -> Option<Figure> {
    let strip = |of: &Landscapes| Landscapes { rows: evenly(&of.rows, STRIP), ..of.clone() };
    let strips: Vec<_> = computed.landscapes.iter().map(strip).collect();
    (!strips.is_empty()).then(|| figures::landscape_strip(&strips))
}

fn examples(computed: &Computed) -> Option<Figure> {
    let sets = &computed.examples;
    (!sets.is_empty()).then(|| figures::examples(sets))
}

/// Draws the animations of the landscapes, on one scale; returns their names.
fn animations(
    runs: &[Run],
    computed: &Computed,
    plots: &Path,
    files: &mut Files,
) -> Result<Vec<String>> {
    let scale = LossScale::of(&computed.landscapes);
    let mut names = Vec::new();
    for of in computed.landscapes.iter().filter(|of| of.rows.len() > 1) {
        let frames = figures::landscape_frames(of, scale);
        let frames: Vec<_> = frames.iter().map(Figure::draw).collect();
        let name = animation_name(runs, &of.name);
        files.push((plots.join(&name), gif(&frames, 1.0, 60)?));
        names.push(name);
    }
    Ok(names)
}

/// Name of the animation of the run `name`, one of `runs`.
fn animation_name(runs: &[Run], name: &str) -> String {
    match runs {
        [_] => format!("{LANDSCAPE}.gif"),
        _ => format!("{LANDSCAPE}-{}.gif", file_stem(runs, name)),
    }
}

/// Name of the log of the run `name`, one of `runs`.
fn log_name(runs: &[Run], name: &str) -> String {
    format!("{}.csv", file_stem(runs, name))
}

/// Makes the logs as CSV files. Returns, for each run, the links of its card: to its log, and to
/// its own page where there is one nearby.
fn logs(runs: &[Run], out: &Path, files: &mut Files) -> Vec<Vec<(String, String)>> {
    let mut links = Vec::new();
    for run in runs {
        let mut of_run = Vec::new();
        if !run.steps.is_empty() {
            let name = log_name(runs, &run.name);
            of_run.push(("log as CSV".to_owned(), format!("{LOGS}/{name}")));
            files.push((out.join(LOGS).join(name), csv(run).into_bytes()));
        }
        if let Some(address) = own_page(&run.path, out) {
            of_run.push(("its own report".to_owned(), address));
        }
        links.push(of_run);
    }
    links
}

/// Address from `out` of the page in a run's own folder, if `out` is that folder or lies beside it.
/// A longer path would reveal folders of the machine.
fn own_page(run: &Path, out: &Path) -> Option<String> {
    let absolute = |path: &Path| std::path::absolute(path).ok();
    let (run, out) = (absolute(run)?, absolute(out)?);
    if run == out || !run.join(PAGE).is_file() {
        return None;
    }
    let (up, rest) = match run.strip_prefix(&out) {
        Ok(rest) => ("", rest),
        Err(_) => ("../", run.strip_prefix(out.parent()?).ok()?),
    };
    let parts: Vec<_> = rest
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let plain = |part: &&str| {
        part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    (!parts.is_empty() && parts.iter().all(plain))
        .then(|| format!("{up}{}/{PAGE}", parts.join("/")))
}

fn computed(
    runs: &[Run],
    options: &ComputeOptions,
    report: &ReportOptions,
    said: &mut Vec<Warning>,
) -> Result<Computed> {
    options.check()?;
    crate::device::device(&options.device)?;
    let index = report.index;
    let config =
        LandscapeConfig { seed: options.seed, ..LandscapeConfig::new(index, report.plane) };
    let mut all = Computed::default();
    for run in runs {
        let mut warn = |what: &str, e: Error| {
            tracing::warn!("{}: {what}: {e}", run.name);
            // The page may be passed on, so the reason, which may name paths of this machine, is
            // left out.
            let text = format!("{what}; the program says why when it makes the report");
            said.push(Warning { run: run.name.clone(), text });
        };
        let mut opened = match Opened::open(run, options) {
            Ok(opened) => opened,
            Err(e) => {
                warn(
                    "left out of the epsilon, landscape and example figures: its weights or its \
                     data set cannot be read",
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

/// The name of the run `name`, one of `runs`, as part of a file's name that no other run has, also
/// where the file system takes capital letters for small ones.
fn file_stem(runs: &[Run], name: &str) -> String {
    let mut taken = BTreeSet::new();
    for run in runs {
        let own = plain(&run.name);
        let (mut stem, mut number) = (own.clone(), 2);
        while !taken.insert(stem.to_lowercase()) {
            stem = format!("{own}-{number}");
            number += 1;
        }
        if run.name == name {
            return stem;
        }
    }
    plain(name)
}

/// `name` with a dash in place of what means something in a path.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests;
