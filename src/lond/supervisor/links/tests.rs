//! Links as the supervisor tells of them, on a clock of the tests' own.

use super::*;

fn host(id: &str) -> HostId {
    HostId::new(id).unwrap()
}

fn remote() -> SocketAddr {
    "127.0.0.2:1".parse().unwrap()
}

fn start(links: &mut Links, pid: u32, caller: Option<HostId>, deadline: Instant, now: Instant) {
    links.started(pid, Started { remote: remote(), caller, familiar: false, deadline }, now);
}

fn opened() -> Opened {
    Opened {
        wire: WireKind::Secure,
        pin: Some("sha256:x".into()),
        own_pin: None,
        sandbox: None,
        since: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_newer_link_replaces_the_older_and_a_host_that_had_none_is_greeted() {
    let now = Instant::now();
    let deadline = now + Duration::from_secs(5);
    let mut links = Links::default();
    for pid in 1..=3 {
        start(&mut links, pid, Some(host("msua1")), deadline, now);
    }
    assert_eq!(links.unopened(), 3);
    assert_eq!(links.tell(1, Event::Opened(host("msua1"), opened())), Some(Action::Greet(host("msua1"))));
    assert_eq!(links.tell(1, Event::Opened(host("msua1"), opened())), None, "said twice");
    assert_eq!(links.tell(2, Event::Opened(host("msua1"), opened())), Some(Action::Supersede(1)));
    assert_eq!(links.tell(1, Event::Replace { deadline }), Some(Action::TellReplaced));
    links.tell(1, Event::Exited);
    assert_eq!((links.open(), links.unopened()), (1, 1));
    links.tell(2, Event::Exited);
    assert_eq!(links.open(), 0);
    assert_eq!(links.tell(3, Event::Opened(host("msua1"), opened())), Some(Action::Greet(host("msua1"))));
}

#[test]
fn a_caller_that_opens_link_after_link_has_so_many_children_and_keeps_its_oldest_and_its_newest() {
    let mut now = Instant::now();
    let deadline = now + Duration::from_secs(7);
    let mut links = Links::default();
    start(&mut links, 1000, Some(host("msul1")), deadline, now);
    links.tell(1000, Event::Opened(host("msul1"), opened()));
    let mut killed = Vec::new();
    for pid in 1..=100 {
        now += Duration::from_millis(10);
        start(&mut links, pid, None, deadline, now);
        let action = links.tell(pid, Event::Opened(host("msua1"), opened()));
        if let Some(Action::Supersede(older)) = action {
            links.tell(older, Event::Replace { deadline });
        }
        while let Some(pid) = links.beyond(&host("msua1")) {
            assert_eq!(links.tell(pid, Event::Kill), Some(Action::Kill));
            killed.push(pid);
        }
        let living = links.iter().filter(|(_, link)| link.state != State::Killed).count();
        assert!(living <= CHILDREN_OF_ONE + 1, "{living}");
        assert_eq!(links.get(pid).unwrap().state, State::Open);
        assert!(matches!(links.get(1).unwrap().state, State::Open | State::Ending { .. }));
    }
    assert_eq!(killed, (CHILDREN_OF_ONE as u32..100).collect::<Vec<_>>(), "the youngest that is ending");
    assert_eq!(links.get(1000).unwrap().state, State::Open, "another caller's");
    assert_eq!(links.beyond(&host("msul1")), None);
    // Where there is no room at all, whoever has several that are ending gives one up; nobody its
    // last.
    let mut given_up = 0;
    while let Some(pid) = links.spare() {
        assert!(matches!(links.get(pid).unwrap().state, State::Ending { .. }));
        links.tell(pid, Event::Kill);
        given_up += 1;
    }
    assert_eq!(given_up, CHILDREN_OF_ONE - 2);
}

#[test]
fn a_child_that_has_not_opened_by_its_deadline_is_killed_once() {
    let now = Instant::now();
    let mut links = Links::default();
    start(&mut links, 1, None, now + Duration::from_secs(12), now);
    assert_eq!(links.overdue(now + Duration::from_secs(11)), None);
    assert_eq!(links.next_deadline(), Some(now + Duration::from_secs(12)));
    assert_eq!(links.overdue(now + Duration::from_secs(12)), Some((1, Action::Kill)));
    assert_eq!(links.overdue(now + Duration::from_secs(99)), None);
    assert_eq!((links.unopened(), links.is_empty()), (1, false), "it is a process until it is reaped");
    links.tell(1, Event::Exited);
    assert_eq!((links.unopened(), links.is_empty()), (0, true));
}

#[test]
fn links_cross_exec() {
    let now = Instant::now();
    let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
    let mut links = Links::default();
    for pid in 1..=4 {
        start(&mut links, pid, Some(host(&format!("h{pid}"))), soon, now);
    }
    links.tell(2, Event::Opened(host("h2"), opened()));
    links.tell(3, Event::Drain { deadline: late });
    links.tell(4, Event::Kill);
    let text = serde_json::to_string(&links.leave(now)).unwrap();
    let mut adopted = Links::default();
    for left in serde_json::from_str::<Vec<Carried>>(&text).unwrap() {
        adopted.adopt(&left, now);
    }
    assert_eq!(adopted.links, links.links);
    assert_eq!((adopted.open(), adopted.unopened()), (1, 3));
}

#[test]
fn whatever_happens_counts_and_timers_fit_the_states() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut links = Links::default();
        for pid in 1..300 {
            let deadline = now + Duration::from_millis(random.u64(..3000));
            start(&mut links, pid, None, deadline, now);
            for _ in 0..3 {
                let pids: Vec<u32> = links.iter().map(|(pid, _)| pid).collect();
                let Some(&pid) = random.choice(&pids) else { continue };
                let event = match random.u8(..7) {
                    0 => Event::Opened(host(&format!("h{}", random.u8(..5))), opened()),
                    1 => Event::Replace { deadline },
                    2 => Event::Drain { deadline },
                    3 => Event::Lost { deadline },
                    4 => Event::Kill,
                    5 => Event::Spoke,
                    _ => Event::Exited,
                };
                if let Some(Action::Supersede(older)) = links.tell(pid, event) {
                    assert_ne!(older, pid);
                    assert_eq!(links.tell(older, Event::Replace { deadline }), Some(Action::TellReplaced));
                }
            }
            while let Some((pid, action)) = links.overdue(now) {
                assert_eq!(action, Action::Kill);
                assert_eq!(links.get(pid).unwrap().state, State::Killed);
            }
            let count = |wanted: fn(&State) -> bool| links.iter().filter(|(_, l)| wanted(&l.state)).count();
            assert_eq!(links.unopened(), links.iter().filter(|(_, link)| link.opened.is_none()).count());
            assert_eq!(links.open(), count(|state| matches!(state, State::Open)));
            assert_eq!(
                links.timers.len(),
                count(|s| matches!(s, State::Opening { .. } | State::Ending { .. }))
            );
            now += Duration::from_millis(random.u64(..500));
        }
    }
}

#[test]
fn times_of_links_and_of_handlers_follow_a_clock_that_is_set() {
    let now = Instant::now();
    let noted = Some(Timestamp::UNIX_EPOCH);
    let mut links = Links::default();
    for pid in [1, 2] {
        start(&mut links, pid, Some(host("msua1")), now + Duration::from_secs(5), now);
        links.tell(pid, Event::Opened(host("msua1"), opened()));
        let name = format!("of {pid}");
        let handler = HandlerStatus { name, tried: noted, last_error_at: noted, ..Default::default() };
        links.handlers(pid, vec![handler]);
    }
    // What the first has said outlives it.
    links.tell(1, Event::Exited);
    let step = SignedDuration::from_hours(5);
    links.clock_was_set(step);
    let moved = noted.map(|at| at + step);
    for name in ["of 1", "of 2"] {
        let handler = links.handler(name);
        assert_eq!((handler.tried, handler.last_error_at), (moved, moved), "{name}");
    }
    assert_eq!(links.get(2).unwrap().opened.as_ref().map(|opened| opened.since), moved);
}
