//! `evaluate`: accuracy of a model under attacks.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
        mpsc::Sender,
    },
};

use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
    types::PyBytes,
};
use robustness::{
    Access, Classifier, EvalConfig, EvalEvent, EvalObserver, Evaluator, Identity, InMemory, Ledger,
    Norm, OneOutput, PullBack, Samples, Shape, Threat, WeightsIdentity, attack,
    evaluate::{ExistingState, StateOptions},
};

use crate::{
    classifier::{self, Callable, Opened, Stoppable},
    work::{self, News},
};

/// The arguments of a call, besides the model.
#[derive(Debug, FromPyObject)]
pub struct Request {
    /// Images, bytes of f32.
    x: Vec<u8>,
    /// Class of each image.
    y: Vec<u32>,
    /// `[channels, height, width, classes]`; a file brings its own number of classes.
    shape: [usize; 4],
    epsilon: f32,
    norm: String,
    attacks: Vec<String>,
    seed: u64,
    batch: usize,
    /// Folder for the adversarial examples.
    keep: Option<PathBuf>,
    normalisation: Option<(Vec<f32>, Vec<f32>)>,
    /// What the one output of a network of two classes in a file is said to be.
    one_output: Option<String>,
    /// Attacks search in bf16.
    in_bf16: bool,
}

/// Sends progress to the calling thread.
#[derive(Debug)]
struct Reporter(Sender<News>);

impl EvalObserver for Reporter {
    fn on(&mut self, event: &EvalEvent<'_>) {
        let news = match *event {
            EvalEvent::Started { what, total } => (what.to_owned(), 0, total, String::new()),
            EvalEvent::Advanced { what, done, total, attack } => {
                let remark = attack.map_or_else(String::new, |at| {
                    let most = 100.0 * at.standing as f64 / at.images.max(1) as f64;
                    format!("accuracy at most {most:.1} %")
                });
                (what.to_owned(), done, total, remark)
            }
            _ => return,
        };
        // The receiver is gone when the call is ending, so a failed send is no error.
        let _ = self.0.send(news);
    }
}

fn wrong(e: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(e.to_string())
}

/// `[channels, height, width, classes]` of the network in a file or a run folder.
#[pyfunction]
#[pyo3(signature = (path, normalisation=None, image_size=None))]
pub fn shape_of(
    py: Python<'_>,
    path: PathBuf,
    normalisation: Option<(Vec<f32>, Vec<f32>)>,
    image_size: Option<usize>,
) -> PyResult<[usize; 4]> {
    let opened = py.detach(|| classifier::open(&path, normalisation, image_size, None, false));
    let Shape { channels, height, width, classes } = opened.map_err(wrong)?.model.shape();
    Ok([channels, height, width, classes])
}

/// The logits of images, and the products of their cotangents with the Jacobians, of the network in a
/// file; all are bytes of f32.
#[pyfunction]
#[pyo3(signature = (path, x, cotangent, image_size=None, one_output=None))]
pub fn pull_back<'py>(
    py: Python<'py>,
    path: PathBuf,
    x: Vec<u8>,
    cotangent: Vec<u8>,
    image_size: Option<usize>,
    one_output: Option<&str>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let said = one_output.map(str::parse::<OneOutput>).transpose().map_err(wrong)?;
    let (x, cotangent) = (classifier::from_bytes(&x), classifier::from_bytes(&cotangent));
    let pulled = py.detach(|| {
        let model = classifier::open(&path, None, image_size, said, false)?.model;
        let Shape { classes, .. } = model.shape();
        let pixels = model.shape().pixels();
        if x.len() / pixels.max(1) * classes != cotangent.len() || x.len() % pixels.max(1) != 0 {
            return Err(format!(
                "cotangent: expected {classes} numbers for each image of {pixels}"
            ));
        }
        let mut rows = |first: usize, logits: &[f32]| {
            let at = first * classes;
            cotangent.get(at..at + logits.len()).unwrap_or_default().to_vec()
        };
        model.pull_back(&x, &mut rows).map_err(|e| e.to_string())
    });
    let PullBack { logits, grad } = pulled.map_err(wrong)?;
    Ok((classifier::to_bytes(py, &logits)?, classifier::to_bytes(py, &grad)?))
}

/// Returns a report as JSON, and the archives of adversarial examples by attack. `model` is a path,
/// or an object of the form that [`Callable`] describes.
///
/// # Errors
/// `ValueError` for a wrong call, `RuntimeError` for work that fails, and whatever the model
/// raises.
#[pyfunction]
#[pyo3(signature = (model, request, progress=None))]
pub fn evaluate(
    py: Python<'_>,
    model: Bound<'_, PyAny>,
    request: Request,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, Vec<(String, String)>)> {
    let raised = Arc::new(Mutex::new(None));
    let [channels, height, width, classes] = request.shape;
    let said = request.one_output.as_deref().map(str::parse::<OneOutput>).transpose();
    let said = said.map_err(wrong)?;
    let Opened { model, near, one_output } = match model.extract::<PathBuf>() {
        Ok(path) => {
            let given = request.normalisation.clone();
            let size = (height == width).then_some(height);
            py.detach(|| classifier::open(&path, given, size, said, request.in_bf16))
                .map_err(wrong)?
        }
        // What a Python object gives was looked at in Python.
        Err(_) => {
            let shape = Shape { channels, height, width, classes };
            let near = request.in_bf16.then(|| model.getattr("near")).transpose()?;
            let near = near.map(|near| called(near, shape, &raised)).transpose()?;
            let near = near.map(|near| Box::new(near) as Box<dyn Classifier>);
            Opened { near, ..Opened::plain(called(model, shape, &raised)?) }
        }
    };
    let stop = AtomicBool::new(false);
    let result = work::run(py, progress, &stop, |news| {
        let model = Stoppable { inner: &*model, stop: &stop };
        let near = near.as_deref().map(|inner| Stoppable { inner, stop: &stop });
        judge(&model, near.as_ref(), one_output, &request, Reporter(news))
    })?;
    result.map_err(|e| {
        let raised = raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.unwrap_or_else(|| match e.is_input() {
            true => wrong(e),
            false => PyRuntimeError::new_err(e.to_string()),
        })
    })
}

/// A Python object as a classifier.
fn called(
    object: Bound<'_, PyAny>,
    shape: Shape,
    raised: &Arc<Mutex<Option<PyErr>>>,
) -> PyResult<Callable> {
    let access = match object.getattr("gradients")?.extract()? {
        true => Access::Gradients,
        false => Access::Scores,
    };
    let (queries, raised) = (AtomicU64::new(0), raised.clone());
    Ok(Callable { object: object.unbind(), shape, access, queries, raised })
}

fn judge(
    model: &dyn Classifier,
    near: Option<&Stoppable<'_>>,
    one_output: Option<Option<OneOutput>>,
    request: &Request,
    observer: Reporter,
) -> robustness::Result<(String, Vec<(String, String)>)> {
    let norm: Norm = request.norm.parse()?;
    let threat = Threat { norm, epsilon: request.epsilon };
    let entries = request
        .attacks
        .iter()
        .map(|name| attack::entry(name, norm))
        .collect::<robustness::Result<Vec<_>>>()?;
    let [channels, height, width, _] = request.shape;
    let shape = Shape { channels, height, width, classes: model.shape().classes };
    let labels = request.y.iter().map(|&y| y as usize).collect();
    let samples = InMemory::new(shape, classifier::from_bytes(&request.x), labels)?;
    let note = one_output.map(|said| OneOutput::check(said, model, &samples)).transpose()?;
    let config =
        EvalConfig { seed: request.seed, batch: request.batch, ..EvalConfig::under(threat) };
    let ledger = match &request.keep {
        None => Ledger::in_memory(),
        Some(folder) => keeping(folder, &samples, threat, request.seed)?,
    };
    let mut evaluator = Evaluator::new(model, &samples, config, ledger)?.observe(observer);
    if let Some(near) = near {
        evaluator = evaluator.search_on(near, "bf16")?;
    }
    let mut outcome = evaluator.run(&entries)?;
    outcome.notes.extend(note);
    let mut kept = Vec::new();
    if let Some(folder) = &request.keep {
        for (index, entry) in entries.iter().enumerate().filter(|(_, e)| !e.parts.is_empty()) {
            let saved = evaluator.save(entry, &folder.join(format!("adversarial-{index}")))?;
            kept.push((entry.name.clone(), saved.npz.display().to_string()));
        }
    }
    evaluator.finish()?;
    let report = serde_json::json!({
        "n": request.y.len(),
        "epsilon": request.epsilon,
        "norm": norm.to_string(),
        "seed": request.seed,
        "results": outcome.results,
        "notes": outcome.notes,
        "warnings": outcome.warnings,
    });
    Ok((report.to_string(), kept))
}

/// Opens a ledger in `folder`, which is new and empty; the ledger keeps adversarial examples.
fn keeping(
    folder: &Path,
    samples: &InMemory,
    threat: Threat,
    seed: u64,
) -> robustness::Result<Ledger> {
    // The folder exists for this call only, so no earlier results are ever read from it.
    let data = samples.identity("given", "")?;
    let identity = Identity::new("python", WeightsIdentity::default(), data, threat, seed);
    let examples = Some(samples.shape().pixels());
    let options = StateOptions { start: ExistingState::Fresh, examples };
    Ledger::open(&folder.join("state.jsonl"), &identity, options)
}
