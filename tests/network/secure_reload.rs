//! A change of keys under load, pins that go, and `lon reload`, which touches only what changed.

use crate::common::keys::Key;
use crate::common::load::Load;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::process;
use crate::common::program::Program;
use crate::common::secure_pair::Counter;
use crate::common::tally::Tally;
use crate::common::wait;
use crate::secure_once::settle;
use std::sync::atomic::{AtomicBool, Ordering};

/// A second caller, whose link nothing that happens here should touch.
const THIRD: &str = "msua3";

/// Two callers and the host that both call.
struct Three {
    network: Network,
    one: Host,
    third: Host,
    other: Host,
    counter: Counter,
}

impl Three {
    fn new() -> Three {
        let network = Network::secure(&[CALLER, CALLED, THIRD]);
        let (one, third, mut other) = (network.host(CALLER), network.host(THIRD), network.host(CALLED));
        let counter = Counter::start(&mut other);
        Three { network, one, third, other, counter }
    }

    fn start(&self) -> [Program; 3] {
        let programs = [self.other.lond(), self.one.lonc(), self.third.lonc()];
        self.one.wait_link(CALLED, "up");
        self.third.wait_link(CALLED, "up");
        programs
    }

    /// Where lond sees a caller's link come from, and which process serves it; nothing when there
    /// is none.
    fn link_of(&self, caller: &str) -> Option<(String, u64)> {
        let status = self.other.lond_status()?;
        let link = status["links"].as_array()?.iter().find(|link| link["caller"] == caller)?.clone();
        Some((link["address"].to_string(), link["pid"].as_u64()?))
    }
}

fn lon(host: &Host, arguments: &[&str]) -> String {
    let output = host.lon(arguments);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "lon {arguments:?}: {said}");
    said
}

#[test]
fn keys_are_changed_under_load_and_no_request_is_lost() {
    let three = Three::new();
    let _programs = three.start();
    let untouched = three.link_of(THIRD).expect("the third host's link");
    let load = Load::start_as(&three.one.socket(CALLED), "critical:do:");
    let (going, mut bystander) = (AtomicBool::new(true), three.third.connect(CALLED));
    let reload_all = || {
        for host in [&three.one, &three.third, &three.other] {
            let said = lon(host, &["reload"]);
            assert!(said.contains("reloaded: "), "{said}");
        }
    };
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while going.load(Ordering::SeqCst) {
                assert_eq!(bystander.ask("ping"), CALLED);
                asked += 1;
            }
            asked
        });
        let mut pins = three.network.pins();
        let before = pins.clone();
        let new_line = lon(&three.one, &["rotate", "--prepare"]);
        let new_line = new_line.lines().find_map(|line| {
            let line = line.trim();
            line.starts_with(&format!("{CALLER} sha256:")).then(|| line.to_owned())
        });
        let new_line = new_line.expect("the line to be added");
        assert!(!before.contains(&new_line));
        let early = three.one.lon(&["rotate", "--switch"]);
        assert_eq!(early.status.code(), Some(1), "no host knows the new key yet: {early:?}");
        load.wait_for_more(20);
        pins.push_str(&format!("{new_line}\n"));
        three.network.write_pins(&pins);
        reload_all();
        load.wait_for_more(20);
        lon(&three.one, &["rotate", "--switch"]);
        load.wait_for_more(20);
        lon(&three.one, &["reload"]);
        load.wait_for_more(20);
        let shown =
            || three.other.lond_status().map(|status| status["links"].to_string()).unwrap_or_default();
        let new_pin = new_line.split(' ').nth(1).expect("a pin");
        wait::until_true("a link with the new key", || shown().contains(new_pin));
        // The third host takes no calls, so its link cannot be up with any key.
        lon(&three.one, &["rotate", "--finish", "--force"]);
        let old_line = format!("{CALLER} {}\n", three.network.key(CALLER).pin());
        three.network.write_pins(&pins.replace(&old_line, ""));
        let link = three.link_of(CALLER).expect("the link with the new key");
        reload_all();
        load.wait_for_more(20);
        assert_eq!(three.link_of(CALLER), Some(link), "its pin is still there");
        going.store(false, Ordering::SeqCst);
        assert!(asking.join().expect("the bystander") > 0);
    });
    let acknowledged = load.finish();
    let tally = settle("do:", &acknowledged, || three.counter.done());
    assert_eq!(tally, Tally { messages: acknowledged.len(), ..Tally::default() });
    assert_eq!(three.link_of(THIRD), Some(untouched));
}

#[test]
fn a_pin_that_is_removed_closes_its_link_at_the_next_reload_and_no_other() {
    let three = Three::new();
    let programs = three.start();
    let kept = three.link_of(CALLER).expect("a link");
    let without =
        three.network.pins().lines().filter(|line| !line.starts_with(THIRD)).collect::<Vec<_>>().join("\n");
    three.network.write_pins(&without);
    assert!(three.link_of(THIRD).is_some(), "not before the reload");
    lon(&three.other, &["reload"]);
    wait::until_true("the link to close", || three.link_of(THIRD).is_none());
    wait::until_true("its caller to notice", || three.third.ask(CALLED, "ping") == "con_lost");
    assert_eq!(three.link_of(CALLER), Some(kept));
    assert_eq!(three.one.ask(CALLED, "ping"), CALLED);
    // And with the pin, it is served again.
    three.network.write_pins(&three.network.pins());
    lon(&three.other, &["reload"]);
    programs[2].signal(nix::sys::signal::Signal::SIGUSR1);
    three.third.wait_link(CALLED, "up");
    assert_eq!(three.third.ask(CALLED, "ping"), CALLED);
}

#[test]
fn a_pin_that_comes_or_goes_beside_the_one_in_use_leaves_the_callers_link_alone() {
    let three = Three::new();
    let [_lond, lonc, _third] = three.start();
    let link = three.link_of(CALLER);
    let mut client = three.one.connect(CALLED);
    let next = Key::new();
    let [with, only_next] = [
        format!("{}{CALLED} {}\n", three.network.pins(), next.pin()),
        format!("{CALLER} {}\n{CALLED} {}\n", three.network.key(CALLER).pin(), next.pin()),
    ];
    for pins in [&with, &three.network.pins(), &with] {
        three.network.write_pins(pins);
        let said = lon(&three.one, &["reload"]);
        assert!(said.contains("0 links replaced") && said.contains("2 kept"), "{said}");
        assert_eq!(client.ask("ping"), CALLED, "on the same connection");
        assert_eq!(three.link_of(CALLER), link);
    }
    // The key in use is taken away: the link ends, and what is called next must have the other key.
    three.network.write_pins(&only_next);
    lon(&three.one, &["reload"]);
    wait::until_true("the link to end", || three.link_of(CALLER).is_none());
    assert_eq!(three.one.ask(CALLED, "ping"), "con_lost");
    next.write(&three.other.dir.join("keys"));
    lon(&three.other, &["reload"]);
    lonc.signal(nix::sys::signal::Signal::SIGUSR1);
    three.one.wait_link(CALLED, "up");
    assert_eq!(client.ask("ping"), CALLED);
}

#[test]
fn a_reload_touches_only_the_links_that_changed() {
    let mut network = Network::secure(&[CALLER, CALLED, "msul2"]);
    let mut one = network.host(CALLER);
    let (other, second) = (network.host(CALLED), network.host("msul2"));
    let _londs = [other.lond(), second.lond()];
    let lonc = one.lonc();
    one.wait_link(CALLED, "up");
    one.wait_link("msul2", "up");
    let child = |peer: &str| one.status(peer).expect("a status")["pid"].as_u64();
    let (first_child, second_child) = (child(CALLED), child("msul2"));
    let said = lon(&one, &["reload"]);
    assert!(said.contains("2 kept"), "{said}");
    // One more host, and another setting for the second.
    network.add("msul3");
    let third = network.host("msul3");
    let _third = third.lond();
    one.set("host.msul3", "address", &format!("\"{}\"", third.address));
    one.set("host.msul2", "request_timeout", "\"17s\"");
    let mut client = one.connect(CALLED);
    assert_eq!(client.ask("ping"), CALLED);
    let said = lon(&one, &["reload"]);
    assert!(said.contains("1 kept") && said.contains("1 added"), "{said}");
    wait::until_true("the new link", || one.status("msul3").is_some_and(|status| status["state"] == "up"));
    one.wait_link("msul2", "up");
    let child = |peer: &str| one.status(peer).expect("a status")["pid"].as_u64();
    assert_eq!(child(CALLED), first_child);
    assert_ne!(child("msul2"), second_child);
    assert_eq!(client.ask("ping"), CALLED, "on the same connection");
    assert_eq!(one.ask("msul3", "ping"), "msul3");
    assert!(process::zombies(lonc.pid()).is_empty());
}

#[test]
fn a_reload_of_a_bad_configuration_says_where_and_keeps_the_old_one() {
    let three = Three::new();
    let _programs = three.start();
    let link = three.link_of(CALLER);
    three.network.write_pins(&format!("{}{CALLER} sha256:nonsense\n", three.network.pins()));
    for host in [&three.one, &three.other] {
        let output = host.lon(&["reload"]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("hosts.pins:4: "), "{said}");
    }
    assert_eq!(three.one.ask(CALLED, "ping"), CALLED);
    assert_eq!(three.link_of(CALLER), link);
}
