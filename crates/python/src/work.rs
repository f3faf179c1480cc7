//! Runs work beside the interpreter: on a thread of its own, with progress and Ctrl-C.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use pyo3::prelude::*;

/// Time between two checks for progress and signals.
const EVERY: Duration = Duration::from_millis(50);

/// Progress of the work: its name, the units done, the units in total, and a remark.
pub type News = (String, u64, u64, String);

/// Runs `work` without the interpreter's lock. `progress` (`None` for none) is called with the news
/// that `work` sends. When it raises, or when Ctrl-C is pressed, `stop` is set and the end of the
/// work is awaited.
///
/// # Errors
/// The exception that was raised meanwhile, else the error of the work.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    stop: &AtomicBool,
    work: impl FnOnce(Sender<News>) -> T + Send,
) -> PyResult<T> {
    let (sender, receiver) = mpsc::channel();
    let mut raised = None;
    let result = thread::scope(|scope| {
        let handle = scope.spawn(move || work(sender));
        while !handle.is_finished() {
            py.detach(|| thread::sleep(EVERY));
            let told = tell(py, progress.as_ref(), &receiver).and_then(|()| py.check_signals());
            if let Err(e) = told
                && raised.is_none()
            {
                stop.store(true, Ordering::Relaxed);
                raised = Some(e);
            }
        }
        py.detach(|| handle.join())
    });
    match (raised, result) {
        (Some(e), _) => Err(e),
        (None, Ok(value)) => tell(py, progress.as_ref(), &receiver).map(|()| value),
        (None, Err(_)) => Err(pyo3::exceptions::PyRuntimeError::new_err(
            "a defect of sora: the work ended in a panic; please report it",
        )),
    }
}

fn tell(py: Python<'_>, progress: Option<&Py<PyAny>>, news: &Receiver<News>) -> PyResult<()> {
    for (what, done, total, remark) in news.try_iter() {
        if let Some(progress) = progress {
            progress.call1(py, (what, done, total, remark))?;
        }
    }
    Ok(())
}
