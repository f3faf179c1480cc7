//! `sora watch`: a run in the terminal, live.

use std::{
    io::{IsTerminal, stdout},
    path::Path,
    time::{Duration, SystemTime},
};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use sora::{
    config::TrainConfig,
    error::{Error, Result},
    follow::Follower,
    metrics::{EpochLine, StepLine},
    run::RunDir,
};

use crate::dashboard::{Dashboard, RunState, plain_text};

/// Time between two looks at the run.
const EVERY: Duration = Duration::from_millis(500);
/// Silence that is more than a slow step or a validation.
const SILENCE: Duration = Duration::from_secs(60);

/// A run and what was read of it.
struct Watched {
    dir: RunDir,
    config: TrainConfig,
    steps: Follower<StepLine>,
    epochs: Follower<EpochLine>,
}

impl Watched {
    fn poll(&mut self) -> Result<()> {
        self.steps.poll()?;
        self.epochs.poll()
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

/// Follows the run in `path` until a key ends it; with `once`, prints one picture of 80x24
/// characters.
pub fn watch(path: &Path, once: bool) -> Result<()> {
    let (dir, config) = RunDir::open(path)?;
    let mut run = Watched {
        steps: Follower::new(dir.metrics()),
        epochs: Follower::new(dir.epochs()),
        dir,
        config,
    };
    run.poll()?;
    if once {
        let mut terminal = Terminal::new(TestBackend::new(80, 24))
            .map_err(|e| Error::work(format!("cannot draw: {e}")))?;
        terminal
            .draw(|frame| run.dashboard().draw(frame))
            .map_err(|e| Error::work(format!("cannot draw: {e}")))?;
        return super::print(&plain_text(terminal.backend().buffer()));
    }
    if !stdout().is_terminal() {
        return Err(Error::input(
            "watch: standard output is no terminal; use --once for one picture as text",
        ));
    }
    let failed = |e: std::io::Error| Error::work(format!("cannot draw on the terminal: {e}"));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = follow(&mut run, &mut terminal, failed);
    ratatui::restore();
    result
}

fn follow(
    run: &mut Watched,
    terminal: &mut ratatui::DefaultTerminal,
    failed: impl Fn(std::io::Error) -> Error + Copy,
) -> Result<()> {
    loop {
        run.poll()?;
        terminal.draw(|frame| run.dashboard().draw(frame)).map_err(failed)?;
        if event::poll(EVERY).map_err(failed)?
            && let Event::Key(key) = event::read().map_err(failed)?
            && key.kind == KeyEventKind::Press
        {
            let control_c =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(());
            }
        }
    }
}
