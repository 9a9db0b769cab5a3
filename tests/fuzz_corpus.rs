//! The corpora of the fuzz targets through the same functions, and thousands of inputs made of
//! them: cut short, with bits flipped, spliced. The same ones each time; `LONNET_FUZZ_SEED` makes
//! others, `LONNET_FUZZ_ROUNDS` more.

// The helpers of the tests fail as loudly as the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fuzz/src/lib.rs"]
mod bodies;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Inputs of a target that are made at random, unless `LONNET_FUZZ_ROUNDS` says how many.
const ROUNDS: u64 = 3000;
/// Places of an input where it is cut, and where a bit of it is flipped.
const PLACES: usize = 40;
/// Longest input that is made.
const LENGTH_MOST: usize = 20_000;

/// What some parser or other takes for special.
const WORDS: [&[u8]; 20] = [
    b"\n",
    b"\r\n",
    b":",
    b"\0",
    b" ",
    b"\"",
    b"[",
    b"]",
    b"{",
    b"}",
    b"=",
    b"\\",
    b"#",
    b"-1",
    b"\xff",
    b"18446744073709551615",
    b"00000000000000000000",
    b"999999999999999999999999",
    b"critical:",
    b"enc:8:",
];

macro_rules! replayed {
    ($($target:ident)*) => {
        /// Every target that has a test.
        const REPLAYED: &[&str] = &[$(stringify!($target)),*];

        mod every_input_keeps_the_promises_of {
            $(#[test]
            fn $target() {
                super::replay(stringify!($target));
            })*
        }
    };
}

replayed! {
    admin cipher config control dial_classic dial_secure dropped frame handoff hello hosts local_line pins record
    serve_classic serve_secure spool status tagged
}

/// Names in a folder of `fuzz/`, without their endings.
fn names(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_string_lossy().into_owned();
    fs::read_dir(&folder).unwrap().map(|entry| stem(entry.unwrap())).collect()
}

#[test]
fn every_fuzz_target_has_a_function_a_corpus_and_a_replay() {
    let listed: BTreeSet<String> = REPLAYED.iter().map(|name| (*name).to_owned()).collect();
    assert!(listed.len() >= 19);
    assert_eq!(names("fuzz_targets"), listed, "the programs that fuzz");
    assert_eq!(names("corpus"), listed, "the inputs to begin with");
    assert_eq!(bodies::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>(), listed);
    let manifest = include_str!("../fuzz/Cargo.toml");
    for name in REPLAYED {
        let program = fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs")),
        );
        assert!(program.unwrap().contains(&format!("run(\"{name}\", bytes)")), "{name} fuzzes another");
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not built");
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

/// Runs every input of a corpus as it is and changed; says which one it is that breaks.
fn replay(target: &'static str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(inputs.len() >= 5, "only {} inputs for {target}", inputs.len());
    let seed = number("LONNET_FUZZ_SEED", 1);
    println!("{target}: {} inputs, seed {seed}", inputs.len());
    let run = |bytes: &[u8], what: String| {
        let broken = std::panic::catch_unwind(|| bodies::run(target, bytes)).is_err();
        assert!(!broken, "{target}: {what}: {}", bytes.escape_ascii());
    };
    for (bytes, path) in inputs.iter().zip(&paths) {
        let name = path.file_name().unwrap().to_string_lossy();
        run(bytes, format!("{name} as it is"));
        for at in (0..bytes.len()).step_by(bytes.len().div_ceil(PLACES).max(1)) {
            run(&bytes[..at], format!("{name} cut at {at}"));
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            run(&flipped, format!("{name} flipped at {at}"));
        }
    }
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..number("LONNET_FUZZ_ROUNDS", ROUNDS) {
        let mut bytes = inputs[random.usize(..inputs.len())].clone();
        for _ in 0..random.usize(1..6) {
            change(&mut bytes, &inputs, &mut random);
        }
        bytes.truncate(LENGTH_MOST);
        run(&bytes, format!("seed {seed}, round {round}"));
    }
}

/// Changes something somewhere.
fn change(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(..=bytes.len());
    let end = (at + random.usize(..40)).min(bytes.len());
    match random.u8(..7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
        1 if at < bytes.len() => bytes[at] = random.u8(..),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            let to = random.usize(..=bytes.len());
            bytes.splice(to..to, copy);
        }
        4 => drop(bytes.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied())),
        5 => drop(bytes.splice(at..end, WORDS[random.usize(..WORDS.len())].iter().copied())),
        _ => {
            let other = &inputs[random.usize(..inputs.len())];
            let from = random.usize(..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}
