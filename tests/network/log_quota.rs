//! `log:` requests: a host may write so much of the disk that the spools are on, and no more.

use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_caller::SecureCaller;
use crate::common::secure_pair::TwoHosts;
use crate::common::wait;
use std::fs;

const QUOTA: u64 = 64 * 1024;

/// Bytes of `lond`'s log.
fn written(host: &Host) -> u64 {
    fs::metadata(host.dir.join("log/lond.log")).expect("a log").len()
}

#[test]
fn log_requests_beyond_a_hosts_quota_are_refused_over_all_its_links_and_counted() {
    let network = Network::secure(&[CALLER, CALLED, "msua3"]);
    let mut host = network.host(CALLED);
    host.set("lond", "log_quota", &QUOTA.to_string());
    let _lond = host.lond();
    let open = |id: &str| SecureCaller::open(&network.key(id), host.address, id, CALLED);
    let text = format!("log:{}", "x".repeat(1000));
    let (mut taken, mut refused) = (0, 0);
    // Each link is a child of its own, and the quota is not.
    for _ in 0..8 {
        let mut link = open(CALLER);
        for _ in 0..50 {
            match link.ask(&text).as_str() {
                "ok" => taken += 1,
                answer => {
                    assert!(
                        answer.starts_with("error:log: over this host's quota of 65536 bytes"),
                        "{answer}"
                    );
                    refused += 1;
                }
            }
        }
        assert_eq!(link.ask("ping"), CALLED);
    }
    assert!((50..200).contains(&taken) && refused > 200, "{taken} taken, {refused} refused");
    assert!(written(&host) < 4 * QUOTA, "{} bytes", written(&host));
    let log = host.log("lond.log");
    assert_eq!(log.matches("over its quota of 65536 bytes a minute").count(), 1, "{log}");
    assert_eq!(open("msua3").ask("log:of another host"), "ok");
    let too_long = open("msua3").ask(&format!("log:{}", "x".repeat(QUOTA as usize)));
    assert!(too_long.starts_with("error:log: longer than this host's whole quota"), "{too_long}");
}

#[test]
fn a_critical_log_message_beyond_the_quota_stays_with_its_sender_and_is_written_when_there_is_room() {
    let mut both = TwoHosts::new();
    both.other.set("lond", "log_quota", "\"16KiB\"");
    let (_lonc, _lond) = both.start();
    let mut client = both.one.connect(CALLED);
    let full =
        (0..1000).any(|_| client.ask(&format!("log:{}", "x".repeat(300))).starts_with("error:log: over"));
    assert!(full);
    let kept: Vec<String> = (0..3).map(|number| format!("log:kept {number} {}", "y".repeat(300))).collect();
    for message in &kept {
        assert_eq!(both.one.ask(CALLED, &format!("critical:{message}")), "con_delayed");
    }
    assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
    wait::until_true("all that was kept to be written", || {
        let log = both.other.log("lond.log");
        (0..3).all(|number| log.contains(&format!(": kept {number} ")))
    });
    let log = both.other.log("lond.log");
    let places: Vec<_> = (0..3).map(|number| log.find(&format!(": kept {number} "))).collect();
    assert!(places.is_sorted(), "in their order");
    assert_eq!(log.matches(": kept ").count(), 3, "once each");
}
