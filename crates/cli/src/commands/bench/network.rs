//! The time of a training step on many machines, from what was measured on this one. It is a model:
//! messages of a round all go at once, nothing else is on the network, and no process is late.

use serde_json::{Value, json};
use sora::ranks::{SMALL_SUM, bucket};

/// A network.
#[derive(Clone, Copy)]
pub struct Network {
    /// Bits a second each way, times 1e9.
    pub gigabits: f64,
    /// Seconds until a short message is there.
    pub latency: f64,
}

/// Ethernet through the kernel, and what is made for such work.
pub const NETWORKS: [Network; 2] =
    [Network { gigabits: 10.0, latency: 30e-6 }, Network { gigabits: 100.0, latency: 3e-6 }];

/// Numbers of processes.
pub const PROCESSES: [usize; 6] = [8, 16, 32, 64, 128, 256];

/// What a process does in a step, and has to say.
#[derive(Clone, Copy)]
pub struct Work {
    /// Seconds of computing.
    pub computing: f64,
    /// Of these, those from the first complete gradient to the end of the backward pass.
    pub window: f64,
    /// Sums that the step waits for: of batch norms, and of figures.
    pub sums: f64,
    /// Bytes of their values.
    pub bytes: f64,
    /// Bytes of the gradients.
    pub gradients: f64,
}

impl Network {
    fn transfer(self, bytes: f64) -> f64 {
        bytes * 8.0 / (self.gigabits * 1e9)
    }

    /// Seconds of the sums that a step waits for. All-gather and all-to-all of short messages take
    /// as many rounds as the number of processes has binary digits.
    fn waits(self, work: &Work, processes: f64) -> f64 {
        let each = work.bytes / work.sums.max(1.0);
        let others = processes - 1.0;
        let (calls, sent) = match each * processes <= SMALL_SUM as f64 {
            true => (1.0, each * others),
            false => (2.0, 2.0 * each * others / processes),
        };
        work.sums * (calls * processes.log2().ceil() * self.latency + self.transfer(sent))
    }

    /// Seconds of the sum of `bytes` of gradients in `buckets`: every process sends each other one a
    /// part and then its sums, one after the other.
    fn gradients(self, bytes: f64, buckets: f64, processes: f64) -> f64 {
        let others = processes - 1.0;
        2.0 * others * (buckets * self.latency + self.transfer(bytes / processes))
    }

    /// A step of `processes`, each with as much work as `work`.
    pub fn step(self, work: &Work, processes: usize) -> Value {
        let n = processes as f64;
        let waits = self.waits(work, n);
        let in_turn = self.gradients(work.gradients, 1.0, n);
        let buckets = (work.gradients / bucket(processes) as f64).ceil().max(1.0);
        let all = self.gradients(work.gradients, buckets, n);
        // The last bucket is complete when the pass ends.
        let left = (all - work.window).max(all / buckets);
        let overlapped = work.computing + waits + left;
        json!({
            "processes": processes,
            "sums_s": waits,
            "gradients_s": in_turn,
            "in_turn_s": work.computing + waits + in_turn,
            "step_s": overlapped,
            "efficiency": work.computing / overlapped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_by_hand() {
        let network = Network { gigabits: 8.0, latency: 1e-4 };
        // 1 GB/s: a megabyte takes a millisecond.
        let work = Work { computing: 0.1, window: 0.03, sums: 10.0, bytes: 1e5, gradients: 32e6 };
        let of = |processes, key: &str| network.step(&work, processes)[key].as_f64().unwrap();
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
        // 10 kB a sum, sent to 3 others in 2 rounds each.
        near(of(4, "sums_s"), 10.0 * (2.0 * 1e-4 + 3.0 * 1e-5));
        // Parts of 8 MB, and as much back, to 3 others.
        near(of(4, "gradients_s"), 6.0 * (1e-4 + 8e-3));
        // 31 buckets of 1 MiB, of which 30 ms are hidden.
        near(of(4, "step_s"), 0.1 + 0.0023 + 6.0 * (31.0 * 1e-4 + 8e-3) - 0.03);
        // 8 times 10 kB are more than 64 KiB: summed in parts, in two calls of 3 rounds.
        near(of(8, "sums_s"), 10.0 * (6.0 * 1e-4 + 2.0 * 1e-5 * 7.0 / 8.0));
        // Where all but the last bucket is hidden.
        let quick = Work { window: 10.0, ..work };
        let step = network.step(&quick, 4)["step_s"].as_f64().unwrap();
        near(step, 0.1 + 0.0023 + 6.0 * (31.0 * 1e-4 + 8e-3) / 31.0);
    }
}
