//! The called side: `supervisor` accepts and forks a child for each link; `entry` is where such a
//! child begins.
//!
//! In a child: `first_byte` tells the wires apart, [`access`] who calls on the classic one,
//! `classic` (classic) and `secure`, both pure, decide what every byte means and what is answered,
//! [`service`] what a request means to both, [`store::record`] remembers the answers to critical
//! messages and [`keeper`] is a session's hold on it, [`turn`] is the order in which all that
//! happens, `confined` what the process gives up, [`reactor`] alone has sockets and a clock.
//!
//! [`pool`] is another child of the supervisor's: it runs the program of one handler.

pub mod access;
pub mod classic;
mod confined;
pub mod entry;
mod first_byte;
pub mod handler;
pub mod keeper;
pub mod ledger;
pub mod messages;
pub mod pool;
pub mod reactor;
mod reason;
pub mod secure;
pub mod service;
pub mod settings;
pub mod supervisor;
mod suspect;
pub mod turn;

pub use reason::Reason;
pub use suspect::Suspect;
