//! What a link child of `lonc` holds in memory, whatever a peer or the programs send: as the system tells it.

use crate::common::fake_lond::FakeLond;
use crate::common::frames::{self, Frame};
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER, Pair};
use crate::common::secure_lond::{Opening, Said};
use crate::common::secure_pair::SecurePair;
use crate::common::{process, wait};
use std::fs;
use std::process::{Command, Stdio};

/// All that a link child may ever hold, in KiB.
const MOST: u64 = 64 << 10;

/// The most that the only child has held, in KiB.
fn peak(lonc: &crate::common::program::Program) -> u64 {
    process::peak_memory(lonc.only_child()).expect("the child lives")
}

#[test]
fn a_peer_that_floods_its_caller_with_pings_and_reads_nothing_costs_it_no_memory() {
    let pair = SecurePair::prepare(
        |_| {},
        |fake| {
            fake.open_with(Opening::Deaf);
            fake.listen();
        },
    );
    pair.host.wait_link("msul1", "up");
    let child = pair.lonc.only_child();
    let before = process::memory(child).expect("the child lives");
    // 20 MiB of PONGs, if each PING had one.
    let batch: Vec<Frame> =
        (0..20_000_u64).map(|token| Frame::new(frames::PING, 0, token.to_be_bytes())).collect();
    for _ in 0..50 {
        pair.fake.say_all(&batch);
    }
    let after = peak(&pair.lonc);
    assert!(after < before + (8 << 10), "{before} KiB, then {after} KiB");
    // Once the peer reads, the newest PING is answered, and requests pass.
    pair.fake.open_with(Opening::Serve);
    assert_eq!(pair.ask("ping"), "msul1");
    let newest = 19_999_u64.to_be_bytes();
    let pongs = wait::until("the newest PING to be answered", || {
        let pongs = pair.fake.control(frames::PONG);
        pongs.last().is_some_and(|pong| pong.body == newest).then_some(pongs)
    });
    assert!(pongs.len() < 1000, "{} PONGs", pongs.len());
    assert_eq!(pair.lonc.only_child(), child);
}

#[test]
fn answers_that_a_peer_begins_and_never_ends_cost_its_caller_a_window_at_most() {
    let pair = SecurePair::up();
    let child = pair.lonc.only_child();
    // Ids that were answered long ago.
    let mut client = pair.host.connect("msul1");
    for number in 0..2000 {
        assert_eq!(client.ask(&format!("echo:{number}")), format!("echo:{number}"));
    }
    let chunk = |id: u64| Frame { flags: frames::MORE, ..Frame::new(frames::ANSWER, id, vec![b'x'; 16_384]) };
    // As the window allows, which is given back since nothing is kept; the PONG says that all have come.
    let chunks: Vec<Frame> = (1..=2000).map(chunk).collect();
    pair.fake.queue_all(&chunks);
    pair.fake.queue_all(&[Frame::new(frames::PING, 0, "all came")]);
    wait::until_true("the last chunk to be taken", || !pair.fake.control(frames::PONG).is_empty());
    let after = peak(&pair.lonc);
    assert!(after < MOST / 2, "{after} KiB for answers to nobody");
    assert_eq!(client.ask("echo:after"), "echo:after");

    // To ids that are open the window bounds it: beyond it the link ends.
    pair.fake.answer_with(|asked, _| match asked.request.starts_with(b"open:") {
        true => Said::Nothing,
        false => Said::Answer(asked.request.clone()),
    });
    let first = pair.fake.asked().len() as u64 + 1;
    client.send("open:\n".repeat(1000).as_bytes());
    pair.fake.wait_received("open:", 1000);
    let batch: Vec<Frame> = (first..first + 1000).map(chunk).collect();
    pair.fake.say_all(&batch);
    assert_eq!(client.answer(), "con_lost");
    assert!(
        pair.host.log("lonc.log").contains("an answer beyond the window"),
        "{}",
        pair.host.log("lonc.log")
    );
    assert!(peak(&pair.lonc) < MOST / 2);
    assert_eq!(pair.lonc.only_child(), child);
}

/// `lonc` under a bound on its address space, and a fake peer that listens.
fn pair_under(address_space: &str, configure: impl FnOnce(&mut Host)) -> Pair {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLER);
    configure(&mut host);
    let fake = FakeLond::start(CALLED, CALLER, network.address(CALLED));
    let program = host.command("lonc");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {address_space}; exec \"$0\" \"$@\"")]);
    command.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    let lonc = host.start(command, "lonc");
    Pair { lonc, fake, host, network }
}

fn drop_in(host: &Host, name: &str, text: &[u8]) {
    let folder = host.dir.join("delayed");
    fs::create_dir_all(&folder).expect("make the folder");
    fs::write(folder.join(name), text).expect("drop a file in");
}

#[test]
fn a_thousand_dropped_files_and_a_large_one_cost_a_new_child_no_more_memory_than_ten() {
    let peak_with = |files: usize, large: usize| {
        let pair = pair_under("unlimited", |host| {
            for number in 0..files {
                drop_in(host, &format!("{number:06}.msul1"), format!("log:{number}\n").as_bytes());
            }
            drop_in(host, "large.msul1", format!("log:{}\n", "x".repeat(large)).as_bytes());
        });
        pair.fake.wait_received("log:", files + 1);
        peak(&pair.lonc)
    };
    let (few, many) = (peak_with(10, 100), peak_with(2000, 100));
    assert!(many < few + (4 << 10), "{few} KiB for ten, {many} KiB for two thousand");
    let large = peak_with(500, 10 << 20);
    assert!(large < MOST, "{large} KiB with one of 10 MiB among them");
}

#[test]
fn hundreds_of_dropped_files_are_taken_in_under_a_bound_on_the_address_space() {
    let pair = pair_under("1048576", |host| {
        for number in 0..300 {
            drop_in(host, &format!("{number:06}.msul1"), format!("log:{number}\n").as_bytes());
        }
    });
    let child = pair.lonc.only_child();
    pair.fake.wait_received("log:", 300);
    pair.host.wait_link(CALLED, "up");
    assert_eq!(pair.lonc.only_child(), child, "it ended:\n{}", pair.host.log("lonc.log"));
}
