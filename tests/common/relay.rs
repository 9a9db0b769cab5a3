//! Someone between two hosts: passes bytes on, keeps a copy, and may swallow or spoil them.

use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Most that is kept of what passed.
const KEPT: usize = 64 << 20;

/// What is done to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Passed on.
    Pass,
    /// Read, and dropped: neither side learns it.
    Swallow,
    /// Now and then a bit is another.
    Flip,
    /// Now and then some bytes are missing.
    Drop,
    /// Now and then some bytes come twice.
    Repeat,
    /// Now and then some bytes come before those that were sent before them.
    Reorder,
}

/// All that spoil.
pub const EVIL: [Manner; 4] = [Manner::Flip, Manner::Drop, Manner::Repeat, Manner::Reorder];

struct Inner {
    to: SocketAddr,
    manner: Mutex<Manner>,
    /// One piece of this many is spoilt.
    seldom: AtomicU64,
    spoilt: AtomicU64,
    seen: Mutex<Vec<u8>>,
    live: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

/// The relay; it and its connections are gone when it is dropped.
pub struct Relay {
    address: SocketAddr,
    listener: TcpListener,
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Stands before `to`, at an address of its own.
    pub fn before(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen as a relay");
        let address = listener.local_addr().expect("a listener's address");
        let inner = Arc::new(Inner {
            to,
            manner: Mutex::new(Manner::Pass),
            seldom: AtomicU64::new(20),
            spoilt: AtomicU64::new(0),
            seen: Mutex::default(),
            live: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let (accepting, shared) = (listener.try_clone().expect("clone a listener"), inner.clone());
        let thread = std::thread::spawn(move || accept(&accepting, &shared));
        Relay { address, listener, inner, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, this is done.
    pub fn do_this(&self, manner: Manner) {
        *self.inner.manner.lock().expect("manner") = manner;
    }

    /// One piece of `pieces` is spoilt.
    pub fn seldom(&self, pieces: u64) {
        self.inner.seldom.store(pieces, Ordering::SeqCst);
    }

    /// Pieces spoilt so far.
    pub fn spoilt(&self) -> u64 {
        self.inner.spoilt.load(Ordering::SeqCst)
    }

    /// Closes every connection.
    pub fn cut(&self) {
        for stream in self.inner.live.lock().expect("live").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether `text` has passed, in either direction.
    pub fn has_seen(&self, text: &str) -> bool {
        memchr::memmem::find(&self.inner.seen.lock().expect("seen"), text.as_bytes()).is_some()
    }

    /// Bytes that have passed.
    pub fn amount(&self) -> usize {
        self.inner.seen.lock().expect("seen").len()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.cut();
    }
}

fn accept(listener: &TcpListener, inner: &Arc<Inner>) {
    while let Ok((near, _)) = listener.accept() {
        if inner.stopping.load(Ordering::SeqCst) {
            return;
        }
        // Where nobody listens behind it, it closes, too.
        let Ok(far) = connect(inner.to) else { continue };
        let clone = |stream: &TcpStream| stream.try_clone().expect("clone a connection");
        inner.live.lock().expect("live").extend([clone(&near), clone(&far)]);
        for (from, to) in [(clone(&near), clone(&far)), (far, near)] {
            let inner = inner.clone();
            std::thread::spawn(move || {
                // An error is one side going away.
                let _ = pass(&from, &to, &inner);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.connect(&to.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, inner: &Inner) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    let mut held: Vec<u8> = Vec::new();
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        let piece = &mut bytes[..count];
        let mut seen = inner.seen.lock().expect("seen");
        if seen.len() < KEPT {
            seen.extend(&*piece);
        }
        drop(seen);
        let manner = *inner.manner.lock().expect("manner");
        let now = fastrand::u64(..inner.seldom.load(Ordering::SeqCst)) == 0;
        let at = fastrand::usize(..count);
        if now && EVIL.contains(&manner) {
            inner.spoilt.fetch_add(1, Ordering::SeqCst);
        }
        match manner {
            Manner::Swallow => continue,
            Manner::Flip if now => {
                piece[at] ^= 1 << fastrand::u8(..8);
                to.write_all(piece)?;
            }
            Manner::Drop if now => to.write_all(&piece[..at])?,
            Manner::Repeat if now => {
                to.write_all(piece)?;
                to.write_all(&piece[at..])?;
            }
            Manner::Reorder if now && held.is_empty() => {
                held = piece[at..].to_vec();
                to.write_all(&piece[..at])?;
            }
            Manner::Reorder if !held.is_empty() => {
                to.write_all(piece)?;
                to.write_all(&held)?;
                held.clear();
            }
            Manner::Pass | Manner::Flip | Manner::Drop | Manner::Repeat | Manner::Reorder => {
                to.write_all(piece)?
            }
        }
    }
}
