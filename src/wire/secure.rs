//! The secure wire: TLS 1.3 between pinned keys, and frames with request ids in it.
//!
//! Pure: bytes, keys and pins in; bytes, frames and typed errors out. What keeps them flowing is
//! [`super::flow`]. No socket and no clock; the only file that is ever touched is this host's key,
//! when it is loaded or made. The wire is written down in `docs/wire.md`.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `frame` | [`FrameReader`] and [`Frame`]: a stream of bytes to frames; `put_...`: frames to bytes |
//! | `critical` | [`CriticalHead`]: what stands before a critical request |
//! | `hello` | [`CallerHello`], [`CalledHello`]: the opening frames; which version is spoken |
//! | `key` | [`HostKey`]: this host's key on disk |
//! | `tls` | [`Tunnel`]: TLS 1.3 as a pump of bytes; [`TlsIdentity`], [`Admission`]: who we are, whom we take |

mod critical;
mod frame;
mod hello;
mod key;
mod tls;

pub use critical::CriticalHead;
pub use frame::{
    FRAME_COST, Frame, FrameError, FrameReader, HEADER, Kind, MAX_BODY, MAX_HELD, MAX_UNFINISHED, cost,
    message_cost, put_answer, put_broken_answer, put_cancel, put_critical, put_error, put_go_away, put_held,
    put_not_taken, put_ping, put_pong, put_ready, put_request, put_window,
};
pub use hello::{
    CalledHello, CallerHello, Hello, HelloError, MAX_HELLO, NO_EPOCH, VERSION, Versions, least_window,
};
pub use key::{HostKey, KeyError, KeyFile, sync_folder};
pub use tls::{Admission, MAX_HANDSHAKE, TlsIdentity, Tunnel, TunnelError};
