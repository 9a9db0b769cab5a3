//! The control sockets of a supervisor's children, each known by what its child is called.
//!
//! One is there from just after the fork until the child closes it, breaks it or is reaped. What is
//! sent to a child that has none goes nowhere, without an error: what became of it is told by its
//! end.

use super::control::{self, Carried, Channel, Message};
use net::{Interest, Registry, Token};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A control socket whose child is about to be forked.
#[derive(Debug)]
pub struct Opening<S, R> {
    channel: Channel<S, R>,
    token: Token,
}

/// The supervisor's end and the child's.
pub type Ends<S, R> = (Opening<S, R>, OwnedFd);

/// See the head of this file. `S` is what a child is told, `R` what it says.
#[derive(Debug)]
pub struct Controls<K, S, R> {
    open: BTreeMap<K, Opening<S, R>>,
    /// The keys of `open`.
    keys: HashMap<Token, K>,
}

impl<K, S, R> Default for Controls<K, S, R> {
    fn default() -> Self {
        Controls { open: BTreeMap::new(), keys: HashMap::new() }
    }
}

/// Makes the control socket of a child that is about to be forked; gives the child's end beside it.
///
/// # Errors
/// When there are no descriptors.
pub fn open<S: Message, R: DeserializeOwned>(registry: &Registry, token: Token) -> io::Result<Ends<S, R>> {
    let (ours, theirs) = control::pair()?;
    Ok((Opening::register(Channel::from_fd(ours)?, registry, token)?, theirs))
}

impl<K: Ord + Clone, S: Message, R: DeserializeOwned> Controls<K, S, R> {
    /// The child was forked, and is called so.
    pub fn keep(&mut self, key: K, opening: Opening<S, R>) {
        self.keys.insert(opening.token, key.clone());
        self.open.insert(key, opening);
    }

    /// Goes on with one of the program before `exec`.
    ///
    /// # Errors
    /// It cannot be registered. Without it the child hears end of file, and ends by itself or is
    /// killed in its turn.
    pub fn resume(
        &mut self,
        key: K,
        (fd, carried): (OwnedFd, Carried),
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        self.keep(key, Opening::register(Channel::resume(fd, carried)?, registry, token)?);
        Ok(())
    }

    /// What the next program needs to go on with that of `key`, if there is one.
    ///
    /// # Errors
    /// When a message that waits cannot be handed over.
    pub fn leave(&self, key: &K) -> io::Result<Option<(RawFd, Carried)>> {
        let Some(Opening { channel, .. }) = self.open.get(key) else { return Ok(None) };
        Ok(Some((channel.as_fd().as_raw_fd(), channel.carried()?)))
    }

    /// What must stay open over `exec`.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.values().map(|control| control.channel.as_fd())
    }

    /// Closes the supervisor's end, if it is open.
    pub fn close(&mut self, key: &K, registry: &Registry) {
        let Some(Opening { mut channel, token }) = self.open.remove(key) else { return };
        self.keys.remove(&token);
        // Closing alone would do, but for a moment a child just forked may hold a copy.
        if let Err(error) = registry.deregister(&mut channel) {
            log::debug!("deregister a control socket: {error}");
        }
    }

    /// Who can be sent to.
    pub fn keys(&self) -> Vec<K> {
        self.open.keys().cloned().collect()
    }

    /// Whose control socket has this token.
    pub fn key_of(&self, token: Token) -> Option<&K> {
        self.keys.get(&token)
    }

    /// Sends.
    ///
    /// # Errors
    /// As [`Channel::send`]: the child is hung.
    pub fn send(&mut self, key: &K, message: &S) -> io::Result<()> {
        match self.open.get_mut(key) {
            Some(control) => control.channel.send(message),
            None => Ok(()),
        }
    }

    /// Sends a message with a descriptor; whether it was sent, or there is none to send it to.
    ///
    /// # Errors
    /// As [`Channel::send_descriptor`].
    pub fn send_descriptor(&mut self, key: &K, message: &S, descriptor: BorrowedFd<'_>) -> io::Result<bool> {
        match self.open.get_mut(key) {
            Some(control) => control.channel.send_descriptor(message, descriptor),
            None => Ok(true),
        }
    }

    /// Writes what waits for the child and reads what it says; whether it has closed the socket.
    ///
    /// # Errors
    /// As [`Channel::receive`]: the child is broken.
    pub fn hear(&mut self, key: &K, scratch: &mut [u8]) -> io::Result<(Vec<R>, bool)> {
        let Some(control) = self.open.get_mut(key) else { return Ok((Vec::new(), false)) };
        control.channel.flush()?;
        let received = control.channel.receive(scratch)?;
        Ok((received.messages, received.closed))
    }
}

impl<S: Message, R: DeserializeOwned> Opening<S, R> {
    fn register(mut channel: Channel<S, R>, registry: &Registry, token: Token) -> io::Result<Self> {
        registry.register(&mut channel, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Opening { channel, token })
    }
}
