//! What is held back so that a backlog can shrink, and how much may be taken at once.

use super::*;
use crate::broker::held::SUPPLY;
use wire::secure::{put_go_away, put_not_taken};

const MIB: usize = 1 << 20;

/// A rig whose link is up and has no permit left, with these messages stored, and sent as far as
/// they may be.
fn spent(stored: &[&str]) -> Rig {
    let mut peer = peer();
    peer.max_line = 2 * MIB;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    let id = rig.program(stored);
    assert_eq!(rig.got(id), vec!["con_delayed"; stored.len()]);
    rig.come_up();
    rig.sent();
    (0..SUPPLY).for_each(|_| rig.broker.held.spend());
    rig
}

/// A line for a critical request of so many bytes.
fn critical(bytes: usize) -> String {
    format!("critical:{}", "x".repeat(bytes))
}

#[test]
fn a_flood_of_critical_requests_does_not_keep_the_backlog_of_an_outage_from_shrinking() {
    let mut peer = peer();
    peer.spool.messages = 100_000;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    let programs: Vec<ClientId> = (0..50).map(|_| rig.program(&[])).collect();
    for round in 0..60 {
        for &id in &programs {
            rig.ask(id, &[&format!("critical:{round}")]);
            assert_eq!(rig.got(id), ["con_delayed"]);
        }
    }
    rig.come_up();
    let plain = rig.program(&[]);
    // Each program sends its next request as soon as it is answered; the peer answers 64 a round.
    let mut asked: Vec<bool> = vec![false; programs.len()];
    let mut backlog = Vec::new();
    let mut longest_hold = 0;
    for round in 0..400 {
        rig.wait(0.01);
        for (at, &id) in programs.iter().enumerate() {
            if !rig.got(id).is_empty() {
                asked[at] = false;
            }
            if !asked[at] {
                asked[at] = true;
                rig.ask(id, &["critical:flood"]);
            }
        }
        longest_hold = longest_hold.max(asked.iter().filter(|waits| **waits).count());
        rig.ask(plain, &["plain"]);
        let sent = rig.sent();
        assert!(sent.contains(&"plain".to_owned()), "plain requests of others pass");
        rig.say(&vec!["ok"; sent.len()]);
        assert_eq!(rig.got(plain), ["ok"]);
        if round % 50 == 0 {
            backlog.push(rig.broker.spool.waiting().messages);
        }
        if rig.broker.spool.is_empty() {
            break;
        }
    }
    assert!(longest_hold > 0, "the flood was held back");
    assert!(rig.broker.spool.is_empty(), "the backlog at every 50th round: {backlog:?}");
    rig.ask(programs[0], &["critical:direct"]);
}

#[test]
fn a_critical_request_is_not_held_back_for_long_when_the_peer_is_stuck() {
    let mut peer = peer();
    peer.spool.messages = 100_000;
    let mut rig = Rig::with(peer);
    rig.lose_link();
    let id = rig.program(&["critical:1"]);
    rig.got(id);
    rig.come_up();
    let mut stored = 0;
    loop {
        rig.ask(id, &["critical:x"]);
        if rig.got(id).is_empty() {
            break;
        }
        stored += 1;
        assert!(stored < 10_000, "the supply has an end");
    }
    rig.ask(id, &["behind"]);
    rig.wait(0.9);
    assert!(rig.got(id).is_empty());
    rig.wait(0.2);
    assert_eq!(rig.got(id), ["con_delayed"]);
    assert!(rig.sent().contains(&"behind".to_owned()));
    let held = rig.program(&["critical:y"]);
    rig.lose_link();
    rig.turn();
    assert_eq!(rig.got(held), ["con_delayed"], "with the link down there is nothing to wait for");
}

#[test]
fn two_messages_that_leave_the_backlog_let_one_request_in() {
    let mut rig = spent(&["critical:a"; 5]);
    let ids = [(); 2].map(|()| rig.program(&["critical:b"]));
    rig.say(&["ok"]);
    assert!(rig.got(ids[0]).is_empty());
    rig.say(&["ok"]);
    assert_eq!((rig.got(ids[0]), rig.got(ids[1])), (vec!["con_delayed".into()], vec![]));
    rig.say(&["ok", "ok"]);
    assert_eq!(rig.got(ids[1]), ["con_delayed"]);
}

#[test]
fn a_link_that_comes_up_has_its_whole_supply_and_what_leaves_the_backlog_takes_nothing_of_it() {
    let mut rig = spent(&["critical:a"; 2]);
    for _ in 0..2 {
        rig.lose_link();
        rig.come_up();
        rig.say(&["ok"]);
        let id = rig.program(&[]);
        let mut stored = 0;
        while stored <= SUPPLY {
            rig.ask(id, &["critical:b"]);
            if rig.got(id).is_empty() {
                break;
            }
            stored += 1;
        }
        assert_eq!(stored, SUPPLY);
    }
}

#[test]
fn what_is_held_back_waits_a_second_and_no_longer() {
    let mut rig = spent(&["critical:a"]);
    let id = rig.program(&["critical:b"]);
    rig.broker.status(rig.now);
    assert_eq!(rig.broker.deadline(), Some(rig.now.mono + Duration::from_secs(1)));
    rig.wait(1.0);
    assert_eq!(rig.got(id), ["con_delayed"]);
}

#[test]
fn what_is_held_back_is_sent_as_soon_as_nothing_waits_before_it() {
    let mut rig = spent(&["critical:a"]);
    let id = rig.program(&["critical:b"]);
    assert!(rig.sent().is_empty());
    rig.say(&["ok"]);
    assert_eq!(rig.sent(), ["b"]);
    rig.say(&["B"]);
    assert_eq!(rig.got(id), ["B"]);
}

/// Takes what is sent until nothing more is, since no more is passed on than the link takes; how
/// many requests.
fn all_sent(rig: &mut Rig) -> usize {
    let mut count = 0;
    loop {
        match rig.sent().len() {
            0 => return count,
            sent => count += sent,
        }
        rig.turn();
    }
}

#[test]
fn what_is_held_back_is_not_sent_while_the_window_is_full() {
    let mut rig = spent(&["critical:a"]);
    let id = rig.program(&["critical:b"]);
    let plain = "x".repeat(900_000);
    for user in 1..6 {
        rig.program_of(user, &[&*plain]);
    }
    assert_eq!(all_sent(&mut rig), 5);
    rig.say(&["ok"]);
    assert!(rig.broker.pending.full() && rig.sent().is_empty());
    rig.say(&["PLAIN"]);
    assert_eq!((rig.sent(), rig.got(id)), (vec!["b".to_owned()], vec![]));
}

#[test]
fn what_is_held_back_is_not_sent_while_much_waits_to_be_written() {
    let mut rig = spent(&["critical:a"]);
    rig.program(&["critical:b"]);
    let plain = "x".repeat(700_000);
    rig.program(&[&*plain; 2]);
    rig.say(&["ok"]);
    assert_eq!(rig.sent(), [&*plain; 2]);
    rig.turn();
    assert_eq!(rig.sent(), ["b"]);
}

#[test]
fn what_is_held_back_is_not_sent_to_a_peer_that_leaves() {
    let mut rig = secure::rig();
    rig.lose_link();
    rig.program(&["critical:a"]);
    rig.come_up_secure();
    (0..SUPPLY).for_each(|_| rig.broker.held.spend());
    rig.program(&["slow"]);
    let id = rig.program(&["critical:b"]);
    assert_eq!(rig.frames().len(), 2);
    rig.put(|out| put_go_away(out, u64::MAX));
    rig.reply(1, "ok");
    assert!(rig.frames().is_empty());
    rig.drop_in("1.msul1", "stored now\n");
    rig.broker.files_came(rig.now);
    rig.turn();
    assert_eq!((rig.broker.spool.waiting().messages, rig.frames()), (1, vec![]));
    rig.reply(2, "SLOW");
    assert_eq!(rig.got(id), ["con_delayed"], "the link is down");
}

#[test]
fn messages_of_a_handler_that_is_away_cost_no_permit() {
    let mut peer = peer();
    peer.wire = WireKind::Secure;
    peer.spool.messages = 100_000;
    let mut rig = Rig::with(peer);
    rig.come_up_secure();
    let pay = rig.program(&["critical:pay:1"]);
    rig.put(|out| put_not_taken(out, 1, "away"));
    assert_eq!(rig.got(pay), ["con_delayed"]);
    for _ in 0..SUPPLY {
        rig.ask(pay, &["critical:pay:2"]);
        assert_eq!(rig.got(pay), ["con_delayed"]);
    }
    let other = rig.program(&["critical:log:a"]);
    assert_eq!(rig.got(other), ["con_delayed"]);
}

#[test]
fn when_too_much_is_held_back_the_oldest_is_stored() {
    let mut rig = spent(&["critical:a"]);
    let ids = [(); 4].map(|()| rig.program(&[&critical(MIB)]));
    assert_eq!(rig.broker.held.bytes(), 4 * MIB);
    rig.turn();
    rig.turn();
    assert_eq!(ids.map(|id| rig.got(id).len()), [1, 0, 0, 0]);
    assert_eq!(rig.broker.held.bytes(), 3 * MIB);
}

#[test]
fn what_was_taken_is_bounded_wherever_it_is() {
    let size = 100 << 10;
    let mut rig = spent(&[&critical(size)]);
    let held = (MAX_TAKEN_BYTES - 21 * size) / 2;
    let ids = [(); 2].map(|()| rig.program(&[&critical(held)]));
    let plain = rig.program(&[&*"x".repeat(size); 40]);
    assert_eq!((all_sent(&mut rig), rig.broker.taken_bytes()), (20, MAX_TAKEN_BYTES));
    let other = rig.program(&["other"]);
    assert!(rig.sent().is_empty());
    rig.wait(1.0);
    assert_eq!(ids.map(|id| rig.got(id).len()), [1, 1]);
    assert!(!rig.sent().is_empty());
    assert!(rig.got(plain).is_empty() && rig.got(other).is_empty());
}

#[test]
fn no_more_is_gathered_for_one_sync_than_may_be_taken() {
    let mut rig = Rig::new();
    rig.lose_link();
    let size = 100_000;
    let line = critical(size) + "\n";
    for _ in 0..3 {
        let id = rig.broker.client_connected();
        rig.broker.client_sent(id, line.repeat(20).as_bytes());
    }
    rig.broker.serve(rig.now);
    assert_eq!(rig.broker.stores.len(), MAX_TAKEN_BYTES.div_ceil(size));
    rig.turn();
    assert_eq!(rig.broker.spool.waiting().messages, 60);
}

#[test]
fn what_is_held_back_and_found_too_long_for_the_peer_is_lost() {
    let mut rig = secure::rig();
    rig.come_up_secure();
    let id = rig.program(&[]);
    let slot = rig.broker.session(id).unwrap().take_slot();
    let owner = Owner { client: id, slot, user: None };
    rig.broker.held.hold(owner, &vec![b'x'; MIB + 1], rig.now);
    rig.turn();
    assert!(rig.got(id)[0].starts_with("error:"));
    assert_eq!(rig.broker.status(rig.now).lost, 1);
}
