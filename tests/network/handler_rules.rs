//! Who of the other hosts may ask what: `allow`, `deny` and `private_only` of handlers, rules for
//! built-in requests, on both wires.

use crate::common::caller::Caller;
use crate::common::handler;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_caller::SecureCaller;
use crate::common::secure_pair::TwoHosts;
use crate::common::wait;

/// A second caller.
const THIRD: &str = "msua3";

/// Lines about a host at once; they come back evenly within a minute.
const LINES_MOST: usize = 20;

/// Sets the rules that both wires are tried with: [`CALLER`] may ask `one`, [`THIRD`] may ask
/// `other` and not for `load`.
fn rules(host: &mut Host) -> [handler::Program; 3] {
    let programs = ["one", "other", "private"].map(|name| handler::Program::echo(&host.handler(name)));
    host.set("handler.one", "allow", &format!("[{CALLER:?}]"));
    host.set("handler.other", "deny", &format!("[{CALLER:?}]"));
    host.set("handler.private", "private_only", "true");
    host.set("builtin.load", "deny", &format!("[{THIRD:?}]"));
    host.set("handler.nobody", "socket", "\"nobody.program\"");
    programs
}

fn reload(host: &Host) -> String {
    let output = host.lon(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How often `lond` says that it refused this, by its status.
fn refused(host: &Host, name: &str) -> u64 {
    let status = host.lond_status().expect("a status");
    let handlers = status["handlers"].as_array().expect("handlers");
    let handler = handlers.iter().find(|handler| handler["name"] == name);
    let count = handler.map_or(&status["refused_builtins"][name], |handler| &handler["refused"]);
    count.as_u64().unwrap_or(0)
}

#[test]
fn on_the_classic_wire_a_host_without_the_right_is_refused_and_others_are_served() {
    let network = Network::new(&[CALLER, CALLED, THIRD]);
    let mut host = network.host(CALLED);
    let _programs = rules(&mut host);
    let _lond = host.lond();
    let open = |id: &str| Caller::open_with_cipher(network.address(id).ip(), host.address, CALLED, id);
    let (mut one, cipher) = open(CALLER);
    let (mut third, _) = open(THIRD);
    for (request, to_one, to_third) in [
        ("one:x", "one:x", "refused"),
        ("other:x", "refused", "other:x"),
        ("private:x", "refused", "refused"),
        ("nobody", "refused", "refused"),
        ("unheard_of", "unknown_cmd", "unknown_cmd"),
        ("ping", CALLED, CALLED),
    ] {
        assert_eq!(one.ask(request), to_one, "{request}");
        assert_eq!(third.ask(request), to_third, "{request}");
    }
    assert_ne!(one.ask("load"), "refused");
    assert_eq!(third.ask("load"), "refused");
    one.send(&[&cipher.seal(b"private:x")[..], b"\n"].concat());
    let sealed = one.hear_bytes().expect("an answer");
    assert_eq!(cipher.open(&sealed), b"private:x", "it crossed enciphered");
    let warned = "handler nobody is for nobody: no `allow`";
    assert_eq!(host.log("lond.log").matches(warned).count(), 1, "once, at the start");
    let log = host.log("lond.log");
    let why = "it came in the clear, which private_only of the handler does not let pass";
    let line = format!("refused {CALLER} the request private: {why}");
    assert!(log.contains(&line), "{log}");
    assert!(log.contains(&format!("refused {CALLER} the request other: it may not ask it")), "{log}");
}

#[test]
fn on_the_secure_wire_a_reload_takes_a_right_away_and_gives_it_back_while_the_link_stays() {
    let network = Network::secure(&[CALLER, CALLED, THIRD]);
    let mut host = network.host(CALLED);
    let _programs = rules(&mut host);
    let _lond = host.lond();
    let address = host.address;
    let open = |id: &str| SecureCaller::open(&network.key(id), address, id, CALLED);
    let (mut one, mut third) = (open(CALLER), open(THIRD));
    assert_eq!((one.ask("one:x").as_str(), third.ask("one:x").as_str()), ("one:x", "refused"));
    assert_eq!((one.ask("private:x").as_str(), third.ask("load").as_str()), ("private:x", "refused"));
    let text = format!("[{THIRD:?}]");
    host.set("handler.one", "allow", &text).set("builtin.ping", "deny", &text);
    host.set("builtin.load", "deny", "[]");
    let said = reload(&host);
    assert!(said.contains("0 links ended, 2 kept"), "{said}");
    wait::until_true("the right to be taken away", || one.ask("one:x") == "refused");
    wait::until_true("the other to have it", || third.ask("one:x") == "one:x");
    assert_eq!((third.ask("ping").as_str(), one.ask("ping").as_str()), ("refused", CALLED));
    assert_ne!(third.ask("load"), "refused");
    host.set("handler.one", "allow", "[\"*\"]");
    assert!(reload(&host).contains("0 links ended, 2 kept"));
    wait::until_true("the right to be given back", || one.ask("one:x") == "one:x");
}

#[test]
fn who_asks_again_and_again_what_it_may_not_has_so_many_lines_and_all_is_counted() {
    let network = Network::secure(&[CALLER, CALLED, THIRD]);
    let mut host = network.host(CALLED);
    let _programs = rules(&mut host);
    let _lond = host.lond();
    let open = |id: &str| SecureCaller::open(&network.key(id), host.address, id, CALLED);
    // Each link is a child of its own, and the quota is not.
    for _ in 0..5 {
        let mut link = open(THIRD);
        for _ in 0..50 {
            assert_eq!(link.ask("one:x"), "refused");
        }
    }
    assert_eq!(open(THIRD).ask("load"), "refused");
    assert_eq!(open(CALLER).ask("other"), "refused");
    let log = host.log("lond.log");
    let lines = |host: &str, name: &str| {
        log.matches(&format!("refused {host} the request {name}: it may not ask it")).count()
    };
    let said = lines(THIRD, "one") + lines(THIRD, "load");
    assert!((LINES_MOST..2 * LINES_MOST).contains(&said), "{said} lines: {log}");
    assert_eq!(lines(CALLER, "other"), 1, "another host has its own lines: {log}");
    wait::until_true("all to be counted", || {
        (refused(&host, "one"), refused(&host, "load"), refused(&host, "other")) == (250, 1, 1)
    });
    let _lonc = host.lonc();
    let table = String::from_utf8_lossy(&host.lon(&["status"]).stdout).into_owned();
    assert!(
        table.contains("0 answered, 0 errors, 250 refused") && table.contains("built-in load: 1 refused"),
        "{table}"
    );
}

#[test]
fn refused_is_an_answer_to_a_critical_message_and_one_that_was_stored_goes_to_failed() {
    let mut both = TwoHosts::new();
    let _programs = rules(&mut both.other);
    both.other.unset("builtin.load", "deny");
    both.other.set("handler.one", "allow", "[\"*\"]");
    both.other.set("handler.one", "deny", &format!("[{CALLER:?}]"));
    let lonc = both.one.lonc();
    assert_eq!(both.one.ask(CALLED, "critical:one:stored"), "con_delayed");
    assert_eq!(both.one.ask(CALLED, "critical:private:stored"), "con_delayed");
    let _lond = both.other.lond();
    both.one.wait_link(CALLED, "up");
    both.one.wait_delivered(CALLED);
    assert_eq!(both.one.ask(CALLED, "critical:one:at once"), "refused");
    assert_eq!(both.one.ask(CALLED, "critical:private:at once"), "private:at once");
    let failed: Vec<String> = std::fs::read_dir(both.one.spool(CALLED).join("failed"))
        .expect("a folder of refused messages")
        .map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("a text"))
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].contains("answer  refused\nrequest one:stored\n"), "{failed:?}");
    drop(lonc);
}
