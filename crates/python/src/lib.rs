//! The compiled part of the Python package `sora_robust`.
//!
//! Arrays pass between the languages as bytes (f32 and i64 in the machine's order); Python makes
//! the shapes, classes and reports. Work runs on a thread of its own without the interpreter's
//! lock, while the calling thread passes on progress and checks for Ctrl-C.

mod classifier;
mod evaluate;
mod train;
mod work;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the program `sora` with the words of a command line; the first word is the program's name.
#[pyfunction]
fn program(py: Python<'_>, words: Vec<String>) -> u8 {
    py.detach(|| sora_cli::answer(words.into_iter().map(Into::into).collect()))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(program, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate::pull_back, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate::shape_of, module)?)?;
    module.add_function(wrap_pyfunction!(train::train, module)?)?;
    Ok(())
}
