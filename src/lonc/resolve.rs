//! Looking a host name up without stopping the loop: one thread a look-up, never two at once.
//!
//! The system's resolver blocks, for half a minute where a name server is away: longer than a dial
//! may take. A look-up that is still under way when the next is wanted serves that dial too, and
//! one that ends between two dials serves the next; so a host is reached however long its name
//! takes. What was found is used once, so that the address of a dial is no older than the pause
//! before it.

use net::Waker;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

/// The look-ups of one child.
#[derive(Debug)]
pub struct Resolver {
    waker: Arc<Waker>,
    running: Option<Receiver<Result<Vec<SocketAddr>, String>>>,
    /// Found when no dial wanted it any more.
    late: Option<Vec<SocketAddr>>,
}

impl Resolver {
    /// Wakes the loop through `waker` when a look-up has ended.
    pub fn new(waker: Arc<Waker>) -> Resolver {
        Resolver { waker, running: None, late: None }
    }

    /// Begins a look-up, unless one is under way. Gives the addresses if they are known already.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn begin(&mut self, name: &str, port: u16) -> Result<Option<Vec<SocketAddr>>, String> {
        if self.late.is_some() || self.running.is_some() {
            return Ok(self.late.take());
        }
        let (sender, receiver) = channel();
        let (name, waker) = (name.to_owned(), self.waker.clone());
        let look_up = move || {
            let found = (&*name, port).to_socket_addrs().map(Iterator::collect);
            // When the child no longer wants to know, there is nobody to tell.
            let _ = sender.send(found.map_err(|error| format!("look up {name}: {error}")));
            let _ = waker.wake();
        };
        thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(look_up)
            .map_err(|error| format!("look up: start a thread: {error}"))?;
        self.running = Some(receiver);
        Ok(None)
    }

    /// Keeps addresses for the next dial, since none wants them now.
    pub fn keep(&mut self, addresses: Vec<SocketAddr>) {
        self.late = Some(addresses);
    }

    /// What a look-up has found, if it has ended.
    pub fn ended(&mut self) -> Option<Result<Vec<SocketAddr>, String>> {
        let found = match self.running.as_ref()?.try_recv() {
            Ok(found) => found,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("look up: the thread died".to_owned()),
        };
        self.running = None;
        Some(found.and_then(|addresses| match addresses.is_empty() {
            true => Err("look up: the name has no address".to_owned()),
            false => Ok(addresses),
        }))
    }
}
