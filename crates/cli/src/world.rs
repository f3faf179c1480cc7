//! The processes that `mpirun` or `srun` has started, of which this is one.
//!
//! The first speaks and writes for all. A process that fails ends the others: each may be waiting
//! for it.

use std::{
    env,
    ffi::OsString,
    process,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sora::train::{Alone, Communicator};

use crate::{
    call::Command,
    commands::bench::BenchCommand,
    console::note,
    error::{Failure, Kind, Result},
    render,
};

static LINK: OnceLock<Arc<dyn Communicator>> = OnceLock::new();

/// Where OpenMPI, MPICH and `srun` say how many processes they have started, and which this is.
/// Within a job of Slurm mpirun, which comes first, may start fewer than it has tasks. `srun` says
/// so with MPI or without; the script of a job, which is one process whatever the job's number of
/// tasks, is not told.
const LAUNCHERS: [(&str, [&str; 2]); 3] = [
    ("mpirun", ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"]),
    ("mpirun", MPICH),
    ("srun", SRUN),
];
const MPICH: [&str; 2] = ["PMI_SIZE", "PMI_RANK"];
const SRUN: [&str; 2] = ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"];
/// Words of the calls that can be shared out.
const SHARED: [&str; 4] = ["train", "resume", "eval", "scaling"];

/// How long a process waits for the first to say what has failed on both.
const PATIENCE: Duration = Duration::from_secs(2);

fn number(variable: &str) -> Option<usize> {
    env::var(variable).ok()?.parse().ok()
}

/// Who has started this process, how many of them, and which this is.
fn started() -> Option<(&'static str, usize, usize)> {
    let of = |[size, rank]: [&str; 2]| Some((number(size)?, number(rank).unwrap_or(0)));
    let (launcher, names, (size, rank)) =
        LAUNCHERS.iter().find_map(|(launcher, names)| Some((*launcher, *names, of(*names)?)))?;
    // With its pmi2 Slurm sets MPICH's variables in every task of `srun`.
    let is_slurm = names == MPICH && of(SRUN) == Some((size, rank));
    Some((if is_slurm { "srun" } else { launcher }, size, rank))
}

/// Makes a command that this process starts one process by itself, and not one of several.
pub fn leave(command: &mut process::Command) -> &mut process::Command {
    LAUNCHERS.iter().flat_map(|(_, names)| names).fold(command, process::Command::env_remove)
}

/// Whether this process speaks and writes: the first, or the only one.
pub fn first() -> bool {
    match LINK.get() {
        Some(link) => link.rank() == 0,
        // Before the processes know each other.
        None => started().is_none_or(|(_, _, rank)| rank == 0),
    }
}

/// The link to the other processes.
pub fn link() -> Arc<dyn Communicator> {
    LINK.get().map_or_else(|| Arc::new(Alone) as Arc<dyn Communicator>, Arc::clone)
}

/// This process's part in the world, until the end of the command.
#[derive(Default)]
pub struct Member {
    #[cfg(feature = "mpi")]
    joined: Option<(Arc<sora::ranks::Mpi>, sora::ranks::Joined)>,
}

/// Joins the other processes where `command` can be shared out among them.
///
/// # Errors
/// Several processes that would each do the whole of `command`.
pub fn join(command: &Command) -> Result<Member> {
    let shared = match command {
        Command::Train(_) | Command::Resume(_) | Command::Eval(_) => true,
        Command::Bench { command } => matches!(command, BenchCommand::Scaling(_)),
        _ => false,
    };
    match started() {
        Some((launcher, size, _)) if size > 1 && shared => join_as_one_of(launcher, size),
        Some(("mpirun", size, _)) if size > 1 => Err(Failure::input(format!(
            "this command works in one process, and mpirun has started {size}; `sora train`, \
             `resume`, `eval` and `bench scaling` can be shared out"
        ))),
        _ => {
            // The tasks of `srun` do something else each, as the parts of a grid.
            LINK.set(Arc::new(Alone)).ok();
            Ok(Member::default())
        }
    }
}

#[cfg(not(feature = "mpi"))]
fn join_as_one_of(launcher: &str, size: usize) -> Result<Member> {
    Err(Failure::input(format!(
        "{launcher} has {size} processes, and this program was built for one: each would do the \
         whole work; build it with `--features mpi`, or start one process"
    )))
}

#[cfg(feature = "mpi")]
fn join_as_one_of(launcher: &str, size: usize) -> Result<Member> {
    let (mpi, joined) = sora::ranks::Mpi::join()?;
    let world = mpi.world();
    if world != size {
        let advice = match launcher {
            "srun" => {
                "start it with `srun --mpi=pmix` (OpenMPI) or `--mpi=pmi2` (MPICH), or with \
                       mpirun"
            }
            _ => "is it the mpirun of the MPI library that this program was built with?",
        };
        return Err(Failure::input(format!(
            "{launcher} has {size} processes, and MPI sees {world}: each would do the whole work; \
             {advice}"
        )));
    }
    LINK.set(mpi.clone()).ok();
    Ok(Member { joined: Some((mpi, joined)) })
}

impl Member {
    /// Says how the command ended, once for all processes, and gives the exit status. A failure
    /// ends every process, but for an interrupt: on that all have agreed.
    pub fn end(self, result: Result<()>) -> u8 {
        let Err(failure) = result else { return 0 };
        let status = failure.exit_code();
        let link = link();
        if first() {
            note(&render::line(&failure));
        } else if failure.kind() != Kind::Interrupted {
            // Where the first has failed, too, it ends this process meanwhile.
            std::thread::sleep(PATIENCE);
            if link.world() > 1 {
                let (rank, line) = (link.rank(), render::text(&failure));
                eprintln!("error: process {rank} of {}: {line}", link.world());
            }
        }
        if failure.kind() != Kind::Interrupted {
            self.abort(status);
        }
        status
    }

    #[cfg(feature = "mpi")]
    fn abort(&self, status: u8) {
        if let Some((mpi, _)) = &self.joined {
            mpi.abort(status);
        }
    }

    #[cfg(not(feature = "mpi"))]
    #[allow(clippy::unused_self, reason = "with the feature `mpi` there is something to end")]
    fn abort(&self, _: u8) {}
}

impl Drop for Member {
    fn drop(&mut self) {
        // A goodbye would wait for the others, and they for this process.
        if std::thread::panicking() {
            self.abort(1);
        }
    }
}

/// Ends a process whose call, `words`, is wrong, as it is on every process: the first tells. A task
/// of `srun` tells itself where each may have another call.
pub fn leave_wrong_call(error: &clap::Error, words: &[OsString]) -> ! {
    let shared = words.iter().any(|word| SHARED.iter().any(|shared| word == shared));
    if first() || (!shared && matches!(started(), Some(("srun", ..)))) {
        error.exit();
    }
    std::thread::sleep(PATIENCE);
    process::exit(error.exit_code());
}

/// Refuses work whose `identity` is not the same on all processes.
///
/// # Errors
/// Another identity on one of them; a process that cannot be reached.
pub fn same_everywhere(what: &str, identity: &str) -> Result<()> {
    let all = link().gather_each(identity.as_bytes())?;
    match all.iter().position(|theirs| theirs != &all[0]) {
        None => Ok(()),
        Some(rank) => Err(Failure::input(format!(
            "processes 0 and {rank} have another {what}: do all see the same files, and run the \
             same program?"
        ))),
    }
}
