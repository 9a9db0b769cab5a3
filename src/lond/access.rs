//! Who calls, and what a caller may ask.
//!
//! The classic wire knows a caller by its address alone. Where the table gives the address, the
//! supervisor has found the caller before it forked; here the names of the hosts whose address is
//! empty are looked up. A name that cannot be looked up in time is taken not to be the caller's:
//! nothing fails but that.

use crate::settings::ServeSettings;
use config::{Access, Host, Judgement};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::time::Instant;
use supervise::look_up;

/// Whether one caller may ask one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// It may.
    Full,
    /// It may where the request did not cross the network in the clear.
    Private,
    /// It may not.
    Nothing,
}

/// What one caller may ask. It crosses the control socket of a link child when a reload changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Of each handler, in the order of the settings.
    pub handlers: Vec<Right>,
    /// The built-in requests that it may not ask for.
    pub barred: Vec<String>,
}

impl Rights {
    /// What `settings` say of `caller`.
    pub fn of(settings: &ServeSettings, caller: &Host) -> Rights {
        let handlers = settings.handlers.iter().map(|handler| right(&handler.access, caller)).collect();
        let barred = settings.builtins.iter().filter(|own| right(&own.access, caller) == Right::Nothing);
        Rights { handlers, barred: barred.map(|own| own.name.to_owned()).collect() }
    }
}

fn right(access: &Access, caller: &Host) -> Right {
    match access.judge(caller) {
        Judgement::Allowed(_) if access.private_only => Right::Private,
        Judgement::Allowed(_) => Right::Full,
        Judgement::Denied(_) | Judgement::NotAllowed | Judgement::Nobody => Right::Nothing,
    }
}

/// The addresses of a host name, as the system finds them.
pub fn addresses(name: &str) -> Vec<IpAddr> {
    look_up::addresses(name).unwrap_or_default().iter().map(SocketAddr::ip).collect()
}

/// Who of `hosts` calls from `remote`, by the addresses that `lookup` finds for those whose address
/// is empty; of several the last, as [`config::Hosts::by_address`] decides. Waits until it
/// is known or `deadline` has passed: a link child has nothing else to do before it knows whom it
/// serves. A lookup that is still under way then is left to its thread.
pub fn identify<'a>(
    hosts: impl Iterator<Item = &'a Host>,
    remote: IpAddr,
    deadline: Instant,
    lookup: impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static,
) -> Option<&'a Host> {
    let mut candidates: Vec<&Host> = hosts.filter(|host| host.address.is_none()).collect();
    candidates.reverse();
    let names: Vec<String> = candidates.iter().map(|host| host.name.clone()).collect();
    let (remote, found) = (remote.to_canonical(), look_up::each(names, lookup));

    let mut verdicts: Vec<Option<bool>> = vec![None; candidates.len()];
    loop {
        // The first match decides as soon as none before it is open.
        match verdicts.iter().position(|verdict| *verdict != Some(false)) {
            None => return None,
            Some(at) if verdicts[at] == Some(true) => return Some(candidates[at]),
            Some(_) => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match found.recv_timeout(left) {
            Ok((at, addresses)) => {
                verdicts[at] = Some(addresses.iter().any(|address| address.to_canonical() == remote));
            }
            Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                let first = verdicts.iter().position(|verdict| *verdict == Some(true));
                return first.map(|at| candidates[at]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::HostId;
    use config::{Entries, Role, Who, fixture};
    use std::time::Duration;

    fn host(id: &str, domain: &str, role: &str, address: Option<IpAddr>) -> Host {
        Host {
            id: HostId::new(id).unwrap(),
            domain: domain.to_owned(),
            role: Role(role.to_owned()),
            name: format!("{id}.example"),
            address,
            line: 1,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn the_rights_of_a_caller_are_in_the_order_of_the_handlers() {
        let entries = |who: &str| match who {
            "" => None,
            "*" => Some(Entries { entries: vec![Who::Everyone], place: None }),
            id => Some(Entries { entries: vec![Who::Host(HostId::new(id).unwrap())], place: None }),
        };
        let access = |allow, deny, private_only| Access {
            allow: entries(allow),
            deny: entries(deny).unwrap_or_default(),
            private_only,
        };
        let folder = std::path::Path::new("/nowhere");
        let mut config = fixture::config(folder, "here");
        config.handlers = [
            access("*", "", false),
            access("", "", false),
            access("msul1", "", true),
            access("*", "msul1", true),
            access("msul2", "", false),
        ]
        .map(|access| fixture::handler("x", access))
        .into();
        config.builtins.iter_mut().find(|own| own.name == "load").unwrap().access.deny =
            entries("msul1").unwrap();
        let settings = ServeSettings::of(&config);
        let rights = Rights::of(&settings, &host("msul1", "msu", "library", None));
        let (full, private, nothing) = (Right::Full, Right::Private, Right::Nothing);
        assert_eq!(rights.handlers, [full, nothing, private, nothing, nothing]);
        assert_eq!(rights.barred, ["load"]);
        let other = Rights::of(&settings, &host("msul2", "msu", "library", None));
        assert_eq!(other.handlers, [full, nothing, nothing, private, full]);
        assert!(other.barred.is_empty());
    }

    #[test]
    fn a_caller_is_found_by_its_name_and_the_last_line_decides() {
        let hosts = [
            host("fixed", "d", "r", Some(ip("127.0.0.9"))),
            host("first", "d", "r", None),
            host("second", "d", "r", None),
            host("other", "d", "r", None),
        ];
        let lookup = |name: &str| match name {
            "first.example" | "second.example" => vec![ip("127.0.0.8"), ip("127.0.0.9")],
            _ => vec![ip("127.0.0.7")],
        };
        let found = |remote| identify(hosts.iter(), ip(remote), soon(), lookup).map(|host| host.id.as_str());
        assert_eq!(found("127.0.0.9"), Some("second"));
        assert_eq!(found("::ffff:127.0.0.8"), Some("second"));
        assert_eq!(found("127.0.0.7"), Some("other"));
        assert_eq!(found("127.0.0.1"), None);
    }

    #[test]
    fn silent_name_servers_cost_no_more_than_the_deadline() {
        let hosts: Vec<Host> = (0..20).map(|n| host(&format!("h{n}"), "d", "r", None)).collect();
        let (_hold, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let lookup = move |name: &str| {
            if name != "h18.example" {
                // Until the test is over.
                let _ = held.lock().map(|held| held.recv());
            }
            vec![ip("127.0.0.9")]
        };
        let found =
            identify(hosts.iter(), ip("127.0.0.9"), Instant::now() + Duration::from_millis(300), lookup);
        assert_eq!(found.map(|host| host.id.as_str()), Some("h18"));
        assert!(
            identify(hosts[..5].iter(), ip("127.0.0.1"), Instant::now(), |_| loop {
                std::thread::park();
            })
            .is_none()
        );
    }
}
