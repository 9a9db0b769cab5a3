//! What the log says of links, seldom enough that no host of the table can fill it by coming and
//! going.
//!
//! For each host: the coming and going of its links up to [`base::log_quota::MOST_LINES`] a
//! minute, what was wrong with them as [`Repeats`] has it. What was left out is counted in the next
//! line. Of callers that are not known yet, [`super::refusal_quota::RefusalQuota`] takes care.

use super::accept::Refused;
use super::{Lond, Machine};
use base::HostId;
use base::log_quota::{Quota, Repeats};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Hosts that are kept in mind; beyond them, which only tables that change often can lead to, all
/// are forgotten.
const HOSTS_MOST: usize = 10_000;

/// What was said of late of each host.
#[derive(Debug, Default)]
pub(super) struct HostQuotas(HashMap<HostId, Talk>);

#[derive(Debug, Default)]
struct Talk {
    life: Quota,
    faults: Repeats,
}

impl HostQuotas {
    /// A link of this host comes or goes: what to log, if anything.
    pub(super) fn life(&mut self, host: &HostId, text: &str, now: Instant) -> Option<String> {
        self.of(host).life.line(text, now)
    }

    /// Something was wrong with a link of this host: what to log, if anything.
    pub(super) fn fault(&mut self, host: &HostId, text: &str, now: Instant) -> Option<String> {
        self.of(host).faults.line(text, now)
    }

    fn of(&mut self, host: &HostId) -> &mut Talk {
        if self.0.len() >= HOSTS_MOST && !self.0.contains_key(host) {
            self.0.clear();
        }
        self.0.entry(host.clone()).or_default()
    }
}

/// Addresses that are kept in mind for a minute; the children of those beyond are silent until they
/// know whom they serve.
const ADDRESSES_MOST: usize = 4096;
/// How long that is.
const WINDOW: Duration = Duration::from_secs(60);

/// Who connects how often. A child is new with each connection and remembers nothing of what it
/// said before, so that what it says by itself is bounded here until it knows whom it serves, and
/// after that in [`crate::ledger`].
#[derive(Debug, Default)]
pub(super) struct Visits {
    begun: Option<Instant>,
    seen: HashMap<IpAddr, Quota>,
}

impl Visits {
    /// Counts a connection; whether its child is to be silent.
    pub(super) fn silent(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= WINDOW) {
            self.begun = Some(now);
            self.seen.clear();
        }
        let address = address.to_canonical();
        if self.seen.len() >= ADDRESSES_MOST && !self.seen.contains_key(&address) {
            return true;
        }
        !self.seen.entry(address).or_default().allows(now)
    }
}

impl Lond {
    /// A link came or went.
    pub(super) fn say_life(&mut self, pid: u32, text: &str, now: Instant) {
        let line = match self.links.get(pid).and_then(|link| link.caller.as_ref()) {
            Some(host) => self.voice.hosts.life(host, text, now).map(|line| format!("{host}: {line}")),
            None => Some(format!("{}: {text}", self.name(pid))),
        };
        if let Some(line) = line {
            log::info!("{line}");
        }
    }

    /// A newer link of a host takes the place of an older one: from where either is.
    pub(super) fn say_superseded(&mut self, pid: u32, older: u32, now: Instant) {
        let place = |pid| self.links.get(pid).map(|link| link.remote);
        let (Some(remote), Some(before)) = (place(pid), place(older)) else { return };
        let text =
            format!("link open from {remote}, child {pid}, in place of that from {before}, child {older}");
        self.say_life(pid, &text, now);
        let Some(host) = self.links.get(pid).and_then(|link| link.caller.clone()) else { return };
        if self.board.rivals.replaced(&host, before.ip(), remote.ip(), now) {
            let text = format!(
                "links come from {} and {} in turns: two machines seem to have its id and key, each ends the other's link",
                before.ip(),
                remote.ip()
            );
            if let Some(line) = self.voice.hosts.fault(&host, &text, now) {
                log::error!("{host}: {line}");
            }
        }
    }

    /// A child ended its link. Before it had opened, its caller may be anyone.
    pub(super) fn say_closed(&mut self, m: &mut Machine<'_>, pid: u32, why: &str, fault: bool, now: Instant) {
        let Some(link) = self.links.get(pid) else { return };
        let text = format!("link closed: {why}");
        match (&link.caller, &link.opened, fault) {
            (Some(host), Some(_), true) => {
                if let Some(line) = self.voice.hosts.fault(host, &text, now) {
                    log::warn!("{host}: {line}");
                }
            }
            (Some(_), Some(_), false) => self.say_life(pid, &text, now),
            (_, None, _) | (None, Some(_), _) => {
                let said = format!("{}: {text}", link.remote);
                self.say_refused(m, Refused { pid, key: None, why: &text, text: &said }, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::log_quota::MOST_LINES;

    #[test]
    fn one_host_that_comes_and_goes_has_so_many_lines_and_hides_no_other() {
        let (now, mut said) = (Instant::now(), HostQuotas::default());
        let host = |text: &str| HostId::new(text).unwrap();
        let (mut life, mut faults) = (0, 0);
        for pid in 0..1000 {
            life += u64::from(said.life(&host("noisy"), &format!("link open, child {pid}"), now).is_some());
            for why in ["x".repeat(pid), format!("link closed: frame {pid} of no kind")] {
                faults += u64::from(said.fault(&host("noisy"), &why, now).is_some());
            }
        }
        assert_eq!((life, faults), (MOST_LINES, MOST_LINES));
        assert_eq!(said.fault(&host("quiet"), "lost", now).as_deref(), Some("lost"));
        for number in 0..HOSTS_MOST + 5 {
            said.life(&host(&format!("h{number}")), "link open", now);
        }
        assert!(said.0.len() <= HOSTS_MOST);
    }

    #[test]
    fn the_children_of_an_address_that_connects_again_and_again_are_silent_for_the_rest_of_the_minute() {
        let (now, mut visits) = (Instant::now(), Visits::default());
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let loud = (0..100).filter(|_| !visits.silent(address(1), now)).count() as u64;
        assert_eq!(loud, MOST_LINES);
        assert!(!visits.silent(address(2), now));
        assert!(!visits.silent(address(1), now + WINDOW));
        let loud = (0..10_000).filter(|n| !visits.silent(address(10 + n), now + WINDOW)).count();
        assert_eq!((loud, visits.seen.len()), (ADDRESSES_MOST - 1, ADDRESSES_MOST));
    }
}
