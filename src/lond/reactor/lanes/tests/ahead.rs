//! Who gets more than one plain request on a connection, and what that may cost.

use super::*;
use crate::reactor::lanes::pace::AHEAD_MOST;
use std::collections::BTreeSet;

/// The program's ends of its connections.
type Connections = Vec<BufReader<UnixStream>>;

impl Bench {
    /// A program that has been quick for so long that it gets as much as one can.
    fn quick() -> (Bench, Connections) {
        let (mut bench, mut connections) = (Bench::new(), Vec::new());
        bench.rounds(&mut connections, 12);
        assert_eq!(bench.handler.habit, Habit::Beside);
        (bench, connections)
    }

    /// As many requests as there are connections, one on each, and their answers; so many times.
    fn rounds(&mut self, connections: &mut Connections, count: usize) {
        for _ in 0..count {
            let before = self.answers.len();
            self.ask_for(POOL);
            while connections.len() < POOL {
                connections.push(self.accept());
            }
            let got = waiting(connections);
            assert_eq!(lengths(&got), [1; POOL]);
            say(connections, &got);
            self.until(|bench| bench.answers.len() == before + POOL);
        }
    }

    /// Asks for so many more.
    fn ask_for(&mut self, count: usize) {
        let first = self.next;
        self.next += count as u64;
        (first..self.next).for_each(|ticket| self.ask(ticket));
        self.turn();
    }
}

/// What the program can read on each connection now.
fn waiting(connections: &mut [BufReader<UnixStream>]) -> Vec<String> {
    let read = |connection: &mut BufReader<UnixStream>| {
        connection.get_ref().set_nonblocking(true).unwrap();
        let mut all = String::new();
        let end = connection.read_to_string(&mut all);
        connection.get_ref().set_nonblocking(false).unwrap();
        assert!(end.is_err(), "it was closed");
        all
    };
    connections.iter_mut().map(read).collect()
}

fn lengths(lines: &[String]) -> Vec<usize> {
    lines.iter().map(|lines| lines.lines().count()).collect()
}

/// The program says this on each connection.
fn say(connections: &mut Connections, lines: &[String]) {
    for (connection, lines) in connections.iter_mut().zip(lines) {
        connection.get_mut().write_all(lines.as_bytes()).unwrap();
    }
}

#[test]
fn a_quick_program_gets_many_at_once_when_all_its_connections_are_busy_and_the_rest_wait() {
    let (mut bench, mut connections) = Bench::quick();
    bench.rounds(&mut connections, 1);
    let most = POOL * AHEAD_MOST;
    let first = bench.answers.len();
    bench.ask_for(most + 10);
    let got = waiting(&mut connections);
    assert_eq!(lengths(&got), [AHEAD_MOST; POOL]);
    let seen: BTreeSet<usize> =
        got.iter().flat_map(|lines| lines.lines()).map(|n| n.parse().unwrap()).collect();
    assert_eq!(seen, (first..first + most).collect(), "those that came first");
    say(&mut connections, &got);
    bench.until(|bench| bench.answers.len() == first + most);
    assert_eq!(lengths(&waiting(&mut connections)).iter().sum::<usize>(), 10);
    assert!(bench.answers.iter().all(|(ticket, answer)| ticket.to_string() == *answer), "its own answer");
}

#[test]
fn a_program_that_has_not_been_quick_for_long_enough_gets_fewer() {
    let (mut bench, mut connections) = (Bench::new(), Vec::new());
    bench.rounds(&mut connections, 5);
    bench.ask_for(1000);
    assert_eq!(lengths(&waiting(&mut connections)), [4; POOL]);
}

#[test]
fn behind_a_request_that_takes_long_no_more_is_passed_on() {
    let (mut bench, mut connections) = Bench::quick();
    bench.ask_for(POOL);
    assert_eq!(lengths(&waiting(&mut connections)), [1; POOL]);
    bench.now += pace::SLOW + Duration::from_millis(1);
    bench.turn();
    bench.ask_for(100);
    assert_eq!(lengths(&waiting(&mut connections)), [0; POOL]);
}

#[test]
fn while_the_program_has_not_come_to_a_connection_the_others_have_one_each() {
    let (mut bench, mut connections) = Bench::quick();
    // One is closed for being idle, and made anew; the program leaves it alone.
    bench.now += Duration::from_millis(1500);
    connections.remove(3);
    bench.until(|bench| bench.handler.lanes.iter().filter(|lane| lane.program.is_connected()).count() < POOL);
    for _ in 0..12 {
        bench.ask_for(POOL);
        let got = waiting(&mut connections);
        assert!(lengths(&got).iter().all(|count| *count <= 1), "{got:?}");
        say(&mut connections, &got);
        bench.turn();
    }
    assert_eq!(bench.handler.pace.depth(bench.now), AHEAD_MOST, "it is quick where it is");
}

#[test]
fn a_program_that_answers_one_request_a_connection_never_has_a_second_on_it() {
    let mut bench = Bench::new();
    bench.listener.set_nonblocking(true).unwrap();
    let most = 40 * POOL;
    bench.ask_for(most);
    bench.until(|bench| {
        while let Ok((connection, _)) = bench.listener.accept() {
            connection.set_nonblocking(false).unwrap();
            let mut connection = BufReader::new(connection);
            let mut line = String::new();
            connection.read_line(&mut line).unwrap();
            assert_eq!(waiting(std::slice::from_mut(&mut connection)), [""]);
            connection.get_mut().write_all(line.as_bytes()).unwrap();
        }
        bench.answers.len() == most
    });
    assert!(bench.answers.iter().all(|(ticket, answer)| ticket.to_string() == *answer));
}

#[test]
fn what_a_program_leaves_behind_when_it_closes_is_lost_once_and_from_then_on_it_gets_one_at_a_time() {
    let (mut bench, mut connections) = Bench::quick();
    let first = bench.answers.len();
    bench.ask_for(POOL * AHEAD_MOST);
    let got = waiting(&mut connections);
    let mut closing = connections.remove(0);
    let answer = got[0].lines().next().unwrap();
    closing.get_mut().write_all(format!("{answer}\n").as_bytes()).unwrap();
    drop(closing);
    bench.until(|bench| bench.answers.len() == first + AHEAD_MOST);
    let said: Vec<_> = bench.answers[first..].iter().map(|(_, answer)| answer.as_str()).collect();
    assert_eq!(said[0], answer);
    assert_eq!(said[1..], ["error:echo: connection closed by the program"; AHEAD_MOST - 1]);
    say(&mut connections, &got[1..]);
    bench.until(|bench| bench.answers.len() == first + POOL * AHEAD_MOST);
    bench.rounds(&mut connections, 12);
    bench.ask_for(100);
    assert_eq!(lengths(&waiting(&mut connections)), [1; POOL]);
}

#[test]
fn what_comes_together_goes_in_groups_to_few_connections_where_a_group_is_answered_quickly() {
    let (mut bench, mut connections) = Bench::quick();
    for _ in 0..12 {
        let before = bench.answers.len();
        bench.ask_for(4 * AHEAD_MOST);
        let got = waiting(&mut connections);
        say(&mut connections, &got);
        bench.until(|bench| bench.answers.len() == before + 4 * AHEAD_MOST);
    }
    bench.ask_for(POOL);
    let got = waiting(&mut connections);
    assert_eq!(lengths(&got), [1; POOL], "there is a connection for each");
    say(&mut connections, &got);
    bench.until(|bench| bench.answers.len() as u64 == bench.next);
    bench.ask_for(4 * AHEAD_MOST);
    let got = waiting(&mut connections);
    let mut sizes = lengths(&got);
    sizes.sort_unstable();
    assert_eq!(sizes[..POOL - 4], [0; POOL - 4]);
    assert_eq!(sizes[POOL - 4..], [AHEAD_MOST; 4]);
    // Each answer in time, but not the whole: the next groups are smaller, and all four say so.
    for _ in 0..AHEAD_MOST {
        bench.now += Duration::from_millis(1);
        let lines = got.iter().map(|lines| format!("{}\n", lines.lines().next().unwrap_or_default()));
        let lines: Vec<_> = lines.collect();
        for (connection, line) in connections.iter_mut().zip(&lines).filter(|(_, line)| line.len() > 1) {
            connection.get_mut().write_all(line.as_bytes()).unwrap();
        }
        let before = bench.answers.len();
        bench.until(|bench| bench.answers.len() == before + 4);
    }
    bench.ask_for(4 * AHEAD_MOST);
    assert!(lengths(&waiting(&mut connections)).iter().all(|size| *size >= 1), "each has its share");
}
