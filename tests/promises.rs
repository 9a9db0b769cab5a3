//! `docs/promises.md` names a test for each promise: each of them must exist, and each command of
//! its long runs too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Fewer names than this would mean that the page, or the way it is read here, has changed.
const LEAST_NAMES: usize = 50;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/promises.md")).expect("docs/promises.md is there")
}

/// What stands between backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2)
}

/// Test names are sentences: at least three words.
fn is_test_name(text: &str) -> bool {
    text.matches('_').count() >= 2
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all tests: functions behind `#[test]`, and those of the program without a harness.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root().join("tests"), &mut files);
    sources(&root().join("src"), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source can be read");
        let (mut marked, mut before) = (false, "");
        for line in text.lines().map(str::trim) {
            if line == "#[test]" {
                marked = true;
            } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| marked) {
                names.extend(rest.split('(').next().map(str::to_owned));
                marked = false;
            } else if let Some(module) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
                // The tests in it are made by a macro.
                names.insert(module.to_owned());
            } else if let Some((name, _)) = line.strip_prefix("(\"").and_then(|rest| rest.split_once("\",")) {
                names.insert(name.to_owned());
            } else if let Some(name) = line.strip_prefix('"').and_then(|rest| rest.strip_suffix("\","))
                && before == "("
            {
                // One that is too long for a line with its function.
                names.insert(name.to_owned());
            }
            before = line;
        }
    }
    names
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let (page, tests) = (page(), tests());
    let named: Vec<&str> = quoted(&page).filter(|text| is_test_name(text)).collect();
    assert!(named.len() >= LEAST_NAMES, "only {} tests are named", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/promises.md names tests that are not there: {missing:#?}");
}

#[test]
fn every_row_of_promises_names_what_proves_it() {
    let page = page();
    let (promises, _) = page.split_once("## Long runs").expect("the page has its long runs");
    for row in promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let proof = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        assert!(proof == "tests" || quoted(proof).any(is_test_name), "no test is named: {row}");
    }
}

#[test]
fn every_command_of_the_long_runs_exists() {
    let page = page();
    let (_, runs) = page.split_once("## Long runs").expect("the page has its long runs");
    let usage = |script: &str| {
        let output = Command::new(root().join(script)).arg("--help").output().expect("the script runs");
        assert!(output.status.success(), "{script} --help");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let commands: Vec<&str> = quoted(runs).filter(|text| text.contains("scripts/")).collect();
    assert!(!commands.is_empty(), "no command is named");
    for command in commands {
        let mut words = command.split(' ').skip_while(|word| !word.starts_with("scripts/"));
        let script = words.next().expect("a script is named");
        if let Some(what) = words.next() {
            assert!(usage(script).lines().any(|line| line.trim_start().starts_with(what)), "{command}");
        }
    }
}
