//! `lon` as people and scripts meet it: arguments in; output, exit code and files out. A broker is played by a thread.

// The helpers of the tests fail as loudly as the tests themselves.
#![allow(clippy::unwrap_used)]

use lonnet::config::HostId;
use lonnet::status::{LinkState, PeerStatus, Snapshot, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

const TOML: &str =
    "id = \"here\"\nuser = \"root\"\n[lonc]\nwire = \"classic\"\n[lond]\nclassic = \"allow\"\n";
const HOSTS: &str =
    "here:msu:access:a:127.0.0.1\nthere:msu:library:b:127.0.0.2\nother:msu:library:c:127.0.0.3\n";

/// A network's folder.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        for (name, mode) in
            [("keys", 0o700), ("run", 0o755), ("delayed", 0o750), ("log", 0o750), ("status", 0o755)]
        {
            fs::create_dir(place.path(name)).unwrap();
            fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(place.path("lonnet.toml"), TOML).unwrap();
        fs::write(place.path("hosts.tab"), HOSTS).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lon(&self, arguments: &[&str]) -> Command {
        let mut command = lon(&["--config"]);
        command.arg(self.path("lonnet.toml")).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        Said::of(&self.lon(arguments).stdin(Stdio::null()).output().unwrap())
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut child = self
            .lon(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = thread::spawn(move || stdin.write_all(&input).unwrap());
        let said = Said::of(&child.wait_with_output().unwrap());
        writer.join().unwrap();
        said
    }

    /// Plays the broker for one connection to `there`.
    fn broker(&self, serve: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<()> {
        self.listen("there", serve)
    }

    fn listen(&self, name: &str, serve: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<()> {
        let listener = UnixListener::bind(self.path("run").join(name)).unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0))
    }

    fn stored(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.path("delayed")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.iter().all(|file| file.extension().unwrap() == "there"), "{files:?}");
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }
}

fn lon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lon"));
    command.env_remove("LONNET_CONFIG").args(arguments);
    command
}

/// What a run came to.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: &Output) -> Said {
        Said {
            code: output.status.code().expect("lon ends by itself"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Answers each line by what `answer` makes of it, one at a time.
fn answering(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> impl FnOnce(UnixStream) + Send + 'static {
    move |stream| {
        let mut out = stream.try_clone().unwrap();
        for line in BufReader::new(stream).split(b'\n') {
            let mut text = answer(&line.unwrap());
            text.push(b'\n');
            if out.write_all(&text).is_err() {
                return;
            }
        }
    }
}

fn echo(stream: UnixStream) {
    answering(<[u8]>::to_owned)(stream);
}

#[test]
fn an_answer_is_printed_as_it_came_and_its_meaning_is_the_exit_code() {
    let cases: &[(&[u8], i32)] = &[
        (b"msul1", 0),
        (b"", 0),
        (b"error:too long", 0),
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
    let said = place.run_with(&["critical", "there"], b"log:a\ncritical:log:b\nencrypt:log:c\n");
    assert_eq!(said.out, "critical:log:a\ncritical:log:b\ncritical:encrypt:log:c\n");
    assert_eq!(said.code, 0);
    broker.join().unwrap();
    assert!(place.stored().is_empty());
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
    assert_eq!(place.stored(), [b"log:one\n", b"log:two\n"]);
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
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert_eq!(
        said.err,
        format!(
            "lon: {file}:2: what: unknown key\nlon: {file}:4: lonc: port: want a port of 1 to 65535, not 0\n"
        )
    );
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

/// Every path under `folder` with what a change would change.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u64, u32, i64, i64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is = fs::symlink_metadata(&path).unwrap();
            all.insert(
                path.clone(),
                (is.size(), is.mode(), is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec()),
            );
            if is.is_dir() {
                folders.push(path);
            }
        }
    }
    let is = fs::symlink_metadata(folder).unwrap();
    all.insert(
        folder.to_owned(),
        (is.size(), is.mode(), is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec()),
    );
    all
}

#[test]
fn check_says_all_that_is_wrong_or_hardly_meant_and_touches_nothing() {
    let place = Place::new();
    fs::remove_dir(place.path("status")).unwrap();
    let before = listing(place.0.path());
    let said = place.run(&["check"]);
    let file = place.path("lonnet.toml");
    let file = file.display();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(said.out, format!("{file}: no errors\n"));
    assert_eq!(listing(place.0.path()), before);

    let more = "[handler.app]\nsocket = \"app.sock\"\n[handler.file]\nsocket = \"hosts.tab\"\n";
    let toml = TOML
        .replace("\"root\"", "\"nobody-of-that-name\"")
        .replace("[lonc]", "log_dir = \"hosts.tab/log\"\n[lonc]");
    fs::write(place.path("lonnet.toml"), toml + more).unwrap();
    fs::write(place.path("hosts.tab"), format!("{HOSTS}twin:msu:access:d:127.0.0.1\n")).unwrap();
    fs::set_permissions(place.path("keys"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = listing(place.0.path());
    let said = place.run(&["check"]);
    let dir = place.0.path().display();
    assert_eq!((said.code, said.err.as_str()), (1, ""));
    assert_eq!(
        said.out,
        format!(
            "{file}: log_dir: {dir}/hosts.tab is no folder\n\
             {file}: user: there is no user \"nobody-of-that-name\"\n\
             warning: {dir}/hosts.tab:4: twin has the address 127.0.0.1, as has here in line 1: a caller from there \
             is taken for twin\n\
             warning: {file}: key_dir: {dir}/keys is open to others than its owner (mode 0755): chmod 0700\n\
             warning: {file}: handler.app: socket: {dir}/app.sock: No such file or directory (os error 2): requests \
             are answered error: until a program listens there\n\
             warning: {file}: handler.file: socket: {dir}/hosts.tab: is no socket: requests are answered error: until \
             a program listens there\n"
        )
    );
    assert_eq!(listing(place.0.path()), before);
}

#[test]
fn check_reports_both_files_at_once() {
    let place = Place::new();
    fs::write(place.path("lonnet.toml"), "id = \"here\"\nwhat = 1\n").unwrap();
    fs::write(place.path("hosts.tab"), "here:msu:access:a:127.0.0.1\n\nx\n").unwrap();
    let said = place.run(&["check"]);
    let dir = place.0.path().display();
    assert_eq!(said.code, 1);
    assert_eq!(
        said.out,
        format!(
            "{dir}/lonnet.toml:2: what: unknown key\n{dir}/hosts.tab:3: 1 of 5 fields: want \
             id:domain:role:hostname:ip\n"
        )
    );
}

#[test]
fn init_makes_a_folder_that_passes_check() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("new/net");
    let said = Said::of(
        &lon(&["init", dir.to_str().unwrap(), "--id", "msua1", "--address", "127.0.0.3", "--port", "7001"])
            .output()
            .unwrap(),
    );
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let hosts = fs::read_to_string(dir.join("hosts.tab")).unwrap();
    assert!(hosts.ends_with("\nmsua1:local:library:localhost:127.0.0.3\n"), "{hosts}");
    for (name, mode) in
        [("keys", 0o700), ("run", 0o755), ("delayed", 0o750), ("log", 0o750), ("status", 0o755)]
    {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().mode() & 0o7777, mode, "{name}");
    }
    let file = dir.join("lonnet.toml");
    let config = lonnet::config::Config::load(&file).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.lond.listen, ["127.0.0.3:7001".parse().unwrap()]);
    assert!(config.lond.classic);
    assert_eq!(config.user, None);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let said = Said::of(&lon(&["--config", file.to_str().unwrap(), "check"]).output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    assert!(fs::read_to_string(&file).unwrap().contains("NOT PRIVATE"));
}

#[test]
fn init_takes_an_ipv6_address() {
    let place = tempfile::tempdir().unwrap();
    let said = Said::of(
        &lon(&["init", place.path().to_str().unwrap(), "--id", "six", "--address", "::1"]).output().unwrap(),
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert!(fs::read_to_string(place.path().join("hosts.tab")).unwrap().ends_with("localhost:[::1]\n"));
    assert!(fs::read_to_string(place.path().join("lonnet.toml")).unwrap().contains("\"[::1]:5663\""));
}

#[test]
fn init_overwrites_nothing_and_undoes_only_what_it_made() {
    for existing in ["lonnet.toml", "hosts.tab", "keys", "status"] {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(existing), "mine").unwrap();
        fs::create_dir(place.path().join("run")).unwrap();
        let before = listing(place.path());
        let said =
            Said::of(&lon(&["init", place.path().to_str().unwrap(), "--id", "msua1"]).output().unwrap());
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{existing}");
        let path = place.path().join(existing);
        assert_eq!(said.err, format!("lon: make {}: File exists (os error 17)\n", path.display()));
        let names = |all: BTreeMap<PathBuf, _>| all.into_keys().collect::<Vec<_>>();
        assert_eq!(names(listing(place.path())), names(before), "{existing}");
        assert_eq!(fs::read(path).unwrap(), b"mine");
    }
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("a/b");
    let dir = dir.to_str().unwrap();
    for (arguments, code) in [
        (&["--id", "a b"][..], 2),
        (&["--id", "a", "--domain", "a b"], 1),
        (&["--id", "a", "--address", "0.0.0.0"], 1),
        (&["--id", "a", "--port", "0"], 2),
        (&[], 2),
    ] {
        let said = Said::of(&lon(&[&["init", dir], arguments].concat()).output().unwrap());
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert!(!place.path().join("a").exists(), "{arguments:?}");
    }
}

fn snapshot() -> Snapshot {
    let written = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(100);
    Snapshot {
        program: "lonc".into(),
        version: "0.1.0".into(),
        id: HostId::new("here").unwrap(),
        pid: 4700,
        started: written,
        written,
        doing: "keeping 1 link".into(),
        last_log: String::new(),
        peers: vec![PeerStatus {
            peer: HostId::new("there").unwrap(),
            pid: 4711,
            state: LinkState::Up,
            since: written,
            doing: "up".into(),
            wire: "classic".into(),
            private: false,
            in_flight: 2,
            done: 7,
            lost: 0,
            clients: 1,
            delayed: 0,
            delayed_bytes: 0,
            oldest: None,
            failed: 0,
            corrupt: 0,
            last_error: None,
            last_error_at: None,
            last_log: String::new(),
        }],
    }
}

/// Plays `lonc`'s own socket: one `status`, answered by `answer`.
fn lonc(answer: String) -> impl FnOnce(UnixStream) + Send + 'static {
    move |mut stream| {
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "status\n");
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

#[test]
fn status_shows_what_the_running_lonc_says() {
    let place = Place::new();
    let lonc = place.listen("lonc.sock", lonc(json(&snapshot()) + "\n"));
    let said = place.run(&["status"]);
    lonc.join().unwrap();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(
        said.out,
        "1 link: 1 up; no messages delayed\n\
         PEER   STATE     WIRE                  IN FLIGHT  DONE  DELAYED\n\
         there  up 1 min  classic, not private          2     7  -\n"
    );
}

#[test]
fn status_as_json_is_one_line() {
    let place = Place::new();
    let snapshot = snapshot();
    let lonc = place.listen("lonc.sock", lonc(json(&snapshot) + "\n"));
    let said = place.run(&["status", "--json"]);
    lonc.join().unwrap();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert_eq!(said.out.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Snapshot>(&said.out).unwrap(), snapshot);
}

#[test]
fn without_lonc_the_last_status_file_is_shown_with_its_age_and_the_code_says_so() {
    let place = Place::new();
    let said = place.run(&["status"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("lon: ask ") && said.err.contains("lon: read "), "{}", said.err);

    fs::write(place.path("status/status.json"), json(&snapshot())).unwrap();
    let said = place.run(&["status"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("there  up 0 s"), "as it was then: {}", said.out);
    assert!(
        said.err.ends_with("lon: lonc does not answer: this is what it wrote 1 min ago\n"),
        "{}",
        said.err
    );
}

#[test]
fn an_answer_that_is_no_status_is_an_error() {
    for answer in ["", "nonsense\n", "{}\n"] {
        let place = Place::new();
        let lonc = place.listen("lonc.sock", lonc(answer.to_owned()));
        let said = place.run(&["status"]);
        lonc.join().unwrap();
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{answer:?}");
        assert!(said.err.starts_with("lon: ask "), "{}", said.err);
    }
}
