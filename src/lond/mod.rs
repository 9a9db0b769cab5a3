//! The called side: `supervisor` accepts and forks a child for each link; `entry` is where such a child begins.
//!
//! In a child: [`access`] tells who calls, [`serve`] (pure) decides what every line means and in which order the
//! answers go, [`reactor`] alone has sockets and a clock; [`record`] remembers on disk what was answered to critical
//! messages.

pub mod access;
pub mod entry;
pub mod reactor;
pub mod record;
pub mod serve;
pub mod supervisor;
