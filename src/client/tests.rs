//! The client against a broker that the test plays.

use super::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

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

    fn config(&self) -> Config {
        Config::load(&self.0.path().join("lonnet.toml")).unwrap()
    }

    /// A broker that deals with one connection.
    fn broker(&self, serve: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<()> {
        let listener = UnixListener::bind(self.0.path().join("run/there")).unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0))
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
    let mut client = Client::connect(&place.config(), &there()).unwrap();
    let request = |number: usize| format!("{number}:{}", "x".repeat(number % 300)).into_bytes();
    let mut count = 0;
    client
        .reply_all((0..100_000).map(request), |answer| {
            assert_eq!(answer, request(count));
            count += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(count, 100_000);
    assert_eq!(client.reply(b"\xff\r").unwrap(), b"\xff\r", "bytes pass unchanged");
    drop(client);
    broker.join().unwrap();
}

#[test]
fn requests_ahead_are_bounded() {
    let place = Place::new();
    let broker = place.broker(silent);
    let mut client = Client::connect(&place.config(), &there()).unwrap();
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
    let mut client = Client::connect(&place.config(), &there()).unwrap();
    for request in [&b""[..], b"a\nb", b"\n"] {
        assert_eq!(client.reply(request).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let error = critical(&place.config(), &there(), request).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(client.reply(b"ping").unwrap(), b"ping");
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
    let mut client = Client::connect(&place.config(), &there()).unwrap();
    let mut answers = Vec::new();
    let error = client
        .reply_all(["one", "two", "three"], |answer| {
            answers.push(answer);
            Ok(())
        })
        .unwrap_err();
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
    let mut client = Client::connect(&place.config(), &there()).unwrap();
    client.turn(None).unwrap();
    assert_eq!(client.next_answer().unwrap_err().kind(), io::ErrorKind::InvalidData);
    drop(client);
    broker.join().unwrap();
}

#[test]
fn a_critical_message_goes_through_the_broker_when_it_is_there() {
    let place = Place::new();
    let broker = place.broker(echo);
    assert_eq!(critical(&place.config(), &there(), b"log:x").unwrap(), b"critical:log:x");
    broker.join().unwrap();
    assert!(place.stored().is_empty());
}

#[test]
fn a_critical_message_is_stored_in_the_original_form_when_the_broker_is_away() {
    let place = Place::new();
    let config = place.config();
    for request in [&b"log:one"[..], b"critical:encrypt:log:two", b"\xff\r"] {
        assert_eq!(critical(&config, &there(), request).unwrap(), CON_DELAYED);
    }
    let stored = place.stored();
    let texts: Vec<&[u8]> = stored.iter().map(|(_, text)| text.as_slice()).collect();
    assert_eq!(texts, [&b"log:one\n"[..], b"encrypt:log:two\n", b"\xff\r\n"], "in the order of their names");
    for (name, _) in &stored {
        assert!(name.ends_with(".there") && !name.starts_with('.'), "{name}");
    }
}

#[test]
fn a_message_that_the_broker_did_not_answer_is_stored() {
    let place = Place::new();
    let broker = place.broker(|stream| drop(BufReader::new(stream).lines().next()));
    assert_eq!(critical(&place.config(), &there(), b"log:x").unwrap(), CON_DELAYED);
    broker.join().unwrap();
    assert_eq!(place.stored().len(), 1);
}

#[test]
fn what_cannot_be_stored_is_an_error_and_leaves_nothing() {
    let place = Place::new();
    let config = place.config();
    let error = critical(&config, &there(), &[b'x'; 1001]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(place.stored().is_empty());
    fs::remove_dir(&config.spool_dir).unwrap();
    fs::write(&config.spool_dir, "a file").unwrap();
    assert_eq!(critical(&config, &there(), b"log:x").unwrap_err().kind(), io::ErrorKind::NotADirectory);
    assert_eq!(fs::read(&config.spool_dir).unwrap(), b"a file");
}

#[test]
fn the_delayed_directory_is_made_where_no_broker_was_yet() {
    let place = Place::new();
    let config = place.config();
    fs::remove_dir(&config.spool_dir).unwrap();
    assert_eq!(critical(&config, &there(), b"log:x").unwrap(), CON_DELAYED);
    assert_eq!(place.stored().len(), 1);
}
