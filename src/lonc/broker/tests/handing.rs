//! What goes to the next child, and when.

use super::*;
use crate::session::Rest;
use base::disk::{FolderLock, Guarded};

impl Rig {
    /// Plays the reactor: who is to go now has gone, with this.
    fn going(&mut self) -> Vec<(ClientId, Rest<'static>)> {
        let going = self.broker.take_going();
        let owned = |rest: Rest<'_>| Rest {
            unread: rest.unread.into_owned().into(),
            unsent: rest.unsent.into_owned().into(),
            ..rest
        };
        let gone: Vec<_> = going.into_iter().map(|id| (id, owned(self.broker.rest(id).unwrap()))).collect();
        gone.iter().for_each(|(id, _)| self.broker.client_gone(*id));
        gone
    }

    fn hand_over(&mut self) -> Vec<(ClientId, Rest<'static>)> {
        self.broker.hand_over(self.now);
        self.turn();
        self.going()
    }
}

fn rest(unread: &str, unsent: &str) -> Rest<'static> {
    let bytes = |text: &str| text.as_bytes().to_vec().into();
    Rest { unread: bytes(unread), skipping: false, unsent: bytes(unsent), ended: false }
}

#[test]
fn who_is_owed_nothing_goes_at_once_and_who_waits_for_an_answer_goes_with_it() {
    let mut rig = Rig::new();
    rig.come_up();
    let idle = rig.program(&[]);
    let half = rig.program(&[]);
    rig.broker.client_sent(half, b"first\nsec");
    rig.turn();
    assert_eq!(rig.sent(), ["first"]);
    rig.say(&["FIRST"]);
    let busy = rig.program(&["a", "b"]);
    let ended = rig.program(&["c"]);
    rig.broker.client_closed_input(ended);

    assert_eq!(rig.hand_over(), [(idle, rest("", "")), (half, rest("sec", "FIRST\n"))]);
    assert!(!rig.broker.accepts() && !rig.broker.over());
    assert!(!rig.broker.session(busy).unwrap().wants_read());
    rig.say(&["A"]);
    assert_eq!(rig.going(), []);
    rig.say(&["B", "C"]);
    let last = rig.going();
    assert_eq!(last, [(busy, rest("", "A\nB\n")), (ended, Rest { ended: true, ..rest("", "C\n") })]);
    rig.turn();
    assert!(rig.broker.over());
}

#[test]
fn what_was_read_and_not_taken_is_the_next_child_s_though_the_link_is_down() {
    let mut rig = Rig::new();
    // The first dial has not ended: the requests wait for it.
    let waits = rig.program(&["plain", "critical:1", "rest"]);
    let full = rig.program(&[&format!("{}\n", "x".repeat(40)).repeat(1500)]);
    let gone = rig.hand_over();
    assert_eq!(gone[0], (waits, rest("plain\ncritical:1\nrest\n", "")));
    assert_eq!((gone[1].0, gone[1].1.unread.len()), (full, 1500 * 41 + 1));
    assert!(rig.broker.over() && rig.broker.spool.waiting().messages == 0);
}

#[test]
fn a_program_that_was_handed_over_is_served_in_the_order_of_its_bytes() {
    let mut rig = Rig::new();
    let (_, taken) = {
        let waits = rig.program(&["a", "critical:b"]);
        rig.broker.client_sent(waits, b"half");
        rig.hand_over().pop().unwrap()
    };
    let mut next = Rig::new();
    let unsent = Rest { unsent: b"ld answer\n".to_vec().into(), ..taken };
    let id = next.broker.client_handed(unsent);
    let ended = next.broker.client_handed(Rest { ended: true, ..rest("", "") });
    let cut = next.broker.client_handed(Rest { skipping: true, ..rest("too long\nd\n", "") });
    next.turn();
    assert!(next.broker.session(ended).unwrap().finished());
    next.broker.client_gone(ended);
    next.come_up();
    assert_eq!(next.sent(), ["a", "b", "d"]);
    next.broker.client_sent(id, b" line\n");
    next.turn();
    assert_eq!(next.sent(), ["half line"]);
    next.say(&["A", "B", "D", "HALF"]);
    assert_eq!(next.got(id), ["ld answer", "A", "B", "HALF"]);
    assert_eq!(next.got(cut), ["D"]);
}

#[test]
fn when_the_time_is_up_answers_are_given_as_by_a_drain_and_the_program_goes_all_the_same() {
    let mut rig = Rig::new();
    rig.come_up();
    let id = rig.program(&["plain", "critical:1"]);
    assert_eq!(rig.hand_over(), []);
    rig.wait(4.9);
    assert_eq!(rig.going(), []);
    rig.wait(0.2);
    assert_eq!(rig.going(), [(id, rest("", "con_lost\ncon_delayed\n"))]);
    assert!(rig.broker.over());
    assert_eq!(rig.broker.spool.waiting().messages, 1);
}

#[test]
fn a_program_that_cannot_be_handed_over_is_served_to_the_end_of_what_was_read() {
    let mut rig = Rig::new();
    let id = rig.program(&["plain", "critical:1"]);
    rig.broker.hand_over(rig.now);
    rig.turn();
    assert_eq!(rig.broker.take_going(), [id]);
    rig.broker.client_stays(id);
    assert!(!rig.broker.over());
    rig.turn();
    assert_eq!(rig.got(id), ["con_lost", "con_delayed"]);
    assert!(rig.broker.session(id).unwrap().finished());
    assert_eq!(rig.broker.take_going(), []);
    rig.broker.client_gone(id);
    assert!(rig.broker.over());
}

#[test]
fn what_goes_along_is_bounded_and_the_program_beyond_the_bound_is_served_here() {
    let mut rig = Rig::new();
    let read = vec![b'x'; 1 << 20];
    let ids: Vec<_> = (0..300).map(|_| rig.broker.client_connected()).collect();
    for id in &ids {
        rig.broker.client_sent(*id, &read);
        rig.broker.client_sent(*id, b"\n");
    }
    let gone = rig.hand_over();
    assert_eq!(gone.len(), 127);
    assert_eq!(rig.got(ids[299]), ["con_lost"]);
    assert!(rig.broker.session(ids[299]).unwrap().finished());
}

#[test]
fn programs_that_become_ready_one_by_one_go_many_at_a_time() {
    let mut rig = Rig::new();
    rig.come_up();
    let ids: Vec<_> = (0..600).map(|_| rig.program(&["a"])).collect();
    assert_eq!(rig.hand_over(), []);
    let mut groups = Vec::new();
    for _ in &ids {
        rig.say(&["A"]);
        groups.push(rig.going().len());
    }
    groups.retain(|&count| count > 0);
    assert_eq!(groups, [250, 250, 100]);
    rig.turn();
    assert!(rig.broker.over());
}

#[test]
fn a_child_whose_folder_is_another_one_by_now_stores_nothing_and_leaves_its_programs_to_the_next() {
    let mut made = PathBuf::new();
    let mut rig = Rig::on(
        |delayed| {
            made = delayed.join("msul1");
            let lock = FolderLock::try_acquire(&made).unwrap();
            Guarded::new(RealDisk, &made, lock, "this test".to_owned()).to_this_folder()
        },
        peer(),
        None,
    );
    rig.lose_link();
    let [one, other] = ["critical:1", "critical:2"].map(|text| rig.program(&[text]));
    assert_eq!((rig.got(one), rig.got(other)), (vec!["con_delayed".into()], vec!["con_delayed".into()]));
    std::fs::remove_dir_all(&made).unwrap();
    std::fs::create_dir(&made).unwrap();
    rig.ask(one, &["critical:3"]);
    assert_eq!(rig.got(one), ["con_failed"], "nothing is said to be stored that is not");
    assert!(!rig.broker.accepts() && !rig.broker.over());
    rig.ask(other, &["critical:4"]);
    assert!(rig.got(other).is_empty(), "it is the next child's to read");
    assert_eq!(rig.broker.take_going(), [one, other]);
    assert_eq!(*rig.broker.rest(other).unwrap().unread, *b"critical:4\n");
    [one, other].iter().for_each(|id| rig.broker.client_gone(*id));
    rig.turn();
    assert!(rig.broker.over());
    assert_eq!(std::fs::read_dir(&made).unwrap().count(), 0, "it is not this child's");
}
