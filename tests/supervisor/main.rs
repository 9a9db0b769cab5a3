//! Both supervisors as processes, with children of the tests' own.
//!
//! A supervisor forks and must have one thread, so it cannot run inside a test. This program has no harness: it
//! starts itself again in a *role* (the variable [`ROLE`]), as `lonc` or `lond` with the children in `roles`. With no
//! role it runs the tests, a few at a time; an argument that is no option selects those whose names contain it.

#![allow(clippy::unwrap_used, reason = "a test program: what fails, fails the test")]

mod lonc;
mod lond;
mod lond_door;
mod reload_lonc;
mod reload_lond;
mod roles;
mod trial;
mod world;

#[path = "../common/skip.rs"]
mod skip;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The environment variable that tells a process of this program what to be.
pub const ROLE: &str = "LONNET_TEST_ROLE";

/// Tests that run at a time.
const AT_A_TIME: usize = 6;

/// A name that says what holds, and its proof.
pub type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        return roles::play(&role);
    }
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let tests: Vec<Test> =
        [lonc::TESTS, lond::TESTS, lond_door::TESTS, reload_lonc::TESTS, reload_lond::TESTS, trial::TESTS]
            .concat()
            .into_iter()
            .filter(|(name, _)| chosen(name))
            .collect();
    if std::env::args().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    if !passed {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("{} passed, {} failed: {failed:?}", tests.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
