//! What crosses a link: bytes to messages and back. No sockets, no clock, and no file but this
//! host's key; nothing here can block or panic on what a peer sent.

pub mod classic;
pub mod flow;
pub mod secure;
