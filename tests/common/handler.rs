//! A local program behind `lond`: listens on a Unix socket, a line each way.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

type Answer = dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync;

struct Inner {
    answer: Box<Answer>,
    connections: AtomicUsize,
    live: Mutex<Vec<UnixStream>>,
    stopping: AtomicBool,
}

/// The program; its socket file and its connections go when it is dropped.
pub struct Program {
    socket: PathBuf,
    listener: UnixListener,
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    /// Answers each line with what `answer` makes of it; `None`: not at all.
    pub fn start(
        socket: &Path,
        answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Program {
        let listener = UnixListener::bind(socket).expect("listen as a handler");
        let inner = Arc::new(Inner {
            answer: Box::new(answer),
            connections: AtomicUsize::new(0),
            live: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let (accepting, shared) = (listener.try_clone().expect("clone a listener"), inner.clone());
        let thread = std::thread::spawn(move || accept(&accepting, &shared));
        Program { socket: socket.to_owned(), listener, inner, thread: Some(thread) }
    }

    /// One that answers each line with itself.
    pub fn echo(socket: &Path) -> Program {
        Program::start(socket, |line| Some(line.to_vec()))
    }

    /// Connections made to it so far.
    pub fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.inner.live.lock().expect("live").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn accept(listener: &UnixListener, inner: &Arc<Inner>) {
    while let Ok((stream, _)) = listener.accept() {
        if inner.stopping.load(Ordering::SeqCst) {
            return;
        }
        inner.connections.fetch_add(1, Ordering::SeqCst);
        let kept = stream.try_clone().expect("clone a connection");
        inner.live.lock().expect("live").push(kept);
        let inner = inner.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(&stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok() && line.pop() == Some(b'\n') {
                if let Some(mut answer) = (inner.answer)(&line) {
                    answer.push(b'\n');
                    if (&stream).write_all(&answer).is_err() {
                        return;
                    }
                }
                line.clear();
            }
        });
    }
}
