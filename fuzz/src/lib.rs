//! What the fuzz targets share.

/// Runs the parallel tasks of rayon on the thread that fuzzes: on a busy machine, waiting for another
/// thread takes longer than most of what is tried. The tasks and what they write stay the same.
pub fn one_thread() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("the only pool of this process");
}
