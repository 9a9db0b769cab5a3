//! `lon status [--json]`: what the links do, asked of the running `lonc`.
//!
//! When it does not answer, the last `status.json` that it wrote is shown, with its age, and the exit code is 1:
//! what a dead program said last must not pass for what is.

use super::{Failure, complain, print};
use crate::config::Config;
use crate::status::{Snapshot, ago, json, table};
use jiff::{Timestamp, tz::TimeZone};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long `lonc` may take to answer each read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest snapshot that is read: thousands of peers have a few megabytes.
const MAX_SNAPSHOT: u64 = 64 * 1024 * 1024;

pub(super) fn run(config: &Config, as_json: bool) -> Result<u8, Failure> {
    let socket = config.run_dir.join("lonc.sock");
    let now = Timestamp::now();
    match ask(&socket) {
        Ok(snapshot) => {
            show(&snapshot, as_json, now)?;
            Ok(0)
        }
        Err(error) => {
            complain(format_args!("ask {}: {error}", socket.display()));
            let file = config.status_dir.join("status.json");
            let snapshot = read(&file).map_err(|error| Failure::did("read", file.display(), error))?;
            let age = ago(snapshot.written, now);
            complain(format_args!("lonc does not answer: this is what it wrote {age} ago"));
            show(&snapshot, as_json, snapshot.written)?;
            Ok(1)
        }
    }
}

fn show(snapshot: &Snapshot, as_json: bool, now: Timestamp) -> Result<(), Failure> {
    let text = if as_json { json(snapshot) + "\n" } else { table(snapshot, now, &TimeZone::system()) };
    print(text.as_bytes())
}

fn ask(socket: &std::path::Path) -> io::Result<Snapshot> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"status\n")?;
    snapshot(stream).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    })
}

fn read(file: &std::path::Path) -> io::Result<Snapshot> {
    snapshot(File::open(file)?)
}

/// The first line, as a snapshot.
fn snapshot(source: impl Read) -> io::Result<Snapshot> {
    let mut line = Vec::new();
    BufReader::new(source.take(MAX_SNAPSHOT)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
    }
    serde_json::from_slice(&line).map_err(io::Error::from)
}
