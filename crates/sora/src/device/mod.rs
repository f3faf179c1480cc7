//! Devices by name, and the threads of the CPU.

#[cfg(any(feature = "gpu", test))]
mod probe;

use burn::tensor::Device;

use sora_kernels::{Isa, isa::ISA_VARIABLE};

use crate::error::{Error, Result};

/// Finds the device called `name`: `cpu`, `cuda[:N]`, `rocm[:N]`, `wgpu`, `vulkan` or `metal`.
///
/// The first call for a device runs a small computation on it, so that a missing device is found
/// before any work begins.
///
/// # Errors
/// [`Error`] for an unknown name, a device that this program was built without, or a device that
/// does not exist: no driver, no adapter, or no library of its compiler.
pub fn device(name: &str) -> Result<Device> {
    let (kind, index) = match name.split_once(':') {
        None => (name, 0),
        Some((kind, index)) => {
            let index = index.parse::<usize>().map_err(|_| {
                let problem = format!("'{index}' is no device number; expected such as cuda:0");
                Error::setting("device", format!("'{name}'"), problem)
            })?;
            (kind, index)
        }
    };
    match kind {
        "cpu" if index == 0 => instruction_set().map(|_| Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => probe::probed(name, || Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => probe::probed(name, || Device::rocm(index)),
        #[cfg(feature = "wgpu")]
        "wgpu" => probe::probed(name, || Device::wgpu(gpu(index))),
        #[cfg(feature = "vulkan")]
        "vulkan" => probe::probed(name, || Device::vulkan(gpu(index))),
        #[cfg(feature = "metal")]
        "metal" => probe::probed(name, || Device::metal(gpu(index))),
        _ if DEVICES[1..].contains(&kind) => {
            let problem = format!(
                "this program was built without it; rebuild with \
                 `cargo build --release --features {kind}`, or use cpu"
            );
            Err(Error::setting("device", name, problem))
        }
        _ => Err(Error::unknown("device", name, DEVICES)),
    }
}

/// The kinds of device; all but the first need a feature of this crate.
pub const DEVICES: [&str; 6] = ["cpu", "cuda", "rocm", "wgpu", "vulkan", "metal"];

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn gpu(index: usize) -> burn::tensor::DeviceKind {
    if index == 0 {
        burn::tensor::DeviceKind::DefaultDevice
    } else {
        burn::tensor::DeviceKind::DiscreteGpu(index)
    }
}

/// Whether `device` multiplies f32 on its tensor cores and rounds the operands to tf32 for that, as
/// CUDA cards from Ampere (compute capability 8.0) on do.
pub(crate) fn multiplies_in_tf32(device: &Device) -> bool {
    #[cfg(feature = "cuda")]
    if let Some(identity) = device.identity() {
        // The fingerprint names the target of the kernels, such as `ptx_sm90`.
        let capability = identity.fingerprint.strip_prefix("ptx_sm").and_then(|sm| sm.parse().ok());
        return capability.is_some_and(|capability: u32| capability >= 80);
    }
    let _ = device;
    false
}

/// The instruction set of the CPU engine: the fastest of this machine, unless the environment
/// variable `SORA_ISA` names another.
///
/// # Errors
/// [`Error`] for a name in `SORA_ISA` that is unknown, or that this machine cannot run.
pub fn instruction_set() -> Result<Isa> {
    Isa::current()
        .map_err(|e| Error::unfit(format!("environment variable {ISA_VARIABLE}"), e.to_string()))
}

/// Largest number of CPU threads that a setting may ask for.
pub const MOST_THREADS: usize = 1024;

/// Sets the number of CPU threads for the whole process (0: one per core) and returns the number in
/// use. Only the first call has an effect.
///
/// # Errors
/// [`Error`] for more than [`MOST_THREADS`], or when the system refuses the threads.
pub fn set_threads(threads: usize) -> Result<usize> {
    if threads > MOST_THREADS {
        let problem = format!("expected 0 (one a core) to {MOST_THREADS}");
        return Err(Error::setting("threads", threads, problem));
    }
    if let Err(e) = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        // The other possible failure, an existing pool, has no cause.
        if let Some(cause) = std::error::Error::source(&e) {
            return Err(Error::Device(format!("cannot start {threads} threads: {cause}")));
        }
        tracing::debug!("thread pool is already running: {e}");
    }
    Ok(rayon::current_num_threads())
}

/// Memory that `device` holds for this process, in MiB, including memory kept for reuse; `None`
/// where the device does not tell.
pub fn memory_mib(device: &Device) -> Option<u64> {
    Some(device.memory_pool_usage()?.bytes_reserved >> 20)
}

/// Largest resident memory of this process so far, in MiB; 0 where the platform does not tell.
pub fn peak_rss_mib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            status.lines().find_map(|line| {
                line.strip_prefix("VmHWM:")?
                    .trim()
                    .trim_end_matches("kB")
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
        })
        .map_or(0, |kib| kib / 1024)
}

/// Bytes of memory that this process can still take: the smaller of the free memory and the rest of
/// its control group's limit; `None` where the platform does not tell.
pub fn available_memory() -> Option<u64> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    });
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(most, taken)| most.saturating_sub(taken));
    [free.map(|kib| kib * 1024), group].into_iter().flatten().min()
}
