//! A link child in a thread whose caller speaks the secure wire over a real connection, with a real
//! key.

use super::rig::{PATIENCE, Rig, host, id};
use crate::Reason;
use crate::Suspect;
use crate::ledger::Ledger;
use crate::messages::{FromServe, ToServe};
use crate::reactor::{Accepted, Given, Reactor};
use crate::settings::{Directory, ServeSettings};
use ::wire::flow::{Assembly, Taken};
use ::wire::secure::*;
use base::Key;
use base::Pins;
use base::disk::FolderLock;
use config::{Config, Hosts};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use store::record;
use supervise::control::{self, Channel};
use supervise::own_key::OwnKey;
use supervise::signals::ToldToEnd;

/// Who may call, but for those with keys.
pub(super) fn directory(config: Config) -> Directory {
    let (none, _) = OwnKey::load_again(&config);
    Directory::new(config.into(), &none)
}

pub(super) const EPOCH: &str = "000102030405060708090a0b0c0d0e0f";

/// Keys of both ends, and what the called side is set up with.
pub(super) struct SecureRig {
    pub rig: Rig,
    pub ours: TlsIdentity,
    pub caller: TlsIdentity,
}

/// A caller's end of a link.
pub(super) struct Link {
    pub socket: TcpStream,
    pub tunnel: Tunnel,
    pub supervisor: Channel<ToServe, FromServe>,
    pub child: JoinHandle<Reason>,
    reader: FrameReader,
    assembly: Assembly,
    plain: Vec<u8>,
    next_id: u64,
    pub answers: HashMap<u64, String>,
    /// Frames that are no answers, in short.
    pub saw: Vec<String>,
    /// Gives back what answers cost.
    pub generous: bool,
}

pub(super) fn identity() -> TlsIdentity {
    let dir = tempfile::tempdir().unwrap();
    TlsIdentity::new(&HostKey::make(dir.path()).unwrap()).unwrap()
}

impl SecureRig {
    pub(super) fn new() -> SecureRig {
        let mut rig = Rig::new();
        rig.config.hosts = Hosts::parse(
            &rig.config.hosts_file,
            b"msul1:msu:library:a.example:127.0.0.1\nmsua1:msu:access:b.example:127.0.0.9\n",
        )
        .unwrap();
        SecureRig { rig, ours: identity(), caller: identity() }
    }

    /// A connection whose caller said nothing yet.
    pub(super) fn connect(&self) -> Link {
        self.connect_as(&self.caller)
    }

    pub(super) fn connect_as(&self, caller: &TlsIdentity) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        self.connect_over(caller, socket, stream)
    }

    /// A link between two sockets, the caller's and ours.
    pub(super) fn connect_over(&self, caller: &TlsIdentity, socket: TcpStream, stream: TcpStream) -> Link {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let (ours, theirs) = control::pair().unwrap();
        let (config, deadline) =
            (self.rig.config.clone(), Instant::now() + self.rig.config.lond.opening_timeout);
        let pins = Pins::from_pairs([(id("msua1"), self.caller.pin())]);
        let tunnel = Tunnel::called(&Admission::new(&self.ours, pins).unwrap()).unwrap();
        let settings = Arc::new(ServeSettings::of(&config));
        let directory = Arc::new(directory(config));
        let suspect = Suspect::new(directory.clone(), self.ours.pin(), None);
        let child = std::thread::spawn(move || {
            Reactor::new(
                settings,
                Accepted::Secure { tunnel: Box::new(tunnel), suspect, directory },
                Given {
                    stream,
                    control: theirs,
                    told: ToldToEnd::new().unwrap(),
                    ledger: Ledger::new().unwrap(),
                    confined: crate::confined::Confined::nothing(),
                },
                deadline,
            )
            .unwrap()
            .run()
        });
        Link {
            socket,
            tunnel: Tunnel::caller(caller, &id("msul1"), &[self.ours.pin()]).unwrap(),
            supervisor: Channel::from_fd(ours).unwrap(),
            child,
            reader: FrameReader::new(),
            assembly: Assembly::new(1 << 20),
            plain: Vec::new(),
            next_id: 1,
            answers: HashMap::new(),
            saw: Vec::new(),
            generous: true,
        }
    }

    /// A link whose opening is done.
    pub(super) fn open(&self) -> Link {
        let mut link = self.connect();
        link.shake_hands();
        link.say_hello();
        link
    }

    /// Where the record of the caller is.
    pub(super) fn record_is_free(&self) -> bool {
        let dir = record::folder(&self.rig.config.spool_dir, &host("msua1").id);
        FolderLock::try_acquire(&dir).unwrap().is_some()
    }
}

impl Link {
    pub(super) fn shake_hands(&mut self) {
        while !self.tunnel.established() {
            self.write_out().unwrap();
            self.read_once().unwrap();
        }
        self.write_out().unwrap();
    }

    pub(super) fn say_hello(&mut self) {
        self.send(&hello());
        self.until(|link| link.saw.iter().any(|frame| frame.starts_with("HELLO")));
    }

    /// Sends frames.
    pub(super) fn send(&mut self, frames: &[u8]) {
        self.tunnel.seal(frames).unwrap();
        self.write_out().unwrap();
    }

    pub(super) fn write_out(&mut self) -> io::Result<()> {
        let bytes = self.tunnel.out().bytes().to_vec();
        self.tunnel.out().clear();
        self.socket.write_all(&bytes)
    }

    /// Reads once and takes the frames; how many bytes there were.
    pub(super) fn read_once(&mut self) -> io::Result<usize> {
        let mut buffer = vec![0; 64 * 1024];
        let count = self.socket.read(&mut buffer)?;
        self.tunnel.feed(&buffer[..count], &mut self.plain).map_err(io::Error::other)?;
        self.reader.push(&self.plain);
        self.plain.clear();
        let mut due = 0;
        while let Some(frame) = self.reader.next_frame() {
            let frame = frame.unwrap();
            due += frame.cost();
            match frame {
                Frame::Answer { id, more, body, .. } => {
                    if let Taken::Whole { text, .. } = self.assembly.answer(id, more, body).unwrap() {
                        let text = String::from_utf8_lossy(&text).into_owned();
                        assert!(self.answers.insert(id, text).is_none(), "{id} was answered twice");
                    }
                }
                Frame::Hello(body) => {
                    self.saw.push(format!("HELLO {}", CalledHello::parse(body).unwrap().mark));
                }
                Frame::GoAway { last } => self.saw.push(format!("GOAWAY {last}")),
                Frame::Error(text) => self.saw.push(format!("ERROR {}", String::from_utf8_lossy(text))),
                Frame::Ping(token) => {
                    let mut pong = Vec::new();
                    put_pong(&mut pong, token);
                    self.saw.push("PING".to_owned());
                    self.tunnel.seal(&pong).map_err(io::Error::other)?;
                }
                Frame::Pong(_) => self.saw.push("PONG".to_owned()),
                Frame::Window(_) => {}
                Frame::NotTaken { id, why } => {
                    self.saw.push(format!("NOT_TAKEN {id} {}", String::from_utf8_lossy(why)));
                }
                Frame::Ready(name) => self.saw.push(format!("READY {}", String::from_utf8_lossy(name))),
                Frame::Request { .. } | Frame::Critical { .. } | Frame::Cancel { .. } | Frame::Held(_) => {
                    panic!("not for the called side: {frame:?}")
                }
            }
        }
        if due > 0 && self.generous {
            let mut window = Vec::new();
            put_window(&mut window, u32::try_from(due).unwrap());
            self.tunnel.seal(&window).map_err(io::Error::other)?;
        }
        // A link that ends may be gone already.
        let _ = self.write_out();
        Ok(count)
    }

    /// Reads until it is so; a deadline is in each read.
    pub(super) fn until(&mut self, so: impl Fn(&Link) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            let count = self.read_once().unwrap_or_else(|error| panic!("{error}, saw {:?}", self.saw));
            assert!(count > 0, "the link ended, saw {:?}", self.saw);
            assert!(Instant::now() < deadline);
        }
    }

    /// Reads to the end; all that was seen.
    pub(super) fn rest(&mut self) -> String {
        while self.read_once().is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.saw).join(", ")
    }

    pub(super) fn begin(&mut self, request: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut bytes = Vec::new();
        let mut chunks = request.as_bytes().chunks(MAX_BODY).peekable();
        while let Some(chunk) = chunks.next() {
            put_request(&mut bytes, id, chunks.peek().is_some(), chunk);
        }
        self.send(&bytes);
        id
    }

    pub(super) fn begin_critical(&mut self, sequence: u64, key: Option<&str>, request: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let key = key.map(|key| Key::new(key.as_bytes()).unwrap());
        let head = CriticalHead { sequence, settled: 1, key };
        let mut bytes = Vec::new();
        put_critical(&mut bytes, id, false, Some(&head), request.as_bytes());
        self.send(&bytes);
        id
    }

    pub(super) fn answer(&mut self, id: u64) -> String {
        self.until(|link| link.answers.contains_key(&id));
        self.answers[&id].clone()
    }

    pub(super) fn ask(&mut self, request: &str) -> String {
        let id = self.begin(request);
        self.answer(id)
    }

    pub(super) fn critical(&mut self, sequence: u64, request: &str) -> String {
        let id = self.begin_critical(sequence, None, request);
        self.answer(id)
    }

    /// Waits for the end of the child, which the test has brought about.
    pub(super) fn reason(self) -> Reason {
        self.child.join().unwrap()
    }
}

pub(super) fn hello() -> Vec<u8> {
    let hello = Hello {
        versions: Versions::OURS,
        id: id("msua1"),
        window: 4 << 20,
        max_line: 1 << 20,
        program: "test/1".to_owned(),
    };
    let mut bytes = Vec::new();
    CallerHello { hello, to: id("msul1"), epoch: EPOCH.to_owned() }.put(&mut bytes);
    bytes
}

/// A local program that serves each connection in a thread of its own. `echo:slow...` waits for the
/// test.
pub(super) struct Program {
    pub shared: Arc<Shared>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<ProgramState>,
    changed: Condvar,
}

#[derive(Default)]
struct ProgramState {
    runs: HashMap<String, usize>,
    released: bool,
    ended: bool,
    connections: Vec<UnixStream>,
}

impl Program {
    pub(super) fn start(path: PathBuf) -> Program {
        let listener = UnixListener::bind(&path).unwrap();
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for connection in listener.incoming() {
                let connection = connection.unwrap();
                let mut state = ours.state.lock().unwrap();
                if state.ended {
                    break;
                }
                state.connections.push(connection.try_clone().unwrap());
                drop(state);
                let shared = Arc::clone(&ours);
                threads.push(std::thread::spawn(move || shared.serve(connection)));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Program { shared, path, thread: Some(thread) }
    }

    /// Waits until the program was asked `request`.
    pub(super) fn saw(&self, request: &str) {
        let state = self.shared.state.lock().unwrap();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !state.runs.contains_key(request))
            .unwrap();
        assert!(!waited.1.timed_out(), "{request} was not asked");
    }

    pub(super) fn runs(&self, request: &str) -> usize {
        self.shared.state.lock().unwrap().runs.get(request).copied().unwrap_or(0)
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections.len()
    }

    pub(super) fn release(&self) {
        self.shared.state.lock().unwrap().released = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn serve(&self, connection: UnixStream) {
        let mut writer = connection.try_clone().unwrap();
        let mut reader = BufReader::new(connection);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            let request = line.trim_end_matches('\n').to_owned();
            let mut state = self.state.lock().unwrap();
            *state.runs.entry(request.clone()).or_default() += 1;
            self.changed.notify_all();
            if request.starts_with("echo:slow") {
                state = self.changed.wait_while(state, |state| !state.released && !state.ended).unwrap();
            }
            drop(state);
            if writer.write_all(format!("{}\n", request.trim_start_matches("echo:")).as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        state.ended = true;
        for connection in &state.connections {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
