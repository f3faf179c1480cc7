//! MPI (feature `mpi`), through the crate `mpi`: OpenMPI, MPICH and what is made of them.

use std::{cell::RefCell, fmt, mem::ManuallyDrop, sync::Arc};

use mpi::{
    Threading,
    environment::{Universe, initialize_with_threading},
    topology::SimpleCommunicator,
    traits::{Communicator as _, CommunicatorCollectives as _},
};

use super::Communicator;
use crate::error::{Error, Result};

/// All processes that `mpirun` or `srun` has started.
///
/// A call that fails ends every process: that is what MPI does unless it is told otherwise.
pub struct Mpi {
    rank: usize,
    world: usize,
    /// What the library allows.
    threading: Threading,
    link: Link,
}

/// Which of MPI's communicators a link is.
#[derive(Clone, Copy)]
enum Link {
    World,
    /// That of the thread: a handle of MPI's cannot be given to another.
    Second,
}

thread_local! {
    /// It is never freed: all would have to take part in that, and a process that has failed does
    /// not.
    static SECOND: RefCell<Option<ManuallyDrop<SimpleCommunicator>>> =
        const { RefCell::new(None) };
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mpi({} of {})", self.rank, self.world)
    }
}

impl Mpi {
    /// Joins the other processes; the second value must live as long as anything is said to them,
    /// and says goodbye when it is dropped.
    ///
    /// # Errors
    /// Joined before; an MPI library that allows one thread only.
    pub fn join() -> Result<(Arc<Self>, Joined)> {
        // Steps run on a thread of rayon's, one at a time; sums beside them on one more.
        let (universe, threading) = initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| Error::defect("MPI has been started before"))?;
        if threading < Threading::Serialized {
            let problem = "gives MPI_THREAD_FUNNELED at most; expected MPI_THREAD_SERIALIZED";
            return Err(Error::unfit("the MPI library", problem));
        }
        let world = SimpleCommunicator::world();
        let (rank, world) = (world.rank() as usize, world.size() as usize);
        Ok((Arc::new(Self { rank, world, threading, link: Link::World }), Joined(universe)))
    }

    /// Ends every process at once with this exit status.
    pub fn abort(&self, status: u8) -> ! {
        SimpleCommunicator::world().abort(i32::from(status))
    }

    fn with<R>(&self, call: impl FnOnce(&SimpleCommunicator) -> R) -> Result<R> {
        match self.link {
            Link::World => Ok(call(&SimpleCommunicator::world())),
            Link::Second => SECOND.with_borrow(|second| {
                let second = second.as_deref();
                second.map(call).ok_or_else(|| Error::defect("a link of another thread"))
            }),
        }
    }
}

/// Membership of the world; dropped at the end of the program.
pub struct Joined(#[allow(dead_code, reason = "it is held")] Universe);

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<u8>> {
        let mut all = vec![0; mine.len() * self.world];
        self.with(|link| link.all_gather_into(mine, &mut all[..]))?;
        Ok(all)
    }

    fn exchange(&self, mine: &[u8]) -> Result<Vec<u8>> {
        let mut theirs = vec![0; mine.len()];
        self.with(|link| link.all_to_all_into(mine, &mut theirs[..]))?;
        Ok(theirs)
    }

    fn second(&self) -> Result<Option<Arc<dyn Communicator>>> {
        if self.any(self.threading < Threading::Multiple)? {
            return Ok(None);
        }
        let second = self.with(SimpleCommunicator::duplicate)?;
        SECOND.set(Some(ManuallyDrop::new(second)));
        let Self { rank, world, threading, .. } = *self;
        Ok(Some(Arc::new(Self { rank, world, threading, link: Link::Second })))
    }
}
