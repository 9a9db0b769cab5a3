//! What a link child of `lonc` holds in memory, whatever a peer or the programs send: as the system
//! tells it.

use crate::common::fake_lond::{FakeLond, Reply};
use crate::common::frames::{self, Frame};
use crate::common::handler;
use crate::common::local::Local;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER, Pair};
use crate::common::secure_lond::{Opening, Said};
use crate::common::secure_pair::{SecurePair, TwoHosts};
use crate::common::{process, wait};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// All that a link child may ever hold, in KiB.
const MOST: u64 = 64 << 10;

/// The most that the only child has held, in KiB.
fn peak(lonc: &crate::common::program::Program) -> u64 {
    let most = process::peak_memory(lonc.only_child()).expect("the child lives");
    // For who runs it at scale, with the output shown.
    println!("at most {most} KiB");
    most
}

#[test]
fn a_peer_that_floods_its_caller_with_pings_and_reads_nothing_costs_it_no_memory() {
    let pair = SecurePair::prepare(
        |_| {},
        |fake| {
            fake.open_with(Opening::Deaf);
            fake.listen();
        },
    );
    pair.host.wait_link("msul1", "up");
    let child = pair.lonc.only_child();
    let before = process::memory(child).expect("the child lives");
    // 20 MiB of PONGs, if each PING had one.
    let batch: Vec<Frame> =
        (0..20_000_u64).map(|token| Frame::new(frames::PING, 0, token.to_be_bytes())).collect();
    for _ in 0..50 {
        pair.fake.say_all(&batch);
    }
    let after = peak(&pair.lonc);
    assert!(after < before + (8 << 10), "{before} KiB, then {after} KiB");
    // Once the peer reads, the newest PING is answered, and requests pass.
    pair.fake.open_with(Opening::Serve);
    assert_eq!(pair.ask("ping"), "msul1");
    let newest = 19_999_u64.to_be_bytes();
    let pongs = wait::until("the newest PING to be answered", || {
        let pongs = pair.fake.control(frames::PONG);
        pongs.last().is_some_and(|pong| pong.body == newest).then_some(pongs)
    });
    assert!(pongs.len() < 1000, "{} PONGs", pongs.len());
    assert_eq!(pair.lonc.only_child(), child);
}

#[test]
fn answers_that_a_peer_begins_and_never_ends_cost_its_caller_a_window_at_most() {
    let pair = SecurePair::up();
    let child = pair.lonc.only_child();
    // Ids that were answered long ago.
    let mut client = pair.host.connect("msul1");
    for number in 0..2000 {
        assert_eq!(client.ask(&format!("echo:{number}")), format!("echo:{number}"));
    }
    let chunk = |id: u64| Frame { flags: frames::MORE, ..Frame::new(frames::ANSWER, id, vec![b'x'; 16_384]) };
    // As the window allows, which is given back since nothing is kept; the PONG says that all have
    // come.
    let chunks: Vec<Frame> = (1..=2000).map(chunk).collect();
    pair.fake.queue_all(&chunks);
    pair.fake.queue_all(&[Frame::new(frames::PING, 0, "all came")]);
    wait::until_true("the last chunk to be taken", || !pair.fake.control(frames::PONG).is_empty());
    let after = peak(&pair.lonc);
    assert!(after < MOST / 2, "{after} KiB for answers to nobody");
    assert_eq!(client.ask("echo:after"), "echo:after");

    // To ids that are open the window bounds it: beyond it the link ends.
    pair.fake.answer_with(|asked, _| match asked.request.starts_with(b"open:") {
        true => Said::Nothing,
        false => Said::Answer(asked.request.clone()),
    });
    let first = pair.fake.asked().len() as u64 + 1;
    client.send("open:\n".repeat(1000).as_bytes());
    pair.fake.wait_received("open:", 1000);
    let batch: Vec<Frame> = (first..first + 1000).map(chunk).collect();
    pair.fake.say_all(&batch);
    assert_eq!(client.answer(), "con_lost");
    assert!(
        pair.host.log("lonc.log").contains("an answer beyond the window"),
        "{}",
        pair.host.log("lonc.log")
    );
    assert!(peak(&pair.lonc) < MOST / 2);
    assert_eq!(pair.lonc.only_child(), child);
}

/// `lonc` under a bound on its address space, and a fake peer that listens.
fn pair_under(address_space: &str, configure: impl FnOnce(&mut Host)) -> Pair {
    let network = Network::new(&[CALLER, CALLED]);
    let mut host = network.host(CALLER);
    configure(&mut host);
    let fake = FakeLond::start(CALLED, CALLER, network.address(CALLED));
    let program = host.command("lonc");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {address_space}; exec \"$0\" \"$@\"")]);
    command.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    let lonc = host.start(command, "lonc");
    Pair { lonc, fake, host, network }
}

fn drop_in(host: &Host, name: &str, text: &[u8]) {
    let folder = host.dir.join("delayed");
    fs::create_dir_all(&folder).expect("make the folder");
    fs::write(folder.join(name), text).expect("drop a file in");
}

#[test]
fn a_thousand_dropped_files_and_a_large_one_cost_a_new_child_no_more_memory_than_ten() {
    let peak_with = |files: usize, large: usize| {
        let pair = pair_under("unlimited", |host| {
            for number in 0..files {
                drop_in(host, &format!("{number:06}.msul1"), format!("log:{number}\n").as_bytes());
            }
            drop_in(host, "large.msul1", format!("log:{}\n", "x".repeat(large)).as_bytes());
        });
        pair.fake.wait_received("log:", files + 1);
        peak(&pair.lonc)
    };
    let (few, many) = (peak_with(10, 100), peak_with(wait::figure(2000, 100_000), 100));
    assert!(many < few + (4 << 10), "{few} KiB for ten, {many} KiB for thousands");
    let large = peak_with(500, 10 << 20);
    assert!(large < MOST, "{large} KiB with one of 10 MiB among them");
}

#[test]
fn hundreds_of_dropped_files_are_taken_in_under_a_bound_on_the_address_space() {
    let pair = pair_under("1048576", |host| {
        for number in 0..300 {
            drop_in(host, &format!("{number:06}.msul1"), format!("log:{number}\n").as_bytes());
        }
    });
    let child = pair.lonc.only_child();
    pair.fake.wait_received("log:", 300);
    pair.host.wait_link(CALLED, "up");
    assert_eq!(pair.lonc.only_child(), child, "it ended:\n{}", pair.host.log("lonc.log"));
}

/// As many files open in this process as the system lets it have.
fn many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raise the limit of open files");
}

/// Sends what the broker takes just now; how much that is.
fn send_what_is_taken(stream: &mut UnixStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // There may be more of them than one user has a right to: the idlest go.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return sent,
            Err(error) => panic!("send: {error}"),
        }
    }
    sent
}

#[test]
fn hundreds_of_lines_without_an_end_take_a_bounded_memory_and_others_are_served() {
    many_files();
    let pair = Pair::up();
    let child = pair.lonc.only_child();
    let text = vec![b'x'; 1 << 20];
    let mut streams: Vec<UnixStream> = (0..wait::figure(500, 4000))
        .map(|_| {
            let stream = UnixStream::connect(pair.host.socket(CALLED)).expect("connect");
            stream.set_nonblocking(true).expect("a socket that does not wait");
            stream
        })
        .collect();
    for round in 0..5 {
        for stream in &mut streams {
            send_what_is_taken(stream, &text);
        }
        assert_eq!(pair.ask(&format!("echo:{round}")), format!("echo:{round}"));
    }
    let memory = peak(&pair.lonc);
    assert!(memory < MOST, "{memory} KiB");
    assert_eq!(pair.lonc.only_child(), child);
}

#[test]
fn a_long_line_has_its_turn_when_those_who_began_one_and_fell_silent_are_given_up_which_is_said_once() {
    let pair = Pair::up();
    let text = vec![b'x'; (1 << 20) - 1];
    let mut silent: Vec<_> = (0..12).map(|_| (pair.host.connect(CALLED).writer(), 0)).collect();
    for (stream, _) in &silent {
        stream.set_nonblocking(true).expect("a socket that does not wait");
    }
    // Each begins a line of the longest and is silent then; all of them together have no room.
    let said = || pair.host.log("lonc.log").lines().filter(|line| line.contains("began a long line")).count();
    wait::until_true("the first to be given up", || {
        for (stream, sent) in &mut silent {
            // One that was given up takes no more.
            if let Ok(count) = stream.write(&text[*sent..]) {
                *sent += count;
            }
        }
        said() > 0
    });
    let long = format!("echo:{}", "y".repeat(500_000));
    assert!(pair.ask(&long) == long, "another answer");
    assert_eq!(said(), 1, "it is said once:\n{}", pair.host.log("lonc.log"));
}

#[test]
fn idle_connections_without_number_keep_nobody_from_the_peer_and_that_is_said_once() {
    many_files();
    let pair = Pair::up();
    let mut busy = pair.host.connect(CALLED);
    let gate = wait::Gate::default();
    let waits = gate.clone();
    pair.fake.answer_with(move |seen| {
        if seen.request == b"echo:slow" {
            waits.pass();
        }
        Reply::Line(seen.request.clone())
    });
    busy.send(b"echo:slow\n");
    pair.fake.wait_received("echo:slow", 1);
    let mut idle = Vec::new();
    for _ in 0..5000 {
        idle.push(UnixStream::connect(pair.host.socket(CALLED)).expect("connect"));
    }
    let mut late = pair.host.connect(CALLED);
    late.send(b"echo:late\n");
    gate.open();
    assert_eq!((busy.answer(), late.answer()), ("echo:slow".to_owned(), "echo:late".to_owned()));
    let closed = idle.iter_mut().take(100).all(|stream| matches!(stream.read(&mut [0]), Ok(0)));
    assert!(closed, "those that were idle for longest are given up");
    let log = pair.host.log("lonc.log");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("too many programs")).collect();
    assert_eq!(lines.len(), 1, "it is said once: {lines:?}");
    assert!(peak(&pair.lonc) < MOST);
}

#[test]
fn answers_that_nobody_reads_take_a_bounded_memory_and_others_get_theirs() {
    let pair = SecurePair::up();
    let child = pair.lonc.only_child();
    pair.fake.answer_with(|asked, _| match asked.request.as_slice() {
        b"big" => Said::Answer(vec![b'x'; 1_000_000]),
        request => Said::Answer(request.to_vec()),
    });
    let mut deaf: Vec<_> = (0..50).map(|_| pair.host.connect(CALLED)).collect();
    for program in &mut deaf {
        program.send(b"big\nbig\n");
    }
    for number in 0..20 {
        assert_eq!(pair.ask(&format!("echo:{number}")), format!("echo:{number}"));
    }
    assert_eq!(pair.ask("big").len(), 1_000_000);
    let memory = peak(&pair.lonc);
    assert!(memory < MOST, "{memory} KiB");
    let log = pair.host.log("lonc.log");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("does not read its answers")).collect();
    assert_eq!(lines.len(), 1, "it is said once: {lines:?}");
    assert_eq!(pair.lonc.only_child(), child);
}

#[test]
fn long_lines_of_many_programs_at_once_wait_their_turn_under_a_bound_on_the_address_space() {
    const LONG: usize = 15 << 20;
    let pair = pair_under("204800", |host| {
        host.set("lonc", "max_line", "\"16MiB\"");
    });
    pair.host.wait_link(CALLED, "up");
    let child = pair.lonc.only_child();
    let socket = pair.host.socket(CALLED);
    let line = format!("echo:{}", "x".repeat(LONG));
    std::thread::scope(|scope| {
        for _ in 0..wait::figure(20, 30) {
            scope.spawn(|| assert!(Local::connect(&socket).ask(&line) == line, "another answer"));
        }
    });
    assert_eq!(pair.lonc.only_child(), child, "it ended:\n{}", pair.host.log("lonc.log"));
}

#[test]
fn programs_that_are_done_with_long_lines_leave_no_memory_behind() {
    let pair = Pair::up();
    let long = format!("echo:{}", "x".repeat(300_000));
    let mut programs: Vec<_> = (0..300).map(|_| pair.host.connect(CALLED)).collect();
    for program in &mut programs {
        assert!(program.ask(&long) == long);
    }
    let memory = process::memory(pair.lonc.only_child()).expect("the child lives");
    assert!(memory < MOST / 2, "{memory} KiB for programs that have nothing under way");
}

#[test]
fn the_longest_messages_that_are_stored_are_sent_at_once_and_one_by_one() {
    // A spool takes 16 MiB with the words before the request.
    const LONG: usize = (16 << 20) - 100;
    const MESSAGES: usize = 3;
    let mut both = TwoHosts::new();
    both.one.set("lonc", "max_line", "\"16MiB\"");
    both.other.set("lond", "max_line", "\"16MiB\"");
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let noted = lengths.clone();
    let _handler = handler::Program::start(&both.other.handler("long"), move |line| {
        noted.lock().expect("lengths").push(line.len());
        Some(if line.starts_with(b"long:echo") { line.to_vec() } else { b"ok".to_vec() })
    });
    let lonc = both.one.lonc();
    for number in 0..MESSAGES {
        let request = format!("critical:long:{number} {}", "x".repeat(LONG));
        assert_eq!(both.one.ask(CALLED, &request), "con_delayed");
    }
    let storing = peak(&lonc);
    // A child of its own, so that what it holds is for sending alone.
    assert!(lonc.stop().success());
    let (lond, lonc) = (both.other.lond(), both.one.lonc());
    both.one.wait_delivered(CALLED);
    assert_eq!(*lengths.lock().expect("lengths"), [LONG + "long:0 ".len(); MESSAGES]);
    let (sending, taking) = (peak(&lonc), peak(&lond));
    let most = [storing, sending, taking];
    assert!(most.iter().all(|memory| *memory < MOST), "{most:?} KiB: storing, sending, taking");
    // The other way a line as long goes through as soon as it is read.
    let request = format!("long:echo {}", "x".repeat(LONG));
    assert!(both.one.ask(CALLED, &request) == request, "another answer");
}
