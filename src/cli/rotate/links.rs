//! Whether every link is up with the new key, so that nobody needs the old one: what `lon rotate
//! --finish` asks first.

use crate::admin::is_away;
use crate::status::{LOND_FILE, status};
use base::{HostId, WireKind};
use config::Config;
use status::{LinkState, ServeSnapshot, Snapshot, ago};
use std::io;

/// What speaks against letting go of the old key, a line each; `pin` is the new one's.
pub(super) fn against(config: &Config, pin: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lonc: io::Result<Snapshot> = status(&config.run_dir.join("lonc.sock"));
    let lond: io::Result<ServeSnapshot> = status(&config.run_dir.join("lond.sock"));
    // A host without a pin is not called on the secure wire, whatever our key is.
    let secure = |id: &HostId| {
        let peer = config.peer(id).filter(|peer| peer.wire == WireKind::Secure);
        peer.is_some() && !config.pins.of(id).is_empty()
    };
    match lonc {
        Ok(lonc) => made_by_us(&lonc, secure, pin, &mut found),
        Err(_) if !config.peers.iter().any(|peer| secure(&peer.host.id)) => {}
        Err(error) if is_away(&error) => found.push("lonc does not run: no link is up".to_owned()),
        Err(error) => found.push(format!("lonc does not answer: {error}")),
    }
    match lond {
        Ok(lond) => made_to_us(&lond, pin, &mut found),
        // A host may run no listener at all.
        Err(error) if is_away(&error) && !config.status_dir.join(LOND_FILE).exists() => {}
        Err(error) if is_away(&error) => found.push("lond does not run: nobody can call".to_owned()),
        Err(error) => found.push(format!("lond does not answer: {error}")),
    }
    found
}

fn made_by_us(lonc: &Snapshot, secure: impl Fn(&HostId) -> bool, pin: &str, found: &mut Vec<String>) {
    for peer in lonc.peers.iter().filter(|peer| secure(&peer.peer)) {
        let id = &peer.peer;
        if peer.own_pin.as_deref() != Some(pin) {
            found.push(format!("{id}: lonc does not show it the new key yet: reload"));
        } else if peer.state != LinkState::Up {
            let why = peer.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
            found.push(format!("{id}: {} {}{why}", peer.state.as_str(), ago(peer.since, lonc.written)));
        }
    }
}

fn made_to_us(lond: &ServeSnapshot, pin: &str, found: &mut Vec<String>) {
    if lond.own_pin.as_deref().is_some_and(|own| own != pin) {
        found.push("lond does not show the new key yet: reload".to_owned());
    }
    for link in lond.links.iter().filter(|link| link.wire == WireKind::Secure) {
        if link.own_pin.as_deref() != Some(pin) {
            found.push(format!("{}: its link to us was made with another key", link.caller));
        }
    }
    for caller in lond.gone.iter().filter(|caller| caller.wire == WireKind::Secure) {
        let since = ago(caller.last, lond.written);
        found.push(format!("{}: called us {since} ago and has no link to us now", caller.caller));
    }
}
