//! `lon reload`: the configuration is read anew, and only the links that it changes are ended.
//!
//! Where what a link child was handed over ([`ServeSettings`], and what it has of its own caller) is the same, it stays and learns
//! nothing; where it is not, or where its caller would not be let in any more (its pin is gone, its host, its
//! address), it is told to drain, and the caller dials again if it may. Children whose callers are not known yet end
//! if anything has changed of who may call, so that none of them lets in whom the new configuration does not.
//! A configuration that is not sound changes nothing, and neither does one of which no address can be listened on; where one
//! can be, the others are said and tried again.

use super::absent::Missing;
use super::callers::{Caller, Callers};
use super::links::{Event, Link, Opened};
use super::listeners::{ListenError, Listener};
use super::room::links_of;
use super::{DESCRIPTORS_A_LINK, GRACE, Supervisor, next};
use crate::base::{HostId, Pin, WireKind};
use crate::config::Config;
use crate::lond::settings::{Directory, ServeSettings};
use crate::net::listen::only_v6;
use crate::supervise::anew;
use crate::supervise::limit::raise_descriptor_limit;
use crate::supervise::own_key::OwnKey;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

impl Supervisor<'_> {
    /// Takes over what the files say now; the answer to who asked for it.
    pub(super) fn reload(&mut self, now: Instant) -> String {
        // Whatever the files say: the log is where it was.
        self.open_log_anew(now);
        if self.stopping.is_some() {
            return anew::refused(&["lond is stopping".to_owned()]);
        }
        let read = anew::reload(self.start.load, &self.start.config)
            .and_then(|config| OwnKey::load(&config).map(|key| (config, key)));
        let (config, key) = match read {
            Ok(read) => read,
            Err(problems) => return anew::refused(&problems),
        };
        let moved = match self.move_listeners(&config.lond.listen, now) {
            Ok(moved) => moved,
            Err(error) => return anew::refused(&[error.to_string()]),
        };
        let config = Arc::new(config);
        let settings = ServeSettings::of(&config);
        let directory = Directory::new(config.clone(), &key);
        let callers = Callers::new(&config, key.pin());
        let old = Ground {
            config: &self.start.config,
            settings: &self.settings,
            directory: &self.directory,
            callers: &self.callers,
        };
        let new = Ground { config: &config, settings: &settings, directory: &directory, callers: &callers };
        let change = Change::between(old, new);
        let leaving: Vec<u32> =
            self.links.iter().filter(|(_, link)| !change.lets_stay(link)).map(|(pid, _)| pid).collect();
        let drain = self.start.config.lond.drain_timeout.max(config.lond.drain_timeout);
        let open = self.links.open();
        for pid in leaving {
            self.tell(pid, Event::Drain { deadline: now + drain + GRACE }, now);
        }
        let kept = self.links.open();
        log::set_max_level(config.log_level);
        self.start.config = config;
        (self.settings, self.directory) = (settings.into(), directory.into());
        self.callers = callers;
        self.refused.forget();
        self.names.retain(&self.start.config);
        self.descriptors = raise_descriptor_limit(links_of(&self.start.config), DESCRIPTORS_A_LINK);
        self.board.set_own_pin(key.pin());
        self.key = key;
        self.board.forget_strangers(&self.start.config);
        self.start.restarts.forgive();
        let (added, removed) = moved;
        let mut done = format!("{} ended, {kept} kept", anew::links(open - kept));
        if added + removed > 0 {
            done.push_str(&format!("; addresses: {added} added, {removed} removed"));
        }
        for Missing { address, why } in self.absent.iter() {
            done.push_str(&format!("; not listening on {address} yet: {why}"));
        }
        anew::taken_over(&self.start.config, &done)
    }

    /// Listens on what is `wanted`, as far as that can be, and on nothing else; how many addresses came and went. If none can
    /// be listened on, all is as before.
    fn move_listeners(&mut self, wanted: &[SocketAddr], now: Instant) -> Result<(usize, usize), ListenError> {
        // Whether `[::]` is for IPv6 alone is another one with what stands beside it.
        let is_wanted = |l: &Listener| wanted.contains(&l.address) && l.only_v6 == only_v6(l.address, wanted);
        let listened = |address| self.listeners.iter().any(|l| l.address == address && is_wanted(l));
        let missing: Vec<SocketAddr> = wanted.iter().copied().filter(|&address| !listened(address)).collect();
        // `[::]` and an address of the same port do not go together, so what goes may have to go first.
        let in_the_way = |l: &Listener| missing.iter().any(|new| new.port() == l.address.port());
        let closed = self.close_listeners(|l| !is_wanted(l) && in_the_way(l));
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        for &address in &missing {
            let (token, alone) = (next(&mut self.next_token), only_v6(address, wanted));
            match Listener::open(address, alone, token, self.poll.registry()) {
                Ok(listener) => opened.push(listener),
                Err(error) => failed.push((address, error)),
            }
        }
        let stays = self.listeners.iter().any(is_wanted);
        if opened.is_empty() && !stays && !failed.is_empty() {
            for address in closed {
                if let Err(error) = self.listen(address) {
                    self.miss(address, &error, now);
                }
            }
            return Err(failed.remove(0).1);
        }
        let removed = closed.len() + self.close_listeners(|l| !is_wanted(l)).len();
        let added = opened.len();
        self.listeners.extend(opened);
        // From here on the addresses that could not be had are what is missing, and the pauses begin anew.
        self.absent.retain(|_| false);
        for (address, error) in failed {
            self.miss(address, &error, now);
        }
        Ok((added, removed))
    }

    fn close_listeners(&mut self, go: impl Fn(&Listener) -> bool) -> Vec<SocketAddr> {
        let gone: Vec<Listener> = self.listeners.extract_if(.., |listener| go(listener)).collect();
        let addresses = gone.iter().map(|listener| listener.address).collect();
        gone.into_iter().for_each(Listener::close);
        addresses
    }
}

/// What the children of one configuration stand on.
struct Ground<'a> {
    config: &'a Config,
    settings: &'a ServeSettings,
    directory: &'a Directory,
    callers: &'a Callers,
}

/// From one configuration to the next.
struct Change<'a> {
    old: Ground<'a>,
    new: Ground<'a>,
    /// Every link is served otherwise.
    all: bool,
    /// Someone may call who might not, or the other way round.
    admission: bool,
}

impl<'a> Change<'a> {
    fn between(old: Ground<'a>, new: Ground<'a>) -> Change<'a> {
        let all = old.settings != new.settings;
        let admission = old.directory != new.directory || old.callers != new.callers;
        Change { old, new, all, admission }
    }

    fn lets_stay(&self, link: &Link) -> bool {
        if self.all {
            return false;
        }
        let (Some(caller), Some(opened)) = (&link.caller, &link.opened) else { return !self.admission };
        let of = |ground: &Ground<'_>| ground.directory.caller(caller, opened.wire);
        let after = of(&self.new);
        after.is_some() && of(&self.old) == after && self.new.admits(caller, link, opened)
    }
}

impl Ground<'_> {
    fn admits(&self, caller: &HostId, link: &Link, opened: &Opened) -> bool {
        match opened.wire {
            WireKind::Secure => {
                let pin = opened.pin.as_ref().and_then(|pin| pin.parse().ok());
                pin.is_some_and(|pin: Pin| self.directory.pins().of(caller).contains(&pin))
            }
            WireKind::Classic if !self.directory.classic() => false,
            WireKind::Classic => match self.callers.of(self.config, link.remote.ip()) {
                Caller::Known(id) => id == *caller,
                Caller::Unaddressed => {
                    self.directory.hosts().get(caller).is_some_and(|host| host.address.is_none())
                }
                Caller::Stranger => false,
            },
        }
    }
}
