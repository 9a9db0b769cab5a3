//! Both supervisors as processes, with children of the tests' own.
//!
//! A supervisor forks and must have one thread, so it cannot run inside a test. This program has no
//! harness: it starts itself again in a *role* (the variable [`ROLE`]), as `lonc` or `lond` with
//! the children in `roles`. With no role it runs the tests, a few at a time, and says of them what
//! libtest would say; an argument that is no option selects those whose names contain it.

#![allow(clippy::unwrap_used, reason = "a test program: what fails, fails the test")]

mod lonc;
mod lonc_dials;
mod lonc_start;
mod lond;
mod lond_door;
mod places;
mod reload_lonc;
mod reload_lond;
mod roles;
mod trial;
mod world;

#[path = "../common/skip.rs"]
mod skip;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// The environment variable that tells a process of this program what to be.
pub const ROLE: &str = "LONNET_TEST_ROLE";

/// Tests that run at a time.
const AT_A_TIME: usize = 6;

/// When it is said that a test is slow, as libtest says it: `scripts/deadline` looks for that.
const SLOW: Duration = Duration::from_secs(60);

/// A name that says what holds, and its proof.
pub type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        return roles::play(&role);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let said = |option: &str| arguments.iter().any(|argument| argument == option);
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let matches =
        |name: &str, filter: &str| if said("--exact") { name == filter } else { name.contains(filter) };
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| matches(name, filter));
    let all = [
        lonc::TESTS,
        lonc_dials::TESTS,
        lonc_start::TESTS,
        lond::TESTS,
        lond_door::TESTS,
        places::TESTS,
        reload_lonc::TESTS,
        reload_lond::TESTS,
        trial::TESTS,
    ];
    let total = all.iter().map(|tests| tests.len()).sum::<usize>();
    // None is ignored.
    let tests = all.concat().into_iter().filter(|(name, _)| chosen(name) && !said("--ignored"));
    let tests: Vec<Test> = tests.collect();
    if said("--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", tests.len());
    let begun = Instant::now();
    let failed = run(&tests);
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {name}"));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        tests.len() - failed.len(),
        failed.len(),
        total - tests.len(),
        begun.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs them, a few at a time; gives the names of those that failed.
fn run(tests: &[Test]) -> Vec<&'static str> {
    let next = AtomicUsize::new(0);
    let running = Mutex::new(HashMap::new());
    let failed = Mutex::new(Vec::new());
    let (done, all_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            let (done, next, running, failed) = (done.clone(), &next, &running, &failed);
            scope.spawn(move || {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    running.lock().unwrap().insert(*name, Instant::now());
                    let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
                    running.lock().unwrap().remove(name);
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    if !passed {
                        failed.lock().unwrap().push(*name);
                    }
                }
                drop(done);
            });
        }
        drop(done);
        let mut slow = HashSet::new();
        while all_done.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            for (name, since) in running.lock().unwrap().iter() {
                if since.elapsed() >= SLOW && slow.insert(*name) {
                    println!("test {name} has been running for over {} seconds", SLOW.as_secs());
                }
            }
        }
    });
    failed.into_inner().unwrap()
}
