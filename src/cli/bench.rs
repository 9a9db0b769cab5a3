//! `lon bench PEER [REQUEST]`: how long requests to a host take, and how many there can be.
//!
//! Without options three works are done one after the other: one request at a time, many programs
//! with many requests ahead, and long requests; with `--programs`, `--ahead` or `--size` one work
//! as they say. Every answer is looked at: what is none of the other host's is counted apart, and
//! the exit code is that of `lon reply`. Results go to standard output, how far it is to standard
//! error, where that is a terminal.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `work` | what is asked, by how many programs; the options |
//! | `load` | asks it: a thread a program |
//! | `report` | what came of it, for people and as JSON; pure |

mod load;
mod report;
mod work;

use super::bearings::Bearings;
use super::{Failure, complain, exchange, local, print};
use base::HostId;
use client::{Client, ClientError, Outcome};
use report::Report;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};
pub(super) use work::Arguments;
use work::{Template, Work};

/// Longest time that a program waits for the answers that are out when its work is over.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clears the line of a terminal, and puts the cursor to its beginning.
const CLEAR_LINE: &str = "\r\x1b[K";

pub(super) fn run(bearings: &Bearings, arguments: &Arguments) -> Result<u8, Failure> {
    let peer = bearings.peer(&arguments.peer)?;
    // What nobody knows of a host that only a broken file may tell of, the broker will say.
    let longest = bearings.config.peer(&peer).map_or(usize::MAX, |peer| peer.max_line);
    let works = arguments.works(longest)?;
    let socket = bearings.config.socket_path(&peer);
    if let Some(code) = refused_at_once(bearings, &peer, &works, &socket)? {
        return Ok(code);
    }
    let mut report = Report::new(&peer);
    for work in works {
        let taken = load::run(&work, &socket, PATIENCE, &mut progress(&work))?;
        report.add(&work, &taken);
        if !arguments.json {
            print(report.last_for_people().as_bytes())?;
        }
    }
    if arguments.json {
        print(report.json().as_bytes())?;
    }
    Ok(report.exit_code())
}

/// Asks once for each work, before any load: who may not, or has no link, is told so at once, with
/// the exit code of the answer.
fn refused_at_once(
    bearings: &Bearings,
    peer: &HostId,
    works: &[Work],
    socket: &Path,
) -> Result<Option<u8>, Failure> {
    let cannot = |error: ClientError| Failure::did("bench", peer, error);
    let soon = || Instant::now() + PATIENCE;
    let mut client = Client::connect_to(socket, soon()).map_err(cannot)?;
    let mut requests: Vec<&Template> = works.iter().map(|work| &work.request).collect();
    requests.dedup();
    for request in requests {
        let line = request.numbered(0);
        let outcome = client.reply(&line, soon()).map_err(cannot)?;
        if !matches!(outcome, Outcome::Answer(_)) {
            if outcome == Outcome::Refused
                && let Some(why) = local::barred(&bearings.config, peer, &line)
            {
                complain(why);
            }
            complain(format_args!("bench {peer}: {:?} is answered {outcome}", request.shown()));
            return Ok(Some(exchange::code_of(outcome.to_string().as_bytes())));
        }
    }
    Ok(None)
}

/// Says how far a work is, where somebody looks.
fn progress(work: &Work) -> impl FnMut(Option<(Duration, u64)>) {
    let (name, whole) = (work.name, work.time);
    let seen = io::stderr().is_terminal();
    move |far| {
        // That it cannot be said has nowhere to be said.
        let _ = match far {
            _ if !seen => Ok(()),
            Some((gone, answered)) => write!(
                io::stderr(),
                "{CLEAR_LINE}{name}: {:.0} of {:.0} s, {answered} answers",
                gone.as_secs_f64(),
                whole.as_secs_f64()
            ),
            None => write!(io::stderr(), "{CLEAR_LINE}"),
        };
    }
}
