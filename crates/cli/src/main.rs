//! The `sora` program.

use std::process::ExitCode;

/// Keeps freed pages for the next step: a training step allocates the same large buffers again and
/// again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sora_cli::main()
}
