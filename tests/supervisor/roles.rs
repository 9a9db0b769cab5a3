//! What a process of the test program is when it is not the tests: a supervisor with simple
//! children.

use clap::Parser;
use jiff::Timestamp;
use lonnet::base::{HostId, WireKind};
use lonnet::config::{Config, ConfigErrors};
use lonnet::lonc::entry::Seed as LinkSeed;
use lonnet::lonc::messages::{FromLink, ToLink};
use lonnet::lond::entry::Seed as ServeSeed;
use lonnet::lond::messages::{FromServe, ToServe};
use lonnet::status::{LinkState, PeerStatus};
use lonnet::supervise::control::Channel;
use lonnet::supervise::inheritance::{Common, Inherited};
use lonnet::supervise::lock::PidLock;
use lonnet::supervise::signals::{Signal, Signals};
use lonnet::supervise::startup::{self, Arguments, Rights, Start};
use lonnet::supervise::title;
use lonnet::{lonc, lond};
use mio::{Events, Interest, Poll, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long a child hangs that was told to.
const HANG: Duration = Duration::from_secs(60);

/// Plays a role until it ends.
pub fn play(role: &str) -> ExitCode {
    match role {
        "lonc" => startup::main("lonc", |start| lonc::supervisor::serve(start, link)),
        "lond" => startup::main("lond", |start| lond::supervisor::serve(start, serve)),
        "greeted" => greeted(),
        "lonc that panics" => panicking("lonc", |start| lonc::supervisor::serve(start, link)),
        "lond that panics" => panicking("lond", |start| lond::supervisor::serve(start, serve)),
        // Versions of `lonc` that HUP must not start.
        "reads another form" => startup::main("lonc", |_: &mut Start<AnotherForm>| unreachable("serve")),
        "panics" => startup::main("lonc", |_: &mut Start<Panics>| unreachable("serve")),
        "lonc that crashes" => {
            crash_soon();
            startup::main("lonc", |start| lonc::supervisor::serve(start, link))
        }
        "lond that crashes" => {
            crash_soon();
            startup::main("lond", |start| lond::supervisor::serve(start, serve))
        }
        other => panic!("no such role: {other}"),
    }
}

/// A supervisor that panics when it is to reload and a file `panic` lies beside its configuration.
fn panicking<L: Inherited, E: Display>(
    program: &'static str,
    serve: impl FnOnce(&mut Start<L>) -> Result<(), E>,
) -> ExitCode {
    fn load(file: &Path) -> Result<Config, ConfigErrors> {
        assert!(!file.with_file_name("panic").exists(), "on purpose, in a supervisor");
        Config::load(file)
    }
    title::init(program);
    let mut start = startup::begin(program, Rights::GivenUp, &Arguments::parse(), load).unwrap();
    startup::finish(&mut start, serve)
}

/// Within the first second, but after the start.
fn crash_soon() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(400));
        std::process::abort()
    });
}

fn unreachable(what: &str) -> Result<(), String> {
    Err(format!("a start on trial does not {what}"))
}

/// What a later version may want to be left.
#[derive(Deserialize)]
struct AnotherForm {
    common: Common,
    #[expect(dead_code, reason = "no program leaves it")]
    moons: u32,
}

impl Inherited for AnotherForm {
    fn common(&self) -> &Common {
        &self.common
    }
}

#[derive(Deserialize)]
struct Panics {}

impl Inherited for Panics {
    fn common(&self) -> &Common {
        panic!("on purpose, in a trial")
    }
}

/// A link child that does what its clients say, one request a connection.
fn link(seed: LinkSeed) -> ! {
    let peer = seed.settings.peer.host.id.clone();
    title::set(&format!("{peer} up"));
    let mut control: Channel<FromLink, ToLink> = Channel::from_fd(seed.control).unwrap().taking_descriptors();
    let mut poll = Poll::new().unwrap();
    let mut listener = mio::net::UnixListener::from_std(seed.listener);
    poll.registry().register(&mut listener, Token(0), Interest::READABLE).unwrap();
    poll.registry().register(&mut control, Token(1), Interest::READABLE).unwrap();
    let (since, mut probes, mut files) = (Timestamp::now(), 0, 0);
    let mut events = Events::with_capacity(8);
    let status = |probes: u32, files: u32| PeerStatus {
        pid: std::process::id(),
        state: LinkState::Up,
        doing: format!("up, {probes} probes, {files} files"),
        last_log: lonnet::base::logging::last_line(),
        ..PeerStatus::starting(peer.clone(), WireKind::Classic, since)
    };
    let say = |control: &mut Channel<FromLink, ToLink>, report, probes, files| {
        control.send(&FromLink::Status { report, status: Box::new(status(probes, files)) }).unwrap();
    };
    say(&mut control, None, probes, files);
    loop {
        while let Ok((stream, _)) = listener.accept() {
            let stream = UnixStream::from(std::os::fd::OwnedFd::from(stream));
            stream.set_nonblocking(false).unwrap();
            obey(stream, &mut |question| ask(&mut control, question));
        }
        let received = control.receive(&mut [0; 4096]).unwrap();
        for message in received.messages {
            match message {
                ToLink::Drain | ToLink::HandOver => std::process::exit(0),
                ToLink::Probe => probes += 1,
                ToLink::TakeIn => files += 1,
                ToLink::Listen => {
                    let next = UnixListener::from(control.take_descriptor().unwrap());
                    poll.registry().deregister(&mut listener).unwrap();
                    listener = mio::net::UnixListener::from_std(next);
                    poll.registry().register(&mut listener, Token(0), Interest::READABLE).unwrap();
                }
                ToLink::LogAnew => lonnet::base::logging::follow(),
                ToLink::Report(_)
                | ToLink::Pins(_)
                | ToLink::Addresses { .. }
                | ToLink::Begun { .. }
                | ToLink::NotBegun { .. } => {}
            }
            let report = if let ToLink::Report(number) = message { Some(number) } else { None };
            say(&mut control, report, probes, files);
        }
        if received.closed {
            std::process::exit(0);
        }
        poll.poll(&mut events, None).unwrap();
    }
}

/// Asks the supervisor something for a dial; what it answers, in words. Of anything else that it
/// says meanwhile nothing is heard.
fn ask(control: &mut Channel<FromLink, ToLink>, question: FromLink) -> String {
    control.send(&question).unwrap();
    loop {
        let received = control.receive(&mut [0; 4096]).unwrap();
        for message in received.messages {
            match message {
                ToLink::Addresses { number, answer } => return format!("{number}: {answer:?}"),
                ToLink::NotBegun { attempt, why } => return format!("{attempt}: {why}"),
                ToLink::Begun { attempt } => {
                    let socket = TcpStream::from(control.take_descriptor().unwrap());
                    // There is none before the other side has answered.
                    let to = socket.peer_addr().map_or_else(|error| error.to_string(), |to| to.to_string());
                    return format!("{attempt}: to {to}");
                }
                _ => {}
            }
        }
        wait_readable(control);
    }
}

fn wait_readable(control: &Channel<FromLink, ToLink>) {
    let mut waits = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
    poll(&mut waits, PollTimeout::NONE).unwrap();
}

/// `dial NUMBER ATTEMPT PLACE`: the addresses of the peer, and a connection to the one at that
/// place of the answer of that number. `flood COUNT`: so often the addresses; how often there were
/// some.
fn dial(words: &[&str], ask: &mut dyn FnMut(FromLink) -> String) -> String {
    let number = |place: usize| words[place].parse::<u64>().unwrap();
    match words[0] {
        "flood" => {
            let answers = (0..number(1)).map(|number| ask(FromLink::LookUp { number }));
            answers.filter(|answer| answer.contains("Ok(")).count().to_string()
        }
        _ => {
            let addresses = ask(FromLink::LookUp { number: 1 });
            let place = number(3) as usize;
            let connection = ask(FromLink::Connect { attempt: number(2), number: number(1), place });
            format!("{addresses}, {connection}")
        }
    }
}

fn obey(mut stream: UnixStream, ask: &mut dyn FnMut(FromLink) -> String) {
    let mut line = String::new();
    if BufReader::new(&stream).read_line(&mut line).is_err() {
        return;
    }
    let answer = match line.trim_end() {
        "pid" => std::process::id().to_string(),
        "files" => open_files(),
        "signals" => std::fs::read_to_string("/proc/self/status").unwrap(),
        words if words.starts_with("dial ") || words.starts_with("flood ") => {
            dial(&words.split(' ').collect::<Vec<_>>(), ask)
        }
        "die" => std::process::exit(3),
        "end" => std::process::exit(0),
        "panic" => panic!("told to panic"),
        // Until killed; but should the test fail, not for ever.
        "hang" => {
            stream.write_all(b"hanging").unwrap();
            std::thread::park_timeout(HANG);
            std::process::exit(4)
        }
        other => format!("what is {other:?}?"),
    };
    // The client may be gone.
    let _ = stream.write_all(answer.replace('\n', "|").as_bytes());
}

fn open_files() -> String {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let target = std::fs::read_link(entry.path()).ok()?;
        Some(format!("{} {}", entry.file_name().display(), target.display()))
    });
    links.collect::<Vec<_>>().join("\n")
}

/// A link child of `lond`: its caller says as whom it opens, and with which pin on the secure wire
/// (`h2`, or `h2 sha256:...`), or that it is to be turned away (`refuse <why>`). `ping` is
/// answered; after `stay` it does not end when it is told to; `spoke` has it tell that its caller
/// has said something.
fn serve(seed: ServeSeed) -> ! {
    let name = seed.caller.as_ref().map_or("?".to_owned(), ToString::to_string);
    title::set(&format!("{name} serving"));
    let mut control: Channel<FromServe, ToServe> = Channel::from_fd(seed.control).unwrap();
    let mut poll = Poll::new().unwrap();
    let mut stream = mio::net::TcpStream::from_std(seed.stream);
    poll.registry().register(&mut stream, Token(0), Interest::READABLE).unwrap();
    poll.registry().register(&mut control, Token(1), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(8);
    stream.write_all(format!("{name} {}\n", std::process::id()).as_bytes()).unwrap();
    let (mut scratch, mut stays) = ([0; 4096], false);
    loop {
        let received = control.receive(&mut scratch).unwrap();
        for message in &received.messages {
            let word = match message {
                ToServe::LogAnew => {
                    lonnet::base::logging::follow();
                    continue;
                }
                ToServe::Rights(_) => continue,
                ToServe::Listen | ToServe::EndWithin(_) => continue,
                ToServe::Drain | ToServe::Replaced if stays => continue,
                ToServe::Drain => "drained",
                ToServe::Replaced => "replaced",
            };
            let _ = stream.write_all(word.as_bytes());
            std::process::exit(0);
        }
        if received.closed {
            std::process::exit(0);
        }
        match stream.read(&mut scratch) {
            Ok(0) => std::process::exit(0),
            Ok(count) => {
                let said = String::from_utf8_lossy(&scratch[..count]).trim().to_owned();
                match said.split_once(' ') {
                    None if said == "panic" => panic!("told to panic"),
                    None if said == "ping" => stream.write_all(b"pong").unwrap(),
                    None if said == "spoke" => control.send(&FromServe::Spoke).unwrap(),
                    // As one does that still has something to answer.
                    None if said == "stay" => {
                        stays = true;
                        stream.write_all(b"stays").unwrap();
                    }
                    Some(("refuse", why)) => {
                        control.send(&FromServe::Refused { why: why.to_owned(), key: None }).unwrap();
                        std::process::exit(0);
                    }
                    Some((caller, pin)) => control.send(&opened(caller, Some(pin))).unwrap(),
                    None => control.send(&opened(&said, None)).unwrap(),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                poll.poll(&mut events, None).unwrap()
            }
            Err(_) => std::process::exit(0),
        }
    }
}

fn opened(caller: &str, pin: Option<&str>) -> FromServe {
    let wire = if pin.is_some() { WireKind::Secure } else { WireKind::Classic };
    FromServe::Opened {
        caller: HostId::new(caller).unwrap(),
        pin: pin.map(str::to_owned),
        own_pin: None,
        sandbox: None,
        wire,
    }
}

/// Stands in for `lonc` before `lond`: has its pid file and notes each USR1 in a file.
fn greeted() -> ExitCode {
    let run = PathBuf::from(std::env::var("LONNET_TEST_RUN").unwrap());
    let mut lock = PidLock::take(&run.join("lonc.pid")).unwrap();
    let mut signals = Signals::new().unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut signals, Token(0), Interest::READABLE).unwrap();
    lock.write_pid().unwrap();
    let mut events = Events::with_capacity(8);
    let mut noted = std::fs::File::create(run.join("greetings")).unwrap();
    loop {
        // A signal may interrupt the wait.
        let _ = poll.poll(&mut events, None);
        for signal in signals.pending() {
            match signal {
                Signal::Probe => noted.write_all(b"probe\n").unwrap(),
                Signal::Stop | Signal::Quit => return ExitCode::SUCCESS,
                Signal::Child | Signal::Restart => {}
            }
        }
    }
}
