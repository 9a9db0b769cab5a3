//! Failing system calls: each call that `lonc`, `lond` and `lon` make while a short story is told fails once, at each of
//! its times, with each of its errors.

#[path = "../common/mod.rs"]
mod common;

mod plan;
mod quiet;
mod shim;
mod story;

use plan::{CALLS, Fault, ROLES, Tested};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[test]
fn walk() {
    shim::library().expect("library");
    let only = std::env::var("LONNET_SYSCALLS").ok();
    let mut faults = Vec::new();
    for tested in [Tested::Lonc, Tested::Lond] {
        if let Some(one) = only.as_deref().and_then(Fault::parse) {
            if one.tested == tested {
                faults.push(one);
            }
            continue;
        }
        let began = Instant::now();
        let outcome = story::tell(tested, None);
        eprintln!("{} unharmed: {:?} in {:?}", tested.name(), outcome.problems, began.elapsed());
        for role in 0..3 {
            let counts: Vec<String> = CALLS
                .iter()
                .enumerate()
                .map(|(n, call)| (outcome.seen.count(role, n), call.name))
                .filter(|(count, _)| *count > 0)
                .map(|(count, name)| format!("{name} {count}"))
                .collect();
            eprintln!("  {}: {}", ROLES[role], counts.join(", "));
        }
        faults.extend(if only.as_deref() == Some("all") {
            plan::every(tested, &outcome.seen)
        } else {
            plan::sample(tested, &outcome.seen)
        });
    }
    if let Ok(step) = std::env::var("LONNET_STEP") {
        let (step, first) = step.split_once(',').unwrap();
        faults = faults.into_iter().skip(first.parse().unwrap()).step_by(step.parse().unwrap()).collect();
    }
    eprintln!("{} faults", faults.len());
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::env::var("LONNET_SYSCALLS_WORKERS").map_or(8, |n| n.parse().unwrap()) {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    match catch_unwind(AssertUnwindSafe(|| story::tell(fault.tested, Some(fault)))) {
                        Ok(outcome) => {
                            let hit = if outcome.seen.hit() { &outcome.seen.text } else { "-" };
                            if !outcome.problems.is_empty() {
                                *failed.lock().unwrap() += 1;
                            }
                            eprintln!(
                                "{:5.1} {fault}: {hit}{}: {:?}",
                                began.elapsed().as_secs_f32(),
                                if outcome.refused { " REFUSED" } else { "" },
                                outcome.problems
                            );
                            if only.as_deref().is_some_and(|o| o != "all")
                                || !outcome.problems.is_empty() && std::env::var("LONNET_LOGS").is_ok()
                            {
                                eprintln!(
                                    "{}",
                                    outcome
                                        .said
                                        .lines()
                                        .map(|l| format!("        | {l}\n"))
                                        .collect::<String>()
                                );
                            }
                        }
                        Err(_) => {
                            *failed.lock().unwrap() += 1;
                            eprintln!("{:5.1} {fault}: PANIC", began.elapsed().as_secs_f32())
                        }
                    }
                }
            });
        }
    });
    assert_eq!(*failed.lock().unwrap(), 0);
}
