//! What crosses a socket: bytes to messages and back. No sockets, no clock; nothing here can block or panic on
//! what a peer sent.

pub mod classic;
pub mod line;
pub mod secure;
