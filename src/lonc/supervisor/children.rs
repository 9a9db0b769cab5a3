//! The children of `lonc` and the control sockets to them.
//!
//! The table says where each child stands; here is what it is spoken to through. A key has a control socket from
//! just before its fork until the child closes it, breaks it or is reaped.

use super::left::LeftChild;
use crate::base::HostId;
use crate::status::PeerStatus;
use crate::supervise::control::{self, Channel, FromLink, ToLink};
use crate::supervise::table::{self, State, Table};
use mio::{Interest, Registry, Token};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

#[derive(Debug)]
struct Control {
    channel: Channel<ToLink, FromLink>,
    token: Token,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Children {
    /// Where each stands.
    pub table: Table<HostId>,
    controls: BTreeMap<HostId, Control>,
    /// The keys of `controls`, by token.
    tokens: HashMap<Token, HostId>,
}

impl Children {
    /// Whether there are none, not even one to be reaped.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All peers that have a child or wait for one.
    pub fn keys(&self) -> Vec<HostId> {
        self.table.iter().map(|(peer, _)| peer.clone()).collect()
    }

    /// How many are on their way out.
    pub fn leaving(&self) -> usize {
        let leaving = |state| matches!(state, State::Draining { .. } | State::Killed { .. });
        self.table.iter().filter(|(_, state)| leaving(*state)).count()
    }

    /// Makes the control socket of a child that is about to be forked; gives the child's end.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn open_control(&mut self, peer: &HostId, token: Token, registry: &Registry) -> io::Result<OwnedFd> {
        let (ours, theirs) = control::pair()?;
        self.insert(peer.clone(), Channel::from_fd(ours)?, token, registry)?;
        Ok(theirs)
    }

    fn insert(
        &mut self,
        peer: HostId,
        mut channel: Channel<ToLink, FromLink>,
        token: Token,
        registry: &Registry,
    ) -> io::Result<()> {
        registry.register(&mut channel, token, Interest::READABLE | Interest::WRITABLE)?;
        self.tokens.insert(token, peer.clone());
        self.controls.insert(peer, Control { channel, token });
        Ok(())
    }

    /// Closes the supervisor's end, if it is open.
    pub fn close_control(&mut self, peer: &HostId, registry: &Registry) {
        let Some(mut control) = self.controls.remove(peer) else { return };
        self.tokens.remove(&control.token);
        // Closing alone would do, but for a moment a child just forked may hold a copy.
        if let Err(error) = registry.deregister(&mut control.channel) {
            log::debug!("{peer}: deregister its control socket: {error}");
        }
    }

    /// Takes over a child of the program before `exec`.
    pub fn adopt(
        &mut self,
        peer: HostId,
        state: table::Carried,
        control: Option<(OwnedFd, control::Carried)>,
        token: Token,
        registry: &Registry,
        now: Instant,
    ) {
        self.table.adopt(peer.clone(), state.state(now));
        let Some((fd, carried)) = control else { return };
        let resumed = Channel::resume(fd, carried);
        if let Err(error) = resumed.and_then(|channel| self.insert(peer.clone(), channel, token, registry)) {
            // Without it the child hears end of file, and ends by itself or is killed in its turn.
            log::error!("{peer}: take over its control socket: {error}");
        }
    }

    /// What the next program must know of the children.
    ///
    /// # Errors
    /// When a message that waits cannot be handed over.
    pub fn leave(&self, now: Instant) -> io::Result<Vec<LeftChild>> {
        let mut left = Vec::new();
        for (peer, state) in self.table.iter() {
            let Some(state) = table::Carried::from_state(state, now) else { continue };
            let control = match self.controls.get(peer) {
                Some(control) => Some((control.channel.as_fd().as_raw_fd(), control.channel.carried()?)),
                None => None,
            };
            left.push(LeftChild { peer: peer.clone(), state, control });
        }
        Ok(left)
    }

    /// The descriptors of the control sockets.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.controls.values().map(|control| control.channel.as_fd())
    }

    /// Who can be sent to.
    pub fn with_control(&self) -> impl Iterator<Item = HostId> + use<'_> {
        self.controls.keys().cloned()
    }

    /// Whose control socket has this token.
    pub fn peer_of(&self, token: Token) -> Option<&HostId> {
        self.tokens.get(&token)
    }

    /// Sends; nothing happens where there is no control socket.
    ///
    /// # Errors
    /// As [`Channel::send`]: the child is hung.
    pub fn send(&mut self, peer: &HostId, message: &ToLink) -> io::Result<()> {
        match self.controls.get_mut(peer) {
            Some(control) => control.channel.send(message),
            None => Ok(()),
        }
    }

    /// Tells the child that its peer has another local socket; whether it was told, or there is none to be told.
    ///
    /// # Errors
    /// As [`Channel::send_descriptor`].
    pub fn send_listener(&mut self, peer: &HostId, listener: BorrowedFd<'_>) -> io::Result<bool> {
        match self.controls.get_mut(peer) {
            Some(control) => control.channel.send_descriptor(&ToLink::Listen, listener),
            None => Ok(true),
        }
    }

    /// Writes what waits for the child and reads what it says: statuses with the numbers of reports, and whether
    /// the child has closed the socket. A status that is not of the child's own peer is dropped.
    ///
    /// # Errors
    /// As [`Channel::receive`]: the child is broken.
    #[expect(
        clippy::type_complexity,
        reason = "a named struct would be taken apart at once by the only caller"
    )]
    pub fn hear(
        &mut self,
        peer: &HostId,
        scratch: &mut [u8],
    ) -> io::Result<(Vec<(Option<u64>, PeerStatus)>, bool)> {
        let Some(control) = self.controls.get_mut(peer) else { return Ok((Vec::new(), false)) };
        control.channel.flush()?;
        let received = control.channel.receive(scratch)?;
        let statuses = received.messages.into_iter().filter_map(|message| match message {
            FromLink::Status { report, status } if status.peer == *peer => Some((report, *status)),
            FromLink::Status { status, .. } => {
                log::error!("{peer}: its child speaks for {}", status.peer);
                None
            }
        });
        Ok((statuses.collect(), received.closed))
    }
}
