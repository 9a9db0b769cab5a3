//! Who of this host may ask: `[[local]]`, judged by who connected.

use crate::common::handler;
use crate::common::local::Local;
use crate::common::network::Host;
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_pair::TwoHosts;
use crate::common::{skip, wait};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A user and a group that nothing here belongs to.
const USER: u32 = 47_110;
const GROUP: u32 = 47_111;

/// The first rule stands before the second.
fn rules(host: &mut Host, of_echo: &str) {
    host.set("[ local ]", "commands", "[\"echo\"]").set("[ local ]", "allow", of_echo);
    host.set("[ local ]", "critical", &format!("[\"group:{GROUP}\"]"));
    host.set("[local]", "commands", "[\"log\"]").set("[local]", "allow", &format!("[\"group:{GROUP}\"]"));
}

/// Where the first rule stands.
fn first_rule(host: &Host) -> String {
    let text = fs::read_to_string(host.config()).expect("a configuration");
    let line = text.lines().position(|line| line == "[[ local ]]").expect("a rule") + 1;
    format!("{}:{line}", host.config().display())
}

#[test]
fn who_connected_decides_what_a_program_may_ask_and_a_reload_changes_it_under_its_connection() {
    if !nix::unistd::geteuid().is_root() {
        skip::skipped("needs root, to connect as others");
        return;
    }
    let mut both = TwoHosts::new();
    let _echo = handler::Program::echo(&both.other.handler("echo"));
    both.one.set("lonc", "socket_mode", "\"0666\"");
    rules(&mut both.one, &format!("[\"user:{USER}\"]"));
    let (_lonc, _lond) = both.start();
    both.one.open_to_all();
    let mut user = Local::connect_as(&both.one.socket(CALLED), USER, &[]);
    let mut grouped = Local::connect_as(&both.one.socket(CALLED), USER, &[GROUP]);
    for (request, to_user, to_grouped, to_root) in [
        ("echo:x", "echo:x", "echo:x", "refused"),
        ("encrypt:echo:x", "echo:x", "echo:x", "refused"),
        ("critical:echo:x", "refused", "echo:x", "refused"),
        ("critical;key=K:echo:x", "refused", "echo:x", "refused"),
        ("log:x", "refused", "ok", "refused"),
        ("version", "refused", "refused", "refused"),
        ("ping", "refused", "refused", CALLED),
        ("close_connection_exit", "refused", "refused", "refused"),
    ] {
        assert_eq!(user.ask(request), to_user, "{request}");
        assert_eq!(grouped.ask(request), to_grouped, "{request}");
        assert_eq!(both.one.ask(CALLED, request), to_root, "{request}");
    }
    let refused = both.one.status(CALLED).expect("a status")["refused"].as_u64();
    assert_eq!(refused, Some(16));
    let log = both.one.log("lonc.log");
    let line = format!("refused user {USER} the request version: no [[local]] rule lets it ask");
    assert_eq!(log.matches(&line).count(), 1, "{log}");
    // Each user is named, for each command.
    for (user, command) in [(USER, "log"), (USER, "close_connection_exit"), (0, "version"), (0, "log")] {
        let line = format!("refused user {user} the request {command}: no [[local]] rule lets it ask");
        assert_eq!(log.matches(&line).count(), 1, "{line}: {log}");
    }
    let line =
        format!("refused user {USER} the request echo as a critical message: no [[local]] rule lets it ask");
    assert_eq!(log.matches(&line).count(), 1, "{log}");
    for number in 0..1000 {
        assert_eq!(user.ask(&format!("{}:x", "y".repeat(number % 50 + 1))), "refused");
    }
    let lines = both.one.log("lonc.log").matches("no [[local]] rule lets it ask").count();
    assert!(lines <= 20, "{lines} lines");

    rules(&mut both.one, "[\"user:0\"]");
    assert_eq!(both.one.lon(&["reload"]).status.code(), Some(0));
    wait::until_true("the right to be taken away", || user.ask("echo:x") == "refused");
    wait::until_true("root to have it", || both.one.ask(CALLED, "echo:x") == "echo:x");
    assert_eq!(grouped.ask("log:x"), "ok", "by its groups, in the next child too");
}

#[test]
fn lon_tells_which_rule_refused_and_keeps_nothing_of_who_may_not_while_lonc_is_away() {
    let mut both = TwoHosts::new();
    let _echo = handler::Program::echo(&both.other.handler("echo"));
    both.other.handler("shut");
    both.other.set("handler.shut", "deny", &format!("[{CALLER:?}]"));
    rules(&mut both.one, &format!("[\"user:{USER}\"]"));
    both.one.set("[local]", "commands", "[\"shut\"]").set("[local]", "allow", "[\"*\"]");
    let (lonc, _lond) = both.start();
    let rule = first_rule(&both.one);
    let said = |arguments: &[&str]| {
        let output = both.one.lon(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let refused = |arguments: &[&str], why: &str| {
        let (code, out, err) = said(arguments);
        assert_eq!((code, out.as_str(), err.as_str()), (Some(6), "refused\n", why), "{arguments:?}");
    };
    let by_rule = format!("lon: ask {CALLED} for echo: refused by the rule at {rule}\n");
    refused(&["reply", CALLED, "echo:x"], &by_rule);
    refused(
        &["reply", CALLED, "version"],
        &format!("lon: ask {CALLED} for version: refused: no [[local]] rule matches\n"),
    );
    refused(&["reply", CALLED, "shut"], "");
    let kept = format!("lon: ask {CALLED} for echo as a critical message: refused by the rule at {rule}\n");
    refused(&["critical", CALLED, "echo:x"], &kept);
    assert!(lonc.stop().success());
    refused(&["critical", CALLED, "echo:x"], &format!("{}{kept}", away(&both.one)));
    assert_eq!(said(&["critical", CALLED, "shut"]).0, Some(4), "this one is kept");
}

/// What is said first when the broker is away.
fn away(host: &Host) -> String {
    let text = host.lon(&["critical", CALLED, "echo:x"]).stderr;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().filter(|line| line.ends_with(": storing")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_socket_has_its_mode_from_the_moment_that_it_has_its_name() {
    let mut both = TwoHosts::new();
    both.one.set("lonc", "socket_mode", "\"0600\"");
    let run = both.one.dir.join("run");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (socket, stop) = (both.one.socket(CALLED), &stop);
        let watcher = scope.spawn(move || {
            let mut modes = std::collections::BTreeSet::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                modes.extend(fs::metadata(&socket).map(|found| found.permissions().mode() & 0o777));
            }
            modes
        });
        for _ in 0..3 {
            let lonc = both.one.lonc();
            assert!(lonc.stop().success());
            let _ = fs::remove_dir_all(&run);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let modes = watcher.join().expect("the watcher");
        assert!(modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
    });
}
