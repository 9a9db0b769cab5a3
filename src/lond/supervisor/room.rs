//! Room for one more: who gives way to a newcomer, and how many children there may be at all.
//!
//! Who of those whose callers are not known yet gives way, [`super::door`] says. There are never
//! more children than [`links_of`] says and descriptors suffice for, however many callers are
//! known: beyond that one that is ending is given up of the caller that has most of these; a host
//! of the table takes a stranger's place; if there is neither, the newcomer is closed.

use super::accept::Coming;
use super::door::{self, Asks, Bounds, Origin, Verdict};
use super::links::{CHILDREN_OF_ONE, Event, Link, Links};
use super::lobby::Newcomer;
use super::refusal_quota::Caller;
use super::{Lond, Machine};
use config::Config;
use std::time::Instant;
use supervise::daemon::Role;
use supervise::spawn;

/// Children beyond two for each host and those in the opening dialogue: a few hosts may have more
/// that are ending.
pub(super) const CHILDREN_TO_SPARE: usize = 64;

/// Whether a newcomer can be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// There is room, or somebody has given way.
    Free,
    /// Too many are there whose callers are not known yet.
    Full,
    /// There are as many children as may be.
    NoLinks,
}

impl Lond {
    /// Whether there is room for a newcomer, be it that another gives way.
    pub(super) fn make_way(&mut self, m: &mut Machine<'_>, newcomer: &Newcomer, now: Instant) -> Way {
        let familiar = newcomer.familiar;
        let asks = Asks { origin: Origin::of(newcomer.remote.ip()), familiar, speaks: newcomer.speaks };
        let bounds = Bounds::new(m.start.config.lond.max_opening);
        let judge = |links: &Links, coming: &[Coming]| {
            let guests: Vec<_> = links.guests().into_iter().chain(coming.iter().map(Coming::guest)).collect();
            door::judge(bounds, &guests, asks, now)
        };
        let mut verdict = judge(&self.links, &self.coming);
        if verdict != Verdict::Welcome && !self.coming.is_empty() {
            // They have their processes before one of them is to give way.
            self.fork_coming(m, now);
            verdict = judge(&self.links, &self.coming);
        }
        if verdict != Verdict::Welcome && !self.heard_unopened {
            // Some may have opened by now and have told so; nobody must give way or be turned away
            // for them.
            self.heard_unopened = true;
            self.look_names_up(m, now);
            for pid in self.links.unopened_pids() {
                self.hear(m, &pid, now);
            }
            verdict = judge(&self.links, &self.coming);
        }
        match verdict {
            Verdict::Welcome => {}
            Verdict::InPlaceOf(pid) => self.give_up(pid, now),
            Verdict::TurnedAway => return Way::Full,
        }
        let most = self.most_children(m);
        if self.links.len() + self.coming.len() < most {
            return Way::Free;
        }
        self.fork_coming(m, now);
        if let Some(pid) = self.links.spare() {
            self.cut_off(pid, &format!("there are {most} links, as many as may be"), now);
            return Way::Free;
        }
        // Few descriptors are no reason for a host of the table to wait for strangers.
        if familiar && let Some(pid) = door::oldest_stranger(&self.links.guests()) {
            self.give_up(pid, now);
            return Way::Free;
        }
        Way::NoLinks
    }

    /// Closes a connection that there is no room for.
    pub(super) fn turn_away(&mut self, m: &mut Machine<'_>, newcomer: Newcomer, way: Way, now: Instant) {
        let Newcomer { remote, caller, .. } = newcomer;
        self.board.counts.crowded += 1;
        let (why, text) = match way {
            Way::Free | Way::Full => {
                let unopened = self.links.unopened();
                ("", format!("closed {remote}: {unopened} connections are in the opening dialogue"))
            }
            Way::NoLinks => {
                let most = self.most_children(m);
                ("all", format!("closed {remote}: there are {most} links, as many as may be"))
            }
        };
        let caller = Caller::at(remote.ip().to_canonical(), caller.as_ref());
        let Some(line) = self.voice.crowd.line(&caller, why, &text, now) else { return };
        match way {
            Way::Free | Way::Full => log::warn!("{line}"),
            Way::NoLinks => log::error!("{line}"),
        }
    }

    /// Kills a child whose caller was not known in time for another's sake: it counts as crowded
    /// out, and is said as seldom.
    fn give_up(&mut self, pid: u32, now: Instant) {
        self.board.counts.crowded += 1;
        let unopened = self.links.unopened();
        if let Some(Link { remote, caller, .. }) = self.links.get(pid) {
            let text = format!(
                "closed {remote}, for a newcomer: {unopened} connections are in the opening dialogue"
            );
            if let Some(line) =
                self.voice.crowd.line(&Caller::at(remote.ip(), caller.as_ref()), "", &text, now)
            {
                log::warn!("{line}");
            }
        }
        if self.links.tell(pid, Event::Kill).is_some() {
            spawn::kill_now(pid);
        }
    }

    /// The caller of this child may have had more than its share.
    pub(super) fn bound_children_of(&mut self, pid: u32, now: Instant) {
        let Some(caller) = self.links.get(pid).and_then(|link| link.caller.clone()) else { return };
        while let Some(pid) = self.links.beyond(&caller) {
            self.cut_off(pid, &format!("it has {CHILDREN_OF_ONE} links that have not ended"), now);
        }
    }

    /// Kills a child that is ending, because there is no room for it any more.
    fn cut_off(&mut self, pid: u32, why: &str, now: Instant) {
        self.board.counts.killed += 1;
        if let Some(caller) = self.links.get(pid).and_then(|link| link.caller.as_ref())
            && let Some(line) = self.voice.hosts.fault(caller, &format!("{why}; killing child {pid}"), now)
        {
            log::warn!("{caller}: {line}");
        }
        if self.links.tell(pid, Event::Kill).is_some() {
            spawn::kill_now(pid);
        }
    }

    /// Children that there may be at a time: a link for each host and one that is ending, whoever
    /// is in the opening dialogue, and some to spare; no more than there are descriptors for.
    fn most_children(&self, m: &Machine<'_>) -> usize {
        links_of(&m.start.config).min(self.descriptors)
    }
}

/// Children that this configuration may come to need at a time.
pub(super) fn links_of(config: &Config) -> usize {
    2 * config.hosts.len() + config.lond.max_opening + CHILDREN_TO_SPARE
}
