//! Sockets that do not wait: what both ends of a link, and all that is watched with them, have in
//! common.
//!
//! Everything is registered with the poll, edge-triggered: an event says
//! that something has become possible, and nothing says so again before that was tried in vain.
//! Owns no socket of its own. Nothing here knows what is spoken.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `stream` | [`Stream`]: a socket and whether it may be read and written |
//! | `busy_poll` | [`BusyPoll`]: looking again for a while before one sleeps |
//! | `credentials` | who is at the other end of a Unix socket |
//! | `listen` | how an address is bound that is listened on; whether somebody waits there |
//! | `tcp` | how a connection between hosts is made, and its options |
//! | `sealed` | [`write_sealed`]: what waits goes through the tunnel, as fast as the socket takes
//! it |
//! | `unblock` | that a socket does not wait |
//! | `source` | `source_of!`: has the poll watch a type by something in it |

mod busy_poll;
pub mod credentials;
pub mod listen;
mod sealed;
mod source;
mod stream;
pub mod tcp;
mod unblock;

pub use busy_poll::BusyPoll;
pub use sealed::{SEALED_FULL, write_sealed};
pub use stream::{ReadOutcome, Stream};
pub use unblock::{does_not_wait, unblock};

pub use mio::event::{Event, Source};
pub use mio::net::{TcpStream, UnixListener, UnixStream};
pub use mio::unix::{SourceFd, pipe};
pub use mio::{Events, Interest, Poll, Registry, Token, Waker};
