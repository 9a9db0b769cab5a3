//! What a link child of `lonc` depends on, and nothing else: it is handed over at the fork, and a
//! reload replaces the child of a peer if its settings are no longer equal to these. So a setting
//! that a child can see is one that is compared.
//!
//! Two things are not in it because a child that runs is told of them: which pins its peer has, and
//! its local socket.

use base::{HostId, Pin, WireKind};
use config::{Config, Host, LocalRules, Peer, Sandbox};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use supervise::own_key::OwnKey;
use wire::secure::TlsIdentity;

/// See the head of this file.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkSettings {
    /// This host.
    pub id: HostId,
    /// The peer. Neither the line of the table nor the mode of the local socket is told: both are
    /// 0.
    pub peer: Peer,
    /// By which key this host is known, on the secure wire.
    pub keys: LinkKeys,
    /// Who of this host may ask this peer what.
    pub local: LocalRules,
    /// The user that this program runs as.
    pub user: u32,
    /// Where the sockets are: tells one `lonc` from another.
    pub run_dir: PathBuf,
    /// The delayed directory.
    pub spool_dir: PathBuf,
    /// Folder of the permanent log.
    pub log_dir: PathBuf,
    /// What is logged.
    pub log_level: log::LevelFilter,
    /// Whether its child is confined.
    pub sandbox: Sandbox,
}

/// What a link is opened with.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkKeys {
    /// The classic wire asks for none.
    None,
    /// What this host shows.
    Shown(TlsIdentity),
    /// There is no way to know the peer, or to be known: what to put right. The peer is not dialled
    /// then; a key or pin that is mended is seen at the next reload.
    Barred(String),
}

impl LinkKeys {
    /// Why the peer is not dialled, if it is not.
    pub fn barred(&self) -> Option<&str> {
        match self {
            LinkKeys::Barred(why) => Some(why),
            LinkKeys::None | LinkKeys::Shown(_) => None,
        }
    }
}

impl LinkSettings {
    /// Path of the peer's folder in the delayed directory.
    pub fn spool_path(&self) -> PathBuf {
        self.spool_dir.join(self.peer.host.id.as_str())
    }
}

/// What the settings of all links are made of: one configuration, and this host's key.
#[derive(Debug)]
pub struct Links {
    config: Arc<Config>,
    key: OwnKey,
}

impl Links {
    /// The links of this configuration, opened with this key.
    pub fn new(config: Arc<Config>, key: OwnKey) -> Links {
        Links { config, key }
    }

    /// This host's key.
    pub fn key(&self) -> &OwnKey {
        &self.key
    }

    /// The peers, in the order of the table.
    pub fn peers(&self) -> impl Iterator<Item = &HostId> {
        self.config.peers.iter().map(|peer| &peer.host.id)
    }

    /// What the link to this peer depends on, if it is one.
    pub fn of(&self, peer: &HostId) -> Option<LinkSettings> {
        let config = &self.config;
        let found = config.peer(peer)?;
        Some(LinkSettings {
            id: config.id.clone(),
            peer: Peer { host: Host { line: 0, ..found.host.clone() }, socket_mode: 0, ..found.clone() },
            keys: self.keys(found),
            local: config.local.of_peer(peer),
            user: nix::unistd::geteuid().as_raw(),
            run_dir: config.run_dir.clone(),
            spool_dir: config.spool_dir.clone(),
            log_dir: config.log_dir.clone(),
            log_level: config.log_level,
            sandbox: config.sandbox,
        })
    }

    /// Whether the link to this peer is opened with this host's key, if it is one.
    pub fn shows_key(&self, peer: &HostId) -> Option<bool> {
        let peer = self.config.peer(peer)?;
        let secure = peer.wire == WireKind::Secure;
        Some(secure && !self.config.pins.of(&peer.host.id).is_empty() && self.key.identity().is_ok())
    }

    fn keys(&self, peer: &Peer) -> LinkKeys {
        match peer.wire {
            WireKind::Classic => return LinkKeys::None,
            WireKind::Secure => {}
        }
        if self.config.pins.of(&peer.host.id).is_empty() {
            let file = self.config.pins_file.display();
            return LinkKeys::Barred(format!("no pin for {} in {file}", peer.host.id));
        }
        match self.key.identity() {
            Ok(identity) => LinkKeys::Shown(identity.clone()),
            Err(why) => LinkKeys::Barred(why.to_owned()),
        }
    }

    /// The pins of this peer that its link is opened with; none on the classic wire. Their order
    /// means nothing.
    pub fn pins(&self, peer: &HostId) -> BTreeSet<Pin> {
        let secure = self.config.peer(peer).is_some_and(|peer| peer.wire == WireKind::Secure);
        let pins = if secure { self.config.pins.of(peer) } else { &[] };
        pins.iter().copied().collect()
    }
}
