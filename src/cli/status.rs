//! `lon status [--json]`: what the links do, asked of the running `lonc`, and who calls, asked of `lond`.
//!
//! When `lonc` does not answer, the last `status.json` that it wrote is shown, with its age, and the exit code is 1:
//! what a dead program said last must not pass for what is. A `lond` that is away is said so in place of its table,
//! and is `null` in the JSON; that alone is no failure, since a host may run no listener.

use super::admin::{MAX_ANSWER, ask, is_away};
use super::{Failure, complain, print};
use crate::config::Config;
use crate::status::{ServeSnapshot, Snapshot, ago, callers, json, parse, table};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What `--json` prints: `lonc`'s snapshot, and `lond`'s beside its fields.
#[derive(Serialize)]
struct Both<'a> {
    #[serde(flatten)]
    lonc: &'a Snapshot,
    lond: Option<&'a ServeSnapshot>,
}

pub(super) fn run(config: &Config, as_json: bool) -> Result<u8, Failure> {
    let now = Timestamp::now();
    let lond = status(&config.run_dir.join("lond.sock"));
    let socket = config.run_dir.join("lonc.sock");
    match status(&socket) {
        Ok(snapshot) => {
            show(&snapshot, &lond, as_json, now, now)?;
            Ok(0)
        }
        Err(error) => {
            complain(format_args!("ask {}: {error}", socket.display()));
            let file = config.status_dir.join("status.json");
            let snapshot: Snapshot =
                read(&file).map_err(|error| Failure::did("read", file.display(), error))?;
            let age = ago(snapshot.written, now);
            complain(format_args!("lonc does not answer: this is what it wrote {age} ago"));
            show(&snapshot, &lond, as_json, snapshot.written, now)?;
            Ok(1)
        }
    }
}

/// Shows `lonc`'s links as they were at `then`, and `lond`'s as they are.
fn show(
    lonc: &Snapshot,
    lond: &io::Result<ServeSnapshot>,
    as_json: bool,
    then: Timestamp,
    now: Timestamp,
) -> Result<(), Failure> {
    let text = if as_json {
        json(&Both { lonc, lond: lond.as_ref().ok() }) + "\n"
    } else {
        let below = match lond {
            Ok(lond) => callers(lond, now),
            Err(error) if is_away(error) => "lond does not run: nobody can call\n".to_owned(),
            Err(error) => format!("lond does not answer: {error}\n"),
        };
        table(lonc, then, &TimeZone::system()) + "\n" + &below
    };
    print(text.as_bytes())
}

fn status<T: DeserializeOwned>(socket: &Path) -> io::Result<T> {
    parse(&ask(socket, "status")?).map_err(io::Error::from)
}

fn read<T: DeserializeOwned>(file: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    parse(&bytes).map_err(io::Error::from)
}
