//! What no test asserts, since it depends on the machine: `scripts/bench`.
//!
//!     bench isolation BIN [ROUNDS]
//!     bench fairness BIN [ROUNDS [LINES WITH THIS]]
//!     bench critical ROUNDS BIN...
//!     bench where ROUNDS BIN...
//!     bench curves BIN [--quick] [--into FOLDER] [--peers MOST] [CURVE...]
//!     bench peers [--quick] [--into FILE] [--disk FOLDER] BIN...
//!     bench scale [--links N] [--lines N] [--into FILE] BIN
//!     bench floor near|far LISTEN CONNECT    (a process of `peers`)
//!
//! BIN is a folder of lonnet's programs. Rounds alternate between what is compared, so that what
//! else the machine does strikes both alike; what is printed are medians.

mod asking;
mod costs;
mod critical;
mod curves;
mod fairness;
mod isolation;
mod load;
mod peers;
mod report;
mod rig;
mod scale;
mod speech;
mod stream;
mod usage;

use load::Latency;
use rig::Result;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

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
        ["fairness", bin] => fairness::run(Path::new(bin), fairness::ROUNDS, ""),
        ["fairness", bin, rounds] => fairness::run(Path::new(bin), rounds.parse()?, ""),
        ["fairness", bin, rounds, only] => fairness::run(Path::new(bin), rounds.parse()?, only),
        ["critical", rounds, ref bins @ ..] if !bins.is_empty() => {
            let bins: Vec<PathBuf> = bins.iter().map(PathBuf::from).collect();
            critical::run(&bins, rounds.parse()?)
        }
        ["where", rounds, ref bins @ ..] if !bins.is_empty() => {
            let bins: Vec<PathBuf> = bins.iter().map(PathBuf::from).collect();
            costs::run(&bins, rounds.parse()?)
        }
        ["curves", bin, ref arguments @ ..] => curves::run(bin, arguments),
        ["peers", ref arguments @ ..] => peers::run(arguments),
        ["scale", ref arguments @ ..] => scale::run(arguments),
        ["floor", side, listen, connect] => peers::floor::run(side, listen, connect),
        _ => Err(
            "want isolation|fairness BIN [ROUNDS], critical|where ROUNDS BIN..., curves|scale BIN, or peers BIN..."
                .into(),
        ),
    }
}

/// The heads of a table of [`print_compared`].
fn print_heads(what: &str) {
    println!(
        "{what:<24} {:>8} {:>8}   {:>8} {:>8}   {:>6} {:>6}",
        "p50", "p99", "then p50", "then p99", "p50", "p99"
    );
}

/// A line with the medians of what was measured in each round, and of the rounds' ratios.
fn print_compared(name: &str, before: &[Latency], with: &[Latency]) {
    let of = |all: &[Latency], which: fn(&Latency) -> f64| median(all.iter().map(which));
    let ratio = |which: fn(&Latency) -> f64| {
        median(before.iter().zip(with).map(|(before, with)| which(with) / which(before)))
    };
    type Part = fn(&Latency) -> f64;
    let (p50, p99): (Part, Part) = (|it| it.p50, |it| it.p99);
    println!(
        "{name:<24} {:>8.0} {:>8.0}   {:>8.0} {:>8.0}   {:>6.2} {:>6.2}",
        of(before, p50),
        of(before, p99),
        of(with, p50),
        of(with, p99),
        ratio(p50),
        ratio(p99)
    );
}

/// Two processes that do nothing else than use a processor each.
fn two_busy() -> Result<[Child; 2]> {
    let busy = || Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
    Ok([busy()?, busy()?])
}

/// Ends them.
fn end_busy(both: [Child; 2]) -> Result<()> {
    both.into_iter().try_for_each(|mut process| {
        process.kill()?;
        process.wait()?;
        Ok(())
    })
}

/// The one in the middle.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Lets this program have as many descriptors as it may.
fn raise_descriptors() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
