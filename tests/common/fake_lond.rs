//! An independent `lond` with a script: well-behaved, or wrong in one chosen way.
//!
//! Serves each connection in a thread of its own, one request after the other as the original does,
//! and keeps every line that it received.

use super::cipher::Cipher;
use super::wait::{self, PATIENCE};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The buildkey of the cipher's published vectors.
pub const BUILDKEY: &str = "41342A79EAFBE8FC990EFC7D2928";

/// The steps of the opening dialogue, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Init,
    Challenge,
    Sethost,
    Version,
    Pong,
    Ekey,
}

/// All steps.
pub const STEPS: [Step; 6] =
    [Step::Init, Step::Challenge, Step::Sethost, Step::Version, Step::Pong, Step::Ekey];

/// What goes wrong at a step of the dialogue.
#[derive(Debug, Clone)]
pub enum Fault {
    /// No answer, the connection stays open.
    Silence,
    /// The connection is closed.
    Close,
    /// Half an answer, then the connection is closed.
    HalfAnswer,
    /// These bytes instead of an answer.
    Say(Vec<u8>),
    /// This many bytes without a newline.
    Flood(u64),
}

/// What a request is answered with.
pub enum Reply {
    /// One line.
    Line(Vec<u8>),
    /// One line in clear although the request was enciphered.
    Clear(Vec<u8>),
    /// Several lines in one write.
    Lines(Vec<Vec<u8>>),
    /// This many bytes without a newline, and then one.
    Flood(u64),
    /// Nothing, ever.
    Nothing,
    /// The connection is closed.
    Close,
}

/// A request as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Number of the connection, counted from 1.
    pub connection: usize,
    /// The line on the wire.
    pub line: Vec<u8>,
    /// What it means: deciphered where it was enciphered.
    pub request: Vec<u8>,
}

impl Seen {
    /// The request as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.request).into_owned()
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Inner {
    id: String,
    caller: String,
    fault: Mutex<Option<(Step, Fault)>>,
    answer: Mutex<Arc<Answer>>,
    dialogue: Mutex<Vec<Vec<u8>>>,
    requests: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    live: Mutex<HashMap<usize, TcpStream>>,
    flooded: AtomicU64,
    stopping: AtomicBool,
}

/// The listener; closed, with all its connections, when dropped.
pub struct FakeLond {
    address: SocketAddr,
    inner: Arc<Inner>,
    running: Option<(TcpListener, JoinHandle<()>)>,
}

impl FakeLond {
    /// A well-behaved lond of host `id`, called by host `caller`; listens at once.
    pub fn start(id: &str, caller: &str, address: SocketAddr) -> FakeLond {
        let mut fake = FakeLond::away(id, caller, address);
        fake.listen();
        fake
    }

    /// One that does not listen yet.
    pub fn away(id: &str, caller: &str, address: SocketAddr) -> FakeLond {
        let own_id = id.to_owned();
        let inner = Inner {
            id: id.to_owned(),
            caller: caller.to_owned(),
            fault: Mutex::new(None),
            answer: Mutex::new(Arc::new(move |seen: &Seen| well_behaved(&own_id, seen))),
            dialogue: Mutex::default(),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            live: Mutex::default(),
            flooded: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        };
        FakeLond { address, inner: Arc::new(inner), running: None }
    }

    /// From now on, this goes wrong in every opening dialogue.
    pub fn fail_at(&self, step: Step, fault: Fault) {
        *self.inner.fault.lock().expect("fault") = Some((step, fault));
    }

    /// From now on, opening dialogues go well.
    pub fn behave(&self) {
        *self.inner.fault.lock().expect("fault") = None;
        let id = self.inner.id.clone();
        self.answer_with(move |seen| well_behaved(&id, seen));
    }

    /// From now on, requests are answered by `answer`.
    pub fn answer_with(&self, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.inner.answer.lock().expect("answer") = Arc::new(answer);
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

    /// Closes every connection; the listener stays.
    pub fn cut(&self) {
        for stream in self.inner.live.lock().expect("live").values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::SeqCst)
    }

    /// Bytes of floods that the other end took.
    pub fn flooded(&self) -> u64 {
        self.inner.flooded.load(Ordering::SeqCst)
    }

    /// Lines received in opening dialogues, as text.
    pub fn dialogue(&self) -> Vec<String> {
        let lines = self.inner.dialogue.lock().expect("dialogue");
        lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// Requests received so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.inner.requests.lock().expect("requests").clone()
    }

    /// Requests received so far that begin with `prefix`, as text.
    pub fn received(&self, prefix: &str) -> Vec<String> {
        self.requests().iter().map(Seen::text).filter(|text| text.starts_with(prefix)).collect()
    }

    /// Waits until requests that begin with `prefix` are at least this many, and gives them.
    pub fn wait_received(&self, prefix: &str, count: usize) -> Vec<String> {
        wait::until(&format!("{count} requests {prefix}..."), || {
            let found = self.received(prefix);
            (found.len() >= count).then_some(found)
        })
    }
}

impl Drop for FakeLond {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a lond that is right answers.
pub fn well_behaved(id: &str, seen: &Seen) -> Reply {
    let request = &seen.request;
    match request.as_slice() {
        b"ping" => Reply::Line(id.into()),
        b"exit" => Reply::Lines(vec![b"bye".to_vec()]),
        _ if request.starts_with(b"echo:") => Reply::Line(request.clone()),
        _ if request.starts_with(b"log:") => Reply::Line(b"ok".to_vec()),
        _ if request.starts_with(b"refuse:") => Reply::Line(b"refused".to_vec()),
        _ => Reply::Line(b"unknown_cmd".to_vec()),
    }
}

fn accept(listener: &TcpListener, inner: &Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept() {
        if inner.stopping.load(Ordering::SeqCst) {
            return;
        }
        let number = inner.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let handle = stream.try_clone().expect("clone a connection");
        inner.live.lock().expect("live").insert(number, handle);
        let inner = inner.clone();
        std::thread::spawn(move || {
            // An error is the other end going away, or this one being stopped.
            let _ = serve(&stream, number, &inner);
            let _ = stream.shutdown(Shutdown::Both);
            inner.live.lock().expect("live").remove(&number);
        });
    }
}

fn serve(stream: &TcpStream, number: usize, inner: &Inner) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = Vec::new();
    let mut next_line = || -> std::io::Result<Option<Vec<u8>>> {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        Ok((line.pop() == Some(b'\n')).then(|| line.clone()))
    };
    for step in STEPS {
        let Some(said) = next_line()? else { return Ok(()) };
        inner.dialogue.lock().expect("dialogue").push(said.clone());
        let fault = inner.fault.lock().expect("fault").clone();
        let answer = dialogue_answer(inner, step);
        match fault {
            Some((at, fault)) if at == step => {
                if go_wrong(stream, &fault, &answer, inner)? {
                    return Ok(());
                }
            }
            _ => (&*stream).write_all(format!("{answer}\n").as_bytes())?,
        }
    }
    let cipher = Cipher::new(&inner.id, &inner.caller, BUILDKEY);
    while let Some(line) = next_line()? {
        let enciphered = line.starts_with(b"enc:");
        let request = if enciphered { cipher.open(&line) } else { line.clone() };
        let seen = Seen { connection: number, line, request };
        inner.requests.lock().expect("requests").push(seen.clone());
        let answer = inner.answer.lock().expect("answer").clone();
        let wrap = |text: Vec<u8>| if enciphered { cipher.seal(&text) } else { text };
        let lines = match answer(&seen) {
            Reply::Line(text) => vec![wrap(text)],
            Reply::Clear(text) => vec![text],
            Reply::Lines(texts) => texts.into_iter().map(wrap).collect(),
            Reply::Flood(bytes) => {
                flood(stream, bytes, inner)?;
                vec![Vec::new()]
            }
            Reply::Nothing => continue,
            Reply::Close => return Ok(()),
        };
        let mut bytes = lines.join(&b'\n');
        bytes.push(b'\n');
        (&*stream).write_all(&bytes)?;
        if seen.request == b"exit" {
            return Ok(());
        }
    }
    Ok(())
}

fn dialogue_answer(inner: &Inner, step: Step) -> String {
    match step {
        Step::Init => "60123456789".to_owned(),
        Step::Challenge | Step::Sethost => "ok".to_owned(),
        Step::Version => "version:1.70".to_owned(),
        Step::Pong => format!("{}:{}", inner.id, inner.caller),
        Step::Ekey => BUILDKEY.to_owned(),
    }
}

/// Does what `fault` says; returns whether the connection is over.
fn go_wrong(mut stream: &TcpStream, fault: &Fault, answer: &str, inner: &Inner) -> std::io::Result<bool> {
    match fault {
        Fault::Silence => {
            // Until the other end gives up.
            let mut rest = BufReader::new(stream);
            while !rest.fill_buf()?.is_empty() {
                let held = rest.buffer().len();
                rest.consume(held);
            }
            Ok(true)
        }
        Fault::Close => Ok(true),
        Fault::HalfAnswer => {
            stream.write_all(&answer.as_bytes()[..answer.len() / 2])?;
            Ok(true)
        }
        Fault::Say(bytes) => {
            stream.write_all(bytes)?;
            Ok(false)
        }
        Fault::Flood(bytes) => {
            flood(stream, *bytes, inner)?;
            Ok(true)
        }
    }
}

fn flood(mut stream: &TcpStream, bytes: u64, inner: &Inner) -> std::io::Result<()> {
    let chunk = [b'x'; 64 * 1024];
    for _ in 0..bytes.div_ceil(chunk.len() as u64) {
        stream.write_all(&chunk)?;
        inner.flooded.fetch_add(chunk.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}
