//! Which of a peer's addresses are tried, in which order and when, within one dial (RFC 8305):
//! pure.
//!
//! An address that swallows packets costs a dial [`ATTEMPT_DELAY`] and no more: the next one is
//! tried beside it, and the first whose connection is ready (on the secure wire with its TLS
//! handshake) wins; the others are closed. One that fails lets the next begin at once. One that has
//! its TCP connection is given [`SHAKE_DELAY`] for the rest before another is tried: two links for
//! one dial would trouble the peer for nothing.
//!
//! The last address at which the link was open comes first, then the others, families in turn; one
//! at which a connection was made and the link not opened comes last.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Pause between the beginnings of two attempts: RFC 8305, "Connection Attempt Delay".
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long the handshake of an attempt may take before the next one begins.
pub const SHAKE_DELAY: Duration = Duration::from_secs(1);
/// Addresses that are tried in one dial, each with a socket of its own; of more the next dial tries
/// the others.
pub const ADDRESSES_MOST: usize = 16;

/// What is known of a peer's addresses from one dial to the next.
#[derive(Debug, Default)]
pub struct Addresses {
    /// The link was open there last.
    good: Option<SocketAddr>,
    /// A connection was made there, and the link not opened.
    spoiled: Option<SocketAddr>,
    dials: usize,
}

impl Addresses {
    /// The link is open there.
    pub fn opened(&mut self, address: SocketAddr) {
        self.good = Some(address);
        self.spoiled = self.spoiled.filter(|spoiled| *spoiled != address);
    }

    /// A connection was made there, and ended before the link was open.
    pub fn spoiled(&mut self, address: SocketAddr) {
        self.spoiled = Some(address);
        self.good = self.good.filter(|good| *good != address);
    }

    /// What the next dial tries of those that the look-up found, in order.
    pub fn order(&mut self, found: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut left: VecDeque<SocketAddr> = VecDeque::new();
        for address in found {
            if !left.contains(address) {
                left.push_back(*address);
            }
        }
        if left.len() > ADDRESSES_MOST {
            let turn = self.dials * ADDRESSES_MOST % left.len();
            left.rotate_left(turn);
        }
        self.dials = self.dials.wrapping_add(1);
        let mut order = Vec::new();
        let last = take(&mut left, |address| Some(address) == self.spoiled);
        order.extend(take(&mut left, |address| Some(address) == self.good));
        while let Some(first) = left.front().copied() {
            let before: Option<bool> = order.last().map(SocketAddr::is_ipv6);
            let other = take(&mut left, |address| before.is_some_and(|v6| address.is_ipv6() != v6));
            order.push(other.unwrap_or(first));
            if other.is_none() {
                left.pop_front();
            }
        }
        order.extend(last);
        order.truncate(ADDRESSES_MOST);
        order
    }
}

fn take(from: &mut VecDeque<SocketAddr>, which: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
    let at = from.iter().position(|address| which(*address))?;
    from.remove(at)
}

/// One dial: the attempts at the addresses of a peer, and which is next.
#[derive(Debug)]
pub struct Race {
    waiting: VecDeque<SocketAddr>,
    /// When the next attempt begins.
    next: Instant,
    /// How many attempts are under way.
    running: usize,
    failures: Vec<(SocketAddr, String)>,
}

impl Race {
    /// Over these addresses, in this order; the first is due at once.
    pub fn new(order: Vec<SocketAddr>, now: Instant) -> Race {
        Race { waiting: order.into(), next: now, running: 0, failures: Vec::new() }
    }

    /// The address of an attempt that is to begin now.
    pub fn due(&mut self, now: Instant) -> Option<SocketAddr> {
        let address = self.waiting.front().copied().filter(|_| self.next <= now)?;
        self.waiting.pop_front();
        self.running += 1;
        self.next = now + ATTEMPT_DELAY;
        Some(address)
    }

    /// When [`Race::due`] has the next.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// An attempt has its TCP connection, and not its handshake yet.
    pub fn connected(&mut self, now: Instant) {
        self.next = self.next.max(now + SHAKE_DELAY);
    }

    /// An attempt has failed: the next is due at once.
    pub fn failed(&mut self, address: SocketAddr, why: String, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.failures.push((address, why));
        self.next = now;
    }

    /// Why the dial has failed, when every attempt has.
    pub fn lost(&self) -> Option<String> {
        if self.running > 0 || !self.waiting.is_empty() {
            return None;
        }
        Some(match self.failures.as_slice() {
            [] => "there is no address to call".to_owned(),
            [(_, why)] => why.clone(),
            all => {
                all.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 5663))
    }

    fn v6(n: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 5663))
    }

    #[test]
    fn families_take_turns_and_the_last_good_address_comes_first_and_one_that_did_not_open_last() {
        let found = [v6(1), v6(2), v6(3), v4(1), v4(2), v6(1)];
        let mut addresses = Addresses::default();
        assert_eq!(addresses.order(&found), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        addresses.opened(v4(2));
        assert_eq!(addresses.order(&found), [v4(2), v6(1), v4(1), v6(2), v6(3)]);
        addresses.opened(v6(2));
        assert_eq!(addresses.order(&found), [v6(2), v4(1), v6(1), v4(2), v6(3)]);
        addresses.spoiled(v6(2));
        assert_eq!(addresses.order(&found), [v6(1), v4(1), v6(3), v4(2), v6(2)]);
        addresses.opened(v6(2));
        assert_eq!(addresses.order(&found)[0], v6(2), "it is good again");
        assert_eq!(addresses.order(&[v4(1)]), [v4(1)], "what the name no longer has is not tried");
        assert!(addresses.order(&[]).is_empty());
    }

    #[test]
    fn of_very_many_addresses_each_is_tried_in_some_dial() {
        let found: Vec<SocketAddr> = (0..100).map(v4).collect();
        let mut addresses = Addresses::default();
        addresses.opened(v4(7));
        let mut tried = std::collections::HashSet::new();
        for _ in 0..100 {
            let order = addresses.order(&found);
            assert_eq!((order.len(), order[0]), (ADDRESSES_MOST, v4(7)));
            tried.extend(order);
        }
        assert_eq!(tried.len(), 100);
    }

    #[test]
    fn an_address_that_swallows_packets_costs_a_quarter_of_a_second_and_one_that_refuses_nothing() {
        let mut now = Instant::now();
        let mut race = Race::new(vec![v4(1), v4(2), v4(3), v4(4)], now);
        assert_eq!((race.due(now), race.due(now)), (Some(v4(1)), None));
        now += ATTEMPT_DELAY;
        assert_eq!(race.deadline(), Some(now));
        assert_eq!((race.due(now), race.due(now)), (Some(v4(2)), None));
        race.failed(v4(2), "refused".to_owned(), now);
        assert_eq!((race.due(now), race.due(now)), (Some(v4(3)), None));
        // One that is connected has more time for its handshake.
        race.connected(now);
        now += ATTEMPT_DELAY;
        assert_eq!(race.due(now), None);
        now += SHAKE_DELAY;
        assert_eq!(race.due(now), Some(v4(4)));
        assert_eq!((race.deadline(), race.lost()), (None, None));
        for n in [1, 3, 4] {
            assert_eq!(race.lost(), None);
            race.failed(v4(n), "no route".to_owned(), now);
        }
        let why = race.lost().unwrap();
        assert!(why.starts_with("192.0.2.2:5663: refused; 192.0.2.1:5663: no route; "), "{why}");
        let mut single = Race::new(vec![v4(1)], now);
        single.due(now);
        single.failed(v4(1), "connect: refused".to_owned(), now);
        assert_eq!(single.lost().as_deref(), Some("connect: refused"));
        assert!(Race::new(Vec::new(), now).lost().is_some());
    }
}
