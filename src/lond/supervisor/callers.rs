//! Who calls, by the address. Pure.

use base::{HostId, Pin};
use config::{Config, Target};
use std::collections::HashMap;
use std::net::IpAddr;

/// What an address tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// It is this host's.
    Known(HostId),
    /// Only a host without an address in the table can be meant.
    Unaddressed,
    /// It is no host's.
    Stranger,
}

/// Knows whose address is whose, and who may be let in to a child.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Callers {
    /// Whether the secure wire can serve anyone: some other host has a pin, and this one a key.
    secure: bool,
    /// Addresses that `[host.X] address` gives in place of the table's.
    instead: HashMap<IpAddr, HostId>,
}

impl Callers {
    /// For one configuration, with the pin that [`supervise::own_key`] has of it.
    pub(super) fn new(config: &Config, key: Option<Pin>) -> Callers {
        let mut instead = HashMap::new();
        for peer in &config.peers {
            if let Target::Address(address) = &peer.target {
                let ip = address.ip().to_canonical();
                if peer.host.address != Some(ip) {
                    instead.insert(ip, peer.host.id.clone());
                }
            }
        }
        Callers { secure: key.is_some(), instead }
    }

    /// Whom the address tells, if a child is to find out more; else why not.
    pub(super) fn admit(&self, config: &Config, address: IpAddr) -> Result<Option<HostId>, &'static str> {
        match self.of(config, address) {
            Caller::Known(id) if self.secure || config.lond.classic => Ok(Some(id)),
            Caller::Unaddressed if self.secure || config.lond.classic => Ok(None),
            Caller::Stranger if self.secure => Ok(None),
            Caller::Stranger if config.lond.classic => Err("no host of the table has this address"),
            Caller::Known(_) | Caller::Unaddressed | Caller::Stranger => Err(
                "the classic wire is refused, and for the secure one this host lacks its key or every pin",
            ),
        }
    }

    /// The host that `address` is of.
    pub(super) fn host_at(&self, config: &Config, address: IpAddr) -> Option<HostId> {
        match self.of(config, address) {
            Caller::Known(id) => Some(id),
            Caller::Unaddressed | Caller::Stranger => None,
        }
    }

    /// Whose `address` is. The configuration's own word comes before the table's.
    pub(super) fn of(&self, config: &Config, address: IpAddr) -> Caller {
        let address = address.to_canonical();
        let known =
            self.instead.get(&address).or_else(|| config.hosts.by_address(address).map(|host| &host.id));
        match known {
            Some(id) => Caller::Known(id.clone()),
            None if config.hosts.has_unaddressed() => Caller::Unaddressed,
            None => Caller::Stranger,
        }
    }
}
