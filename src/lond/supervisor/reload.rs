//! `lon reload`: the configuration is read again, and only the links that it changes are ended.
//!
//! Where what a link child was handed over ([`ServeSettings`], and what it has of its own caller)
//! is the same, it stays, and learns what its caller may ask if that is another matter now; where
//! it is not, or where its caller would not be let in any more (its pin is gone, its host, its
//! address), it is told to drain, and the caller dials again if it may. Children whose callers are
//! not known yet end if anything has changed of who may call, so that none of them lets in whom the
//! new configuration does not. A configuration that is not sound changes nothing, and neither does
//! one of which no address can be listened on; where one can be, the others are said and tried
//! again.

use super::absent::Missing;
use super::callers::{Caller, Callers};
use super::links::{Event, Link, Opened};
use super::listeners::{ListenError, Listener};
use super::room::links_of;
use super::{DESCRIPTORS_A_LINK, GRACE, Lond, Machine};
use crate::access::Rights;
use crate::messages::ToServe;
use crate::settings::{Directory, ServeSettings};
use base::{HostId, Pin, WireKind};
use config::Config;
use net::listen::only_v6;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use supervise::daemon::Role;
use supervise::limit::raise_descriptor_limit;
use supervise::own_key::OwnKey;
use supervise::reload;

impl Lond {
    /// Goes on with another configuration and key; what was done, in words.
    ///
    /// # Errors
    /// No address can be listened on; nothing was changed then.
    pub(super) fn change(
        &mut self,
        m: &mut Machine<'_>,
        config: Arc<Config>,
        key: OwnKey,
        now: Instant,
    ) -> Result<String, Vec<String>> {
        let moved = self.move_listeners(m, &config.lond.listen, now);
        let (added, removed) = moved.map_err(|error| vec![error.to_string()])?;
        let next = Next::of(&config, &key);
        let change = Change::between(self.ground(&m.start.config), next.ground(&config));
        let leaving: Vec<u32> =
            self.links.iter().filter(|(_, link)| !change.lets_stay(link)).map(|(pid, _)| pid).collect();
        let drain = self.settings.drain_timeout.max(next.settings.drain_timeout);
        let open = self.links.open();
        for pid in leaving {
            self.tell(m, pid, Event::Drain { deadline: now + drain + GRACE }, now);
        }
        let kept = self.links.open();
        let rights_differ = self.settings.differ_in_access(&next.settings);
        m.take_over(config, key);
        self.take_over(m, next);
        if rights_differ {
            self.tell_rights(m, now);
        }
        self.change_pools(m, now);
        let mut done = format!("{} ended, {kept} kept", reload::links(open - kept));
        if added + removed > 0 {
            done.push_str(&format!("; addresses: {added} added, {removed} removed"));
        }
        for Missing { address, why } in self.absent.iter() {
            done.push_str(&format!("; not listening on {address} yet: {why}"));
        }
        Ok(done)
    }

    /// Tells each open link what its caller may ask from here on.
    fn tell_rights(&mut self, m: &mut Machine<'_>, now: Instant) {
        let rights = |(pid, link): (u32, &Link)| {
            let caller = self.directory.hosts().get(link.caller.as_ref()?)?;
            link.opened.is_some().then(|| (pid, Rights::of(&self.settings, caller)))
        };
        let rights: Vec<(u32, Rights)> = self.links.iter().filter_map(rights).collect();
        for (pid, rights) in rights {
            self.send(m, &pid, &ToServe::Rights(rights), now);
        }
    }

    fn ground<'a>(&'a self, config: &'a Config) -> Ground<'a> {
        let Lond { settings, directory, callers, .. } = self;
        Ground { config, settings, directory, callers }
    }

    fn take_over(&mut self, m: &Machine<'_>, next: Next) {
        let Next { settings, directory, callers } = next;
        (self.settings, self.directory, self.callers) = (settings.into(), directory.into(), callers);
        let config = &m.start.config;
        self.voice.refused.forget();
        self.names.retain(config);
        self.descriptors = raise_descriptor_limit(links_of(config), DESCRIPTORS_A_LINK);
        self.board.forget_strangers(config);
    }

    /// Listens on what is `wanted`, as far as that can be, and on nothing else; how many addresses
    /// came and went. If none can be listened on, all is as before.
    fn move_listeners(
        &mut self,
        m: &mut Machine<'_>,
        wanted: &[SocketAddr],
        now: Instant,
    ) -> Result<(usize, usize), ListenError> {
        // Whether `[::]` is for IPv6 alone is another one with what stands beside it.
        let is_wanted = |l: &Listener| wanted.contains(&l.address) && l.only_v6 == only_v6(l.address, wanted);
        let listened = |address| self.listeners.iter().any(|l| l.address == address && is_wanted(l));
        let missing: Vec<SocketAddr> = wanted.iter().copied().filter(|&address| !listened(address)).collect();
        // `[::]` and an address of the same port do not go together, so what goes may have to go
        // first.
        let in_the_way = |l: &Listener| missing.iter().any(|new| new.port() == l.address.port());
        let closed = self.close_listeners(|l| !is_wanted(l) && in_the_way(l));
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        for &address in &missing {
            let (token, alone) = (m.tokens.fresh(), only_v6(address, wanted));
            match Listener::open(address, alone, token, m.poll.registry()) {
                Ok(listener) => opened.push(listener),
                Err(error) => failed.push((address, error)),
            }
        }
        let stays = self.listeners.iter().any(is_wanted);
        if opened.is_empty() && !stays && !failed.is_empty() {
            for address in closed {
                if let Err(error) = self.listen(m, address) {
                    self.miss(address, &error, now);
                }
            }
            return Err(failed.remove(0).1);
        }
        let removed = closed.len() + self.close_listeners(|l| !is_wanted(l)).len();
        let added = opened.len();
        self.listeners.extend(opened);
        // From here on the addresses that could not be had are what is missing, and the pauses
        // begin again.
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

/// What the next children stand on.
struct Next {
    settings: ServeSettings,
    directory: Directory,
    callers: Callers,
}

impl Next {
    fn of(config: &Arc<Config>, key: &OwnKey) -> Next {
        Next {
            settings: ServeSettings::of(config),
            directory: Directory::new(config.clone(), key),
            callers: Callers::new(config, key.pin()),
        }
    }

    fn ground<'a>(&'a self, config: &'a Config) -> Ground<'a> {
        Ground { config, settings: &self.settings, directory: &self.directory, callers: &self.callers }
    }
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
        let all = old.settings.differ_beyond_access(new.settings);
        let admission = old.directory != new.directory
            || old.callers != new.callers
            || old.settings.differ_in_access(new.settings);
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
