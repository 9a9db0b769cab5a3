//! What a turn of a link child needs of the world: sockets, or what the simulation has for them.

use crate::link::Now;
use crate::session::{ClientId, Rest};
use base::Credentials;
use base::line::Outgoing;
use status::PeerStatus;
use std::io;

/// What became of an attempt to accept a program's connection.
#[derive(Debug)]
pub enum Accepted {
    /// There is one, of this user: it is either let in or turned away next.
    Waiting {
        /// As the system says.
        who: Credentials,
    },
    /// There is none.
    Nobody,
    /// There may be more, at once.
    Again,
    /// This process can have no more connections.
    NoRoom(io::Error),
}

/// What became of a read from a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many bytes; there may be more.
    Bytes(usize),
    /// So many bytes, perhaps none, and no more for now.
    Last(usize),
    /// It sends no more, and still reads.
    End,
    /// It is gone.
    Gone,
}

/// How a dial goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialled {
    /// Nothing is new.
    UnderWay,
    /// A TCP connection is made; it is no link yet.
    Reached,
    /// The connection is made.
    Connected,
    /// It has failed, for this reason.
    Failed(String),
}

/// What became of programs that were to be handed over, all of them.
#[derive(Debug)]
pub enum HandedOver {
    /// The next child has them.
    Gone,
    /// They could not go now.
    Later(io::Error),
    /// They cannot go.
    Stay(io::Error),
}

/// What a turn needs of the world. Nothing of it waits.
pub trait Io {
    /// Whether somebody may wait to be connected.
    fn may_accept(&self) -> bool;
    /// Whether the pause in accepting is over, if there was one.
    fn accepts_again(&mut self, now: Now);
    /// Looks whether somebody waits to be connected.
    fn accept(&mut self, now: Now) -> Accepted;
    /// Whoever waited is a program of ours. Whether that went well; if not, it is closed.
    fn let_in(&mut self, id: ClientId) -> bool;
    /// Whoever waited is told that there are too many.
    fn turn_away(&mut self);
    /// Accepts nobody for a while: this process can have no more connections, and no program is
    /// idle.
    fn pause_accepting(&mut self, cause: &io::Error, now: Now);

    /// Whether a program may have sent something.
    fn is_readable(&self, id: ClientId) -> bool;
    /// Reads from a program once, at most so much, and hands it on.
    fn read(&mut self, id: ClientId, most: usize, hand_on: &mut dyn FnMut(&[u8])) -> Read;
    /// Writes to a program what it takes; whether it is still there.
    fn write(&mut self, id: ClientId, out: &mut Outgoing) -> bool;
    /// Closes a program's connection, if it is there.
    fn close(&mut self, id: ClientId);
    /// Whether programs can be handed over now; asks for the way to the next child if there is none
    /// yet.
    fn may_hand_over(&mut self, now: Now) -> bool;
    /// Hands these over to the next child, all or none.
    fn hand_over(&mut self, programs: Vec<(ClientId, Rest<'_>)>, now: Now) -> HandedOver;
    /// A program that was handed over is the next child's alone.
    fn let_go(&mut self, id: ClientId);

    /// Whether the peer may have sent something.
    fn is_link_readable(&self) -> bool;
    /// Reads from the peer once and hands on what it said; how many bytes that took, 0 when there
    /// is nothing now.
    ///
    /// # Errors
    /// The connection is over; what the peer said before that was handed on.
    fn read_link(&mut self, hand_on: &mut dyn FnMut(&[u8])) -> Result<usize, String>;
    /// Writes to the peer what it takes. What had to wait was written, in part at least, if `moved`
    /// is set to true. How many bytes of `out` were taken.
    ///
    /// # Errors
    /// The connection is over.
    fn write_link(&mut self, out: &mut Outgoing, moved: &mut bool) -> Result<usize, String>;
    /// Begins to make a connection to the peer.
    fn dial(&mut self, now: Now);
    /// How that goes. Asked until nothing is new.
    fn dialled(&mut self, now: Now) -> Dialled;
    /// The link is open over the connection that was made.
    fn link_opened(&mut self);
    /// Ends the connection to the peer, or what was to become it; `out` is what the peer may still
    /// be told.
    fn hang_up(&mut self, out: &mut Outgoing);

    /// These stored messages were delivered.
    fn delivered(&mut self, requests: &[Vec<u8>], now: Now);
    /// Tells the supervisor how this child is; in answer to its question of this number, if it has
    /// asked.
    fn report(&mut self, answer_to: Option<u64>, status: PeerStatus);
    /// Writes what waits for the supervisor.
    fn flush_reports(&mut self);
}
