//! Who calls, and what a caller may use.
//!
//! The classic wire knows a caller by its address alone. Where the table gives the address, the
//! supervisor has found the caller before it forked; here the names of the hosts whose address is
//! empty are looked up. A name that cannot be looked up in time is taken not to be the caller's:
//! nothing fails but that.

use config::{Handler, Host};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

/// Threads that look names up at a time: one name whose servers are silent must not take the time
/// of the others.
const LOOKUP_THREADS: usize = 8;

/// Whether `caller` may use `handler`.
pub fn allowed(handler: &Handler, caller: &Host) -> bool {
    handler.allow.iter().any(|entry| entry.covers(caller))
}

/// The addresses of a host name, as the system finds them.
pub fn addresses(name: &str) -> Vec<IpAddr> {
    (name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
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
    let (remote, found) = (remote.to_canonical(), look_all_up(names, lookup));

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

/// Looks all names up, [`LOOKUP_THREADS`] at a time; sends the number of each and its addresses.
pub fn look_all_up(
    names: Vec<String>,
    lookup: impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static,
) -> mpsc::Receiver<(usize, Vec<IpAddr>)> {
    let (report, found) = mpsc::channel();
    let next = Arc::new(AtomicUsize::new(0));
    let threads = names.len().min(LOOKUP_THREADS);
    let work = Arc::new((names, lookup));
    for _ in 0..threads {
        let (report, next, work) = (report.clone(), Arc::clone(&next), Arc::clone(&work));
        let body = move || {
            let (names, lookup) = &*work;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = names.get(at) else { return };
                if report.send((at, lookup(name))).is_err() {
                    return; // Nobody wants to know any more.
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("lookup".to_owned()).spawn(body) {
            log::warn!("start a thread for name lookups: {error}");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::HostId;
    use config::{Allow, Role};
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
    fn a_handler_is_open_to_whom_its_allow_list_covers() {
        let caller = host("msul1", "msu", "library", None);
        let handler = |allow: Vec<Allow>| Handler {
            name: "echo".to_owned(),
            socket: "/nowhere".into(),
            program: None,
            form: config::Form::Line,
            window: 1,
            allow,
            timeout: Duration::from_secs(1),
        };
        for (allow, expected) in [
            (vec![], false),
            (vec![Allow::Everyone], true),
            (vec![Allow::Host(HostId::new("msul2").unwrap())], false),
            (vec![Allow::Host(HostId::new("msul2").unwrap()), Allow::Role("library".into())], true),
            (vec![Allow::Role("access".into())], false),
            (vec![Allow::Domain("msu".into())], true),
        ] {
            assert_eq!(allowed(&handler(allow.clone()), &caller), expected, "{allow:?}");
        }
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
