//! The sums, and who is given up.

use super::*;

#[test]
fn an_answer_for_a_program_that_left_reaches_nobody() {
    let mut sessions = Sessions::new(100, Instant::now());
    let first = sessions.add();
    sessions.get(first).unwrap().take_slot();
    sessions.remove(first);
    let second = sessions.add();
    assert_eq!(first.index(), second.index());
    assert!(sessions.get(first).is_none() && sessions.get(second).is_some());
    sessions.remove(first);
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions.ids(), [second]);
}

const MAX_LINE: usize = 1 << 20;

/// Sessions at a time of their own.
pub(super) struct Bench {
    pub(super) sessions: Sessions,
    now: Instant,
}

impl Bench {
    pub(super) fn new(max_line: usize) -> Bench {
        let now = Instant::now();
        Bench { sessions: Sessions::new(max_line, now), now }
    }

    pub(super) fn add(&mut self, user: u32) -> ClientId {
        let id = self.sessions.add();
        self.sessions.belongs(id, user);
        id
    }

    /// The program sends as much as is read of it, up to `most` bytes without a newline; how much
    /// was read.
    pub(super) fn send(&mut self, id: ClientId, most: usize) -> usize {
        let mut sent = 0;
        while sent < most {
            let count = self.sessions.may_read(id).min(most - sent).min(65_536);
            if count == 0 {
                break;
            }
            self.sessions.get(id).unwrap().push(&vec![b'x'; count]);
            self.sessions.was_active(id);
            let session = self.sessions.get(id).unwrap();
            session.has_lines = false;
            assert!(session.reader.next_line().is_none());
            self.sessions.weigh(id);
            sent += count;
        }
        sent
    }

    /// Its line ends, and is taken.
    pub(super) fn end_line(&mut self, id: ClientId) {
        let session = self.sessions.get(id).unwrap();
        session.push(b"\n");
        assert!(matches!(session.reader.next_line(), Some(base::line::Line::Whole(_))));
        session.has_lines = false;
        self.sessions.weigh(id);
    }

    pub(super) fn pass(&mut self, time: Duration) -> Vec<(ClientId, u32, Hoarder)> {
        self.now += time;
        self.sessions.keep_time(self.now)
    }

    /// What is counted is what there is.
    fn check(&self) {
        let each =
            |count: fn(&Session) -> usize| self.sessions.each().map(|(_, one)| count(one)).sum::<usize>();
        assert_eq!(self.sessions.read, each(|one| one.reader.memory()));
        assert_eq!(self.sessions.unread, each(|one| one.answers_memory()));
        assert_eq!(self.sessions.users.values().map(|user| user.read).sum::<usize>(), self.sessions.read);
        assert_eq!(self.sessions.users.values().map(|user| user.clients).sum::<usize>(), self.sessions.len());
    }
}

#[test]
fn thousands_of_lines_without_an_end_are_read_within_the_sum_and_short_ones_always() {
    let mut bench = Bench::new(MAX_LINE);
    let ids: Vec<_> = (0..4000).map(|number| bench.add(number % 2)).collect();
    for id in &ids {
        bench.send(*id, MAX_LINE);
    }
    bench.check();
    assert!(bench.sessions.read <= READ_SUM + 4000 * ALWAYS + MAX_LINE, "{}", bench.sessions.read);
    let short = bench.add(0);
    assert_eq!(bench.send(short, 500), 500);
}

#[test]
fn long_lines_take_turns_and_all_come_to_their_end() {
    const LONG: usize = 15 << 20;
    let mut bench = Bench::new(16 << 20);
    let mut left: Vec<_> = (0..30).map(|_| (bench.add(0), LONG)).collect();
    let mut rounds = 0;
    while !left.is_empty() {
        rounds += 1;
        assert!(rounds < 1000, "{} are stuck", left.len());
        for (id, missing) in &mut left {
            *missing -= bench.send(*id, *missing);
            if *missing == 0 {
                bench.end_line(*id);
            }
        }
        left.retain(|(_, missing)| *missing > 0);
        assert!(bench.pass(Duration::from_millis(10)).is_empty());
        bench.sessions.take_fed();
        bench.check();
        assert!(bench.sessions.read <= READ_SUM + LONG + 30 * ALWAYS, "{}", bench.sessions.read);
    }
    assert_eq!(bench.sessions.read, 0);
}

#[test]
fn what_is_read_beyond_the_sum_is_a_line_of_each_user_until_that_is_taken() {
    let mut bench = Bench::new(MAX_LINE);
    let ids: Vec<_> = (0..1000).map(|number| bench.add(number % 2)).collect();
    // Whole lines, endless ones, and what follows one that was too long: the link takes none.
    let texts = [b"hang:x\n".repeat(9000), vec![b'x'; 63_000]];
    for _ in 0..300 {
        for (number, id) in ids.iter().enumerate() {
            while let count @ 1.. = bench.sessions.may_read(*id).min(63_000) {
                bench.sessions.get(*id).unwrap().push(&texts[number % 2][..count]);
                bench.sessions.was_active(*id);
                bench.sessions.weigh(*id);
            }
        }
        assert!(bench.pass(Duration::from_millis(10)).is_empty());
        bench.sessions.take_fed();
    }
    bench.check();
    // One of each user has had a turn.
    let most = READ_SUM + 1000 * ALWAYS + 2 * (MAX_LINE + 63_000);
    assert!(bench.sessions.read <= most, "{} of {most}", bench.sessions.read);
    // One who has begun a line, and has none that waits, comes to its end.
    let long = bench.add(3);
    let mut missing = MAX_LINE / 2;
    for _ in 0..100 {
        missing -= bench.send(long, missing);
        bench.pass(Duration::from_millis(10));
        bench.sessions.take_fed();
    }
    assert_eq!(missing, 0);
}

#[test]
fn one_user_s_beginnings_leave_room_for_another_s_and_the_turn_goes_round_among_users() {
    let mut bench = Bench::new(MAX_LINE);
    let greedy: Vec<_> = (0..40).map(|_| bench.add(1)).collect();
    for id in &greedy {
        bench.send(*id, MAX_LINE);
    }
    let modest = bench.add(2);
    assert_eq!(bench.send(modest, MAX_LINE / 2), MAX_LINE / 2, "there is room for another user");
    let others: Vec<_> = (0..3).map(|_| bench.add(2)).collect();
    for id in &others {
        bench.send(*id, MAX_LINE);
    }
    // Whose turn it is ends its line: then it is another user's.
    let (whose, _) = bench.sessions.turn.expect("somebody's turn");
    assert_eq!(bench.sessions.peek(whose).unwrap().user, 1);
    bench.end_line(whose);
    bench.sessions.take_fed();
    let (next, _) = bench.sessions.turn.expect("somebody's turn");
    assert_eq!(bench.sessions.peek(next).unwrap().user, 2);
}

#[test]
fn who_begins_a_line_and_falls_silent_is_given_up_when_others_wait_and_not_before() {
    let mut bench = Bench::new(MAX_LINE);
    let silent: Vec<_> = (0..5).map(|_| bench.add(1)).collect();
    for id in &silent {
        bench.send(*id, MAX_LINE);
    }
    bench.pass(Duration::ZERO);
    assert!(bench.pass(Duration::from_secs(600)).is_empty(), "nobody waits");
    let waits: Vec<_> = (0..9).map(|_| bench.add(2)).collect();
    for id in &waits {
        bench.send(*id, MAX_LINE);
    }
    assert!(bench.sessions.deadline().is_some());
    let gone: Vec<_> =
        bench.pass(Duration::from_secs(1)).iter().map(|(id, user, why)| (*id, *user, *why)).collect();
    assert_eq!(gone, silent.iter().map(|id| (*id, 1, Hoarder::Line)).collect::<Vec<_>>());
    for id in &silent {
        let session = bench.sessions.get(*id).unwrap();
        assert!(session.answers.out.bytes().starts_with(b"error:") && !session.wants_read());
    }
    assert!(!bench.sessions.take_fed().is_empty());
    bench.check();
}

#[test]
fn who_takes_long_over_its_turn_is_given_up_for_those_who_wait() {
    let mut bench = Bench::new(16 << 20);
    let ids: Vec<_> = (0..3).map(|_| bench.add(1)).collect();
    for id in &ids {
        bench.send(*id, 9 << 20);
    }
    let (slow, _) = bench.sessions.turn.expect("somebody's turn");
    let mut gone = Vec::new();
    for _ in 0..40 {
        // A byte a second; and nobody else is silent.
        bench.send(slow, 1);
        for id in &ids {
            bench.sessions.was_active(*id);
        }
        gone.extend(bench.pass(Duration::from_secs(1)));
    }
    assert_eq!(gone.iter().map(|(id, _, why)| (*id, *why)).collect::<Vec<_>>(), [(slow, Hoarder::Line)]);
}

#[test]
fn too_many_answers_unread_keep_the_peer_from_being_heard_until_who_reads_none_is_given_up() {
    let mut bench = Bench::new(MAX_LINE);
    let ids: Vec<_> = (0..20).map(|number| bench.add(number)).collect();
    for id in &ids {
        if bench.sessions.hears() {
            let session = bench.sessions.get(*id).unwrap();
            let slot = session.take_slot();
            session.answer(slot, &vec![b'x'; MAX_LINE]);
            bench.sessions.weigh(*id);
        }
    }
    assert!(!bench.sessions.hears());
    assert!(bench.sessions.unread <= unread_sum(MAX_LINE) + MAX_LINE + 1);
    assert!(bench.pass(Duration::ZERO).is_empty());
    // The first takes what it is given, slowly.
    for _ in 0..7 {
        bench.sessions.was_active(ids[0]);
        assert!(bench.pass(Duration::from_millis(250)).is_empty());
    }
    bench.sessions.was_active(ids[0]);
    let gone = bench.pass(Duration::from_millis(250));
    assert!(!gone.is_empty() && gone.iter().all(|(id, _, why)| *id != ids[0] && *why == Hoarder::Answers));
    assert!(gone.iter().all(|(id, ..)| bench.sessions.peek(*id).unwrap().finished()));
    assert!(bench.sessions.hears());
    bench.check();
}

#[test]
fn at_the_bound_on_all_or_on_a_user_the_one_idle_for_longest_makes_room_and_a_busy_one_never() {
    let mut bench = Bench::new(MAX_LINE);
    let ids: Vec<_> = (0..MAX_OF_USER).map(|_| bench.add(1)).collect();
    // All but the last were heard since, the first two are owed an answer.
    for id in &ids[..MAX_OF_USER - 1] {
        bench.sessions.was_active(*id);
    }
    bench.pass(Duration::from_secs(1));
    for id in &ids[..2] {
        bench.sessions.get(*id).unwrap().take_slot();
    }
    assert_eq!(bench.sessions.admit(1), Admission::InPlaceOf(ids[MAX_OF_USER - 1]));
    assert_eq!(bench.sessions.admit(2), Admission::Welcome);
    for _ in MAX_OF_USER..MAX_CLIENTS {
        bench.add(2);
    }
    // The user with the most makes room for whoever comes.
    assert_eq!(bench.sessions.admit(3), Admission::InPlaceOf(ids[MAX_OF_USER - 1]));
    for id in bench.sessions.ids() {
        bench.sessions.get(id).unwrap().take_slot();
    }
    assert_eq!(bench.sessions.admit(3), Admission::Full);
    bench.sessions.remove(ids[0]);
    assert_eq!(bench.sessions.admit(1), Admission::Welcome);
    bench.check();
}

#[test]
fn a_program_that_is_done_with_a_long_line_or_answer_keeps_no_room_for_it() {
    let mut bench = Bench::new(MAX_LINE);
    let id = bench.add(1);
    bench.send(id, MAX_LINE);
    bench.end_line(id);
    let session = bench.sessions.get(id).unwrap();
    let slot = session.take_slot();
    session.answer(slot, &vec![b'x'; MAX_LINE]);
    session.answers.out.wrote(MAX_LINE);
    assert!(session.answers_memory() <= base::line::KEPT_SPARINGLY);
    session.answers.out.wrote(1);
    bench.sessions.weigh(id);
    bench.check();
    assert_eq!((bench.sessions.read, bench.sessions.unread), (0, 0));
}
