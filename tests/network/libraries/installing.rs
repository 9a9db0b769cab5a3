//! The libraries as the usual tools install them, from copies, without a network.

use super::languages::{Language, clients};
use crate::common::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder").flatten() {
        let below = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &below);
        } else {
            fs::copy(entry.path(), below).expect("copy a file");
        }
    }
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that must succeed, and gives what it said.
fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Whether a command is there and does well.
fn works(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_python_library_passes_its_own_tests() {
    if !Language::serving().contains(&Language::Python) {
        return;
    }
    let mut command = Command::new(Language::Python.interpreter());
    command.args(["-m", "unittest", "--quiet", "test_lonnet"]).env("PYTHONDONTWRITEBYTECODE", "1");
    succeed(command.current_dir(clients().join("python")));
}

#[test]
fn pip_installs_the_python_library() {
    let python = Language::Python.interpreter();
    let tools = "import setuptools, sys; sys.exit(int(setuptools.__version__.split('.')[0]) < 61)";
    if !works(Command::new(python).args(["-c", tools]))
        || !works(Command::new(python).args(["-m", "pip", "-V"]))
    {
        return skipped("installing the Python library: python3 has no pip, or no setuptools from 61 on");
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("python"), folder.path().join("target"));
    copy(&clients().join("python"), &source);
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]);
    let output = run(pip.arg("--target").arg(&target).arg(&source));
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("bdist_wheel") || said.contains("No module named 'wheel'") {
        return skipped(
            "installing the Python library: setuptools makes no wheels here (want wheel, or 70.1)",
        );
    }
    assert!(output.status.success(), "{said}");
    let script = "import lonnet; print(lonnet.__file__, lonnet.__version__)";
    let said = succeed(Command::new(python).args(["-c", script]).env("PYTHONPATH", &target));
    assert_eq!(said.trim(), format!("{} 0.1.0", target.join("lonnet.py").display()));
}

#[test]
fn perl_s_usual_steps_test_and_install_the_perl_library() {
    let perl = Language::Perl.interpreter();
    let has = works(Command::new(perl).args(["-MExtUtils::MakeMaker", "-MTest::More", "-e", "1"]));
    if !has || !works(Command::new("make").arg("-v")) {
        return skipped("installing the Perl library: no perl with ExtUtils::MakeMaker, or no make");
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("perl"), folder.path().join("target"));
    copy(&clients().join("perl"), &source);
    let said = succeed(Command::new(perl).arg("Makefile.PL").current_dir(&source));
    assert!(!said.contains("Warning"), "{said}");
    let said = succeed(Command::new("make").arg("test").current_dir(&source));
    assert!(said.contains("All tests successful"), "{said}");
    let to = format!("DESTDIR={}", target.display());
    succeed(Command::new("make").args(["install", &to]).current_dir(&source));
    let installed = find(&target, "Lonnet.pm").expect("it is installed");
    let library = installed.parent().unwrap();
    let script = "print \"$INC{'Lonnet.pm'} $Lonnet::VERSION\"";
    let said = succeed(Command::new(perl).args(["-MLonnet", "-e", script]).env("PERL5LIB", library));
    assert_eq!(said, format!("{} 0.1.0", installed.display()));
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| match entry.path() {
        path if path.is_dir() => find(&path, name),
        path => (path.file_name()? == name).then_some(path),
    })
}
