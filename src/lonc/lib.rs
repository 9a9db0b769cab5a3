//! The caller's side: `supervisor` forks a child for each peer; `entry` is where such a child
//! begins.
//!
//! A link child: [`reactor`] (sockets, clock) -> [`turn`] (what follows what) -> [`broker`] (pure
//! but for the spool's disk) -> [`session`], [`pending`], [`link`], the spool. Which of a peer's
//! addresses become the [`connection`] is the [`race`]'s to say. The supervisor looks them up and
//! begins the connections: a child's part of that is [`resolve`], the supervisor's [`dials`].

pub mod broker;
pub mod connection;
pub mod dials;
pub mod entry;
pub mod handover;
pub mod link;
pub mod messages;
pub mod pending;
pub mod permlog;
pub mod protocol;
pub mod race;
pub mod reactor;
pub mod resolve;
pub mod session;
pub mod sessions;
pub mod settings;
pub mod supervisor;
pub mod turn;
