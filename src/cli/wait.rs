//! `lon wait [PEER] [--up] [--drained] [--timeout T]`: returns when links are as they should be.
//!
//! `--up`: the link is up. `--drained`: nothing stored waits for the host any more, files that were
//! dropped in included. Without either: `--up`. Without a host: all links. A `lonc` that does not
//! run yet is waited for like a link that is not up. Exit code 0 when all is so, 1 when it is not
//! in time; then standard error says what is not.

use super::bearings::Bearings;
use super::{Failure, complain, patience, queue, status};
use ::status::{LinkState, PeerStatus, Snapshot, ago};
use nix::errno::Errno;
use nix::poll::poll;
use std::io;
use std::time::{Duration, Instant};

/// Pause between two looks; at least so many times what a look takes, since every link child is
/// asked.
const PAUSE: Duration = Duration::from_millis(200);
const REST: u32 = 10;
/// What is not so yet is named for so many hosts.
const SAID: usize = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The link to this host; without it, the links to all.
    peer: Option<String>,
    /// Until it is up.
    #[arg(long)]
    up: bool,
    /// Until nothing stored waits for the host.
    #[arg(long)]
    drained: bool,
    /// Wait no longer than this: 30s, 2m.
    #[arg(long, value_name = "T", default_value = "60s", value_parser = super::duration)]
    timeout: Duration,
}

pub(super) fn run(bearings: &Bearings, arguments: &Arguments) -> Result<u8, Failure> {
    let peer = arguments.peer.as_deref().map(|peer| bearings.peer(peer)).transpose()?;
    let deadline = Instant::now() + arguments.timeout;
    loop {
        let begun = Instant::now();
        let missing = look(bearings, peer.as_ref().map(|peer| peer.as_str()), arguments)?;
        if missing.is_empty() {
            return Ok(0);
        }
        let now = Instant::now();
        if deadline <= now {
            missing.iter().take(SAID).for_each(|what| complain(format_args!("wait: {what}")));
            if let Some(more) = missing.len().checked_sub(SAID).filter(|&more| more > 0) {
                complain(format_args!("wait: and {more} more"));
            }
            return Ok(1);
        }
        let next = now + PAUSE.max(now.duration_since(begun) * REST);
        match poll(&mut [], patience(next.min(deadline))) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Failure::did("wait", "for the next look", error)),
        }
    }
}

/// What is not as it should be.
fn look(bearings: &Bearings, peer: Option<&str>, arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let config = &bearings.config;
    let snapshot: io::Result<Snapshot> = status::status(&config.run_dir.join("lonc.sock"));
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        Err(error) => return Ok(vec![format!("lonc does not answer: {error}")]),
    };
    let mut missing = Vec::new();
    let mut seen = false;
    let dropped = arguments.drained.then(|| queue::delayed(config)).transpose()?;
    for status in snapshot.peers.iter().filter(|status| peer.is_none_or(|peer| status.peer.as_str() == peer))
    {
        seen = true;
        if (arguments.up || !arguments.drained) && status.state != LinkState::Up {
            missing.push(not_up(status, &snapshot));
        }
        let files = dropped.as_ref().and_then(|dropped| dropped.files.get(&status.peer)).map_or(0, Vec::len);
        if arguments.drained && (status.delayed > 0 || files > 0) {
            let PeerStatus { peer, delayed, .. } = status;
            missing.push(format!("{peer}: {delayed} messages wait, {files} files were dropped in"));
        }
    }
    if let Some(peer) = peer.filter(|_| !seen) {
        missing.push(format!("lonc has no link to {peer}"));
    }
    Ok(missing)
}

fn not_up(status: &PeerStatus, snapshot: &Snapshot) -> String {
    let stands =
        format!("{}: {} {}", status.peer, status.state.as_str(), ago(status.since, snapshot.written));
    status.last_error.as_ref().map_or(stands.clone(), |error| format!("{stands}: {error}"))
}
