//! Networks in Python objects and in files, as classifiers under attack.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use pyo3::{prelude::*, types::PyBytes};
use robustness::{
    Access, Classifier, Cotangent, Error, Incremental, OneOutput, PullBack, Result, Shape,
};

/// A Python object with `logits(x) -> bytes` and, where it has gradients, `record(x) -> (bytes, pull)`, where
/// `pull(cotangent) -> bytes`; x, logits, cotangents and gradients are bytes of f32.
#[derive(Debug)]
pub struct Callable {
    pub object: Py<PyAny>,
    pub shape: Shape,
    pub access: Access,
    pub queries: AtomicU64,
    /// The exception that the object raised, which is raised again unchanged.
    pub raised: Arc<Mutex<Option<PyErr>>>,
}

pub fn to_bytes<'py>(py: Python<'py>, values: &[f32]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, size_of_val(values), |bytes| {
        for (b, v) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
            *b = v.to_ne_bytes();
        }
        Ok(())
    })
}

pub fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b)).collect()
}

impl Callable {
    /// Converts the result of a call to `expected` numbers.
    fn numbers(&self, what: &str, found: &Bound<'_, PyAny>, expected: usize) -> PyResult<Vec<f32>> {
        let values = from_bytes(found.cast::<PyBytes>()?.as_bytes());
        if values.len() != expected {
            let text = format!("the model gave {} {what}, expected {expected}", values.len());
            return Err(pyo3::exceptions::PyValueError::new_err(text));
        }
        Ok(values)
    }

    fn kept<T>(&self, result: PyResult<T>) -> Result<T> {
        result.map_err(|e| {
            let text = e.to_string();
            *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            Error::classifier(text)
        })
    }

    fn rows(&self, x: &[f32]) -> usize {
        x.len() / self.shape.pixels().max(1)
    }
}

impl Classifier for Callable {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn access(&self) -> Access {
        self.access
    }

    fn queries(&self) -> Option<u64> {
        (self.access < Access::Gradients).then(|| self.queries.load(Ordering::Relaxed))
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        self.queries.fetch_add(self.rows(x) as u64, Ordering::Relaxed);
        self.kept(Python::attach(|py| {
            let found = self.object.bind(py).call_method1("logits", (to_bytes(py, x)?,))?;
            self.numbers("logits", &found, self.rows(x) * self.shape.classes)
        }))
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let (logits, pull) = self.kept(Python::attach(|py| {
            let found = self.object.bind(py).call_method1("record", (to_bytes(py, x)?,))?;
            let (logits, pull): (Bound<'_, PyAny>, Py<PyAny>) = found.extract()?;
            let expected = self.rows(x);
            Ok((self.numbers("logits", &logits, expected * self.shape.classes)?, pull))
        }))?;
        // The cotangent is computed without the interpreter's lock, so that other threads of Python
        // may run.
        let back = cotangent(0, &logits);
        let grad = self.kept(Python::attach(|py| {
            let found = pull.bind(py).call1((to_bytes(py, &back)?,))?;
            self.numbers("values of a gradient", &found, x.len())
        }))?;
        Ok(PullBack { logits, grad })
    }
}

/// A classifier that fails once it has been told to stop.
#[derive(Debug)]
pub struct Stoppable<'a> {
    pub inner: &'a dyn Classifier,
    pub stop: &'a AtomicBool,
}

impl Stoppable<'_> {
    fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::classifier("interrupted")),
            false => Ok(()),
        }
    }
}

impl Classifier for Stoppable<'_> {
    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn access(&self) -> Access {
        self.inner.access()
    }

    fn queries(&self) -> Option<u64> {
        self.inner.queries()
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        self.check()?;
        self.inner.logits(x)
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        self.check()?;
        self.inner.pull_back(x, cotangent)
    }

    fn incremental(&self, x: &[f32]) -> Result<Option<Box<dyn Incremental + '_>>> {
        self.check()?;
        self.inner.incremental(x)
    }

    fn lanes(&self) -> usize {
        self.inner.lanes()
    }

    fn session(&self) -> Option<Box<dyn std::any::Any>> {
        self.inner.session()
    }
}

/// A model, and where it has one output for two classes, what that is said to be.
#[derive(Debug)]
pub struct Opened {
    pub model: Box<dyn Classifier>,
    /// The same in bf16, where that was asked for.
    pub near: Option<Box<dyn Classifier>>,
    pub one_output: Option<Option<OneOutput>>,
}

impl Opened {
    pub fn plain(model: impl Classifier + 'static) -> Self {
        Self { model: Box::new(model), near: None, one_output: None }
    }
}

/// Opens the network of a file or of a run folder.
///
/// # Errors
/// A text that says what cannot be read, and why.
pub fn open(
    path: &Path,
    normalisation: Option<(Vec<f32>, Vec<f32>)>,
    image_size: Option<usize>,
    one_output: Option<OneOutput>,
    in_bf16: bool,
) -> Result<Opened, String> {
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
        if in_bf16 {
            return Err(
                "attack_precision 'bf16': not of an ONNX file, which is computed in f32".into()
            );
        }
        let options = sora_onnx::Options {
            image_size: image_size.map(|side| [side, side]),
            normalisation: normalisation.map(|(mean, std)| sora_onnx::Normalisation { mean, std }),
            output: None,
            one_output,
        };
        let network = sora_onnx::Network::open(path, &options).map_err(|e| e.to_string())?;
        let one_output = network.has_one_output().then(|| network.one_output());
        return Ok(Opened { one_output, ..Opened::plain(network) });
    }
    if one_output.is_some() {
        return Err(
            "one_output: a run or a weights file of sora has an output for each class".into()
        );
    }
    if normalisation.is_some() {
        return Err(
            "a run or a weights file knows its normalisation: leave out mean and std".into()
        );
    }
    let device = sora::device::device("cpu").map_err(|e| e.to_string())?;
    let subject = sora::run::Subject::load(path, &device).map_err(|e| e.to_string())?;
    let mut near = None;
    if in_bf16 {
        let mut model = subject.model.clone();
        model.set_precision(sora::nn::Precision::Bf16).map_err(|e| e.to_string())?;
        near = Some(Box::new(model) as Box<dyn Classifier>);
    }
    Ok(Opened { near, ..Opened::plain(subject.model) })
}
