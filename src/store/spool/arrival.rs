//! How files of the original's kind come from the delayed directory, which all peers share, into
//! the folder of the peer that they are for: `delayed/<name>` becomes
//! `delayed/<peer>/dropped/<name>`.
//!
//! The supervisor does that, and not the peer's link child, so that a child needs no folder but its
//! own. [`Arrivals`] knows the names that were noticed, and moves them in their order, a bounded
//! number a pass; the child then takes them in from there (`inbox`). A file is moved by one rename:
//! whoever is killed when, it is in one place, whole. Both ends of a rename become durable
//! together, so it is the child that syncs them, once the message is stored; the folders are synced
//! here, before the first file is moved into them.
//!
//! A file that its maker may still write to, or look for under its name, is left where it is until
//! it has a whole line, or was not changed for [`WRITER_PAUSE`]. Nothing but that is looked at
//! here: what a file is, and whether it can be a message, the child says.
//!
//! How it fails: what cannot be moved stays, in order, and all behind it of the same peer; the
//! cause is told ([`Passed`]), and it is tried again in growing pauses. Other peers do not notice.
//! No file is ever replaced by another of its name.

use super::inbox::{FIRST_READ, WRITER_PAUSE};
use super::layout::DROPPED;
use super::{Context, Disk, Kind, SpoolError};
use base::HostId;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

/// Files that are looked at in one pass: others have their turn then.
pub const MOVED_A_PASS: usize = 64;
/// ... and of one peer.
const MOVED_A_PEER: usize = 16;
/// Names that are kept of one peer. Where there are more, the folder is listed again when these are
/// moved.
const NAMES_A_PEER: usize = 256;
/// Pause before a peer's files are tried again, after one could not be moved; it doubles ...
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// ... up to this. Also how long a file is left that its maker may be writing.
const RETRY_MOST: Duration = Duration::from_secs(5);

/// See the head of this file.
#[derive(Debug)]
pub struct Arrivals {
    peers: BTreeMap<HostId, Waiting>,
    /// Peers whose folders are there, durably.
    prepared: BTreeSet<HostId>,
    /// The folder is to be listed, then: for what was not noticed.
    list_at: Option<Option<Instant>>,
    /// Whose files the last pass ended with.
    last: Option<HostId>,
}

/// Files of one peer that are to be moved.
#[derive(Debug, Default)]
struct Waiting {
    /// The first names, and when each is to be looked at.
    names: BTreeMap<OsString, Instant>,
    /// There are others behind these.
    more: bool,
    /// Nothing is moved until then, and the pause behind that.
    held: Option<(Instant, Duration)>,
}

/// What a pass has done.
#[derive(Debug, Default)]
pub struct Passed {
    /// Peers that have files in their folders.
    pub peers: BTreeSet<HostId>,
    /// Why files were left: whose, and what the system said.
    pub trouble: Vec<(HostId, SpoolError)>,
    /// Why the folder could not be listed.
    pub unlisted: Option<SpoolError>,
}

/// What becomes of a file.
enum Fate {
    /// It was moved, or somebody else has done that.
    Moved,
    /// It is none that anybody takes in.
    Left,
    /// Its maker may not be done with it.
    Unfinished,
}

impl Default for Arrivals {
    /// Nothing is known: the folder is to be listed.
    fn default() -> Arrivals {
        let (peers, prepared) = (BTreeMap::new(), BTreeSet::new());
        Arrivals { peers, prepared, list_at: Some(None), last: None }
    }
}

impl Arrivals {
    /// Nothing is to be moved any more.
    pub fn none() -> Arrivals {
        Arrivals { list_at: None, ..Arrivals::default() }
    }

    /// A file of this name has come for this peer.
    pub fn notice(&mut self, peer: HostId, name: OsString, now: Instant) {
        let waiting = self.peers.entry(peer).or_default();
        waiting.add(name, now);
        // Those that were not finished may be so now, and are not to be overtaken then: that one
        // was closed is told late if another process has it open as well.
        waiting.names.values_mut().for_each(|at| *at = now.min(*at));
    }

    /// Files may have come of which nobody has said anything.
    pub fn look_again(&mut self) {
        self.list_at = Some(None);
    }

    /// When [`Arrivals::pass`] is to be called.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let list = self.list_at.map(|at| at.unwrap_or(now));
        self.peers.values().filter_map(Waiting::due).chain(list).min()
    }

    /// Moves what is due, in the order of the names of each peer. `owner` says whose a name is.
    pub fn pass<D: Disk>(
        &mut self,
        disk: &mut D,
        delayed: &Path,
        owner: &dyn Fn(&str) -> Option<HostId>,
        now: Instant,
        wall: Timestamp,
    ) -> Passed {
        let mut passed = Passed::default();
        if self.list_at.is_some_and(|at| at.is_none_or(|at| at <= now)) {
            passed.unlisted = self.list(disk, delayed, owner, now).err();
        }
        let turns = self.whose_turn(now);
        let Arrivals { peers, prepared, last, .. } = self;
        let mut pass = Pass { disk, delayed, prepared, now, wall, passed };
        let (mut left, mut unknown) = (MOVED_A_PASS, false);
        for peer in turns {
            let Some(waiting) = peers.get_mut(&peer).filter(|_| left > 0) else { break };
            left -= pass.move_some(&peer, waiting, left);
            if waiting.names.is_empty() {
                unknown |= waiting.more;
                peers.remove(&peer);
            }
            *last = Some(peer);
        }
        let passed = pass.passed;
        if unknown {
            self.look_again();
        }
        passed
    }

    /// Peers that have something due: behind the one that had the last turn, and then from the
    /// first.
    fn whose_turn(&self, now: Instant) -> Vec<HostId> {
        let due = |(peer, waiting): (&HostId, &Waiting)| {
            waiting.due().is_some_and(|at| at <= now).then(|| peer.clone())
        };
        let Some(last) = &self.last else { return self.peers.iter().filter_map(due).collect() };
        let behind = self.peers.range((Bound::Excluded(last), Bound::Unbounded));
        behind.chain(self.peers.range(..=last)).filter_map(due).collect()
    }

    fn list<D: Disk>(
        &mut self,
        disk: &mut D,
        delayed: &Path,
        owner: &dyn Fn(&str) -> Option<HostId>,
        now: Instant,
    ) -> Result<(), SpoolError> {
        self.list_at = None;
        self.peers.values_mut().for_each(|waiting| waiting.more = false);
        let peers = &mut self.peers;
        let listed = disk.list(delayed, &mut |name| {
            if let Some(peer) = name.to_str().and_then(owner) {
                peers.entry(peer).or_default().add(name.to_owned(), now);
            }
        });
        match listed.context("list", delayed) {
            // It is said, and noticed, by who makes it again.
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => {
                self.list_at = Some(Some(now + RETRY_MOST));
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }
}

/// A pass, as far as it is under way.
struct Pass<'a, D> {
    disk: &'a mut D,
    delayed: &'a Path,
    prepared: &'a mut BTreeSet<HostId>,
    now: Instant,
    wall: Timestamp,
    passed: Passed,
}

impl<D: Disk> Pass<'_, D> {
    /// Moves up to so many files of one peer; how many were looked at.
    fn move_some(&mut self, peer: &HostId, waiting: &mut Waiting, most: usize) -> usize {
        let is_due = |(_, at): &(&OsString, &Instant)| **at <= self.now;
        let due: Vec<OsString> = waiting
            .names
            .iter()
            .filter(is_due)
            .take(most.min(MOVED_A_PEER))
            .map(|(name, _)| name.clone())
            .collect();
        let count = due.len();
        for name in due {
            match self.move_one(peer, &name) {
                Ok(Fate::Moved) => {
                    waiting.names.remove(&name);
                    waiting.held = None;
                    self.passed.peers.insert(peer.clone());
                }
                Ok(Fate::Left) => {
                    waiting.names.remove(&name);
                }
                Ok(Fate::Unfinished) => {
                    waiting.names.insert(name, self.now + RETRY_MOST);
                }
                Err(error) => {
                    waiting.hold(self.now);
                    // That one is just being taken in.
                    if error.cause.kind() != io::ErrorKind::AlreadyExists {
                        self.passed.trouble.push((peer.clone(), error));
                    }
                    break;
                }
            }
        }
        count
    }

    fn move_one(&mut self, peer: &HostId, name: &OsStr) -> Result<Fate, SpoolError> {
        let from = self.delayed.join(name);
        match look(self.disk, &from, self.wall) {
            Ok(Fate::Moved) => {}
            Ok(fate) => return Ok(fate),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Fate::Moved),
            Err(cause) => return Err(cause).context("look at", &from),
        }
        let own = self.delayed.join(peer.as_str());
        let folder = own.join(DROPPED);
        let to = folder.join(name);
        for _ in 0..2 {
            if !self.prepared.contains(peer) {
                self.prepare(&own, &folder)?;
                self.prepared.insert(peer.clone());
            }
            // Nobody but this process puts anything there.
            match self.disk.metadata(&to) {
                Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()).context("move", &from),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(cause).context("look at", &to),
            }
            match self.disk.rename(&from, &to) {
                Ok(()) => return Ok(Fate::Moved),
                // The file is gone, or its new folder is: that is made again then.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => self.prepared.remove(peer),
                Err(cause) => return Err(cause).context("move", &from),
            };
        }
        Ok(Fate::Moved)
    }

    /// Makes the peer's folders, and their names durable.
    fn prepare(&mut self, own: &Path, folder: &Path) -> Result<(), SpoolError> {
        self.disk.make_folder(own).context("make", own)?;
        self.disk.make_folder(folder).context("make", folder)?;
        self.disk.sync_dir(own).context("sync", own)?;
        self.disk.sync_dir(self.delayed).context("sync", self.delayed)
    }
}

impl Waiting {
    /// When something is to be looked at.
    fn due(&self) -> Option<Instant> {
        let first = self.names.values().min().copied()?;
        Some(self.held.map_or(first, |(until, _)| until.max(first)))
    }

    /// One more name, if it is among the first. What is known of it stands.
    fn add(&mut self, name: OsString, now: Instant) {
        let is_behind = self.names.last_key_value().is_none_or(|(last, _)| *last < name);
        if self.more && is_behind {
            return;
        }
        self.names.entry(name).or_insert(now);
        if self.names.len() > NAMES_A_PEER {
            self.names.pop_last();
            self.more = true;
        }
    }

    fn hold(&mut self, now: Instant) {
        let pause = self.held.map_or(RETRY_FIRST, |(_, pause)| pause);
        self.held = Some((now + pause, (pause * 2).min(RETRY_MOST)));
    }
}

/// Whether a file can be moved: [`Fate::Moved`] then.
fn look<D: Disk>(disk: &mut D, path: &Path, wall: Timestamp) -> io::Result<Fate> {
    let found = disk.metadata(path)?;
    if found.kind != Kind::File {
        return Ok(Fate::Left);
    }
    // A time far ahead says nothing about a writer.
    if wall.duration_since(found.modified).abs() >= WRITER_PAUSE {
        return Ok(Fate::Moved);
    }
    if found.links > 1 {
        return Ok(Fate::Unfinished);
    }
    match has_a_line(disk, path) {
        Ok(true) => Ok(Fate::Moved),
        Ok(false) => Ok(Fate::Unfinished),
        // Its maker may not be done with that either; or a symbolic link took its place.
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => Ok(Fate::Unfinished),
        Err(cause) if cause.raw_os_error() == Some(libc::ELOOP) => Ok(Fate::Unfinished),
        Err(cause) => Err(cause),
    }
}

/// Whether a line of the file is whole, as far as that can be told without reading all of it.
fn has_a_line<D: Disk>(disk: &mut D, path: &Path) -> io::Result<bool> {
    let file = disk.open(path, false)?;
    // The name may stand for another file by now.
    let found = disk.describe(&file)?;
    if found.kind != Kind::File || found.links > 1 {
        return Ok(false);
    }
    let Some(last) = found.length.checked_sub(1) else { return Ok(false) };
    if disk.read_at(&file, last, 1)? == b"\n" {
        return Ok(true);
    }
    Ok(memchr::memchr(b'\n', &disk.read_at(&file, 0, FIRST_READ)?).is_some())
}
