//! Where this host's key is found in memory: in the supervisors, where it is lent from, and in
//! processes that show it; in no other, and nowhere in the forms that it passes through.

use crate::common::handler;
use crate::common::network::{Host, Network, root};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::{process, skipped, wait};
use base64::Engine;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// A host that knows the key of the others, and speaks the classic wire with one of them.
const OTHER: &str = "msuo1";
/// What stands before the secret in PKCS#8.
const BEFORE: [u8; 4] = [4, 0x22, 4, 0x20];

/// The forms that a key has in memory.
struct Forms {
    /// What all others are made of.
    secret: Vec<u8>,
    /// What signatures are made with, and the text of the file.
    passing: Vec<(&'static str, Vec<u8>)>,
}

impl Forms {
    fn of(host: &Host) -> Forms {
        let text = fs::read_to_string(host.dir.join("keys/host.key")).expect("the key");
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(&body).expect("base64");
        let at = der.windows(4).position(|four| four == BEFORE).expect("a secret in it") + 4;
        let secret = der[at..at + 32].to_vec();
        let halves = ring::digest::digest(&ring::digest::SHA512, &secret);
        let (scalar, prefix) = halves.as_ref().split_at(32);
        // Both ends of the scalar are cut to shape.
        let passing = vec![
            ("the scalar", scalar[1..31].to_vec()),
            ("the prefix", prefix.to_vec()),
            ("the text", body.as_bytes()[24..].to_vec()),
        ];
        Forms { secret, passing }
    }

    /// How often the secret is in the memory of a process; the other forms must not be.
    fn count_in(&self, pid: u32) -> usize {
        let mut count = 0;
        let mut seen = 0;
        for memory in readable(pid) {
            seen += memory.len();
            let has = |form: &[u8]| memchr::memmem::find_iter(&memory, form).count();
            for (what, form) in &self.passing {
                assert_eq!(has(form), 0, "{what} is in the memory of {}", process::title(pid));
            }
            count += has(&self.secret);
        }
        assert!(seen > 1 << 20, "its memory was looked at");
        count
    }
}

/// What a process can read of its own memory.
fn readable(pid: u32) -> Vec<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
    let file = File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let parts = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).expect("an address"));
        let mut bytes = vec![0; usize::try_from(end - start).expect("a length")];
        // Some of the kernel's own are not to be had.
        (rest.starts_with('r') && file.read_exact_at(&mut bytes, start).is_ok()).then_some(bytes)
    });
    parts.collect()
}

fn child_titled(program: &Program, title: &str) -> u32 {
    wait::until(&format!("a process titled {title}"), || {
        process::children(program.pid()).into_iter().find(|pid| process::title(*pid).contains(title))
    })
}

#[test]
fn the_key_is_in_the_memory_of_those_who_show_it_and_of_nobody_else() {
    if !root() {
        return skipped("needs root");
    }
    let network = Network::secure(&[CALLER, CALLED, OTHER]);
    let (mut one, mut other, mut third) = (network.host(CALLER), network.host(CALLED), network.host(OTHER));
    let socket = other.handler("echo");
    let _program = handler::Program::echo(&socket);
    one.set(&format!("host.{OTHER}"), "wire", "\"classic\"");
    third.set("lond", "classic", "\"allow\"");
    other.set("handler.cat", "exec", "[\"/bin/cat\"]");
    other.set("handler.cat", "allow", "[\"*\"]");
    let (lond, third_lond) = (other.lond(), third.lond());
    let lonc = one.lonc();
    one.wait_link(CALLED, "up");
    one.wait_link(OTHER, "up");
    assert_eq!(one.ask(CALLED, "echo:1"), "echo:1");
    assert_eq!(one.ask(CALLED, "cat:2"), "cat:2");

    let ours = Forms::of(&one);
    assert_eq!(ours.count_in(lonc.pid()), 1, "it is lent from there");
    assert_eq!(ours.count_in(child_titled(&lonc, CALLED)), 1, "it dials again with it");
    assert_eq!(ours.count_in(child_titled(&lonc, OTHER)), 0, "the classic wire has no use for it");
    let theirs = Forms::of(&other);
    assert_eq!(theirs.count_in(lond.pid()), 1);
    assert_eq!(theirs.count_in(child_titled(&lond, CALLER)), 0, "it was shown, and wiped");
    assert_eq!(theirs.count_in(child_titled(&lond, "handler cat")), 0);
    let third_key = Forms::of(&third);
    assert_eq!(third_key.count_in(child_titled(&third_lond, CALLER)), 0);

    // Those who lend it go on to have it, and to lend it, over a reload and a HUP.
    assert!(one.lon(&["reload"]).status.success());
    let before = child_titled(&lonc, CALLED);
    lonc.signal(Signal::SIGHUP);
    wait::until_true("another child", || child_titled(&lonc, CALLED) != before);
    one.wait_link(CALLED, "up");
    assert_eq!(one.ask(CALLED, "echo:3"), "echo:3");
    assert_eq!((ours.count_in(lonc.pid()), ours.count_in(child_titled(&lonc, CALLED))), (1, 1));
}
