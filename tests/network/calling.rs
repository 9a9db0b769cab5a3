//! `lonc` calls: the opening dialogue and the cipher as seen by an independent lond.

use crate::common::fake_lond::{BUILDKEY, FakeLond, Fault, Reply, STEPS, Step};
use crate::common::network::Network;
use crate::common::pair::{CALLED, CALLER, Pair};
use crate::common::wait;
use std::net::SocketAddr;

#[test]
fn the_opening_dialogue_is_said_line_by_line_and_then_requests_follow() {
    let pair = Pair::up();
    assert_eq!(pair.ask("echo:after the dialogue"), "echo:after the dialogue");
    let said = pair.fake.dialogue();
    assert_eq!(said.len(), STEPS.len(), "{said:?}");
    assert_eq!(said[..3], ["init", "60123456789", "sethost:msul1"]);
    assert!(said[3].strip_prefix("version:").is_some_and(|version| !version.is_empty()), "{said:?}");
    assert_eq!(said[4..], ["pong", "ekey"]);
    assert_eq!(pair.fake.requests()[0].text(), "echo:after the dialogue");
}

#[test]
fn the_cipher_makes_on_the_wire_what_the_original_made() {
    let pair = Pair::up();
    // The fake's buildkey is that of the published vectors.
    assert_eq!(BUILDKEY, "41342A79EAFBE8FC990EFC7D2928");
    pair.fake.answer_with(|seen| match seen.text().as_str() {
        "ping" => Reply::Line(b"12345678".to_vec()),
        _ => Reply::Line(b"ok".to_vec()),
    });
    assert_eq!(pair.ask("encrypt:ping"), "12345678");
    assert_eq!(pair.ask("encrypt:12345678"), "ok");
    assert_eq!(pair.ask("encrypt:log:secret delayed"), "ok");
    let lines: Vec<String> =
        pair.fake.requests().iter().map(|seen| String::from_utf8_lossy(&seen.line).into_owned()).collect();
    assert_eq!(
        lines,
        [
            "enc:4:e9cf4008a9e0407d",
            "enc:8:4ef0d1948ba8fd93220cf50e55d8be59",
            "enc:18:6f5e9db1c3c85cd30b5859a52d41f4ac9f3b375ab2d09744",
        ]
    );
}

#[test]
fn a_bare_ok_to_an_enciphered_request_is_taken_for_ok() {
    let pair = Pair::up();
    pair.fake.answer_with(|_| Reply::Clear(b"ok".to_vec()));
    assert_eq!(pair.ask("encrypt:log:hello"), "ok");
    pair.fake.behave();
    assert_eq!(pair.ask("encrypt:echo:hello"), "echo:hello");
}

#[test]
fn an_answer_that_does_not_decipher_fails_that_request_alone() {
    let pair = Pair::up();
    pair.fake.answer_with(|seen| match seen.text().as_str() {
        "echo:bad" => Reply::Clear(b"enc:99:zz".to_vec()),
        text => Reply::Line(text.into()),
    });
    let answer = pair.ask("encrypt:echo:bad");
    assert!(answer.starts_with("error:") || answer == "con_lost", "{answer}");
    wait::until_true("the link to serve again", || pair.ask("encrypt:echo:good") == "echo:good");
}

#[test]
fn bytes_cross_the_cipher_unchanged() {
    let pair = Pair::up();
    let mut client = pair.host.connect("msul1");
    client.send(b"encrypt:echo:\x00\xff\r caf\xc3\xa9 \n");
    assert_eq!(client.answer_bytes(), b"echo:\x00\xff\r caf\xc3\xa9 ");
}

#[test]
fn an_odd_sethost_or_version_or_pong_is_a_warning_and_the_link_comes_up() {
    let odd = [
        (Step::Sethost, "unknown_cmd"),
        (Step::Version, "unknown_cmd"),
        (Step::Pong, "somebody else:con_lost"),
    ];
    for (step, nonsense) in odd {
        let pair = Pair::prepare(
            |_| {},
            |fake| {
                fake.fail_at(step, Fault::Say(format!("{nonsense}\n").into_bytes()));
                fake.listen();
            },
        );
        pair.host.wait_link("msul1", "up");
        assert_eq!(pair.ask("ping"), "msul1");
        let log = pair.host.log("lonc.log");
        assert!(log.lines().any(|line| line.contains("WARN")), "no warning for {step:?}:\n{log}");
    }
}

#[test]
fn a_refused_challenge_leaves_the_link_down_and_says_why() {
    let pair = Pair::prepare(
        |_| {},
        |fake| {
            fake.fail_at(Step::Challenge, Fault::Say(b"refused\n".to_vec()));
            fake.listen();
        },
    );
    pair.host.wait_link("msul1", "down");
    assert_eq!(pair.ask("ping"), "con_lost");
    let status = pair.host.status("msul1").expect("a status");
    let error = status["last_error"].as_str().expect("a last error");
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn a_host_without_an_address_is_looked_up_by_its_name() {
    let network = Network::new(&[CALLER]);
    let port = network.address(CALLER).port();
    let fake = FakeLond::start(CALLED, CALLER, SocketAddr::from(([127, 0, 0, 1], port)));
    let own_line = std::fs::read_to_string(network.dir().join("hosts.tab")).expect("hosts.tab");
    network.write_table(&format!("{own_line}{CALLED}:test:library:localhost:\n"));
    let mut host = network.host(CALLER);
    host.set("lonc", "port", &port.to_string());
    let _lonc = host.lonc();
    host.wait_link(CALLED, "up");
    assert_eq!(host.ask(CALLED, "ping"), CALLED);
    assert_eq!(fake.connections(), 1);
}
