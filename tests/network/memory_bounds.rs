//! What a link child of `lonc` holds in memory, whatever a peer or the programs send: as the system tells it.

use crate::common::frames::{self, Frame};
use crate::common::secure_lond::{Opening, Said};
use crate::common::secure_pair::SecurePair;
use crate::common::{process, wait};

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
