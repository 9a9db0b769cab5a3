//! The ground that every other room stands on: what is read and written in one way wherever it
//! comes from.
//!
//! Nothing here knows of any other room of this crate.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `id` | [`HostId`]; the letters that ids, keys and commands are made of; [`WireKind`] |
//! | `pin` | [`Pin`], [`Pins`]: the public keys of hosts, by their hash |
//! | `message` | what names a message: [`Sequence`], [`Key`], [`command`] |
//! | `request` | a local program's line, taken apart |
//! | `line` | bytes to lines, and what is still to be written |
//! | `credentials` | who a local program is |
//! | `clock` | times that were noted before the wall clock was set |
//! | `logging` | the log files |
//! | `log_quota` | how often what comes again and again is logged |
//! | `disk` | the durable steps that files need, real or with faults; the lock on a folder |
//! | `shared` | memory that a process and those it forks have in common |
//! | `numbered` | [`Numbered`]: what is known by numbers that go up |
//! | `texts` | [`Texts`]: short texts that wait in a queue, in one piece of memory |
//! | `memory` | what the allocator does with long buffers |
//! | `pages` | memory that costs what is used of it: [`pages::Pages`], and the stack |
//! | `json_path` | a path in JSON, text or not |

// A supervisor runs this: nothing here may panic, whatever comes from outside.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

pub mod clock;
pub mod credentials;
pub mod disk;
mod id;
pub mod json_path;
pub mod line;
pub mod log_quota;
pub mod logging;
pub mod memory;
mod message;
mod numbered;
pub mod pages;
mod pin;
pub mod request;
pub mod shared;
pub mod texts;

pub use credentials::Credentials;
pub use id::{HostId, WireKind, is_plain};
pub use message::{Key, Sequence, command, decimal};
pub use numbered::Numbered;
pub use pin::{Pin, Pins};
pub use texts::Texts;
