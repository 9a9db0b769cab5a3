//! The library that makes a call fail (`shim.c`), and the file through which it is told which.

use crate::plan::{CALLS, Fault, ROLES};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Words of the file before the counts: role, call, nth, error, supervisor, hits.
const HEAD: usize = 6;
/// Where `hits` is among them.
const HITS: usize = 5;
/// Bytes of the text behind the counts.
const TEXT: usize = 512;
/// A word's bytes.
const WORD: usize = 4;

/// The built library; the reason where there can be none.
pub fn library() -> Result<&'static Path, &'static str> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref().map_err(String::as_str)
}

fn build() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/syscalls/shim.c");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Under a name of this process's, then renamed: another run may use the one that is there.
    let (mine, built) = (folder.join(format!("shim-{}.so", std::process::id())), folder.join("shim.so"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    let mut command = Command::new(&compiler);
    command.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
    let output = command.arg(&mine).arg(&source).arg("-ldl").output();
    let output = output.map_err(|error| format!("run {}: {error}", compiler.display()))?;
    if !output.status.success() {
        // With a compiler that is there, this is a mistake in the source.
        panic!("compile {}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
    fs::rename(&mine, &built).expect("name the library");
    Ok(built)
}

/// The file of one program's run.
pub struct Control(PathBuf);

/// What the file says at some moment.
pub struct Seen {
    words: Vec<u32>,
    /// Pid and object of the call that failed.
    pub text: String,
}

impl Control {
    /// Nothing fails but this.
    pub fn new(path: PathBuf, fault: Option<&Fault>) -> Control {
        let mut bytes = vec![0; (HEAD + ROLES.len() * CALLS.len()) * WORD + TEXT];
        if let Some(fault) = fault {
            let words = [fault.role as u32, fault.call as u32, fault.nth, fault.error.unsigned_abs()];
            for (place, word) in bytes.chunks_exact_mut(WORD).zip(words) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
        }
        fs::write(&path, bytes).expect("write the shim's file");
        Control(path)
    }

    /// Has a program run with the library.
    pub fn attach(&self, command: &mut Command) {
        let library = library().expect("the library was built before");
        command.env("LD_PRELOAD", library).env("LONNET_SHIM", &self.0);
    }

    /// What has been counted, and whether the call has failed.
    pub fn seen(&self) -> Seen {
        let bytes = fs::read(&self.0).expect("read the shim's file");
        let (words, text) = bytes.split_at(bytes.len() - TEXT);
        let words = words.chunks_exact(WORD).map(|word| u32::from_ne_bytes(word.try_into().expect("a word")));
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        Seen { words: words.collect(), text: String::from_utf8_lossy(text).into_owned() }
    }
}

impl Seen {
    /// Whether the chosen call has failed.
    pub fn hit(&self) -> bool {
        self.words[HITS] > 0
    }

    /// What the call that failed was about: a path; empty where it is not known.
    pub fn object(&self) -> &str {
        self.text.split_once(' ').map_or("", |(_pid, object)| object)
    }

    /// How often processes of this role made this call.
    pub fn count(&self, role: usize, call: usize) -> u32 {
        self.words[HEAD + role * CALLS.len() + call]
    }
}

#[test]
fn the_library_and_the_plan_name_the_same_calls_in_the_same_order() {
    let source = include_str!("shim.c");
    let (_, from) = source.split_once("enum call {").expect("the enum");
    let (names, _) = from.split_once("CALLS").expect("its end");
    let names: Vec<String> = names.split(',').map(|name| name.trim().to_lowercase()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    let plan: Vec<&str> = CALLS.iter().map(|call| call.name).collect();
    assert_eq!(plan, names);
}
