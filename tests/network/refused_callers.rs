//! What the log and the status say of callers that are turned away, and of two that have one key.

use crate::common::keys::Key;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_caller::{self, SecureCaller};
use crate::common::wait;
use std::net::{IpAddr, Ipv4Addr};

/// How often this stands in `lond`'s log.
fn said(host: &Host, words: &str) -> usize {
    host.log("lond.log").matches(words).count()
}

/// Calls with a key, and is turned away; waits until that is counted.
fn refused(host: &Host, key: &Key, says: &str, number: u64) {
    let hello = secure_caller::hello(says, CALLED);
    assert!(SecureCaller::open_with(key, host.address, &hello).is_err());
    wait::until_true("the refusal to be counted", || {
        host.lond_status().is_some_and(|status| status["unauthenticated"] == number)
    });
}

#[test]
fn a_refused_caller_is_named_once_for_each_address_and_key_with_what_is_known_of_it() {
    let mut network = Network::secure(&[CALLER, CALLED]);
    let host = network.host(CALLED);
    let table = std::fs::read_to_string(network.dir().join("hosts.tab")).expect("read the table");
    network.add("msua3");
    network.write_table(&table);
    let _lond = host.lond();
    let strangers = [Key::new(), Key::new()];
    let mut number = 0;
    let mut refused = |key: &Key, says: &str| {
        number += 1;
        refused(&host, key, says, number);
    };
    for _ in 0..3 {
        strangers.iter().for_each(|key| refused(key, CALLER));
        refused(&network.key("msua3"), "msua3");
        refused(&network.key(CALLER), "msua3");
        refused(&network.key(CALLED), CALLED);
    }
    let log = host.log("lond.log");
    for key in &strangers {
        let seen =
            format!("it is no host's in hosts.pins, seen {}; the address is no host's either", key.pin());
        assert_eq!(said(&host, &seen), 1, "{log}");
    }
    assert_eq!(said(&host, "a known pin, that of msua3, which has no line in "), 1, "{log}");
    assert_eq!(said(&host, &format!("the pin of {CALLER}, which says it is msua3")), 1, "{log}");
    assert_eq!(said(&host, "it shows this host's own key"), 1, "{log}");
    // What is known of them may be something else after a reload.
    assert!(host.lon(&["reload"]).status.success());
    refused(&strangers[0], CALLER);
    assert_eq!(said(&host, &strangers[0].pin()), 2);
}

#[test]
fn two_machines_with_one_key_are_named_with_both_addresses_in_the_log_and_in_the_status() {
    let network = Network::secure(&[CALLER, CALLED]);
    let host = network.host(CALLED);
    let (_lond, _lonc) = (host.lond(), host.lonc());
    let places = [1, 2].map(|n| IpAddr::from(Ipv4Addr::new(127, 7, 7, n)));
    let rival = || host.lond_status().expect("lond's status")["links"].clone();
    let mut links = Vec::new();
    for (turn, place) in places.into_iter().cycle().take(4).enumerate() {
        links.push(SecureCaller::open_from(&network.key(CALLER), place, host.address, CALLER, CALLED));
        let before = places[(turn + 1) % 2];
        if turn > 0 {
            wait::until_true("the line that names both", || {
                let log = host.log("lond.log");
                log.lines().any(|line| {
                    line.contains(&format!("link open from {place}:"))
                        && line.contains(&format!(" in place of that from {before}:"))
                })
            });
        }
        if turn == 1 {
            assert!(!rival().to_string().contains("rival"), "a host that has moved");
        }
    }
    let newest = rival().as_array().expect("links").iter().find(|link| !link["rival"].is_null()).cloned();
    assert!(newest.is_some(), "{}", rival());
    let said = String::from_utf8_lossy(&host.lon(&["status"]).stdout).into_owned();
    let mut told = said.lines().filter(|line| line.contains(" in turns"));
    let (told, more) = (told.next().expect("a line about it"), told.next());
    assert_eq!(more, None);
    assert!(places.iter().all(|place| told.contains(&place.to_string())), "{said}");
    let log = host.log("lond.log");
    assert_eq!(log.matches(" ERROR msua1: links come from ").count(), 1, "{log}");
}

#[test]
fn a_child_says_what_is_wrong_with_its_host_however_many_strangers_have_called_from_the_same_address() {
    let network = Network::secure(&[CALLER, CALLED]);
    let mut host = network.host(CALLED);
    // Named, and nobody listens there.
    host.handler("do");
    let _lond = host.lond();
    let stranger = Key::new();
    (1..=30).for_each(|number| refused(&host, &stranger, CALLER, number));
    let mut link = SecureCaller::open(&network.key(CALLER), host.address, CALLER, CALLED);
    let answer = link.ask("do:anything");
    assert!(answer.starts_with("error:do: "), "{answer}");
    wait::until_true("the child's own line", || {
        host.log("lond.log").lines().any(|line| line.contains(&format!("] {CALLER} WARN handler do ")))
    });
}
