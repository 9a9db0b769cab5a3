//! How often callers who are turned away are named in the log. Pure.
//!
//! A caller is an address with the key that it showed, if it showed one, and what was wrong. Each
//! is named when it is seen first and then no more for a time; what came meanwhile is counted in
//! its next line. Whose address or key is a host's has lines of that host, so many a minute; all
//! strangers together have so many a minute. So neither a crowd of strangers nor another host keeps
//! a line from a host, and none of them fills the log.

use base::log_quota::Quota;
use base::{HostId, Pin};
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Callers that are kept in mind; beyond them the one that was named longest ago is forgotten,
/// strangers and those that have to do with a host each for themselves.
const MOST_CALLERS: usize = 4096;

/// Hosts whose lines are counted: more than a table has; beyond them all counts begin again.
const MOST_HOSTS: usize = 10_000;

/// How long a caller whose refusal was said is not named again.
pub(super) const NAMED_AGAIN: Duration = Duration::from_secs(3600);

/// How long that is where it is this host that cannot serve.
pub(super) const SHORTAGE_AGAIN: Duration = Duration::from_secs(60);

/// Who is turned away, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    /// Where it calls from.
    pub address: IpAddr,
    /// The key that it showed.
    pub key: Option<Pin>,
    /// Whose key or address that is.
    pub host: Option<&'a HostId>,
}

impl<'a> Caller<'a> {
    /// One that showed no key.
    pub(super) fn at(address: IpAddr, host: Option<&'a HostId>) -> Caller<'a> {
        Caller { address, key: None, host }
    }
}

/// A caller as it is kept in mind: address, key, and the digest of what was wrong.
type Name = (IpAddr, Option<Pin>, u64);

/// Callers that were named.
#[derive(Debug, Default)]
struct Named {
    /// When, and how often they came since.
    callers: HashMap<Name, (Instant, u64)>,
    /// In the order in which they were named: the same as in `callers`.
    order: VecDeque<Name>,
}

impl Named {
    fn note(&mut self, name: Name, now: Instant) {
        if self.callers.insert(name, (now, 0)).is_some() {
            self.order.retain(|other| *other != name);
        } else if self.order.len() >= MOST_CALLERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.callers.remove(&oldest);
        }
        self.order.push_back(name);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct RefusalQuota {
    again: Duration,
    strangers: Named,
    hosts: Named,
    /// Lines about strangers.
    stranger_lines: Quota,
    host_lines: HashMap<HostId, Quota>,
}

impl RefusalQuota {
    /// Names a caller again after this time.
    pub(super) fn new(again: Duration) -> RefusalQuota {
        let (strangers, hosts, stranger_lines) = Default::default();
        RefusalQuota { again, strangers, hosts, stranger_lines, host_lines: HashMap::new() }
    }

    /// What to log of a caller who was turned away for this reason (figures in it make no
    /// difference), if anything: `text`, with how often it came since it was logged last.
    pub(super) fn line(
        &mut self,
        caller: &Caller<'_>,
        why: &str,
        text: &str,
        now: Instant,
    ) -> Option<String> {
        let name = (caller.address.to_canonical(), caller.key, digest(why));
        let named = if caller.host.is_some() { &mut self.hosts } else { &mut self.strangers };
        let mut text = text.to_owned();
        match named.callers.get_mut(&name) {
            Some((at, unsaid)) if now.saturating_duration_since(*at) < self.again => {
                *unsaid += 1;
                return None;
            }
            Some((_, 0)) | None => {}
            Some((_, unsaid)) => text.push_str(&format!(" (and {unsaid} more since it was said last)")),
        }
        let lines = match caller.host {
            None => &mut self.stranger_lines,
            Some(host) => {
                if self.host_lines.len() >= MOST_HOSTS && !self.host_lines.contains_key(host) {
                    self.host_lines.clear();
                }
                self.host_lines.entry(host.clone()).or_default()
            }
        };
        let line = lines.line(&text, now)?;
        named.note(name, now);
        Some(line)
    }

    /// What is known of callers has changed: each is named again.
    pub(super) fn forget(&mut self) {
        *self = RefusalQuota::new(self.again);
    }
}

fn digest(why: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    why.chars().filter(|c| !c.is_ascii_digit()).for_each(|c| c.hash(&mut hasher));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::log_quota::MOST_LINES;

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn host(text: &str) -> HostId {
        HostId::new(text).unwrap()
    }

    fn quota() -> RefusalQuota {
        RefusalQuota::new(NAMED_AGAIN)
    }

    #[test]
    fn a_caller_is_named_once_for_each_address_and_key_and_reason() {
        let (now, mut quota) = (Instant::now(), quota());
        let id = host("a");
        let (x, y) = (Pin::of(b"x"), Pin::of(b"y"));
        let mut said = |n, key, why: &str, at| {
            quota.line(&Caller { address: address(n), key, host: Some(&id) }, why, "refused", at)
        };
        for (n, key, why) in
            [(1, Some(x), "p"), (1, Some(y), "p"), (2, Some(x), "p"), (1, None, "p"), (1, Some(x), "q")]
        {
            assert_eq!(said(n, key, why, now).as_deref(), Some("refused"));
            for second in 0..100 {
                assert_eq!(said(n, key, why, now + Duration::from_secs(second)), None);
            }
        }
        assert_eq!(
            said(1, Some(x), "p", now + NAMED_AGAIN).as_deref(),
            Some("refused (and 100 more since it was said last)")
        );
    }

    #[test]
    fn neither_strangers_nor_another_host_keep_a_line_from_a_host() {
        let (now, mut quota) = (Instant::now(), quota());
        let strangers =
            (0..100_000).filter(|n| quota.line(&Caller::at(address(*n), None), "x", "x", now).is_some());
        assert_eq!(strangers.count() as u64, MOST_LINES);
        let (noisy, quiet) = (host("noisy"), host("quiet"));
        let keys = (0..1000_u32).map(|n| Caller {
            address: address(7),
            key: Some(Pin::of(&n.to_be_bytes())),
            host: Some(&noisy),
        });
        let lines = keys.filter(|caller| quota.line(caller, "x", "x", now).is_some()).count();
        assert_eq!(lines as u64, MOST_LINES);
        for n in 0..200 {
            let other = host(&format!("h{n}"));
            assert!(quota.line(&Caller::at(address(n), Some(&other)), "x", "x", now).is_some());
        }
        assert_eq!(quota.line(&Caller::at(address(999), Some(&quiet)), "x", "x", now).as_deref(), Some("x"));
        let later = now + Duration::from_secs(60);
        let line = quota.line(&Caller::at(address(200_000), None), "x", "x", later).unwrap();
        let unsaid = 100_000 - MOST_LINES;
        assert_eq!(line, format!("x (and {unsaid} lines like this were not logged)"), "said or counted");
    }

    #[test]
    fn only_so_many_callers_are_kept_in_mind_and_after_a_reload_none() {
        let (mut now, mut quota) = (Instant::now(), quota());
        for n in 0..3 * MOST_CALLERS as u32 {
            if n % MOST_LINES as u32 == 0 {
                now += Duration::from_secs(60);
            }
            quota.again = Duration::MAX;
            assert!(quota.line(&Caller::at(address(n), None), "x", "x", now).is_some());
        }
        assert_eq!(
            (quota.strangers.callers.len(), quota.strangers.order.len()),
            (MOST_CALLERS, MOST_CALLERS)
        );
        let last = Caller::at(address(3 * MOST_CALLERS as u32 - 1), None);
        assert_eq!(quota.line(&last, "x", "x", now), None);
        quota.forget();
        assert_eq!(quota.line(&last, "x", "x", now).as_deref(), Some("x"));
    }
}
