//! The spool seen from outside: what `lon queue` shows, and how `lon critical` stores when the
//! broker is away.
//!
//! [`inspect`] only reads, takes no lock and may run while a link child appends: a line that is not
//! whole yet is not listed. [`drop_in_file`] makes a file of the original's kind; the broker takes
//! it in. Until it has, such a file lies in the delayed directory, and then in the peer's folder:
//! both are looked into.

use super::layout::{self, Arrived, CORRUPT, DROPPED, FAILED};
use super::record::MAX_REQUEST;
use super::segment::{Found, Scan};
use super::{Context, Disk, RealDisk, SpoolError, survey};
use base::HostId;
use base::Sequence;
use base::disk::own::{self, OwnFile};
use base::request::shown;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Messages, and files of the inbox, that a [`Listing`] names; the others are only counted.
pub const LISTED_MOST: usize = 10_000;
/// Bytes of a request that a [`Listing`] holds, unless it is a full one.
pub const PREVIEW_BYTES: usize = 256;
/// Bytes of requests that a full [`Listing`] holds, so that one, however long, is whole; what is
/// beyond is cut to [`PREVIEW_BYTES`] each.
pub const FULL_BYTES: usize = MAX_REQUEST;

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The sequence under which the peer knows the message.
    pub sequence: Sequence,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Whose it is, if that is known.
    pub user: Option<u32>,
    /// Bytes of its request.
    pub length: u64,
    /// The request, or the beginning of it; without an automatic key.
    pub request: Vec<u8>,
}

/// A file of the original's kind that was not taken in yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxFile {
    /// The name that it was dropped in by, or the beginning of that.
    pub name: String,
    /// Bytes of the file.
    pub length: u64,
    /// When it was written.
    pub modified: Timestamp,
    /// Whose it is.
    pub user: u32,
}

/// What waits for one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The first [`LISTED_MOST`] messages that wait, in order.
    pub messages: Vec<Listed>,
    /// How many wait in all.
    pub waiting: u64,
    /// Bytes of all their requests.
    pub bytes: u64,
    /// The first [`LISTED_MOST`] files of the inbox: those that were moved to the peer's folder, in
    /// the order in which they came, and behind them the others.
    pub inbox: Vec<InboxFile>,
    /// Files in `failed/`.
    pub failed: u64,
    /// Files in `corrupt/`.
    pub corrupt: u64,
    /// Segments that could not be read.
    pub unreadable: u64,
}

/// What stands in the delayed directory, by whose it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delayed<'a> {
    /// Names of the files that were dropped in, in order, for each that they belong to.
    pub files: BTreeMap<&'a HostId, Vec<OsString>>,
    /// Names of files that belong to nobody, in order: nobody takes them in.
    pub strays: Vec<String>,
    /// Hosts that have a folder and that `owner` does not know.
    pub strangers: Vec<HostId>,
}

/// Lists the delayed directory. `host` tells which of the hosts has this id, `owner` whose a file
/// is. Read once for all peers: the folder may hold as many files as there are peers.
///
/// # Errors
/// The folder cannot be listed.
pub fn delayed<'a>(
    folder: &Path,
    host: impl Fn(&str) -> Option<&'a HostId>,
    owner: impl Fn(&OsStr) -> Option<&'a HostId>,
) -> io::Result<Delayed<'a>> {
    let mut found = Delayed::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(cause) => return Err(cause),
    };
    for entry in entries {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() {
            let stranger = name.to_str().filter(|name| host(name).is_none());
            found.strangers.extend(stranger.and_then(|name| HostId::new(name).ok()));
        } else if kind.is_file() {
            match owner(&name) {
                Some(peer) => found.files.entry(peer).or_default().push(name),
                None => found.strays.push(name.to_string_lossy().into_owned()),
            }
        }
    }
    found.files.values_mut().for_each(|names| names.sort());
    found.strays.sort();
    found.strangers.sort();
    Ok(found)
}

/// Lists what waits for `peer` in the delayed directory: its folder, and the files `dropped_in` for
/// it. A peer without a folder has nothing there. `full`: requests are not cut to
/// [`PREVIEW_BYTES`], as long as [`FULL_BYTES`] last.
///
/// # Errors
/// A folder cannot be listed. A segment that cannot be read is counted instead.
pub fn inspect(
    delayed: &Path,
    peer: &HostId,
    dropped_in: &[OsString],
    full: bool,
) -> Result<Listing, SpoolError> {
    let folder = delayed.join(peer.as_str());
    let disk = &mut RealDisk;
    let mut listing = Listing {
        failed: survey::count(disk, &folder.join(FAILED))?,
        corrupt: survey::count(disk, &folder.join(CORRUPT))?,
        ..Listing::default()
    };
    let segments = survey::names(disk, &folder)?.segments;
    let mut room = if full { FULL_BYTES } else { 0 };
    for (index, name) in segments.iter().enumerate() {
        match survey::read_segment(disk, &folder.join(layout::segment_name(*name)), &mut 0) {
            Ok(bytes) => {
                list_segment(&bytes, *name, survey::bound(&segments, index), &mut room, &mut listing);
            }
            // Delivered and removed meanwhile.
            Err(error) if error.is_missing() => {}
            Err(_) => listing.unreadable += 1,
        }
    }
    listing.inbox = list_inbox(delayed, &folder, dropped_in)?;
    Ok(listing)
}

fn list_segment(bytes: &[u8], name: Sequence, bound: Sequence, room: &mut usize, listing: &mut Listing) {
    for found in Scan::new(bytes, name, bound) {
        let Found::Record(record) = found else { continue };
        if record.answered {
            continue;
        }
        let request = shown(record.request);
        let length = request.len();
        listing.waiting += 1;
        listing.bytes += length as u64;
        if listing.messages.len() < LISTED_MOST {
            let whole = if length <= *room { length } else { length.min(PREVIEW_BYTES) };
            *room = room.saturating_sub(whole);
            listing.messages.push(Listed {
                sequence: record.sequence,
                stored_at: record.stored_at,
                user: record.user,
                length: length as u64,
                request: request[..whole].to_vec(),
            });
        }
    }
}

/// The first [`LISTED_MOST`] files that were moved to `dropped/` in a peer's folder and not taken
/// in yet, in the order in which they came.
///
/// # Errors
/// It cannot be listed.
pub fn moved_in(folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    let (inbox, mut names) = (folder.join(DROPPED), BTreeSet::new());
    let listed = RealDisk.list(&inbox, &mut |name| {
        if !name.as_encoded_bytes().starts_with(b".") {
            // Those that a version before this has moved came first.
            names.insert((Arrived::parse(name).is_some(), name.to_owned()));
        }
        if names.len() > LISTED_MOST {
            names.pop_last();
        }
    });
    match listed {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => {
            listed.context("list", &inbox)?;
            Ok(names.into_iter().map(|(_, name)| inbox.join(name)).collect())
        }
    }
}

/// Those that are still in the delayed directory are looked at first: one that is moved meanwhile
/// is found twice rather than not at all, and listed once.
fn list_inbox(delayed: &Path, folder: &Path, names: &[OsString]) -> Result<Vec<InboxFile>, SpoolError> {
    let still: Vec<_> = names.iter().map(|name| delayed.join(name)).filter_map(look_at).collect();
    let moved = moved_in(folder)?.into_iter().filter_map(look_at);
    let (mut files, mut known) = (Vec::new(), BTreeSet::new());
    for (inode, file) in moved.chain(still).take(LISTED_MOST) {
        if known.insert(inode) {
            files.push(file);
        }
    }
    Ok(files)
}

/// A plain file, and what tells it from every other; one that was taken in meanwhile is none.
fn look_at(path: PathBuf) -> Option<(u64, InboxFile)> {
    let found = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let modified = found.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    let name = path.file_name()?;
    let name = Arrived::parse(name).map_or(name, |arrived| arrived.name).to_string_lossy().into_owned();
    let (length, modified) = (found.len(), modified.unwrap_or(Timestamp::MIN));
    Some((found.ino(), InboxFile { name, length, modified, user: found.uid() }))
}

/// Stores a message for `peer` as a file of the original's kind: written under a hidden name,
/// synced, renamed, the folder synced. The names sort by time. The broker's user can read the file.
///
/// # Errors
/// The request is not one line, or too long, or empty; or what the system said. Nothing is left
/// then.
pub fn drop_in_file(
    delayed: &Path,
    peer: &HostId,
    request: &[u8],
    now: Timestamp,
    pid: u32,
) -> io::Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    if request.is_empty() || request.contains(&b'\n') || request.len() > MAX_REQUEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the request is not one line that can be stored",
        ));
    }
    let nanos = now.as_nanosecond().max(0);
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let folder = fs::metadata(delayed)?;
    // A name may be taken: two hosts, or two containers, with one folder and processes of the same
    // number.
    let path = own::exclusively(|| {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = delayed.join(format!("{seconds:012}.{nanos:09}_{pid:010}_{count:010}.{peer}"));
        let new = OwnFile::create(&path, 0o600)?;
        let mut owner = new.file().metadata()?.uid();
        if owner == 0 && folder.uid() != 0 {
            fchown(new.file(), Some(folder.uid()), Some(folder.gid()))?;
            owner = folder.uid();
        }
        // Without the rights of the folder's owner, who is the broker's user, the file must be open
        // for reading. Set, so that no umask of the caller's takes part in it.
        let mode = if owner == folder.uid() { 0o640 } else { 0o644 };
        new.file().set_permissions(Permissions::from_mode(mode))?;
        write_line(new.file(), request)?;
        new.move_in()?;
        Ok(path)
    })?;
    File::open(delayed)?.sync_all()?;
    Ok(path)
}

fn write_line(mut file: &File, request: &[u8]) -> io::Result<()> {
    let mut line = request.to_vec();
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::{Arrivals, Spool, inbox_owner};
    use super::*;
    use crate::spool::SpoolLimits;
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicBool;

    const LIMITS: SpoolLimits = SpoolLimits { messages: 1_000_000, bytes: 1 << 30, keep_free: 0 };

    fn peer() -> HostId {
        HostId::new("msul1").unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_waits_is_listed_and_what_was_answered_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let delayed = folder.path();
        assert_eq!(inspect(delayed, &peer(), &[], false).unwrap(), Listing::default());
        let mut spool = Spool::open(RealDisk, &delayed.join("msul1"), LIMITS);
        let long = vec![b'x'; 1000];
        spool.store(&[b"one", b"two", &long], at(1_700_000_000));
        for _ in 0..2 {
            spool.next_unsent().unwrap();
        }
        spool.settle(Sequence(1));
        spool.set_aside(Sequence(2), b"two", b"refused", at(1)).unwrap();
        drop_in_file(delayed, &peer(), b"dropped", at(5), 7).unwrap();
        fs::write(delayed.join("1.msul2"), "for another").unwrap();
        for number in 0..2 {
            fs::write(delayed.join(format!("msul1/corrupt/{number}")), "damaged").unwrap();
        }
        let peer = peer();
        let known = |id: &str| (id == "msul1").then_some(&peer);
        fs::create_dir(delayed.join("gone")).unwrap();
        let found =
            super::delayed(delayed, known, |name| inbox_owner(name, |id| known(id).is_some()).map(|_| &peer))
                .unwrap();
        assert_eq!(found.strays, ["1.msul2"]);
        assert_eq!(found.strangers, [HostId::new("gone").unwrap()]);
        let full = inspect(delayed, &peer, &[], true).unwrap();
        assert_eq!(full.messages[0].request, long);
        let listing = inspect(delayed, &peer, &found.files[&peer], false).unwrap();
        let waits = &listing.messages[0];
        assert_eq!((listing.waiting, listing.bytes, listing.failed, listing.corrupt), (1, 1000, 1, 2));
        assert_eq!((waits.sequence, waits.length, waits.stored_at), (Sequence(3), 1000, at(1_700_000_000)));
        assert_eq!(waits.request, long[..PREVIEW_BYTES]);
        let [file] = &listing.inbox[..] else { panic!("{:?}", listing.inbox) };
        assert!(file.name.starts_with("000000000005.000000000_0000000007_"), "{}", file.name);
        assert!(file.name.ends_with(".msul1") && file.length == 8);
    }

    #[test]
    fn a_listing_made_while_messages_are_stored_and_delivered_is_in_order_and_has_only_whole_ones() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("msul1");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut spool = Spool::open_with_segments(RealDisk, &dir, LIMITS, 8192);
                for _ in 0..300 {
                    spool.store(&[&[b'm'; 300], &[b'm'; 300], &[b'm'; 300]], at(1));
                    for _ in 0..2 {
                        let message = spool.next_unsent().unwrap().unwrap();
                        spool.settle(message.sequence);
                    }
                }
                done.store(true, Ordering::Release);
            });
            let mut listings = 0;
            while !done.load(Ordering::Acquire) || listings < 1 {
                let listing = inspect(folder.path(), &peer(), &[], false).unwrap();
                assert!(listing.messages.is_sorted_by_key(|message| message.sequence));
                assert!(listing.messages.iter().all(|message| message.length == 300));
                listings += 1;
            }
        });
        assert_eq!(inspect(folder.path(), &peer(), &[], false).unwrap().waiting, 300);
    }

    #[test]
    fn dropped_files_are_whole_unique_and_in_the_order_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let delayed = folder.path();
        let times = [at(1), at(2), at(999_999_999), at(1_700_000_000), at(1_700_000_000)];
        let paths: Vec<PathBuf> = times
            .iter()
            .zip(0..)
            .map(|(time, number)| {
                drop_in_file(delayed, &peer(), format!("encrypt:request {number}").as_bytes(), *time, 4711)
                    .unwrap()
            })
            .collect();
        assert!(paths.is_sorted());
        assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), 5);
        assert_eq!(fs::read(&paths[4]).unwrap(), b"encrypt:request 4\n");
        for wrong in [&b""[..], b"two\nlines"] {
            assert!(drop_in_file(delayed, &peer(), wrong, at(1), 1).is_err());
        }
        assert_eq!(fs::read_dir(delayed).unwrap().count(), 5, "nothing else is left");
        let mut spool = Spool::open(RealDisk, &delayed.join("msul1"), LIMITS);
        let owner = |name: &OsStr| inbox_owner(name, |id| id == "msul1").map(|_| peer());
        let (mono, wall) = (std::time::Instant::now(), at(2_000_000_000));
        let passed = Arrivals::default().pass(&mut RealDisk, delayed, &owner, mono, wall);
        assert_eq!(passed.peers, [peer()].into());
        let moved = inspect(delayed, &peer(), &[], false).unwrap().inbox;
        assert_eq!(moved.len(), 5, "they are listed until they are taken in");
        assert!(moved.is_sorted_by_key(|file| file.name.clone()));
        spool.take_in(wall);
        assert!(inspect(delayed, &peer(), &[], false).unwrap().inbox.is_empty());
        let mut found = Vec::new();
        while let Some(message) = spool.next_unsent().unwrap() {
            found.push(String::from_utf8(message.request).unwrap());
        }
        assert_eq!(found, (0..5).map(|number| format!("encrypt:request {number}")).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_read_is_said_or_counted_and_the_longest_request_is_dropped_in() {
        let folder = tempfile::tempdir().unwrap();
        let delayed = folder.path();
        let file = delayed.join("file");
        fs::write(&file, "").unwrap();
        assert!(super::delayed(&file, |_| None, |_| None).is_err());
        assert!(super::delayed(&delayed.join("none"), |_| None, |_| None).is_ok());
        fs::create_dir(delayed.join("msul1")).unwrap();
        let huge = File::create(delayed.join("msul1/00000000000000000001.seg")).unwrap();
        huge.set_len(crate::spool::segment::MAX_SEGMENT_BYTES + 1).unwrap();
        assert_eq!(inspect(delayed, &peer(), &[], false).unwrap().unreadable, 1);
        let mut request = vec![b'x'; MAX_REQUEST];
        let path = drop_in_file(delayed, &peer(), &request, at(1), 1).unwrap();
        let known = fs::metadata(path).unwrap();
        assert_eq!((known.len(), known.permissions().mode() & 0o777), (MAX_REQUEST as u64 + 1, 0o640));
        request.push(b'x');
        assert!(drop_in_file(delayed, &peer(), &request, at(1), 1).is_err());
    }

    #[test]
    fn a_file_that_root_drops_in_is_of_the_folders_owner() {
        let folder = tempfile::tempdir().unwrap();
        if fs::metadata(folder.path()).unwrap().uid() != 0 {
            return; // The test does not run as root.
        }
        std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).unwrap();
        let known = fs::metadata(drop_in_file(folder.path(), &peer(), b"x", at(1), 1).unwrap()).unwrap();
        assert_eq!((known.uid(), known.gid(), known.permissions().mode() & 0o777), (65534, 65534, 0o640));
        // In a folder of root's own it is what root makes it, whatever the folder's group.
        std::os::unix::fs::chown(folder.path(), Some(0), Some(65534)).unwrap();
        let known = fs::metadata(drop_in_file(folder.path(), &peer(), b"x", at(1), 1).unwrap()).unwrap();
        let made = fs::metadata(tempfile::NamedTempFile::new().unwrap().path()).unwrap();
        assert_eq!((known.uid(), known.gid()), (0, made.gid()));
    }

    #[test]
    fn only_so_many_messages_are_listed_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(RealDisk, &folder.path().join("msul1"), LIMITS);
        assert!(spool.store(&[&b"x"[..]; LISTED_MOST + 1], at(1)).iter().all(Result::is_ok));
        let listing = inspect(folder.path(), &peer(), &[], false).unwrap();
        assert_eq!((listing.messages.len(), listing.waiting), (LISTED_MOST, LISTED_MOST as u64 + 1));
    }
}
