//! What was sent, run and answered, and the promises that must hold: every violation is found here
//! or in `world`.
//!
//! A message's *run* is *orphaned* when the child of `lond` that had it, or its machine, died
//! before the answer was in the record: only then may the message run again on the secure wire.

use crate::net::Time;
use std::collections::HashSet;

/// What a handler says that will not do it.
pub const REFUSALS: [&str; 2] = ["refused", "unknown_cmd"];

/// The handlers of each host.
pub const HANDLERS: [&str; 2] = ["do", "pay"];

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `ping`, answered by `lond` itself.
    Ping,
    /// To a handler.
    Plain,
    /// To a handler.
    Critical,
    /// `log:`, run by `lond` itself.
    Log,
}

impl Kind {
    pub fn is_critical(self) -> bool {
        matches!(self, Kind::Critical | Kind::Log)
    }
}

/// One try of a program to send a message.
#[derive(Debug)]
pub struct Attempt {
    pub connection: u64,
    pub at: Time,
    pub acknowledged: Option<Time>,
    /// It was answered `con_failed`. It may be on its way all the same, and then it has no place in
    /// the order.
    pub refused: bool,
    /// The connection broke, and nobody heard what became of it.
    pub unheard: bool,
    /// It was answered `con_delayed`.
    pub delayed: bool,
}

/// How a handler answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Done,
    /// Asking again will not help.
    Refused,
    /// Bytes that look like something else.
    Odd,
}

/// What a message is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub kind: Kind,
    pub manner: Manner,
    /// Whether it is run once whatever happens.
    pub secure: bool,
    pub program: usize,
    pub place: usize,
    pub target: usize,
    pub padding: usize,
    /// Bytes that a handler's answer has beside the request's.
    pub reply: usize,
    pub key: bool,
    pub encrypt: bool,
    /// Which of [`HANDLERS`] it is for.
    pub handler: usize,
}

#[derive(Debug)]
struct Run {
    child: usize,
    /// What was recorded of it is gone, by an operator's hand.
    forgotten: bool,
}

#[derive(Debug)]
pub struct Message {
    pub kind: Kind,
    pub manner: Manner,
    pub secure: bool,
    /// Which of [`HANDLERS`] it is for.
    pub handler: usize,
    /// Who sends it, and its place among that one's messages.
    pub program: usize,
    pub place: usize,
    pub target: usize,
    /// What it is answered when it is run.
    pub answer: String,
    /// The request as the handler gets it.
    pub request: String,
    pub line: String,
    pub attempts: Vec<Attempt>,
    runs: Vec<Run>,
    /// Children that have written an answer to it to their record, which outlasts them ...
    recorded: HashSet<usize>,
    /// ... and those that have synced it, so that it outlasts the machine: only then may it be
    /// answered.
    synced: HashSet<usize>,
    /// A child died while it wrote its answer, or its machine before it was synced: the next child
    /// may have found it, and synced it.
    perhaps_written: bool,
    /// Those of them whose record an operator has removed since.
    record_gone: HashSet<usize>,
    /// A handler had it, and it is recorded that nobody knows what became of it.
    pub given_up: bool,
    /// An operator removed the spool that it was in, or had been in.
    pub wiped: bool,
    /// Its sender has its answer, since there were so many children of `lond`.
    settled: Option<usize>,
}

impl Message {
    pub fn is_run(&self) -> bool {
        !self.runs.is_empty()
    }

    /// What answers it must outlast the machine that gave the answer.
    fn is_synced(&self) -> Checked {
        let named = self.secure && self.kind.is_critical();
        match self.synced.is_empty() && named && !self.given_up && !self.perhaps_written {
            true => Err(format!("a message was answered before its answer was synced: {self:?}")),
            false => Ok(()),
        }
    }

    pub fn is_acknowledged(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.acknowledged.is_some())
    }
}

/// Counts over a run, to see that things do happen.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub answered: u64,
    pub delayed: u64,
    pub failed: u64,
    pub lost: u64,
    pub unknown: u64,
    pub run: u64,
    pub repeated: u64,
    /// Requests that a handler which was away did not take.
    pub not_taken: u64,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub messages: Vec<Message>,
    /// Children of `lond` that are no more.
    pub gone: HashSet<usize>,
    pub counts: Counts,
    /// How many children of `lond` there were.
    pub children: usize,
    /// Critical messages of one link that each handler may have at once.
    pub windows: [usize; HANDLERS.len()],
    /// Programs whose broker has had cause to refuse something.
    pub may_be_refused: HashSet<usize>,
}

pub type Checked = Result<(), String>;

impl Ledger {
    pub fn add(&mut self, plan: Plan) -> usize {
        let Plan { kind, manner, secure, program, place, target, padding, reply, key, encrypt, handler } =
            plan;
        let name = HANDLERS[handler];
        let id = self.messages.len();
        let padding = "x".repeat(padding);
        let (request, answer) = match (kind, manner) {
            (Kind::Ping, _) => ("ping".to_owned(), format!("h{target}")),
            (Kind::Log, _) => (format!("log:{id}"), "ok".to_owned()),
            (_, Manner::Done) => {
                (format!("{name}:{id}:{padding}"), format!("done:{id}:{padding}{}", "y".repeat(reply)))
            }
            (_, Manner::Refused) => (format!("{name}:{id}:{padding}"), REFUSALS[id % 2].to_owned()),
            (_, Manner::Odd) => (format!("{name}:{id}:{padding}"), format!("enc:{id}:\r\0\u{7f}do:{id}:")),
        };
        let line = match (kind.is_critical(), key) {
            (true, true) => "critical;key=k".to_owned() + &format!("{id}:"),
            (true, false) => "critical:".to_owned(),
            (false, _) => String::new(),
        };
        let line = line + if encrypt { "encrypt:" } else { "" } + &request;
        self.messages.push(Message {
            kind,
            manner,
            secure,
            handler,
            program,
            place,
            target,
            answer,
            request,
            line,
            attempts: Vec::new(),
            runs: Vec::new(),
            recorded: HashSet::new(),
            synced: HashSet::new(),
            perhaps_written: false,
            record_gone: HashSet::new(),
            given_up: false,
            wiped: false,
            settled: None,
        });
        id
    }

    /// A message is run by a handler, or by `child` itself. `certain`: nothing has happened to the
    /// sender's disk.
    pub fn run(&mut self, id: usize, child: usize, host: usize, certain: bool) -> Checked {
        let message = &self.messages[id];
        if message.target != host {
            return Err(format!("message {id} ran on another host: {host}"));
        }
        self.counts.run += 1;
        if message.is_run() {
            self.counts.repeated += 1;
            let orphaned = |run: &&Run| {
                run.forgotten || (self.gone.contains(&run.child) && !message.recorded.contains(&run.child))
            };
            let same = message.runs.iter().any(|run| run.child == child);
            let mut runs: Vec<&Run> = message.runs.iter().filter(|run| !orphaned(run)).collect();
            let now = Run { child, forgotten: message.record_gone.contains(&child) };
            if !orphaned(&&now) {
                runs.push(&now);
            }
            let once = !message.kind.is_critical() || message.secure;
            if once && (runs.len() > 1 || same || !message.kind.is_critical()) {
                return Err(format!("message {id} ({:?}) ran more than once: {message:?}", message.kind));
            }
            let settled = message.settled.is_some_and(|children| child >= children);
            let asked_once = message.attempts.len() == 1;
            if !once && certain && asked_once && (same || settled) {
                return Err(format!(
                    "message {id} ran again, on the same link or though settled: {message:?}"
                ));
            }
        } else if message.kind.is_critical() {
            self.check_order(id)?;
        }
        let forgotten = self.messages[id].record_gone.contains(&child);
        self.messages[id].runs.push(Run { child, forgotten });
        self.within_window(child, self.messages[id].handler)
    }

    /// Of the critical messages that a child has given to a handler, all but as many as the handler
    /// may have at once have their answers in the record: so no more run again when the child dies.
    fn within_window(&self, child: usize, handler: usize) -> Checked {
        let open = |message: &&Message| {
            let runs = message.handler == handler && message.runs.iter().any(|run| run.child == child);
            message.secure && message.kind == Kind::Critical && runs && !message.recorded.contains(&child)
        };
        match self.messages.iter().filter(open).count() {
            count if count <= self.windows[handler] => Ok(()),
            count => Err(format!("child {child} has {count} critical messages run and not recorded")),
        }
    }

    /// Nothing that the sender sent later may have been run before.
    fn check_order(&self, id: usize) -> Checked {
        let message = &self.messages[id];
        let Some(first) = message.attempts.first() else {
            return Err(format!("message {id} was never sent"));
        };
        if message.given_up {
            // The link ended before its handler came to it; what the handler does afterwards is its
            // own affair.
            return Ok(());
        }
        let later = self.messages.iter().enumerate().filter(|(_, other)| {
            other.program == message.program
                && other.target == message.target
                // A handler's requests keep their order; `log:` is run by another, `lond` itself.
                && other.kind == message.kind
                && other.handler == message.handler
                && other.place > message.place
                && other.is_run()
        });
        for (other_id, other) in later {
            let Some(begun) = other.attempts.first() else { continue };
            // What was refused, or whose fate the program never heard, has no place in the order.
            let before =
                message.attempts.iter().any(|attempt| attempt.acknowledged.is_some_and(|at| at <= begun.at));
            let refused = first.refused || (first.unheard && self.may_be_refused.contains(&message.program));
            let same = !refused
                && message.attempts.len() == 1
                && other.attempts.len() == 1
                && first.connection == begun.connection;
            if before || same {
                return Err(format!(
                    "message {id} ran after {other_id}, which was sent later: {message:?} {other:?}"
                ));
            }
        }
        Ok(())
    }

    /// `child` is about to record this answer: perhaps that nobody knows what a handler did.
    pub fn give_up(&mut self, id: usize, answer: &[u8]) {
        self.messages[id].given_up |= answer.starts_with(b"error:the link ended");
    }

    /// An operator removed what a host has recorded: what it answered may be run again.
    pub fn forget_runs(&mut self, programs: &[usize]) {
        for message in self.messages.iter_mut().filter(|message| programs.contains(&message.program)) {
            message.runs.iter_mut().for_each(|run| run.forgotten = true);
            // Nor is it known any more of those that were given up, and that a handler runs only
            // later.
            message.record_gone.extend(&message.recorded);
        }
    }

    /// These senders' link speaks the other wire from now on: what the classic one has not answered
    /// may come again.
    pub fn changes_wire(&mut self, programs: &[usize]) {
        for message in self.messages.iter_mut().filter(|message| programs.contains(&message.program)) {
            message.secure = false;
        }
    }

    /// An operator removed what waited.
    pub fn give_up_unsent(&mut self, programs: &[usize]) {
        for message in self.messages.iter_mut().filter(|message| programs.contains(&message.program)) {
            message.wiped |= !message.attempts.is_empty();
            message.given_up |= message.wiped && message.settled.is_none();
        }
    }

    /// The sender's broker has the answer to this request.
    pub fn delivered(&mut self, request: &[u8]) -> Checked {
        let text = String::from_utf8_lossy(request);
        if let Some(message) = self.messages.iter_mut().find(|message| text.ends_with(&message.request)) {
            message.settled = message.settled.or(Some(self.children));
            return message.is_synced();
        }
        Ok(())
    }

    /// Whether its sender has its answer.
    pub fn is_settled(&self, id: usize) -> bool {
        self.messages[id].settled.is_some()
    }

    pub fn recorded(&mut self, id: usize, child: usize) {
        self.messages[id].recorded.insert(child);
    }

    pub fn perhaps_written(&mut self, id: usize) {
        self.messages[id].perhaps_written = true;
    }

    pub fn synced(&mut self, id: usize, child: usize) {
        self.messages[id].synced.insert(child);
    }

    /// A child has found what those before it have written of these senders' messages to `host`,
    /// and synced it.
    pub fn recovered(&mut self, programs: &[usize], host: usize) {
        let of_them = |message: &&mut Message| message.target == host && programs.contains(&message.program);
        for message in self.messages.iter_mut().filter(of_them) {
            message.synced.extend(&message.recorded);
        }
    }

    /// A host loses power: what was written there and not synced may be gone.
    pub fn power_lost(&mut self, host: usize) {
        for message in self.messages.iter_mut().filter(|message| message.target == host) {
            message.perhaps_written |= message.recorded != message.synced;
            message.recorded.clone_from(&message.synced);
        }
    }

    /// A child of `lond` came to its end in order: what it ran is recorded, unless its disk was
    /// sick.
    pub fn ended_in_order(&self, child: usize) -> Checked {
        let missing = self.messages.iter().position(|message| {
            message.secure
                && message.kind.is_critical()
                && message.runs.iter().any(|run| run.child == child)
                && !message.synced.contains(&child)
        });
        missing.map_or(Ok(()), |id| {
            Err(format!("child {child} ended in order and had not recorded message {id}"))
        })
    }

    /// A program got an answer to its oldest open request.
    pub fn answered(&mut self, id: usize, attempt: usize, line: &str, now: Time, calm: bool) -> Checked {
        let message = &mut self.messages[id];
        let acknowledged = match line {
            _ if line == message.answer => {
                self.counts.answered += 1;
                message.settled = message.settled.or(Some(self.children));
                if message.kind != Kind::Ping && !message.is_run() {
                    return Err(format!("message {id} was answered and never run: {message:?}"));
                }
                message.is_synced()?;
                true
            }
            "con_delayed" if message.kind.is_critical() => {
                self.counts.delayed += 1;
                message.attempts[attempt].delayed = true;
                true
            }
            "con_failed" if message.kind.is_critical() && !calm => {
                self.counts.failed += 1;
                message.attempts[attempt].refused = true;
                false
            }
            "con_lost" if !message.kind.is_critical() && !calm => {
                self.counts.lost += 1;
                false
            }
            // Not known what was done, and recorded so.
            _ if line.starts_with("error:the ") && message.given_up => false,
            _ => return Err(format!("message {id} was answered {line:?}, calm: {calm}: {message:?}")),
        };
        if acknowledged {
            message.attempts[attempt].acknowledged = Some(now);
        }
        Ok(())
    }

    /// At the end: what was acknowledged has arrived.
    pub fn arrived(&self) -> Checked {
        let missing = self.messages.iter().enumerate().find(|(_, message)| {
            message.kind != Kind::Ping && message.is_acknowledged() && !message.is_run() && !message.given_up
        });
        missing.map_or(Ok(()), |(id, message)| {
            Err(format!("message {id} was acknowledged and never arrived: {message:?}"))
        })
    }
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.answered += other.answered;
        self.delayed += other.delayed;
        self.failed += other.failed;
        self.lost += other.lost;
        self.unknown += other.unknown;
        self.run += other.run;
        self.repeated += other.repeated;
        self.not_taken += other.not_taken;
    }
}
