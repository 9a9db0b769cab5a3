//! The client against a broker that the test plays.

use super::*;
use config::Config;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        for name in ["run", "delayed"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("lonnet.toml"), "id = \"here\"\n[lonc]\nmax_line = 1000\n").unwrap();
        fs::write(folder.path().join("hosts.tab"), "here:d:r:a:127.0.0.1\nthere:d:r:b:127.0.0.2\n").unwrap();
        Place(folder)
    }

    fn client(&self) -> Client {
        Client::connect(&self.config(), &there(), soon()).unwrap()
    }

    fn connection(&self) -> Connection {
        Connection::open(&self.config().socket_path(&there()), None).unwrap()
    }

    fn critical(&self, request: &[u8]) -> Result<Outcome, ClientError> {
        critical(&self.config(), &there(), request, None, soon())
    }

    fn config(&self) -> Config {
        Config::load(&self.0.path().join("lonnet.toml")).unwrap()
    }

    /// A broker that deals with one connection.
    fn broker(&self, serve: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<()> {
        let listener = self.listen();
        thread::spawn(move || serve(listener.accept().unwrap().0))
    }

    fn listen(&self) -> UnixListener {
        let path = self.0.path().join("run/there");
        let _ = fs::remove_file(&path);
        UnixListener::bind(path).unwrap()
    }

    fn stored(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(self.0.path().join("delayed"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }
}

fn there() -> HostId {
    HostId::new("there").unwrap()
}

/// Later than anything that a test waits for.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key() -> Key {
    Key::new(b"k-1").unwrap()
}

/// The next line of a connection.
fn line_of(stream: &UnixStream) -> String {
    BufReader::new(stream).lines().next().unwrap().unwrap()
}

/// Answers each line with itself, one at a time, reading nothing while an answer cannot be written.
fn echo(stream: UnixStream) {
    let mut answers = stream.try_clone().unwrap();
    for line in BufReader::new(stream).split(b'\n') {
        let mut line = line.unwrap();
        line.push(b'\n');
        answers.write_all(&line).unwrap();
    }
}

/// Reads to the end and answers nothing.
fn silent(stream: UnixStream) {
    BufReader::new(stream).lines().count();
}

#[test]
fn a_hundred_thousand_requests_go_ahead_of_their_answers_and_neither_end_stops_the_other() {
    let place = Place::new();
    let broker = place.broker(echo);
    let mut client = place.client();
    let request = |number: usize| format!("{number}:{}", "x".repeat(number % 300)).into_bytes();
    let mut count = 0;
    client
        .reply_all((0..100_000).map(request), soon(), |outcome| {
            assert_eq!(outcome, Outcome::Answer(request(count)));
            count += 1;
        })
        .unwrap();
    assert_eq!(count, 100_000);
    let odd = client.reply(b"\xff\r", soon()).unwrap();
    assert_eq!(odd, Outcome::Answer(b"\xff\r".to_vec()), "bytes pass unchanged");
    drop(client);
    broker.join().unwrap();
}

#[test]
fn requests_ahead_are_bounded() {
    let place = Place::new();
    let broker = place.broker(silent);
    let mut client = place.connection();
    for _ in 0..MAX_AHEAD {
        client.send(b"ping").unwrap();
    }
    assert!(!client.has_room());
    assert_eq!(client.send(b"ping").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    drop(client);
    broker.join().unwrap();
}

#[test]
fn what_cannot_be_a_request_is_refused_before_it_is_sent() {
    let place = Place::new();
    let broker = place.broker(echo);
    let mut client = place.client();
    for request in [&b""[..], b"a\nb", b"\n"] {
        for error in [
            client.reply(request, soon()).unwrap_err(),
            client.critical(request, Some(&key()), soon()).unwrap_err(),
            client.reply_all([request, b"x"], soon(), |_| panic!("an answer")).unwrap_err(),
            place.critical(request).unwrap_err(),
        ] {
            assert!(matches!(error, ClientError::Request(_)) && !error.may_have_been_taken(), "{error}");
        }
    }
    let mut answers = Vec::new();
    let error = client.reply_all(["a", "b\n", "c"], soon(), |outcome| answers.push(outcome.to_string()));
    assert!(matches!(error, Err(ClientError::Request(_))) && answers == ["a"], "{answers:?}");
    let twice = client.critical("critical;key=a:x", Some(&key()), soon()).unwrap_err();
    assert!(matches!(twice, ClientError::Request(_)), "{twice}");
    assert!(place.stored().is_empty());
    drop(client);
    broker.join().unwrap();
}

#[test]
fn a_broker_that_goes_leaves_what_it_did_not_answer() {
    let place = Place::new();
    let broker = place.broker(|stream| {
        let mut lines = BufReader::new(&stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        (&stream).write_all(b"first\nhalf").unwrap();
    });
    let mut client = place.connection();
    for request in ["one", "two", "three"] {
        client.send(request.as_bytes()).unwrap();
    }
    let mut answers = Vec::new();
    let error = loop {
        match client.next_answer() {
            Ok(Some(answer)) => answers.push(answer),
            Ok(None) => assert!(!client.turn(None, Some(soon())).unwrap()),
            Err(error) => break error,
        }
    };
    // A close with requests unread may also reset the connection; either way it ends.
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(answers.is_empty() || answers == [b"first".to_vec()], "{answers:?}");
    let left: Vec<_> = client.into_unanswered().collect();
    assert_eq!(left.len() + answers.len(), 3);
    assert_eq!(left.last().unwrap(), b"three");
    broker.join().unwrap();
}

#[test]
fn answers_that_nobody_asked_for_are_an_error() {
    let place = Place::new();
    let broker = place.broker(|mut stream| {
        stream.write_all(b"hello\n").unwrap();
        silent(stream);
    });
    let mut client = place.connection();
    client.turn(None, Some(soon())).unwrap();
    assert_eq!(client.next_answer().unwrap_err().kind(), io::ErrorKind::InvalidData);
    drop(client);
    broker.join().unwrap();
}

#[test]
fn a_critical_message_goes_through_the_broker_when_it_is_there() {
    let place = Place::new();
    let broker = place.broker(echo);
    let Outcome::Answer(sent) = place.critical(b"log:x").unwrap() else { panic!("no answer") };
    assert_eq!(base::request::shown(&sent), b"log:x", "with an automatic key: {}", sent.escape_ascii());
    broker.join().unwrap();
    assert!(place.stored().is_empty());
}

#[test]
fn a_critical_message_is_stored_in_the_original_form_when_the_broker_is_away() {
    let place = Place::new();
    for request in [&b"log:one"[..], b"critical:encrypt:log:two", b"critical;key=k:log:3", b"\xff\r"] {
        assert_eq!(place.critical(request).unwrap(), Outcome::Delayed);
    }
    let stored = place.stored();
    let texts: Vec<&[u8]> = stored.iter().map(|(_, text)| text.as_slice()).collect();
    assert_eq!(
        texts,
        [&b"log:one\n"[..], b"encrypt:log:two\n", b"critical;key=k:log:3\n", b"\xff\r\n"],
        "in the order of their names"
    );
    for (name, _) in &stored {
        assert!(name.ends_with(".there") && !name.starts_with('.'), "{name}");
    }
}

#[test]
fn a_message_that_the_broker_did_not_answer_is_stored() {
    let place = Place::new();
    let listener = place.listen();
    let broker = thread::spawn(move || [(); 2].map(|()| line_of(&listener.accept().unwrap().0)));
    assert_eq!(place.critical(b"log:x").unwrap(), Outcome::Delayed);
    let sent = broker.join().unwrap();
    assert_eq!(sent[0], sent[1], "asked again once");
    assert_eq!(base::request::shown(sent[0].as_bytes()), b"log:x");
    let stored: Vec<_> = place.stored().into_iter().map(|(_, text)| text).collect();
    assert_eq!(stored, [format!("{}\n", sent[0]).into_bytes()], "with the key that it was sent with");
}

#[test]
fn what_broke_and_finds_the_broker_away_then_may_have_been_taken() {
    let place = Place::new();
    let path = place.config().socket_path(&there());
    let broker = place.broker(move |stream| {
        line_of(&stream);
        fs::remove_file(path).unwrap();
    });
    let error = place.client().critical("pay:1", Some(&key()), soon()).unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }) && error.may_have_been_taken(), "{error}");
    broker.join().unwrap();
}

#[test]
fn what_cannot_be_stored_is_an_error_and_leaves_nothing() {
    let place = Place::new();
    let config = place.config();
    let kind = |request: &[u8]| match place.critical(request).unwrap_err() {
        ClientError::Store(error) => error.kind(),
        other => panic!("{other}"),
    };
    assert_eq!(kind(&[b'x'; 1001]), io::ErrorKind::InvalidInput);
    assert!(place.stored().is_empty());
    fs::remove_dir(&config.spool_dir).unwrap();
    fs::write(&config.spool_dir, "a file").unwrap();
    assert_eq!(kind(b"log:x"), io::ErrorKind::NotADirectory);
    assert_eq!(fs::read(&config.spool_dir).unwrap(), b"a file");
}

#[test]
fn the_delayed_directory_is_made_where_no_broker_was_yet() {
    let place = Place::new();
    let config = place.config();
    fs::remove_dir(&config.spool_dir).unwrap();
    assert_eq!(place.critical(b"log:x").unwrap(), Outcome::Delayed);
    assert_eq!(place.stored().len(), 1);
}

#[test]
fn each_answer_line_has_its_outcome() {
    for (line, outcome) in [
        (&b"con_lost"[..], Outcome::Lost),
        (b"con_delayed", Outcome::Delayed),
        (b"con_failed", Outcome::Failed),
        (b"refused", Outcome::Refused),
        (b"unknown_cmd", Outcome::Refused),
        (b"error:pay: no", Outcome::Error("pay: no".to_owned())),
        (b"error:\xff", Outcome::Error("\u{fffd}".to_owned())),
        (b"error", Outcome::Answer(b"error".to_vec())),
        (b"", Outcome::Answer(Vec::new())),
        (b"con_lost ", Outcome::Answer(b"con_lost ".to_vec())),
    ] {
        assert_eq!(Outcome::of(line), outcome, "{}", line.escape_ascii());
    }
}

#[test]
fn a_connection_that_went_between_two_requests_is_made_anew_and_the_request_sent_once() {
    let place = Place::new();
    let listener = place.listen();
    let (closed, is_closed) = std::sync::mpsc::channel();
    let broker = thread::spawn(move || {
        // Answers once a connection, and closes. A request that comes between the two is another
        // matter: it may have been taken.
        for answer in ["first\n", "second\n"] {
            let stream = listener.accept().unwrap().0;
            assert_eq!(line_of(&stream), "ping");
            (&stream).write_all(answer.as_bytes()).unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    let mut client = place.client();
    for answer in [&b"first"[..], b"second"] {
        assert_eq!(client.reply("ping", soon()).unwrap(), Outcome::Answer(answer.to_vec()));
        is_closed.recv().unwrap();
    }
    broker.join().unwrap();
    let error = client.reply("ping", soon()).unwrap_err();
    assert!(matches!(error, ClientError::Away { .. }) && !error.may_have_been_taken(), "{error}");
}

#[test]
fn what_may_have_been_taken_is_sent_again_only_if_it_has_a_key() {
    let place = Place::new();
    let listener = place.listen();
    let broker = thread::spawn(move || {
        let mut seen = Vec::new();
        for round in 0..4 {
            let stream = listener.accept().unwrap().0;
            seen.push(line_of(&stream));
            if round == 3 {
                (&stream).write_all(b"done\n").unwrap();
            }
        }
        seen
    });
    let mut client = place.client();
    for asked in [client.reply("pay:1", soon()), client.critical("pay:2", None, soon())] {
        let error = asked.unwrap_err();
        assert!(matches!(error, ClientError::Broken { .. }) && error.may_have_been_taken(), "{error}");
    }
    let paid = client.critical("critical:pay:3", Some(&key()), soon()).unwrap();
    assert_eq!(paid, Outcome::Answer(b"done".to_vec()));
    let keyed = "critical;key=k-1:pay:3";
    assert_eq!(broker.join().unwrap(), ["pay:1", "critical:pay:2", keyed, keyed]);
}

#[test]
fn a_late_answer_is_nobodys_and_the_next_request_gets_its_own() {
    let place = Place::new();
    let listener = place.listen();
    let broker = thread::spawn(move || {
        let late = listener.accept().unwrap().0;
        assert_eq!(line_of(&late), "slow");
        // The client gave it up: the answer meets nobody.
        let next = listener.accept().unwrap().0;
        let _ = (&late).write_all(b"late\n");
        echo(next);
    });
    let mut client = place.client();
    let error = client.reply("slow", Instant::now() + Duration::from_millis(500)).unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }) && error.may_have_been_taken(), "{error}");
    assert_eq!(client.reply("ping", soon()).unwrap(), Outcome::Answer(b"ping".to_vec()));
    drop(client);
    broker.join().unwrap();
}

#[test]
fn a_broker_that_takes_up_no_connection_is_waited_for_until_the_deadline() {
    let place = Place::new();
    let _listener = place.listen();
    let mut waiting = Vec::new();
    let error = loop {
        let deadline = Instant::now() + Duration::from_millis(50);
        match Client::connect(&place.config(), &there(), deadline) {
            Ok(client) => waiting.push(client),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100_000, "the queue of connections has an end");
    };
    let ClientError::Away { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::TimedOut);
}
