//! An independent `lond` of the secure wire with a script: well-behaved, or wrong in one chosen
//! way.
//!
//! Serves each connection in a thread of its own. Answers go out as they are given, in any order.
//! It remembers the answers to critical messages as the wire asks for, so that a repeat is answered
//! and not run again.

use super::frames::{self, Frame, Head, Hello};
use super::keys::Key;
use super::secure_link::{self, Reader, Writer};
use super::wait;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Bytes that callers may send ahead.
pub const WINDOW: u64 = 4 << 20;

/// A request as it was received, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Number of the connection, counted from 1.
    pub connection: usize,
    /// Its number on the link.
    pub id: u64,
    /// Of a critical one.
    pub head: Option<Head>,
    /// What is asked.
    pub request: Vec<u8>,
}

impl Asked {
    /// The request as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.request).into_owned()
    }
}

/// What a request is answered with.
pub enum Said {
    /// This.
    Answer(Vec<u8>),
    /// Nothing, or later, by its [`Answerer`].
    Nothing,
    /// The connection is cut.
    Cut,
}

/// Answers one request, whenever that is; a copy may go to any thread.
#[derive(Clone)]
pub struct Answerer {
    writer: Writer,
    id: u64,
    taken: u64,
}

impl Answerer {
    /// Gives the answer, and the bytes of the request back.
    pub fn answer(&self, text: &[u8]) {
        // The other side may be gone; then nobody waits.
        let _ = self.writer.queue(Frame::message(frames::ANSWER, self.id, text));
        let _ = self.writer.give_back(self.taken);
    }
}

type Script = dyn Fn(&Asked, &Answerer) -> Said + Send + Sync;

/// What the listener keeps of one caller.
#[derive(Default)]
struct Record {
    epoch: String,
    answers: BTreeMap<u64, Vec<u8>>,
    keys: HashMap<String, Vec<u8>>,
}

/// What is done with a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The whole conversation.
    Serve,
    /// TCP only, then silence.
    SilentTcp,
    /// TLS, then silence instead of HELLO.
    SilentTls,
    /// The whole conversation, but nothing is ever said after HELLO: no answer, no PONG.
    Mute,
    /// The whole conversation until HELLO, then nothing is read any more.
    Deaf,
}

struct Inner {
    id: String,
    key: Mutex<Key>,
    opening: Mutex<Opening>,
    hello: Mutex<Vec<(String, String)>>,
    script: Mutex<Arc<Script>>,
    hellos: Mutex<Vec<Hello>>,
    pins: Mutex<Vec<String>>,
    asked: Mutex<Vec<Asked>>,
    ran: Mutex<Vec<Asked>>,
    repeats: AtomicU64,
    control: Mutex<Vec<Frame>>,
    failures: Mutex<Vec<String>>,
    record: Mutex<Record>,
    connections: AtomicUsize,
    live: Mutex<HashMap<usize, (TcpStream, Option<Writer>)>>,
    stopping: AtomicBool,
}

/// The listener; closed, with all its connections, when dropped.
pub struct SecureLond {
    address: SocketAddr,
    inner: Arc<Inner>,
    running: Option<(TcpListener, JoinHandle<()>)>,
}

impl SecureLond {
    /// One that does not listen yet.
    pub fn away(id: &str, key: Key, address: SocketAddr) -> SecureLond {
        let own_id = id.to_owned();
        let inner = Inner {
            id: id.to_owned(),
            key: Mutex::new(key),
            opening: Mutex::new(Opening::Serve),
            hello: Mutex::default(),
            script: Mutex::new(Arc::new(move |asked: &Asked, _: &Answerer| {
                Said::Answer(well_behaved(&own_id, asked))
            })),
            hellos: Mutex::default(),
            pins: Mutex::default(),
            asked: Mutex::default(),
            ran: Mutex::default(),
            repeats: AtomicU64::new(0),
            control: Mutex::default(),
            failures: Mutex::default(),
            record: Mutex::default(),
            connections: AtomicUsize::new(0),
            live: Mutex::default(),
            stopping: AtomicBool::new(false),
        };
        SecureLond { address, inner: Arc::new(inner), running: None }
    }

    /// From now on, requests are answered by `script`.
    pub fn answer_with(&self, script: impl Fn(&Asked, &Answerer) -> Said + Send + Sync + 'static) {
        *self.inner.script.lock().expect("script") = Arc::new(script);
    }

    /// From now on, connections are met like this.
    pub fn open_with(&self, opening: Opening) {
        *self.inner.opening.lock().expect("opening") = opening;
    }

    /// From now on, this line of its HELLO says something else, or is one more.
    pub fn say_in_hello(&self, name: &str, value: &str) {
        self.inner.hello.lock().expect("hello").push((name.to_owned(), value.to_owned()));
    }

    /// From now on, it shows another key.
    pub fn show(&self, key: Key) {
        *self.inner.key.lock().expect("key") = key;
    }

    /// Forgets what it answered, as if the folder of its record had been removed.
    pub fn forget(&self) {
        *self.inner.record.lock().expect("record") = Record::default();
    }

    /// Listens (again).
    pub fn listen(&mut self) {
        assert!(self.running.is_none(), "it listens already");
        self.inner.stopping.store(false, Ordering::SeqCst);
        // A program that another test is just starting may have a copy of the listener of before.
        let listener = wait::until("the address to be free", || TcpListener::bind(self.address).ok());
        let (accepting, inner) = (listener.try_clone().expect("clone a listener"), self.inner.clone());
        let thread = std::thread::spawn(move || accept(&accepting, &inner));
        self.running = Some((listener, thread));
    }

    /// Goes away: the listener and every connection are closed.
    pub fn stop(&mut self) {
        let Some((listener, thread)) = self.running.take() else { return };
        self.inner.stopping.store(true, Ordering::SeqCst);
        // Shutting a listening socket down is what wakes a thread that accepts on it.
        let _ = nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let _ = thread.join();
        self.cut();
    }

    /// Cuts every connection; the listener stays.
    pub fn cut(&self) {
        for (tcp, _) in self.inner.live.lock().expect("live").values() {
            let _ = tcp.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Says this on every link.
    pub fn say(&self, frame: &Frame) {
        for writer in self.inner.live.lock().expect("live").values().filter_map(|(_, writer)| writer.as_ref())
        {
            let _ = writer.frame(frame);
        }
    }

    /// Says these on every link, in one write, whatever the windows say.
    pub fn say_all(&self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        for writer in self.inner.live.lock().expect("live").values().filter_map(|(_, writer)| writer.as_ref())
        {
            let _ = writer.send(&bytes);
        }
    }

    /// Says these on every link, in their order, as the windows allow.
    pub fn queue_all(&self, frames: &[Frame]) {
        for writer in self.inner.live.lock().expect("live").values().filter_map(|(_, writer)| writer.as_ref())
        {
            let _ = writer.queue(frames.iter().cloned());
        }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::SeqCst)
    }

    /// Every HELLO received.
    pub fn hellos(&self) -> Vec<Hello> {
        self.inner.hellos.lock().expect("hellos").clone()
    }

    /// The pins of the keys that called.
    pub fn pins(&self) -> Vec<String> {
        self.inner.pins.lock().expect("pins").clone()
    }

    /// Requests received so far, whole ones, repeats too.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().expect("asked").clone()
    }

    /// Requests run so far: asked, and not answered from the record.
    pub fn ran(&self) -> Vec<Asked> {
        self.inner.ran.lock().expect("ran").clone()
    }

    /// Requests run so far that begin with `prefix`, as text.
    pub fn received(&self, prefix: &str) -> Vec<String> {
        self.ran().iter().map(Asked::text).filter(|text| text.starts_with(prefix)).collect()
    }

    /// Repeats that were answered from the record.
    pub fn repeats(&self) -> u64 {
        self.inner.repeats.load(Ordering::SeqCst)
    }

    /// Frames received that are neither HELLO nor requests.
    pub fn control(&self, kind: u8) -> Vec<Frame> {
        self.inner
            .control
            .lock()
            .expect("control")
            .iter()
            .filter(|frame| frame.kind == kind)
            .cloned()
            .collect()
    }

    /// Why connections failed, as far as the TLS library says.
    pub fn failures(&self) -> Vec<String> {
        self.inner.failures.lock().expect("failures").clone()
    }

    /// Waits until requests run that begin with `prefix` are at least this many, and gives them.
    pub fn wait_received(&self, prefix: &str, count: usize) -> Vec<String> {
        wait::until(&format!("{count} requests {prefix}..."), || {
            let found = self.received(prefix);
            (found.len() >= count).then_some(found)
        })
    }
}

impl Drop for SecureLond {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a lond that is right answers.
pub fn well_behaved(id: &str, asked: &Asked) -> Vec<u8> {
    match asked.request.as_slice() {
        b"ping" => id.into(),
        request if request.starts_with(b"echo:") => request.to_vec(),
        request if request.starts_with(b"log:") => b"ok".to_vec(),
        request if request.starts_with(b"refuse:") => b"refused".to_vec(),
        _ => b"unknown_cmd".to_vec(),
    }
}

fn accept(listener: &TcpListener, inner: &Arc<Inner>) {
    while let Ok((tcp, _)) = listener.accept() {
        if inner.stopping.load(Ordering::SeqCst) {
            return;
        }
        let number = inner.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let handle = tcp.try_clone().expect("clone a connection");
        inner.live.lock().expect("live").insert(number, (handle, None));
        let inner = inner.clone();
        std::thread::spawn(move || {
            let kept = tcp.try_clone().expect("clone a connection");
            if let Err(error) = serve(tcp, number, &inner) {
                inner.failures.lock().expect("failures").push(error.to_string());
            }
            let _ = kept.shutdown(std::net::Shutdown::Both);
            inner.live.lock().expect("live").remove(&number);
        });
    }
}

fn serve(tcp: TcpStream, number: usize, inner: &Inner) -> io::Result<()> {
    let opening = *inner.opening.lock().expect("opening");
    if opening == Opening::SilentTcp {
        return until_the_end(&tcp);
    }
    let config = Arc::new(inner.key.lock().expect("key").listener());
    let raw = tcp.try_clone()?;
    let (mut reader, writer) = secure_link::accept(tcp, config)?;
    inner.pins.lock().expect("pins").push(reader.peer_pin());
    if opening == Opening::SilentTls {
        return until_the_end(&raw);
    }
    let Some(first) = reader.frame()? else { return Ok(()) };
    let theirs = frames::read_hello(&first);
    inner.hellos.lock().expect("hellos").push(theirs.clone());
    let mut ours = Hello::from(
        [("versions", "1-1"), ("mark", "0"), ("max_line", "1048576"), ("program", "test/1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    ours.insert("id".to_owned(), inner.id.clone());
    ours.insert("window".to_owned(), WINDOW.to_string());
    ours.extend(inner.hello.lock().expect("hello").iter().cloned());
    writer.frame(&frames::hello(&ours))?;
    {
        let mut record = inner.record.lock().expect("record");
        if record.epoch != theirs["epoch"] {
            record.epoch = theirs["epoch"].clone();
            record.answers.clear();
        }
    }
    writer.allow(theirs["window"].parse().expect("a window"))?;
    if let Some(live) = inner.live.lock().expect("live").get_mut(&number) {
        live.1 = Some(writer.clone());
    }
    match opening {
        Opening::Serve => talk(&mut reader, &writer, number, inner),
        Opening::Mute => until_the_end(&raw),
        Opening::SilentTcp | Opening::SilentTls => Ok(()),
        Opening::Deaf => {
            wait::until_true("a connection that nobody reads to be cut", || {
                let mut byte = [0];
                raw.peek(&mut byte).is_err()
                    || inner.stopping.load(Ordering::SeqCst)
                    || *inner.opening.lock().expect("opening") != Opening::Deaf
            });
            talk(&mut reader, &writer, number, inner)
        }
    }
}

/// Reads and says nothing.
fn until_the_end(tcp: &TcpStream) -> io::Result<()> {
    io::copy(&mut &*tcp, &mut io::sink()).map(drop)
}

fn talk(reader: &mut Reader, writer: &Writer, number: usize, inner: &Inner) -> io::Result<()> {
    // Per request: what came of it so far, and what it takes of our window.
    let mut unfinished: HashMap<u64, (Vec<u8>, u64)> = HashMap::new();
    let mut highest = 0;
    while let Some(frame) = reader.frame()? {
        match frame.kind {
            frames::REQUEST | frames::CRITICAL => {
                let fresh = !unfinished.contains_key(&frame.id);
                assert!(!fresh || frame.id > highest, "request id {} after {highest}", frame.id);
                highest = highest.max(frame.id);
                let (text, taken) = unfinished.entry(frame.id).or_default();
                text.extend(&frame.body);
                *taken += frame.cost();
                if frame.flags & frames::MORE != 0 {
                    continue;
                }
                let (text, taken) = unfinished.remove(&frame.id).expect("just put there");
                let (head, request) = match frame.kind {
                    frames::CRITICAL => {
                        let (head, request) = Head::split(&text);
                        (Some(head), request.to_vec())
                    }
                    _ => (None, text),
                };
                let asked = Asked { connection: number, id: frame.id, head, request };
                let answerer = Answerer { writer: writer.clone(), id: frame.id, taken };
                if !one(&asked, &answerer, inner) {
                    return Ok(());
                }
            }
            frames::PING => writer.frame(&Frame::new(frames::PONG, 0, frame.body.clone()))?,
            frames::WINDOW => {
                let bytes = u32::from_be_bytes(frame.body[..].try_into().expect("four bytes"));
                writer.allow(bytes.into())?;
            }
            _ => {}
        }
        if !matches!(frame.kind, frames::REQUEST | frames::CRITICAL | frames::WINDOW) {
            inner.control.lock().expect("control").push(frame);
        }
    }
    Ok(())
}

/// Runs a request, or answers it from the record; `false`: the connection is to be cut.
fn one(asked: &Asked, answerer: &Answerer, inner: &Inner) -> bool {
    inner.asked.lock().expect("asked").push(asked.clone());
    let known = asked.head.as_ref().and_then(|head| {
        let record = inner.record.lock().expect("record");
        record.answers.get(&head.sequence).or_else(|| record.keys.get(&head.key)).cloned()
    });
    if let Some(answer) = known {
        inner.repeats.fetch_add(1, Ordering::SeqCst);
        answerer.answer(&answer);
        return true;
    }
    inner.ran.lock().expect("ran").push(asked.clone());
    let script = inner.script.lock().expect("script").clone();
    let said = script(asked, answerer);
    if let (Some(head), Said::Answer(answer)) = (&asked.head, &said) {
        let mut record = inner.record.lock().expect("record");
        record.answers = record.answers.split_off(&head.settled);
        record.answers.insert(head.sequence, answer.clone());
        if !head.key.is_empty() {
            record.keys.insert(head.key.clone(), answer.clone());
        }
    }
    match said {
        Said::Answer(answer) => answerer.answer(&answer),
        Said::Nothing => {}
        Said::Cut => return false,
    }
    true
}
