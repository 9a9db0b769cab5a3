//! What no test asserts, since it depends on the machine: `scripts/bench`.
//!
//!     bench isolation BIN [ROUNDS]
//!     bench critical ROUNDS BIN...
//!
//! BIN is a folder of lonnet's programs. Rounds alternate between what is compared, so that what
//! else the machine does strikes both alike; what is printed are medians.

mod critical;
mod isolation;
mod load;
mod rig;

use rig::Result;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["isolation", bin] => isolation::run(Path::new(bin), isolation::ROUNDS),
        ["isolation", bin, rounds] => isolation::run(Path::new(bin), rounds.parse()?),
        ["critical", rounds, ref bins @ ..] if !bins.is_empty() => {
            let bins: Vec<PathBuf> = bins.iter().map(PathBuf::from).collect();
            critical::run(&bins, rounds.parse()?)
        }
        _ => Err("want isolation BIN [ROUNDS], or critical ROUNDS BIN...".into()),
    }
}

/// The one in the middle.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
