//! The broker's part that hears the peer: which answer is whose, and what else the peer has said of
//! itself.

use super::delivery::Outcome;
use super::{Broker, CON_DELAYED, CON_FAILED, CON_LOST};
use crate::link::{Event, Now};
use crate::pending::{Found, Purpose};
use crate::protocol::Heard;
use base::Sequence;
use std::ops::ControlFlow;
use store::spool::Disk;

/// What the peer has said, but for the answers that went to their programs.
#[derive(Default)]
struct Told {
    /// The link is open.
    opened: bool,
    /// The opening dialogue went on.
    progressed: bool,
    /// It answered a PING.
    ponged: bool,
    /// It answered a request, whoever waits for that.
    answered: bool,
    /// What was odd about its part of the opening dialogue.
    oddity: Option<String>,
    /// It takes no more requests, and will not run these.
    leaving: Option<Vec<u64>>,
    /// Stored messages that are settled by their answers.
    closed: Vec<(Sequence, Box<[u8]>, Outcome)>,
    /// Requests that no handler took, and why.
    not_taken: Vec<(u64, String)>,
    /// Commands whose handler takes messages again.
    ready: Vec<String>,
    /// It answered what it was not asked.
    unknown: bool,
}

impl<D: Disk> Broker<D> {
    /// Takes what the peer has said: answers go to those whose they are.
    pub(super) fn hear(&mut self, now: Now) {
        loop {
            let mut told = Told::default();
            let heard = self.listen(&mut told, now);
            let opened = told.opened && !told.unknown;
            self.heed(told, heard, now);
            if !opened {
                return;
            }
        }
    }

    /// Reads on until the link is open or there is no more; what that is about goes into `told`,
    /// answers to their programs.
    fn listen(&mut self, told: &mut Told, now: Now) -> Result<(), String> {
        let Broker { link, pending, programs, report, .. } = self;
        let heard = link.hear(|heard| {
            match heard {
                Heard::Progress { odd } => {
                    told.progressed = true;
                    told.oddity = odd;
                }
                Heard::Opened => {
                    told.opened = true;
                    return ControlFlow::Break(());
                }
                Heard::Answer { number, text, broken } => {
                    let entry = match number.map(|number| pending.answered(number)) {
                        None => pending.answered_first(now.mono),
                        Some(Found::Entry(entry)) => Some(entry),
                        Some(Found::Late) => return ControlFlow::Continue(()),
                        Some(Found::Unknown) => None,
                    };
                    let Some(entry) = entry else {
                        told.unknown = true;
                        return ControlFlow::Break(());
                    };
                    told.answered = true;
                    if let Some(owner) = entry.owner {
                        report.one_done();
                        programs.answer_of_many(owner, &text);
                    }
                    if let Purpose::Critical { request, sequence: Some(sequence), stored: true, .. } =
                        entry.purpose
                    {
                        told.closed.push((sequence, request, Outcome::of(entry.owner, &text, broken)));
                    }
                }
                Heard::NotTaken { number, why } => told.not_taken.push((number, why)),
                Heard::Ready { command } => told.ready.push(command.to_owned()),
                Heard::Pong => told.ponged = true,
                Heard::Leaving { not_run } => told.leaving = Some(not_run),
            }
            ControlFlow::Continue(())
        });
        programs.answered();
        heard
    }

    /// Draws the consequences of what was told; `heard` says why the link is lost, if it is.
    fn heed(&mut self, told: Told, heard: Result<(), String>, now: Now) {
        if told.answered || told.ponged || !told.not_taken.is_empty() {
            self.link.answered();
        }
        for (sequence, request, outcome) in told.closed {
            self.close_stored(sequence, request, outcome, now);
        }
        self.take_back(told.not_taken, now);
        for command in told.ready {
            self.away.back(&command, now);
        }
        if told.ponged {
            self.link.ponged();
        }
        if let Some(odd) = told.oddity {
            self.link.say(log::Level::Warn, &format!("opening: {odd}; going on"), now);
        }
        if let Some(not_run) = told.leaving {
            self.leave(not_run, now);
        }
        if let Err(why) = heard {
            self.link_event(Event::Lost(why), now);
        } else if told.unknown {
            self.link_event(Event::Lost("the peer sent an answer to no request".into()), now);
        } else if told.opened {
            self.agenda.look_for_files(now.mono);
            self.held.supply();
            self.away.link_up(now);
            self.link_event(Event::Opened, now);
        } else if told.progressed {
            self.link.progressed(now);
        }
    }

    /// The peer takes no more requests: what it will still answer is waited for, what it will not
    /// is settled here.
    fn leave(&mut self, not_run: Vec<u64>, now: Now) {
        self.link.say(log::Level::Info, "the peer takes no more requests on this connection", now);
        self.leaving = true;
        self.insure(now);
        for entry in self.pending.take_each(not_run) {
            let Some(owner) = entry.owner else { continue };
            let answer = match entry.purpose {
                Purpose::Plain | Purpose::Probe => CON_LOST,
                Purpose::Critical { stored: true, .. } => CON_DELAYED,
                Purpose::Critical { stored: false, .. } => CON_FAILED,
            };
            if answer != CON_DELAYED {
                self.report.one_lost();
            }
            self.programs.answer(owner, answer);
        }
    }
}
