//! The link on a clock of the test's own.

use super::*;
use crate::broker::tests::peer;
use status::LinkState;

fn link(now: Now) -> Link {
    let peer = peer();
    let terms = Terms {
        caller: peer.host.id.clone(),
        called: peer.host.id.clone(),
        epoch: "0".repeat(32),
        window: peer.window,
        max_line: 1 << 20,
    };
    Link::new(&peer, terms, None, 7, now)
}

/// Dials when that is due, comes up and is left after `lasts`; how long it waited with the dial.
fn come_and_go(link: &mut Link, now: &mut Now, lasts: Duration) -> Duration {
    let due = link.deadline().unwrap().saturating_duration_since(now.mono);
    now.mono += due;
    assert_eq!(link.on(Event::Due, *now), Some(Action::Dial));
    assert_eq!(link.on(Event::Connected, *now), None);
    assert_eq!(link.on(Event::Opened, *now), None);
    now.mono += lasts;
    assert_eq!(link.on(Event::Left, *now), Some(Action::HangUp));
    due
}

#[test]
fn a_peer_that_leaves_is_dialled_at_once_but_not_again_and_again_without_a_pause() {
    let mut now = Now { mono: Instant::now(), wall: Timestamp::UNIX_EPOCH };
    let mut link = link(now);
    for _ in 0..3 {
        come_and_go(&mut link, &mut now, GOOD_AFTER);
        assert_eq!(link.deadline(), Some(now.mono), "a good link");
    }
    for _ in 0..LEAVES_AT_ONCE {
        come_and_go(&mut link, &mut now, Duration::ZERO);
        assert_eq!(link.deadline(), Some(now.mono), "it may just start again");
    }
    for _ in LEAVES_AT_ONCE + 1..MOST_QUICK_LEAVES {
        come_and_go(&mut link, &mut now, Duration::ZERO);
        assert_eq!(link.deadline(), Some(now.mono + BETWEEN_DIALS), "one dial a quarter of a second");
    }
    let mut pauses = Vec::new();
    for _ in 0..10 {
        come_and_go(&mut link, &mut now, Duration::ZERO);
        pauses.push(link.deadline().unwrap() - now.mono);
    }
    assert!(pauses.is_sorted() && pauses[0] == FIRST_PAUSE && pauses[9] == LONGEST_PAUSE, "{pauses:?}");
    assert!(link.last_error().unwrap().0.contains("another host have our key"));
    come_and_go(&mut link, &mut now, GOOD_AFTER);
    assert_eq!(link.deadline(), Some(now.mono), "it was good again");
}

#[test]
fn the_first_pause_after_a_good_link_that_was_left_is_short_however_long_those_before_it_were() {
    let mut now = Now { mono: Instant::now(), wall: Timestamp::UNIX_EPOCH };
    let mut link = link(now);
    let fail = |link: &mut Link, now: &mut Now| {
        now.mono = link.deadline().unwrap();
        link.on(Event::Due, *now);
        link.on(Event::Lost("refused".to_owned()), *now);
        link.deadline().unwrap() - now.mono
    };
    for _ in 0..10 {
        fail(&mut link, &mut now);
    }
    assert!(fail(&mut link, &mut now) >= LONGEST_PAUSE / 2);
    come_and_go(&mut link, &mut now, GOOD_AFTER);
    assert!(fail(&mut link, &mut now) <= FIRST_PAUSE);
}

#[test]
fn a_port_that_takes_the_connection_and_answers_no_tls_has_its_own_deadline_and_its_own_error() {
    let mut now = Now { mono: Instant::now(), wall: Timestamp::UNIX_EPOCH };
    let mut link = link(now);
    let why = |link: &Link| link.last_error().map(|(why, _)| why.clone()).unwrap_or_default();
    link.on(Event::Due, now);
    now.mono = link.deadline().unwrap();
    link.on(Event::Due, now);
    assert_eq!(why(&link), format!("no connection within {:?}", link.connect_timeout));
    now.mono = link.deadline().unwrap();
    link.on(Event::Due, now);
    now.mono += link.connect_timeout / 2;
    link.on(Event::Reached, now);
    assert_eq!(link.deadline(), Some(now.mono + link.opening_timeout));
    // Another of its addresses is reached: that is no reason to wait for longer.
    let deadline = link.deadline();
    now.mono += link.opening_timeout / 2;
    link.on(Event::Reached, now);
    assert_eq!((link.deadline(), link.state()), (deadline, LinkState::Connecting));
    now.mono = deadline.unwrap();
    link.on(Event::Due, now);
    assert_eq!(why(&link), format!("TCP is there, no TLS answer within {:?}", link.opening_timeout));
    // Up again, it is past; the next dial is known while it is down.
    assert!(link.next_dial(now).is_some());
    let error_at = link.last_error().unwrap().1;
    assert!(!link.is_past(error_at));
    come_up(&mut link, &mut now);
    assert!(link.is_past(error_at) && link.next_dial(now).is_none());
}

fn come_up(link: &mut Link, now: &mut Now) {
    now.mono = link.deadline().unwrap();
    link.on(Event::Due, *now);
    link.on(Event::Connected, *now);
    link.on(Event::Opened, *now);
}
