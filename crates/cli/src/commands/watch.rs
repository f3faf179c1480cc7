//! `sora watch`: shows a run in the terminal, live.

use std::{
    io::{IsTerminal, stdout},
    mem,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    style::Color,
};
use sora::{
    report::{self, ReportOptions, Runs},
    run::{
        RunConfig, RunDir,
        follow::Follower,
        log::{EpochLine, StepLine},
    },
};

use crate::{
    complete,
    console::{color, print},
    dashboard::{Dashboard, RunState, plain_text},
    error::{Failure, Result},
    signals,
};

/// Time between two polls of the run.
const EVERY: Duration = Duration::from_millis(500);
/// Time between two updates of the page.
const PAGE_EVERY: Duration = Duration::from_secs(10);
/// Time without a line after which a run counts as silent; a slow step or a validation takes less.
const SILENCE: Duration = Duration::from_secs(60);

/// Which run, and how.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Run folder
    #[arg(add = complete::runs())]
    pub dir: PathBuf,
    /// Print one picture as text, 80 by 24 characters, and end
    #[arg(long)]
    pub once: bool,
    /// Keep report.html in the run folder up to date until the run ends; a browser that shows it
    /// follows
    #[arg(long, conflicts_with = "once")]
    pub html: bool,
}

impl WatchArgs {
    /// Whether the command takes the terminal and draws on it until a key or a signal ends it.
    pub fn is_live(&self) -> bool {
        !self.once && !self.html
    }
}

/// A run, and the lines read from it.
struct Watched {
    dir: RunDir,
    config: RunConfig,
    steps: Follower<StepLine>,
    epochs: Follower<EpochLine>,
}

impl Watched {
    fn poll(&mut self) -> Result<()> {
        self.steps.poll()?;
        self.epochs.poll()?;
        Ok(())
    }

    fn state(&self) -> RunState {
        let age = |path: &Path| {
            path.metadata()
                .and_then(|m| m.modified())
                .ok()
                .and_then(|t| SystemTime::now().duration_since(t).ok())
        };
        let silent = [self.dir.metrics(), self.dir.epochs()]
            .iter()
            .filter_map(|path| age(path))
            .min()
            .unwrap_or_default();
        match () {
            () if self.dir.summary().exists() => RunState::Done,
            () if silent > SILENCE => RunState::Silent(silent),
            () if self.steps.lines().is_empty() => RunState::Starting,
            () => RunState::Running,
        }
    }

    fn dashboard(&self) -> Dashboard<'_> {
        Dashboard {
            config: &self.config,
            steps: self.steps.lines(),
            epochs: self.epochs.lines(),
            state: self.state(),
            damaged: self.steps.damaged() + self.epochs.damaged(),
        }
    }
}

/// Follows the run until a key or a signal ends it; with `--once`, prints one picture of 80x24
/// characters.
pub fn run(args: &WatchArgs) -> Result<()> {
    if args.html {
        return keep_page(&args.dir);
    }
    let (dir, config) = RunDir::open(&args.dir)?;
    let mut run = Watched {
        steps: Follower::new(dir.metrics()),
        epochs: Follower::new(dir.epochs()),
        dir,
        config,
    };
    run.poll()?;
    if args.once {
        return picture(&run);
    }
    if !stdout().is_terminal() || std::env::var("TERM").is_ok_and(|term| term == "dumb") {
        return Err(Failure::input(
            "watch: standard output is no terminal that can be drawn on; use --once for one \
             picture as text",
        ));
    }
    let interrupt = signals::flag();
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = follow(&mut run, &mut terminal, &interrupt);
    if let Err(e) = ratatui::try_restore() {
        tracing::warn!("cannot restore the terminal: {e}");
        // Dropped, it would write to the terminal once more, and panic where that has gone away.
        mem::forget(terminal);
    }
    // A terminal that goes away sends a signal and then fails: the signal is the reason.
    if interrupt.load(Ordering::Relaxed) { Err(interrupted()) } else { result }
}

/// Writes the run's page from its records repeatedly, until the run ends.
fn keep_page(dir: &PathBuf) -> Result<()> {
    let mut told = false;
    loop {
        let runs = Runs::load(std::slice::from_ref(dir))?;
        let finished = runs.runs.iter().all(|run| run.finished);
        let refresh = (!finished).then_some(PAGE_EVERY.as_secs());
        let page = report::write(&runs, dir, &ReportOptions { refresh, ..Default::default() })?;
        if !mem::replace(&mut told, true) {
            print(&format!("{}\n", page.display()))?;
        }
        if finished {
            return Ok(());
        }
        std::thread::sleep(PAGE_EVERY);
    }
}

fn picture(run: &Watched) -> Result<()> {
    let cannot = |e| Failure::work(format!("cannot draw: {e}"));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).map_err(cannot)?;
    terminal.draw(|frame| run.dashboard().draw(frame)).map_err(cannot)?;
    print(&plain_text(terminal.backend().buffer()))
}

fn failed(e: std::io::Error) -> Failure {
    Failure::work(format!("cannot draw on the terminal: {e}"))
}

fn interrupted() -> Failure {
    Failure::interrupted("interrupted")
}

/// Draws the run until a key ends the view or `interrupt` is set.
fn follow(
    run: &mut Watched,
    terminal: &mut ratatui::DefaultTerminal,
    interrupt: &AtomicBool,
) -> Result<()> {
    let coloured = color(true);
    while !interrupt.load(Ordering::Relaxed) {
        run.poll()?;
        let draw = |frame: &mut ratatui::Frame<'_>| {
            run.dashboard().draw(frame);
            if !coloured {
                without_colours(frame);
            }
        };
        terminal.draw(draw).map_err(failed)?;
        if event::poll(EVERY).map_err(failed)?
            && let Event::Key(key) = event::read().map_err(failed)?
            && key.kind == KeyEventKind::Press
        {
            // The terminal sends Ctrl-C as a key while the view has it.
            if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
                return Err(interrupted());
            }
            if matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn without_colours(frame: &mut ratatui::Frame<'_>) {
    for cell in &mut frame.buffer_mut().content {
        cell.set_fg(Color::Reset).set_bg(Color::Reset);
    }
}
