//! `lon reply` and `lon critical`, and what holds for every command.

use crate::place::{Place, Said, TOML, answering, echo, lon};
use lonnet::base;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

#[test]
fn an_answer_is_printed_as_it_came_and_its_meaning_is_the_exit_code() {
    let cases: &[(&[u8], i32)] = &[
        (b"msul1", 0),
        (b"", 0),
        (b"error:too long", 7),
        (b"error:", 7),
        (b"error", 0),
        (b" error:x", 0),
        (b"con_lost", 3),
        (b"con_delayed", 4),
        (b"con_failed", 5),
        (b"refused", 6),
        (b"unknown_cmd", 6),
        (b"\xff\x00\r", 0),
    ];
    for command in ["reply", "critical"] {
        for &(answer, code) in cases {
            let place = Place::new();
            let broker = place.broker(answering(move |_| answer.to_owned()));
            let output = place.lon(&[command, "there", "ping"]).output().unwrap();
            assert_eq!(output.stdout, [answer, b"\n"].concat());
            assert_eq!(output.status.code(), Some(code), "{command} {}", String::from_utf8_lossy(answer));
            assert!(output.stderr.is_empty());
            broker.join().unwrap();
        }
    }
}

#[test]
fn of_several_requests_the_highest_code_counts_and_blank_lines_are_none() {
    let place = Place::new();
    let broker = place.broker(echo);
    let said = place.run_with(&["reply", "there"], b"ping\n\nrefused\ncon_lost\n\r\nlast without newline");
    assert_eq!(said.out, "ping\nrefused\ncon_lost\n\r\nlast without newline\n");
    assert_eq!((said.code, said.err.as_str()), (6, ""));
    broker.join().unwrap();
    let said = place.run_with(&["reply", "other"], b"\n\n");
    assert_eq!((said.code, said.out.as_str()), (0, ""), "nothing was asked");
}

#[test]
fn a_critical_request_is_sent_as_one_whoever_says_it() {
    let place = Place::new();
    let broker = place.broker(echo);
    let requests =
        b"log:a\ncritical:log:b\nencrypt:log:c\ncritical;key=mine:log:d\ncritical:critical;key=x:e\n";
    let said = place.run_with(&["critical", "there"], requests);
    let sent: Vec<&str> = said.out.lines().collect();
    let bare: Vec<&str> = sent[..3].iter().map(|line| without_key(line)).collect();
    assert_eq!(bare, ["log:a", "log:b", "encrypt:log:c"], "{sent:?}");
    assert_eq!(sent[3..], ["critical;key=mine:log:d", "critical:critical;key=x:e"]);
    assert_eq!(said.code, 0);
    broker.join().unwrap();
    assert!(place.stored().is_empty());
}

/// The request of a critical line that `lon` has given a key of its own.
fn without_key(line: &str) -> &str {
    let shown = base::request::shown(line.as_bytes());
    assert!(shown.len() < line.len(), "{line} has no automatic key");
    std::str::from_utf8(shown).unwrap()
}

#[test]
fn a_critical_request_that_is_just_as_long_as_may_be_is_sent_without_a_key() {
    let place = Place::new();
    std::fs::write(place.path("lonnet.toml"), TOML.replace("[lonc]\n", "[lonc]\nmax_line = 600\n")).unwrap();
    for (length, keyed) in [(600 - "critical;key=:".len() - 26, true), (600 - "critical:".len(), false)] {
        let broker = place.broker(echo);
        let request = "x".repeat(length);
        let said = place.run(&["critical", "there", &request]);
        assert!(said.out.len() <= 601, "{said:?}");
        assert_eq!(said.out.starts_with("critical;"), keyed, "{said:?}");
        broker.join().unwrap();
        std::fs::remove_file(place.path("run/there")).unwrap();
    }
}

#[test]
fn a_hundred_thousand_requests_go_through_a_pipe_without_stopping_either_end() {
    let place = Place::new();
    let broker = place.broker(echo);
    let mut input = String::new();
    for number in 0..100_000 {
        input.push_str(&format!("log:{number}:{}\n", "x".repeat(number % 100)));
    }
    let said = place.run_with(&["reply", "there"], input.as_bytes());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out == input, "every answer in its order");
    broker.join().unwrap();
}

#[test]
fn an_answer_does_not_wait_for_the_end_of_the_input() {
    let place = Place::new();
    let broker = place.broker(echo);
    let mut child =
        place.lon(&["reply", "there"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for request in ["one", "two", "three"] {
        writeln!(stdin, "{request}").unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), request);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    broker.join().unwrap();
}

#[test]
fn without_a_broker_a_reply_is_lost_and_the_reason_is_said_once() {
    let place = Place::new();
    let said = place.run(&["reply", "there", "ping"]);
    assert_eq!((said.code, said.out.as_str()), (3, "con_lost\n"));
    let socket = place.path("run/there");
    assert_eq!(said.err, format!("lon: ask {}: No such file or directory (os error 2)\n", socket.display()));
    // A socket file that a dead broker left behind.
    drop(UnixListener::bind(&socket).unwrap());
    let said = place.run_with(&["reply", "there"], b"ping\n\npong");
    assert_eq!((said.code, said.out.as_str()), (3, "con_lost\ncon_lost\n"));
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}

#[test]
fn a_broker_that_goes_half_way_leaves_no_request_without_a_line() {
    let place = Place::new();
    let broker = place.broker(|stream| {
        let mut lines = BufReader::new(&stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        (&stream).write_all(b"first\n").unwrap();
    });
    let mut child = place
        .lon(&["reply", "there"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "first");
    broker.join().unwrap();
    stdin.write_all(b"two\nthree\n").unwrap();
    drop(stdin);
    assert_eq!(answers.next().unwrap().unwrap(), "con_lost");
    assert_eq!(answers.next().unwrap().unwrap(), "con_lost");
    assert!(answers.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn without_a_broker_a_critical_message_is_stored_in_the_original_form() {
    let place = Place::new();
    let said = place.run_with(&["critical", "there"], b"log:one\n\nencrypt:log:two\ncritical:log:three\n");
    assert_eq!((said.code, said.out.as_str()), (4, "con_delayed\ncon_delayed\ncon_delayed\n"));
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    assert_eq!(place.stored(), [&b"log:one\n"[..], b"encrypt:log:two\n", b"log:three\n"]);
}

#[test]
fn critical_messages_that_a_dying_broker_left_unanswered_are_stored() {
    let place = Place::new();
    let broker = place.broker(|stream| drop(BufReader::new(stream).lines().next()));
    let said = place.run_with(&["critical", "there"], b"log:one\nlog:two\n");
    assert_eq!((said.code, said.out.as_str()), (4, "con_delayed\ncon_delayed\n"));
    broker.join().unwrap();
    let stored = place.stored();
    let lines: Vec<&str> = stored.iter().map(|text| std::str::from_utf8(text).unwrap()).collect();
    let bare: Vec<&str> = lines.iter().map(|line| without_key(line)).collect();
    assert_eq!(bare, ["log:one\n", "log:two\n"], "with the keys that were sent: {lines:?}");
    assert_ne!(lines[0].replace("one", "two"), lines[1], "each has its own");
}

#[test]
fn a_message_that_cannot_even_be_stored_has_failed() {
    let place = Place::new();
    fs::remove_dir(place.path("delayed")).unwrap();
    fs::write(place.path("delayed"), "in the way").unwrap();
    let said = place.run(&["critical", "there", "log:one"]);
    assert_eq!((said.code, said.out.as_str()), (5, "con_failed\n"));
    assert!(said.err.contains("lon: store message for there in "), "{}", said.err);
    assert_eq!(fs::read(place.path("delayed")).unwrap(), b"in the way");
}

#[test]
fn wrong_arguments_and_unknown_hosts_have_their_codes() {
    let place = Place::new();
    for command in ["reply", "critical"] {
        for (arguments, code, part) in [
            (&["nobody", "ping"][..], 1, "lon: ask nobody: has no line in "),
            (&["here", "ping"], 1, "lon: ask here: is this host itself"),
            (&["../x", "ping"], 1, "lon: ask \"../x\": host id"),
            (&["there", "a\nb"], 2, "lon: the request has a newline in it"),
            (&["there", ""], 2, "lon: the request is empty"),
            (&["there", "a", "b"], 2, "unexpected argument"),
            (&[], 2, "required"),
        ] {
            let said = place.run(&[&[command], arguments].concat());
            assert_eq!((said.code, said.out.as_str()), (code, ""), "{command} {arguments:?}: {said:?}");
            assert!(said.err.contains(part), "{command} {arguments:?}: {}", said.err);
        }
    }
    assert!(place.stored().is_empty());
    assert_eq!(Said::of(&lon(&["dance"]).output().unwrap()).code, 2);
    assert_eq!(Said::of(&lon(&["--version"]).output().unwrap()).code, 0);
}

#[test]
fn a_wrong_configuration_is_told_line_by_line() {
    let place = Place::new();
    fs::write(place.path("lonnet.toml"), "id = \"here\"\nwhat = 1\n[lonc]\nport = 0\n").unwrap();
    let said = place.run(&["reply", "there", "ping"]);
    let file = place.path("lonnet.toml");
    let file = file.display();
    assert_eq!((said.code, said.out.as_str()), (3, "con_lost\n"), "it asks all the same");
    let socket = place.path("run/there");
    assert_eq!(
        said.err,
        format!(
            "lon: {file}:2: what: unknown key\nlon: {file}:4: lonc: port: want a port of 1 to 65535, not 0\n\
             lon: the configuration has mistakes, and no program answers: going by what is right in it\n\
             lon: ask {}: No such file or directory (os error 2)\n",
            socket.display()
        )
    );
    // What is about the files themselves does not go on.
    for command in [&["pin"][..], &["rotate"], &["reload"]] {
        let said = place.run(command);
        assert_eq!((said.code, said.err.lines().count()), (1, 2), "{command:?}: {said:?}");
    }
}

#[test]
fn the_configuration_may_be_named_by_the_environment() {
    let place = Place::new();
    let mut command = lon(&["check"]);
    let said = Said::of(&command.env("LONNET_CONFIG", place.path("lonnet.toml")).output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    let said = Said::of(&lon(&["check", "--config", "/nowhere/lonnet.toml"]).output().unwrap());
    assert_eq!((said.code, said.err.as_str()), (1, ""));
    assert!(said.out.starts_with("/nowhere/lonnet.toml: cannot be read: "), "{}", said.out);
}

#[test]
fn an_output_that_nobody_reads_ends_the_command_quietly() {
    let place = Place::new();
    let broker = place.broker(echo);
    let mut child = place
        .lon(&["reply", "there"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"ping\n").unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(1), ""));
    drop(stdin);
    broker.join().unwrap();
}
