//! The part of the Python package `sora_robust` that is compiled.
//!
//! Arrays cross as bytes (f32 and i64 in the machine's order); shapes, classes and reports are made
//! in Python. Work runs on a thread of its own without the interpreter's lock; the calling thread
//! passes progress on and looks for Ctrl-C.

mod classifier;
mod evaluate;
mod train;
mod work;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the program `sora` on the words of a command line, the first of which is its name.
#[pyfunction]
fn program(py: Python<'_>, words: Vec<String>) -> u8 {
    py.detach(|| sora_cli::answer(words.into_iter().map(Into::into).collect()))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(program, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate::shape_of, module)?)?;
    module.add_function(wrap_pyfunction!(train::train, module)?)?;
    Ok(())
}
