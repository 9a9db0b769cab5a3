//! Failing system calls: each call that `lonc`, `lond` and `lon` make while a story is told fails
//! once, in turn, with each of the errors that it can have.
//!
//! A story without a fault counts the calls; then each fault has a story of its own, in a folder
//! and at addresses of its own. Here it is a sample: each error of each call once, at one of its
//! times. `scripts/soak syscalls` does each of them at each of its times, or the one that is named
//! ([`WHICH`]).
//!
//! The calls fail in a library that is preloaded (`shim.c`), and not in a tracer: one that counts
//! processes together, so that what fails once does not fail again in the child that follows; that
//! can give short counts; and that needs no permission. It is compiled here, by the compiler that
//! Rust needs for linking.

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "tests/network uses all of it, and is where what nobody uses is found")]
mod common;

mod away;
mod plan;
mod quiet;
mod shim;
mod story;

use plan::{Fault, Tested};
use shim::Seen;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What `scripts/soak` sets: `all`; `all <n>`, each nth of all; or a fault's name. A sample where
/// it is not set.
const WHICH: &str = "LONNET_SYSCALLS";
/// Stories that are told at a time; they wait for processes most of the time.
const AT_A_TIME: usize = 8;

/// How one fault's story ended.
struct Told {
    seen: Option<Seen>,
    problems: Vec<String>,
    refused: bool,
    said: String,
}

#[test]
fn whatever_call_fails_once_nothing_acknowledged_is_lost_and_all_goes_on_by_itself() {
    if let Err(why) = shim::library() {
        return common::skipped(&format!("failing system calls: {why}"));
    }
    let faults = chosen();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(String::new()));
    let tallies: Mutex<BTreeMap<&str, Tally>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = tell(fault);
                    tallies.lock().expect("tallies").entry(fault.tested.name()).or_default().count(&told);
                    if told.problems.is_empty() && faults.len() == 1 {
                        println!("{}", describe(fault, &told));
                    }
                    if !told.problems.is_empty() {
                        let text = describe(fault, &told);
                        // At once, so that a long run that is cut short has said it.
                        let _ = std::io::stderr().write_all(text.as_bytes());
                        failures.lock().expect("failures").push_str(&text);
                    }
                }
            });
        }
    });
    for (program, tally) in tallies.into_inner().expect("tallies") {
        let Tally { stories, hits, refused, failed } = tally;
        let line = format!(
            "failing system calls of {program}: {stories} injected, {hits} hit, {refused} of them at a start that was \
             refused, {failed} failed\n"
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
        assert!(hits * 10 >= stories * 8, "{program}: most calls that are to fail are made");
    }
    let failures = failures.into_inner().expect("failures");
    assert!(failures.is_empty(), "repeat one with: scripts/soak syscalls '<its first line>'\n{failures}");
}

#[derive(Default)]
struct Tally {
    stories: usize,
    hits: usize,
    refused: usize,
    failed: usize,
}

impl Tally {
    fn count(&mut self, told: &Told) {
        self.stories += 1;
        self.hits += usize::from(told.seen.as_ref().is_some_and(Seen::hit));
        self.refused += usize::from(told.refused);
        self.failed += usize::from(!told.problems.is_empty());
    }
}

/// The faults that are asked for.
fn chosen() -> Vec<Fault> {
    let which = std::env::var(WHICH).unwrap_or_default();
    if let Some(fault) = Fault::parse(&which) {
        return vec![fault];
    }
    let step = match which.split_whitespace().collect::<Vec<_>>()[..] {
        [] => None,
        ["all"] => Some(1),
        ["all", step] => Some(step.parse().expect("a number")),
        _ => panic!("{WHICH} is neither all nor a fault: {which}"),
    };
    let mut faults = Vec::new();
    for tested in [Tested::Lonc, Tested::Lond, Tested::Lon] {
        let began = Instant::now();
        let unharmed = match tested {
            Tested::Lonc | Tested::Lond => story::tell(tested, None),
            Tested::Lon => away::tell(None),
        };
        assert!(unharmed.problems.is_empty(), "{}, unharmed: {:?}", tested.name(), unharmed.problems);
        let seen = &unharmed.seen;
        let found = if step.is_some() { plan::every(tested, seen) } else { plan::sample(tested, seen) };
        let counts = plan::counts(seen);
        assert!(!found.is_empty(), "the library counts the calls of {}", tested.name());
        if step.is_some() {
            println!("{} makes, in {:?}: {counts}", tested.name(), began.elapsed());
        }
        faults.extend(found);
    }
    faults.into_iter().step_by(step.unwrap_or(1)).collect()
}

fn tell(fault: &Fault) -> Told {
    let told = catch_unwind(AssertUnwindSafe(|| match fault.tested {
        Tested::Lonc | Tested::Lond => story::tell(fault.tested, Some(fault)),
        Tested::Lon => away::tell(Some(fault)),
    }));
    match told {
        Ok(outcome) => Told {
            seen: Some(outcome.seen),
            problems: outcome.problems,
            refused: outcome.refused,
            said: outcome.said,
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map_or("a panic of the test", String::as_str);
            Told { seen: None, problems: vec![text.to_owned()], refused: false, said: String::new() }
        }
    }
}

fn describe(fault: &Fault, told: &Told) -> String {
    let mut text = format!("{fault}\n");
    let hit = told.seen.as_ref().filter(|seen| seen.hit()).map_or("not hit", |seen| &seen.text);
    let _ = writeln!(text, "    {hit}");
    for problem in &told.problems {
        let _ = writeln!(text, "    {problem}");
    }
    for line in told.said.lines() {
        let _ = writeln!(text, "        | {line}");
    }
    text
}
