//! Who asks, what is looked up, who is connected where.

use super::*;

fn at(n: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], port))
}

fn name(name: &str) -> Target {
    Target::Lookup { name: name.to_owned(), port: 5663 }
}

fn reply(child: &'static str, number: u64, answer: Answer) -> Reply<&'static str> {
    Reply { child, number, answer }
}

type TestDials = Dials<&'static str>;

#[test]
fn an_address_of_the_table_is_answered_at_once_and_a_name_when_it_is_looked_up() {
    let (now, mut dials) = (Instant::now(), TestDials::default());
    let known = Target::Address(at(1, 7));
    assert_eq!(dials.asked(&"a", 1, Some(&known), now), Some(reply("a", 1, Ok(vec![at(1, 7)]))));
    assert_eq!(dials.next_name(), None);
    assert_eq!(dials.asked(&"b", 4, Some(&name("b.example")), now), None);
    assert!(dials.connect(&"b", 4, 0, now).is_err(), "nothing was found yet");
    assert_eq!(dials.next_name().as_deref(), Some("b.example"));
    let found = Ok(vec![at(2, 0), at(3, 0)]);
    let with_port = Ok(vec![at(2, 5663), at(3, 5663)]);
    assert_eq!(dials.found("b.example", &found), [reply("b", 4, with_port)]);
    assert_eq!(dials.found("b.example", &found), [], "it is answered once");
    assert_eq!(dials.connect(&"b", 4, 1, now), Ok(at(3, 5663)));
    assert_eq!(dials.connect(&"a", 1, 0, now), Ok(at(1, 7)));
    assert!(dials.asked(&"a", 2, None, now).unwrap().answer.is_err(), "it is no peer any more");
    assert!(dials.connect(&"a", 2, 0, now).is_err());
}

#[test]
fn a_child_is_connected_to_each_address_of_its_own_last_answer_once_and_to_nothing_else() {
    let (now, mut dials) = (Instant::now(), TestDials::default());
    assert!(dials.connect(&"a", 0, 0, now).is_err(), "it has asked for nothing");
    dials.asked(&"a", 1, Some(&name("many.example")), now);
    dials.next_name();
    dials.found("many.example", &Ok((0..100).map(|n| at(n, 0)).collect()));
    dials.asked(&"b", 1, Some(&Target::Address(at(200, 7))), now);
    for (number, place) in [(0, 0), (2, 0), (1, 100), (1, usize::MAX)] {
        assert!(dials.connect(&"a", number, place, now).is_err(), "{number}, {place}");
    }
    for place in 10..10 + ADDRESSES_MOST {
        let n = u8::try_from(place).unwrap();
        assert_eq!(dials.connect(&"a", 1, place, now), Ok(at(n, 5663)));
        assert!(dials.connect(&"a", 1, place, now).is_err(), "once");
    }
    assert!(dials.connect(&"a", 1, 50, now).is_err(), "no more than a dial tries");
    dials.asked(&"a", 2, Some(&name("many.example")), now);
    assert!(dials.connect(&"a", 1, 60, now).is_err(), "another question: what was answered is void");
    dials.gone(&"b");
    assert!(dials.connect(&"b", 1, 0, now).is_err(), "the next child of that peer has asked nothing");
}

#[test]
fn a_name_is_looked_up_once_for_all_who_ask_and_not_for_those_who_are_gone() {
    let (now, mut dials) = (Instant::now(), TestDials::default());
    let shared = name("shared.example");
    let other_port = Target::Lookup { name: "shared.example".to_owned(), port: 7 };
    dials.asked(&"a", 1, Some(&shared), now);
    dials.asked(&"b", 1, Some(&other_port), now);
    assert_eq!(dials.next_name().as_deref(), Some("shared.example"));
    // The dial was over before the look-up was, and the next one asks again.
    assert_eq!(dials.asked(&"a", 2, Some(&shared), now), None);
    dials.asked(&"c", 1, Some(&shared), now);
    dials.asked(&"d", 1, Some(&name("gone.example")), now);
    dials.gone(&"c");
    dials.gone(&"d");
    assert_eq!(dials.next_name(), None, "one of it runs; nobody waits for the other");
    let replies = dials.found("shared.example", &Ok(vec![at(1, 0)]));
    assert_eq!(replies, [reply("a", 2, Ok(vec![at(1, 5663)])), reply("b", 1, Ok(vec![at(1, 7)]))]);
    // Of a failure all hear, too; and the name may be looked up again.
    dials.asked(&"a", 3, Some(&shared), now);
    assert!(dials.next_name().is_some());
    assert_eq!(dials.found("shared.example", &Err("no".into())), [reply("a", 3, Err("no".into()))]);
    assert!(dials.connect(&"a", 3, 0, now).is_err());
}

#[test]
fn no_more_than_so_many_names_are_looked_up_at_a_time_and_the_others_wait_their_turn() {
    let (now, mut dials) = (Instant::now(), Dials::<usize>::default());
    let names: Vec<String> = (0..LOOK_UPS + 2).map(|n| format!("h{n}.example")).collect();
    for (child, it) in names.iter().enumerate() {
        dials.asked(&child, 1, Some(&name(it)), now);
    }
    let running: Vec<String> = std::iter::from_fn(|| dials.next_name()).collect();
    assert_eq!(running, names[..LOOK_UPS]);
    dials.found(&names[5], &Err("no".into()));
    assert_eq!(dials.next_name().as_ref(), Some(&names[LOOK_UPS]));
    assert_eq!(dials.next_name(), None);
}

#[test]
fn a_child_that_asks_without_end_is_told_so_and_one_that_dials_as_often_as_a_link_may_is_not() {
    let (mut now, mut dials) = (Instant::now(), TestDials::default());
    let target = Target::Address(at(1, 7));
    let mut ask = |now| dials.asked(&"a", 1, Some(&target), now).unwrap().answer;
    let answered = (0..1000).filter(|_| ask(now).is_ok()).count();
    assert_eq!(answered, QUESTIONS as usize);
    assert!(is_too_often(&ask(now)));
    now += QUESTION_EVERY;
    assert!(ask(now).is_ok() && is_too_often(&ask(now)), "one more by then");
    for _ in 0..1000 {
        // Twice as often as a link dials that is left again and again.
        now += Duration::from_millis(125);
        assert!(ask(now).is_ok());
    }
    assert!(dials.connect(&"a", 1, 0, now).is_ok());
}

#[test]
fn a_child_that_is_refused_without_end_is_broken_which_is_said_once() {
    let (mut now, mut dials) = (Instant::now(), TestDials::default());
    let most = REFUSALS as usize;
    for _ in 0..3 {
        for _ in 1..most {
            assert!(dials.connect(&"a", 1, 0, now).is_err() && !dials.is_broken(&"a"));
        }
        now += REFUSALS_IN;
    }
    let connected = (0..3 * most).filter(|_| {
        assert!(dials.connect(&"a", 1, 0, now).is_err());
        dials.is_broken(&"a")
    });
    assert_eq!(connected.count(), 1);
    dials.gone(&"a");
    let target = Target::Address(at(1, 7));
    let asked = (0..3 * most).filter(|_| {
        dials.asked(&"a", 1, Some(&target), now);
        dials.is_broken(&"a")
    });
    assert_eq!(asked.count(), 1);
}

#[test]
fn a_question_that_waits_while_the_target_changes_is_for_the_new_one() {
    let (now, mut dials) = (Instant::now(), TestDials::default());
    for child in ["addressed", "gone", "kept", "renamed"] {
        dials.asked(&child, 1, Some(&name("old.example")), now);
    }
    let [was, is] = [1, 2].map(|n| Target::Address(at(n, 7)));
    dials.asked(&"moved", 1, Some(&was), now);
    dials.asked(&"same", 1, Some(&was), now);
    assert!(dials.next_name().is_some());
    let (old, new) = (name("old.example"), name("new.example"));
    let replies = dials.retarget(|child| match *child {
        "gone" => None,
        "kept" => Some(&old),
        "renamed" => Some(&new),
        "same" => Some(&was),
        _ => Some(&is),
    });
    assert_eq!(replies[0], reply("addressed", 1, Ok(vec![at(2, 7)])));
    assert!(replies[1].child == "gone" && replies[1].answer.is_err());
    assert_eq!(replies.len(), 2);
    assert!(dials.connect(&"moved", 1, 0, now).is_err(), "what was answered before is void");
    assert_eq!(dials.connect(&"same", 1, 0, now), Ok(at(1, 7)), "what is the same is not");
    assert_eq!(dials.connect(&"addressed", 1, 0, now), Ok(at(2, 7)));
    assert_eq!(dials.next_name().as_deref(), Some("new.example"));
    let answered: Vec<_> =
        dials.found("old.example", &Ok(vec![at(9, 0)])).iter().map(|it| it.child).collect();
    assert_eq!(answered, ["kept"]);
    let answered: Vec<_> =
        dials.found("new.example", &Ok(vec![at(8, 0)])).iter().map(|it| it.child).collect();
    assert_eq!(answered, ["renamed"]);
}

#[test]
fn a_program_that_follows_goes_on_with_what_was_asked_and_answered() {
    let (now, mut before) = (Instant::now(), Dials::<u8>::default());
    let (known, named) = (Target::Address(at(1, 7)), name("b.example"));
    before.asked(&1, 4, Some(&known), now);
    before.asked(&2, 5, Some(&named), now);
    before.next_name();
    before.found("b.example", &Ok(vec![at(2, 0), at(3, 0)]));
    before.connect(&2, 5, 0, now).unwrap();
    before.asked(&3, 6, Some(&named), now);
    before.asked(&4, 7, Some(&known), now);
    before.next_name();
    let left = serde_json::to_string(&before.leave()).unwrap();
    let mut dials = Dials::<u8>::default();
    dials.adopt(serde_json::from_str(&left).unwrap());
    let moved = Target::Address(at(9, 7));
    let replies = dials.retarget(|child| match child {
        2 | 3 => Some(&named),
        4 => Some(&moved),
        _ => Some(&known),
    });
    assert_eq!(replies, []);
    assert_eq!(dials.connect(&1, 4, 0, now), Ok(at(1, 7)));
    assert_eq!(dials.connect(&2, 5, 1, now), Ok(at(3, 5663)));
    assert!(dials.connect(&2, 5, 0, now).is_err(), "it was tried already");
    assert!(dials.connect(&4, 7, 0, now).is_err(), "that one has moved");
    assert_eq!(dials.next_name().as_deref(), Some("b.example"), "it is looked up anew");
    let replies = dials.found("b.example", &Ok(vec![at(8, 0)]));
    assert_eq!((replies.len(), replies[0].child, replies[0].number), (1, 3, 6));
}
