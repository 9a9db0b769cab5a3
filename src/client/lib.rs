//! For Rust programs: a request, its answer; many requests ahead of their answers; a critical
//! message with a key of the program's own; a critical message when the broker is away.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `asking` | [`Client`]: one peer, a deadline for each request, and when it may connect anew |
//! | `connection` | [`Connection`]: one connection, and what waits for its answer on it |
//! | `outcome` | [`Outcome`]: what an answer means; [`ClientError`]: why there is none |
//! | `request` | what can be a request, and what makes a critical one of it |
//! | `storing` | [`critical`], [`store`]: messages for a broker that is away |
//!
//! The files `clients/python/lonnet.py` and `clients/perl/lib/Lonnet.pm` are the same for programs
//! in those languages.
//!
//! ```
//! use lonnet_client::{Client, ClientError, Key, Outcome};
//! use std::path::Path;
//! use std::time::{Duration, Instant};
//!
//! fn pay(run_dir: &Path) -> Result<(), ClientError> {
//!     let soon = || Instant::now() + Duration::from_secs(10);
//!     let mut beta = Client::connect_to(&run_dir.join("beta"), soon())?;
//!     if let Outcome::Answer(id) = beta.reply("ping", soon())? {
//!         assert_eq!(id, b"beta");
//!     }
//!     // However often this is asked with this key, beta runs it once.
//!     let key = Key::new(b"order-4711").expect("letters, digits and a dash");
//!     match beta.critical("pay:12.50", Some(&key), soon())? {
//!         Outcome::Answer(receipt) => println!("paid: {}", receipt.escape_ascii()),
//!         Outcome::Delayed => println!("beta is away: it is on disk here, and will be sent"),
//!         other => println!("not paid: {other}"),
//!     }
//!     Ok(())
//! }
//! # let run = tempfile::tempdir().expect("a folder");
//! # let listener = std::os::unix::net::UnixListener::bind(run.path().join("beta")).expect("bind");
//! # let broker = std::thread::spawn(move || {
//! #     use std::io::{BufRead, BufReader, Write};
//! #     let mut stream = listener.accept().expect("a client").0;
//! #     let lines = BufReader::new(stream.try_clone().expect("clone")).lines();
//! #     lines.map(|line| {
//! #         stream.write_all(b"beta\n").expect("answer");
//! #         line.expect("a line")
//! #     }).collect::<Vec<_>>()
//! # });
//! # pay(run.path()).expect("asked");
//! # assert_eq!(broker.join().expect("the broker"), ["ping", "critical;key=order-4711:pay:12.50"]);
//! ```

mod asking;
mod connection;
mod outcome;
mod request;
mod storing;

pub use asking::Client;
pub use base::{HostId, Key};
pub use connection::{Connection, MAX_AHEAD, MAX_AHEAD_BYTES, MAX_ANSWER};
pub use outcome::{ClientError, Outcome};
pub use request::{CRITICAL, as_critical, as_critical_once};
pub use storing::{CON_DELAYED, critical, longest_line, store};

#[cfg(test)]
mod tests;
