//! What the supervisor knows of its children's dials: who asks for which name, what was found, and
//! which of it each may be connected to. Pure.
//!
//! A child may connect to nothing by itself. It asks for the addresses of its peer, and then for a
//! connection to the one at such a place in the answer ([`crate::messages`]). What a peer's target
//! is, the configuration says: nothing that a child sends chooses an address, so one that was taken
//! over reaches its own peer and nobody else.
//!
//! A name is looked up once at a time, for all who ask for it. A question that comes again while
//! the name is looked up is the same question, with a new number: its answer is the last one's.
//!
//! | what a child may do | bound |
//! | --- | --- |
//! | ask for addresses | [`QUESTIONS`] at once, then one each [`QUESTION_EVERY`] |
//! | be connected | each address of an answer once, [`ADDRESSES_MOST`] of an answer |
//! | have names looked up | [`LOOK_UPS`] at a time, of all children; others wait their turn |
//! | be refused | [`REFUSALS`] times a minute |
//!
//! What is asked and what was answered crosses `exec` at HUP ([`Dials::leave`]): a child that dials
//! just then notices nothing but that its name is looked up anew.
//!
//! Beyond its bounds a child is answered that, and its dial fails. One that is refused too often is
//! broken, and answered no more.

use crate::race::ADDRESSES_MOST;
use config::Target;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use supervise::look_up::Answer;

/// Questions for addresses that one child may ask at once: more than a link that is made and left
/// again and again asks for.
pub const QUESTIONS: u32 = 32;
/// How soon one more may be asked then.
pub const QUESTION_EVERY: Duration = Duration::from_millis(125);
/// So often in a [`REFUSALS_IN`] a child is told that it may not; then it is broken.
pub const REFUSALS: u32 = 1000;
const REFUSALS_IN: Duration = Duration::from_secs(60);
/// Names that are looked up at a time, each by a process of its own.
pub const LOOK_UPS: usize = 32;

/// What one child has asked.
#[derive(Debug, Default)]
struct Asking {
    /// The last question.
    question: Option<Question>,
    /// When all that it has asked is forgotten.
    forgotten: Option<Instant>,
    /// How often it was refused, and from when on that is counted.
    refused: u32,
    counted_from: Option<Instant>,
}

#[derive(Debug)]
struct Question {
    number: u64,
    /// The peer's, when it was asked.
    target: Target,
    /// The answer, if there is one by now.
    addresses: Option<Vec<SocketAddr>>,
    /// The places of those that the child was connected to.
    tried: BTreeSet<usize>,
}

/// A child's question as it crosses `exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeftQuestion<K> {
    child: K,
    number: u64,
    target: Target,
    addresses: Option<Vec<SocketAddr>>,
    tried: BTreeSet<usize>,
}

/// An answer for a child, to the question of this number.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<K> {
    /// Which child.
    pub child: K,
    /// Which question.
    pub number: u64,
    /// The peer's addresses.
    pub answer: Answer,
}

/// See the head of this file. `K` is what a child is called.
#[derive(Debug)]
pub struct Dials<K> {
    children: BTreeMap<K, Asking>,
    /// Names that are yet to be looked up, each once.
    queue: VecDeque<String>,
    /// Names that are looked up.
    running: BTreeSet<String>,
}

impl<K> Default for Dials<K> {
    fn default() -> Self {
        Dials { children: BTreeMap::new(), queue: VecDeque::new(), running: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Dials<K> {
    /// A child asks for the addresses of its peer, which has this target if it is one. Gives the
    /// answer if there is one already.
    pub fn asked(
        &mut self,
        child: &K,
        number: u64,
        target: Option<&Target>,
        now: Instant,
    ) -> Option<Reply<K>> {
        let asking = self.children.entry(child.clone()).or_default();
        if !asking.may_ask(now) {
            asking.refuse(now);
            return Some(Reply { child: child.clone(), number, answer: Err(TOO_OFTEN.to_owned()) });
        }
        self.aim(child, number, target)
    }

    /// This is the child's question from now on, whatever it has asked before.
    fn aim(&mut self, child: &K, number: u64, target: Option<&Target>) -> Option<Reply<K>> {
        let asking = self.children.get_mut(child)?;
        asking.question = None;
        let Some(target) = target else {
            let answer = Err("look up: the host is no longer in the table".to_owned());
            return Some(Reply { child: child.clone(), number, answer });
        };
        let (addresses, tried) = (None, BTreeSet::new());
        let question = asking.question.insert(Question { number, target: target.clone(), addresses, tried });
        match target {
            Target::Address(address) => Some(question.answer(child, Ok(vec![*address]))),
            Target::Lookup { name, .. } => {
                if !self.running.contains(name) && !self.queue.contains(name) {
                    self.queue.push_back(name.clone());
                }
                None
            }
        }
    }

    /// The next name to be looked up now, if there is one.
    pub fn next_name(&mut self) -> Option<String> {
        while self.running.len() < LOOK_UPS {
            let name = self.queue.pop_front()?;
            // Whoever has asked for it may be gone.
            if self.children.values().any(|asking| asking.waits_for(&name)) {
                self.running.insert(name.clone());
                return Some(name);
            }
        }
        None
    }

    /// The look-up of a name has ended: the answers to all who asked for it.
    pub fn found(&mut self, name: &str, answer: &Answer) -> Vec<Reply<K>> {
        self.running.remove(name);
        let mut replies = Vec::new();
        for (child, asking) in &mut self.children {
            let Some(question) = asking.question.as_mut().filter(|it| it.waits_for(name)) else { continue };
            replies.push(question.answer(child, answer.clone()));
        }
        replies
    }

    /// Where a child is to be connected that asks for the address at this place of this answer.
    ///
    /// # Errors
    /// It may not be: why, for its dial to fail with.
    pub fn connect(
        &mut self,
        child: &K,
        number: u64,
        place: usize,
        now: Instant,
    ) -> Result<SocketAddr, &'static str> {
        let asking = self.children.entry(child.clone()).or_default();
        let question = asking.question.as_mut().filter(|question| question.number == number);
        let address = match question {
            Some(question) => question.try_at(place),
            None => Err("connect: its addresses are to be looked up anew"),
        };
        address.inspect_err(|_| asking.refuse(now))
    }

    /// Whether a child is broken, which is said of it once: it was refused too often.
    pub fn is_broken(&mut self, child: &K) -> bool {
        let refused = self.children.get_mut(child).map(|asking| &mut asking.refused);
        refused.filter(|refused| **refused == REFUSALS).is_some_and(|refused| {
            *refused += 1;
            true
        })
    }

    /// What the next program must know.
    pub fn leave(&self) -> Vec<LeftQuestion<K>> {
        let left = |(child, asking): (&K, &Asking)| {
            let Question { number, target, addresses, tried } = asking.question.as_ref()?;
            Some(LeftQuestion {
                child: child.clone(),
                number: *number,
                target: target.clone(),
                addresses: addresses.clone(),
                tried: tried.clone(),
            })
        };
        self.children.iter().filter_map(left).collect()
    }

    /// Goes on with what the program before `exec` left. Names that were being looked up are looked
    /// up anew. What the configuration has otherwise by now is for [`Dials::retarget`].
    pub fn adopt(&mut self, left: Vec<LeftQuestion<K>>) {
        for LeftQuestion { child, number, target, addresses, tried } in left {
            if let (Target::Lookup { name, .. }, None) = (&target, &addresses)
                && !self.queue.contains(name)
            {
                self.queue.push_back(name.clone());
            }
            let question = Some(Question { number, target, addresses, tried });
            self.children.insert(child, Asking { question, ..Asking::default() });
        }
    }

    /// A child is no more, and whatever it has asked; the next one of its peer begins anew.
    pub fn gone(&mut self, child: &K) {
        self.children.remove(child);
    }

    /// The configuration is another one. Where `target` is another now, what was answered is void,
    /// and what waits is a question for that; gives the answers that there are already.
    pub fn retarget<'t>(&mut self, target: impl Fn(&K) -> Option<&'t Target>) -> Vec<Reply<K>> {
        let mut waiting = Vec::new();
        for (child, asking) in &mut self.children {
            let target = target(child);
            let moved = asking.question.take_if(|question| target != Some(&question.target));
            if let Some(question) = moved.filter(|question| question.addresses.is_none()) {
                waiting.push((child.clone(), question.number, target));
            }
        }
        let answer = |(child, number, target): (K, u64, _)| self.aim(&child, number, target);
        waiting.into_iter().filter_map(answer).collect()
    }
}

/// What a child is told that asks more often than it may.
const TOO_OFTEN: &str = "look up: asked too often";

impl Asking {
    /// Whether one more question is answered, and notes it.
    fn may_ask(&mut self, now: Instant) -> bool {
        let forgotten = self.forgotten.map_or(now, |at| at.max(now));
        if forgotten.saturating_duration_since(now) > QUESTION_EVERY * (QUESTIONS - 1) {
            return false;
        }
        self.forgotten = Some(forgotten + QUESTION_EVERY);
        true
    }

    fn refuse(&mut self, now: Instant) {
        if self.refused > REFUSALS {
            return;
        }
        let counted = self.counted_from.is_some_and(|from| now.saturating_duration_since(from) < REFUSALS_IN);
        if !counted {
            (self.refused, self.counted_from) = (0, Some(now));
        }
        self.refused = (self.refused + 1).min(REFUSALS);
    }

    fn waits_for(&self, name: &str) -> bool {
        self.question.as_ref().is_some_and(|question| question.waits_for(name))
    }
}

impl Question {
    fn waits_for(&self, wanted: &str) -> bool {
        let is_wanted = match &self.target {
            Target::Lookup { name, .. } => name == wanted,
            Target::Address(_) => false,
        };
        is_wanted && self.addresses.is_none()
    }

    /// The address at this place, if it was not tried yet.
    fn try_at(&mut self, place: usize) -> Result<SocketAddr, &'static str> {
        let Some(address) = self.addresses.as_ref().and_then(|found| found.get(place)) else {
            return Err("connect: there is no such address");
        };
        if self.tried.len() >= ADDRESSES_MOST || !self.tried.insert(place) {
            return Err("connect: it was tried already");
        }
        Ok(*address)
    }

    fn answer<K: Clone>(&mut self, child: &K, mut answer: Answer) -> Reply<K> {
        if let (Ok(found), Target::Lookup { port, .. }) = (&mut answer, &self.target) {
            found.iter_mut().for_each(|address| address.set_port(*port));
        }
        // Of a failure there is nothing to be connected to.
        self.addresses = Some(answer.clone().unwrap_or_default());
        Reply { child: child.clone(), number: self.number, answer }
    }
}

/// Whether this is what a child is told that asks more often than it may.
pub fn is_too_often(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|why| why == TOO_OFTEN)
}

#[cfg(test)]
mod tests;
