//! What is known of the handlers behind `lond`: how they do, and what waits for them.
//!
//! Each link child counts for itself and tells the supervisor, which adds up; what a child that has
//! ended had counted stays in the sums. A HUP begins them again.

use super::{ago, one_line};
use base::clock::moved;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// One handler, as one link knows it or all of them together. Counts are since `lond` started or
/// was restarted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerStatus {
    /// The command that it answers.
    pub name: String,
    /// Whether a connection could be made when that was tried last; `None`: nobody has asked it
    /// yet.
    pub reachable: Option<bool>,
    /// When that was.
    pub tried: Option<Timestamp>,
    /// Requests that it was asked, or is to be, and that have no answer yet.
    pub in_flight: u64,
    /// Requests that it has answered.
    pub done: u64,
    /// Requests that it did not take, or took and did not answer.
    pub errors: u64,
    /// Requests of callers that may not ask it; they did not reach it.
    #[serde(default)]
    pub refused: u64,
    /// Callers that keep critical messages which it did not take.
    pub waiting: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When `last_error` came about.
    pub last_error_at: Option<Timestamp>,
    /// Of a handler whose program `lond` runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramStatus>,
}

/// How a program does that `lond` runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// Its processes.
    pub running: u64,
    /// Processes that were to be kept running and ended by themselves, or were killed for it.
    pub restarts: u64,
    /// Requests that wait until a process can take them.
    pub waiting: u64,
    /// It cannot be run: why, is what went wrong last.
    #[serde(default)]
    pub unable: bool,
}

impl ProgramStatus {
    fn add(self, other: ProgramStatus) -> ProgramStatus {
        ProgramStatus {
            running: self.running + other.running,
            restarts: self.restarts + other.restarts,
            waiting: self.waiting + other.waiting,
            unable: self.unable | other.unable,
        }
    }
}

impl HandlerStatus {
    /// Adds what another link, or an earlier one, knows of the same handler.
    pub fn add(&mut self, other: &HandlerStatus) {
        if other.tried > self.tried {
            (self.reachable, self.tried) = (other.reachable, other.tried);
        }
        if other.last_error_at > self.last_error_at {
            (self.last_error, self.last_error_at) = (other.last_error.clone(), other.last_error_at);
        }
        self.in_flight += other.in_flight;
        self.done += other.done;
        self.errors += other.errors;
        self.refused += other.refused;
        self.waiting += other.waiting;
        self.program = match (self.program, other.program) {
            (Some(one), Some(another)) => Some(one.add(another)),
            (one, another) => one.or(another),
        };
    }

    /// What stays of it when the link is no more.
    pub fn ended(self) -> HandlerStatus {
        let program =
            self.program.map(|program| ProgramStatus { running: 0, waiting: 0, unable: false, ..program });
        HandlerStatus { in_flight: 0, waiting: 0, program, ..self }
    }

    /// Puts right the times that were noted before the machine's clock was set.
    pub fn clock_was_set(&mut self, step: SignedDuration) {
        self.tried = self.tried.map(|at| moved(at, step));
        self.last_error_at = self.last_error_at.map(|at| moved(at, step));
    }

    /// Whether what is said differs in more than counts.
    pub fn is_news(&self, before: &HandlerStatus) -> bool {
        (self.reachable, self.waiting) != (before.reachable, before.waiting)
            || (self.errors, &self.last_error) != (before.errors, &before.last_error)
            || self.program != before.program
    }

    /// Whether `lond` runs its program, and cannot.
    pub fn is_unable(&self) -> bool {
        self.program.is_some_and(|program| program.unable)
    }

    /// A line about it, with its newline.
    pub fn line(&self, now: Timestamp) -> String {
        let reachable = match self.reachable {
            // The process that would run it can be reached all the time.
            _ if self.is_unable() => "cannot be run",
            None => "not asked yet",
            Some(true) => "reachable",
            Some(false) => "not reachable",
        };
        let mut line = format!(
            "handler {}: {reachable}, {} in flight, {} answered, {} errors",
            self.name, self.in_flight, self.done, self.errors
        );
        if self.refused > 0 {
            line.push_str(&format!(", {} refused", self.refused));
        }
        if let Some(ProgramStatus { running, restarts, waiting, .. }) = self.program {
            line.push_str(&format!("; {running} running, {restarts} restarts, {waiting} waiting"));
        }
        match self.waiting {
            0 => {}
            1 => line.push_str("; messages of 1 host wait for it"),
            hosts => line.push_str(&format!("; messages of {hosts} hosts wait for it")),
        }
        if let (Some(error), Some(at)) = (&self.last_error, self.last_error_at) {
            line.push_str(&format!("; last error {} ago: {}", ago(at, now), one_line(error)));
        }
        line + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::time;

    fn status(at: &str, reachable: bool, error: Option<&str>) -> HandlerStatus {
        HandlerStatus {
            name: "pay".to_owned(),
            reachable: Some(reachable),
            tried: Some(time(at)),
            in_flight: 1,
            done: 10,
            errors: 2,
            refused: 1,
            waiting: u64::from(!reachable),
            last_error: error.map(str::to_owned),
            last_error_at: error.map(|_| time(at)),
            program: None,
        }
    }

    #[test]
    fn of_a_program_that_lond_runs_what_it_does_is_added_up_and_said() {
        let program = |running, restarts, waiting| HandlerStatus {
            program: Some(ProgramStatus { running, restarts, waiting, unable: running == 0 }),
            ..status("2026-11-20T09:12:10Z", true, None)
        };
        let mut all = program(3, 1, 7).ended();
        all.add(&program(2, 1, 5));
        all.add(&status("2026-11-20T09:12:10Z", true, None));
        assert_eq!(all.program, Some(ProgramStatus { running: 2, restarts: 2, waiting: 5, unable: false }));
        let line = all.line(time("2026-11-20T09:12:14Z"));
        assert!(line.contains("; 2 running, 2 restarts, 5 waiting"), "{line}");
        assert!(program(1, 2, 0).is_news(&program(1, 1, 0)));
        let unable = program(0, 9, 1);
        let line = unable.line(time("2026-11-20T09:12:14Z"));
        assert!(line.starts_with("handler pay: cannot be run, "), "{line}");
        assert!(unable.is_unable() && !unable.ended().is_unable());
    }

    #[test]
    fn what_links_know_is_added_up_and_the_newest_word_counts() {
        let now = time("2026-11-20T09:12:14Z");
        let mut all = HandlerStatus { name: "pay".to_owned(), ..HandlerStatus::default() };
        assert_eq!(all.line(now), "handler pay: not asked yet, 0 in flight, 0 answered, 0 errors\n");
        all.add(&status("2026-11-20T09:12:10Z", false, Some("pay: connect:\nrefused")));
        all.add(&status("2026-11-20T09:12:04Z", true, Some("older")));
        all.add(&status("2026-11-20T09:12:05Z", false, None).ended());
        assert_eq!(
            all.line(now),
            "handler pay: not reachable, 2 in flight, 30 answered, 6 errors, 3 refused; messages of 1 host wait for it; last error 4 s ago: \
             pay: connect: refused\n"
        );
    }
}
