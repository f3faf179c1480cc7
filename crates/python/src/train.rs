//! `train`: a run with the settings of the program.

use std::{path::PathBuf, sync::atomic::AtomicBool, sync::mpsc::Sender};

use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
};
use sora::{
    Error, ErrorKind, Trainer,
    config::{self, TrainConfig},
    run::{open_dataset, with_initial_network},
    train::{Event, Observer},
};

use crate::work::{self, News};

/// Sends progress to the calling thread.
struct Reporter {
    news: Sender<News>,
    total: u64,
}

impl Observer for Reporter {
    fn observe(&mut self, event: &Event<'_>) -> sora::Result<()> {
        let news = match event {
            Event::Started { step, total, .. } => {
                self.total = *total;
                ("train".to_owned(), *step, *total, String::new())
            }
            Event::Step(line) => {
                let remark = format!("loss {:.3} PertAlign {:.2}", line.loss, line.pert_align);
                ("train".to_owned(), line.step + 1, self.total, remark)
            }
            Event::Warning(text) | Event::Message(text) => {
                ("message".to_owned(), 0, 0, (*text).to_owned())
            }
            Event::Overfitting(event) => ("message".to_owned(), 0, 0, event.to_string()),
            _ => return Ok(()),
        };
        // The receiver is gone when the call is ending, so a failed send is no error.
        let _ = self.news.send(news);
        Ok(())
    }
}

/// Trains with `settings` (TOML, with the keys of config.toml) into the new folder `out` and
/// returns the summary as JSON.
///
/// # Errors
/// `ValueError` for a wrong setting, `RuntimeError` for training that fails.
#[pyfunction]
#[pyo3(signature = (settings, out, progress=None))]
pub fn train(
    py: Python<'_>,
    settings: &str,
    out: PathBuf,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let stop = AtomicBool::new(false);
    let settings = settings.to_owned();
    let result = work::run(py, progress, &stop, |news| -> sora::Result<String> {
        let table = with_initial_network(config::parse(&settings)?)?;
        let mut config = TrainConfig::from_table(table)?;
        config.check_ignored()?;
        config.make_absolute();
        let dataset = open_dataset(&config)?;
        let trained = Trainer::from_config(config)
            .in_dir(&out)
            .observe(Reporter { news, total: 0 })
            .interrupt(&stop)
            .fit(&dataset)?;
        serde_json::to_string(&trained.summary).map_err(|e| Error::defect(e.to_string()))
    })?;
    result.map_err(|e| match e.kind() {
        ErrorKind::Input => PyValueError::new_err(e.to_string()),
        _ => PyRuntimeError::new_err(e.to_string()),
    })
}
