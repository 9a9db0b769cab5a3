//! How files of the original's kind come from the delayed directory, which all peers share, into
//! the folder of the peer that they are for: `delayed/<name>` becomes
//! `delayed/<peer>/dropped/<number>.<user>.<name>`. The numbers rise, so the order in which files
//! came outlives their move, and no name is ever taken.
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
//! How it fails: where a peer's folder takes nothing, its files stay, in order; the cause is told
//! ([`Passed`]), and it is tried again in growing pauses. Other peers do not notice. Whoever may
//! drop files may make one that cannot be moved, or is not finished for ever, and thousands of
//! them: those stay alone, and the others go past them. No file is ever replaced by another.

mod numbers;

use super::inbox::{FIRST_READ, WRITER_PAUSE, is_everybodys};
use super::layout::{Arrived, DROPPED};
use super::{Context, Disk, Kind, SpoolError};
use base::HostId;
use base::disk::{is_ours, not_ours};
use jiff::Timestamp;
use numbers::Numbers;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Files that are looked at in one pass: others have their turn then.
pub const MOVED_A_PASS: usize = 64;
/// ... and of one peer.
const MOVED_A_PEER: usize = 16;
/// Names that are kept of one peer. Where there are more, the folder is listed again when these
/// were looked at, for those behind them.
const NAMES_A_PEER: usize = 256;
/// ... and that a look at the folder keeps beyond that, of all peers together: each look reads all
/// names that there are, of which there may be a million.
const NAMES_MORE: usize = 8192;
/// ... of which so many may be of files that are left for a while: there is room for others. Those
/// beyond are found when the folder is listed from its beginning.
const UNFINISHED_A_PEER: usize = NAMES_A_PEER / 2;
/// Name in a peer's folder by which it is tried whether a file can be made there.
const PROBE: &str = ".probe";
/// Times that a file's number, or the peer's folders, are looked for again when they had changed.
const TRIES: u32 = 3;
/// How long after the first look files are compared with those that were moved before: what a loss
/// of power has left is found then.
const COMPARED: Duration = Duration::from_secs(30);
/// Pause before a peer's files are tried again, after one could not be moved; it doubles ...
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// ... up to this. Also how long a file is left that its maker may be writing.
const RETRY_MOST: Duration = Duration::from_secs(5);

/// See the head of this file.
#[derive(Debug)]
pub struct Arrivals {
    peers: BTreeMap<HostId, Waiting>,
    /// Peers whose folders are there, durably, and the numbers that their files get.
    prepared: BTreeMap<HostId, Numbers>,
    /// When the first look was.
    begun: Option<Instant>,
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
    /// The last name that was looked at since the folder was listed from its beginning.
    after: Option<OsString>,
    /// Names up to that one were forgotten.
    forgotten: bool,
    /// Nothing is moved until then, and the pause behind that.
    held: Option<(Instant, Duration)>,
}

/// What a pass has done.
#[derive(Debug, Default)]
pub struct Passed {
    /// Peers that have files in their folders.
    pub peers: BTreeSet<HostId>,
    /// Why files were left, and those behind them: whose, and what the system said.
    pub trouble: Vec<(HostId, SpoolError)>,
    /// Why files were left that others go past.
    pub alone: Vec<(HostId, SpoolError)>,
    /// Names that are no plain file's, one of each peer.
    pub irregular: BTreeMap<HostId, PathBuf>,
    /// Why the folder could not be listed.
    pub unlisted: Option<SpoolError>,
}

/// What becomes of a file.
enum Fate {
    /// It was moved, or somebody else has done that.
    Moved,
    /// It is none that anybody takes in.
    Irregular,
    /// Its maker may not be done with it.
    Unfinished,
    /// It cannot be moved, and others can.
    Alone(SpoolError),
}

/// What a look at a file says.
enum Looked {
    /// It can be moved, is this user's, and was changed then.
    Done(u32, Timestamp),
    /// It is no plain file.
    Irregular,
    /// Its maker may not be done with it.
    Unfinished,
}

impl Default for Arrivals {
    /// Nothing is known: the folder is to be listed.
    fn default() -> Arrivals {
        let (peers, prepared) = (BTreeMap::new(), BTreeMap::new());
        Arrivals { peers, prepared, begun: None, list_at: Some(None), last: None }
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
        waiting.add(name, now, &mut 0);
        // Those that were not finished may be so now, and are not to be overtaken then: that one
        // was closed is told late if another process has it open as well.
        waiting.names.values_mut().for_each(|at| *at = now.min(*at));
    }

    /// Files may have come of which nobody has said anything.
    pub fn look_again(&mut self) {
        self.peers.values_mut().for_each(|waiting| waiting.after = None);
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
        owner: &dyn Fn(&OsStr) -> Option<HostId>,
        now: Instant,
        wall: Timestamp,
    ) -> Passed {
        let mut passed = Passed::default();
        if self.list_at.is_some_and(|at| at.is_none_or(|at| at <= now)) {
            passed.unlisted = self.list(disk, delayed, owner, now).err();
        }
        let turns = self.whose_turn(now);
        let compared = now < *self.begun.get_or_insert(now) + COMPARED;
        let Arrivals { peers, prepared, last, .. } = self;
        let mut pass = Pass { disk, delayed, prepared, compared, now, wall, passed };
        let mut left = MOVED_A_PASS;
        for peer in turns {
            let Some(waiting) = peers.get_mut(&peer).filter(|_| left > 0) else { break };
            left -= pass.move_some(&peer, waiting, left);
            *last = Some(peer);
        }
        let passed = pass.passed;
        self.go_on(now);
        passed
    }

    /// Where all names that are known were looked at, the folder is listed: at once for those
    /// behind them, or, where there are none, later from its beginning for those forgotten.
    fn go_on(&mut self, now: Instant) {
        let (mut at_once, mut later) = (false, false);
        self.peers.retain(|_, waiting| {
            if waiting.names.values().any(|at| *at <= now) {
                return true;
            }
            at_once |= waiting.more;
            if !waiting.more {
                waiting.after = None;
                later |= std::mem::take(&mut waiting.forgotten);
            }
            waiting.more || !waiting.names.is_empty()
        });
        if at_once {
            self.list_at = Some(None);
        } else if later && self.list_at.is_none() {
            self.list_at = Some(Some(now + RETRY_MOST));
        }
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
        owner: &dyn Fn(&OsStr) -> Option<HostId>,
        now: Instant,
    ) -> Result<(), SpoolError> {
        self.list_at = None;
        self.peers.values_mut().for_each(|waiting| waiting.more = false);
        let peers = &mut self.peers;
        let beyond = peers.values().map(|waiting| waiting.names.len().saturating_sub(NAMES_A_PEER));
        let mut spare = NAMES_MORE.saturating_sub(beyond.sum());
        let listed = disk.list(delayed, &mut |name| {
            if let Some(peer) = owner(name) {
                peers.entry(peer).or_default().find(name, now, &mut spare);
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
    prepared: &'a mut BTreeMap<HostId, Numbers>,
    /// Files are compared with those that were moved before.
    compared: bool,
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
            waiting.after = waiting.after.take().max(Some(name.clone()));
            match self.move_one(peer, &name) {
                Ok(Fate::Moved) => {
                    waiting.names.remove(&name);
                    waiting.held = None;
                    self.passed.peers.insert(peer.clone());
                }
                Ok(Fate::Irregular) => {
                    self.passed.irregular.insert(peer.clone(), self.delayed.join(&name));
                    waiting.names.remove(&name);
                }
                Ok(Fate::Unfinished) => waiting.put_off(name, self.now),
                Ok(Fate::Alone(error)) => {
                    self.passed.alone.push((peer.clone(), error));
                    waiting.put_off(name, self.now);
                }
                Err(error) => {
                    waiting.hold(self.now);
                    self.passed.trouble.push((peer.clone(), error));
                    break;
                }
            }
        }
        count
    }

    fn move_one(&mut self, peer: &HostId, name: &OsStr) -> Result<Fate, SpoolError> {
        let from = self.delayed.join(name);
        let (user, modified) = match look(self.disk, &from, self.wall) {
            Ok(Looked::Done(user, modified)) => (user, modified),
            Ok(Looked::Irregular) => return Ok(Fate::Irregular),
            Ok(Looked::Unfinished) => return Ok(Fate::Unfinished),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Fate::Moved),
            Err(cause) => return Err(cause).context("look at", &from),
        };
        let own = self.delayed.join(peer.as_str());
        let folder = own.join(DROPPED);
        for _ in 0..TRIES {
            let mut numbers = match self.prepared.remove(peer) {
                Some(numbers) => numbers,
                None => self.prepare(&own, &folder)?,
            };
            let number = numbers.of(if self.compared { modified } else { Timestamp::MAX });
            let to = folder.join(Arrived { number, user, name }.file_name());
            let moved = self.disk.rename_new(&from, &to);
            let is_gone = moved.as_ref().is_err_and(is_missing) && self.is_gone(&from);
            match &moved {
                Ok(()) => numbers.moved(number, modified),
                // Its new folder is gone, and made again. Or another program moves files there.
                Err(cause) if !is_gone && (is_missing(cause) || is_taken(cause)) => continue,
                Err(_) => {}
            }
            self.prepared.insert(peer.clone(), numbers);
            return match moved {
                Ok(()) => Ok(Fate::Moved),
                Err(_) if is_gone => Ok(Fate::Moved),
                // A folder in the file's place that its maker lets nobody write to, say.
                Err(cause)
                    if cause.kind() == io::ErrorKind::PermissionDenied && self.takes_files(&folder) =>
                {
                    Err(cause).context("move", &from).or_else(|error| Ok(Fate::Alone(error)))
                }
                Err(cause) => Err(cause).context("move", &from),
            };
        }
        // The others go past it.
        Ok(Fate::Unfinished)
    }

    /// Makes the peer's folders, and their names durable; the numbers that its files get.
    fn prepare(&mut self, own: &Path, folder: &Path) -> Result<Numbers, SpoolError> {
        self.disk.make_folder(own).context("make", own)?;
        let above = self.disk.metadata(self.delayed).context("look at", self.delayed)?.user;
        let user = self.disk.metadata(own).context("look at", own)?.user;
        if !is_ours(user, above) {
            let denied = io::Error::new(io::ErrorKind::PermissionDenied, not_ours(user));
            return Err(denied).context("use", own);
        }
        self.disk.make_folder(folder).context("make", folder)?;
        self.disk.sync_dir(own).context("sync", own)?;
        self.disk.sync_dir(self.delayed).context("sync", self.delayed)?;
        let (mut numbers, mut names) = (Numbers::counting_from(self.wall), Vec::new());
        let listed = self.disk.list(folder, &mut |name| {
            if let Some(Arrived { number, .. }) = Arrived::parse(name) {
                numbers.is_taken(number);
                names.extend(self.compared.then(|| (number, name.to_owned())));
            }
        });
        listed.context("list", folder)?;
        names.sort_unstable();
        for (number, name) in names {
            // One that was taken in meanwhile came before.
            if let Ok(found) = self.disk.metadata(&folder.join(name)) {
                numbers.was_there(number, found.modified);
            }
        }
        Ok(numbers)
    }

    fn is_gone(&mut self, path: &Path) -> bool {
        self.disk.metadata(path).is_err_and(|cause| is_missing(&cause))
    }

    /// Whether it is not the folder for which a file could not be moved.
    fn takes_files(&mut self, folder: &Path) -> bool {
        let probe = folder.join(PROBE);
        let made = match self.disk.create(&probe) {
            Ok(_) => true,
            // A process was killed here.
            Err(cause) => is_taken(&cause),
        };
        made && self.disk.remove(&probe).is_ok()
    }
}

fn is_missing(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::NotFound
}

fn is_taken(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::AlreadyExists
}

impl Waiting {
    /// When something is to be looked at.
    fn due(&self) -> Option<Instant> {
        let first = self.names.values().min().copied()?;
        Some(self.held.map_or(first, |(until, _)| until.max(first)))
    }

    /// One more name, if it is among the first. What is known of it stands. `spare`: how many may
    /// be kept that are too many for one peer.
    fn add(&mut self, name: OsString, now: Instant, spare: &mut usize) {
        let is_behind = self.names.last_key_value().is_none_or(|(last, _)| *last < name);
        if self.more && is_behind {
            return;
        }
        let known = self.names.len();
        self.names.entry(name).or_insert(now);
        if self.names.len() == known || known < NAMES_A_PEER {
            return;
        }
        if let Some(left) = spare.checked_sub(1) {
            *spare = left;
        } else {
            let last = self.names.pop_last().map(|(name, _)| name);
            self.forgotten |= self.after.is_some() && last <= self.after;
            self.more = true;
        }
    }

    /// A name that the folder has, unless it was looked at since the folder was listed from its
    /// beginning.
    fn find(&mut self, name: &OsStr, now: Instant, spare: &mut usize) {
        if self.after.as_deref().is_none_or(|after| name > after) {
            self.add(name.to_owned(), now, spare);
        }
    }

    /// This one is looked at later, and holds nobody up.
    fn put_off(&mut self, name: OsString, now: Instant) {
        self.names.remove(&name);
        if self.names.values().filter(|at| **at > now).count() < UNFINISHED_A_PEER {
            self.names.insert(name, now + RETRY_MOST);
        } else {
            self.forgotten = true;
        }
    }

    fn hold(&mut self, now: Instant) {
        let pause = self.held.map_or(RETRY_FIRST, |(_, pause)| pause);
        self.held = Some((now + pause, (pause * 2).min(RETRY_MOST)));
    }
}

/// Whether a file can be moved.
fn look<D: Disk>(disk: &mut D, path: &Path, wall: Timestamp) -> io::Result<Looked> {
    let found = disk.metadata(path)?;
    if found.kind != Kind::File {
        return Ok(Looked::Irregular);
    }
    // A time far ahead says nothing about a writer.
    if wall.duration_since(found.modified).abs() >= WRITER_PAUSE {
        return Ok(Looked::Done(found.user, found.modified));
    }
    if found.links > 1 {
        return Ok(Looked::Unfinished);
    }
    match has_a_line(disk, path) {
        Ok(true) => Ok(Looked::Done(found.user, found.modified)),
        Ok(false) => Ok(Looked::Unfinished),
        Err(cause) if is_missing(&cause) || is_everybodys(&cause) => Err(cause),
        // Its maker may not be done with that either: may not be read, has a lease on it, or put
        // something else in its place.
        Err(_) => Ok(Looked::Unfinished),
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
