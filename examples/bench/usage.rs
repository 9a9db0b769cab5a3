//! What processes use of the machine, as the kernel counts it.

use std::fs;

/// What a process has used of a processor, in the program and in the kernel: microseconds.
pub fn times(pid: u32) -> [f64; 2] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // A tick is a hundredth of a second on every Linux that there is.
    [11, 12].map(|at| words.get(at).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) * 1e4)
}

/// What the whole machine has done but wait: microseconds of a processor.
pub fn machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
    // User, nice, system, (idle, waiting for disks,) interrupts, soft ones, stolen.
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&at| ticks.get(at)).sum::<f64>() * 1e4
}
