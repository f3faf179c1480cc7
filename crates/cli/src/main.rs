//! The `sora` program.

use std::process::ExitCode;

/// This allocator keeps freed pages for the next step, because a training step allocates the same
/// large buffers repeatedly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sora_cli::main()
}
