//! The machine's memory, for refusing requests that cannot fit before they are made.

use std::fs;

/// The most bytes of memory that this process can have: the machine's memory, or the limit of its
/// control group if that is less. `None` where neither can be read.
pub(crate) fn limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text));
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    machine.map(|bytes| group.map_or(bytes, |group| bytes.min(group)))
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_table_is_read() {
        let text = "MemTotal:       24689764 kB\nMemFree:        1000 kB\n";
        assert_eq!(of_machine(text), Some(24_689_764 * 1024));
        assert_eq!(of_machine("nothing"), None);
        #[cfg(target_os = "linux")]
        assert!(limit().is_some_and(|bytes| bytes > 64 << 20));
    }
}
