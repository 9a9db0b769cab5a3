//! `scripts/deadline`, which every program of `cargo test` is started by: a test that hangs is
//! named, and what it has started is gone. The tests that hang for that are below, and ignored
//! otherwise.

// What fails in the helpers, fails the test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Where the test that hangs says which process it has left.
const LEFT: &str = "LONNET_TEST_LEFT";
/// Exit code of a program that was killed at a deadline.
const OVERDUE: i32 = 124;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deadline")
}

/// Runs a test program under the script. What hangs here ends at the deadline of this very test.
fn run(program: &Path, arguments: &[&str], seconds: &str, left: &Path) -> Output {
    let mut command = Command::new(script());
    command.arg(program).args(arguments).env("LONNET_TEST_DEADLINE", seconds).env(LEFT, left);
    command.env_remove("RUST_TEST_THREADS").output().unwrap()
}

fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The fault that once had a program of tests run for an hour: a process in the background that
/// holds open what is being read to its end. It is nobody's child any longer, and has its own
/// session.
#[test]
#[ignore = "it hangs, for the tests of this file"]
fn hangs_with_descriptors_left_open() {
    let Some(left) = std::env::var_os(LEFT) else { return };
    let mut command = Command::new("sh");
    command.args(["-c", "setsid sh -c 'echo $$ >\"$1\"; exec sleep 3600' sh \"$1\" &", "sh"]).arg(left);
    command.stdin(Stdio::null()).output().unwrap();
}

#[test]
#[ignore = "for the tests of this file"]
fn ends_beside_it() {
    println!("done");
}

#[test]
fn a_test_that_hangs_is_named_and_all_that_it_started_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    // One after the other the harness says what begins; beside each other only what has ended.
    for threads in ["--test-threads=1", "--test-threads=2"] {
        let left = folder.path().join(threads);
        let begun = Instant::now();
        let output = run(&own, &["--ignored", "--quiet", threads], "3", &left);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(begun.elapsed() < Duration::from_secs(60), "{threads}: only {:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(OVERDUE), "{threads}: {out}{err}");
        assert!(out.contains("test ends_beside_it ... ok"), "{threads}: {out}");
        assert!(err.contains("not ended: hangs_with_descriptors_left_open\n"), "{threads}: {err}");
        let pid = fs::read_to_string(&left).unwrap();
        assert!(!is_alive(pid.trim()), "{threads}: the process in the background is left");
    }
}

/// A stand-in for a test program, which says what a harness says.
fn program(folder: &Path, script: &str) -> PathBuf {
    let file = folder.join("stand_in-0123456789abcdef");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

#[test]
fn a_test_that_hangs_while_others_go_on_is_named_as_well() {
    let folder = tempfile::tempdir().unwrap();
    // What libtest says of each test after a minute, which has passed here already.
    let slow =
        "test slow has been running for over 60 seconds\ntest stuck has been running for over 60 seconds\n";
    let goes_on = "test slow ... ok\nwhile :; do echo 'test other ... ok'; sleep 0.1; done";
    let says =
        format!("printf '%s' '{slow}'\n{}", goes_on.replace("test slow ... ok", "echo 'test slow ... ok'"));
    let output = run(&program(folder.path(), &says), &[], "62", folder.path());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(OVERDUE), "{err}");
    assert!(err.contains("not ended: stuck\n"), "{err}");
}

#[test]
fn a_program_whose_tests_end_is_heard_to_its_last_word_and_its_exit_code_kept() {
    let folder = tempfile::tempdir().unwrap();
    // Whoever it leaves behind holds its output open, and is not waited for.
    let left = folder.path().join("left");
    let says =
        "seq 20000; printf 'no newline'; echo aside >&2; sleep 30 & echo $! >\"$LONNET_TEST_LEFT\"; exit 101";
    let begun = Instant::now();
    let output = run(&program(folder.path(), says), &["--quiet"], "600", &left);
    assert!(begun.elapsed() < Duration::from_secs(20), "it waited for who was left: {:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(101));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("1\n2\n") && said.ends_with("20000\nno newline"), "{} bytes", said.len());
    let pid = fs::read_to_string(&left).unwrap();
    let name = program(folder.path(), "");
    let name = name.file_name().unwrap().display();
    let last = format!("scripts/deadline: {name} left 1 processes behind: {}; killed\n", pid.trim());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("aside\n{last}"));
    assert!(!is_alive(pid.trim()));
}

#[test]
fn cargo_starts_every_test_program_by_it() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cargo/config.toml");
    let config: toml::Table = fs::read_to_string(config).unwrap().parse().unwrap();
    assert_eq!(config["target"]["cfg(unix)"]["runner"].as_str(), Some("scripts/deadline"));
    assert_ne!(fs::metadata(script()).unwrap().permissions().mode() & 0o111, 0, "it can be executed");
}
