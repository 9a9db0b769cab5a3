//! What is found of a record at the start, and what cannot be read of it.

use super::kept::{ANSWER_MOST, Kept};
use super::line::{self, Line};
use super::{ANSWERS, Record, State};
use base::disk::own::own_new;
use base::disk::{Context, Disk, Kind, StepError};
use std::io;
use std::path::Path;

/// Bytes that are read at a time.
const CHUNK: usize = 1024 * 1024;
/// Longest line: an answer that is escaped throughout, and what stands before it. A longer one is
/// damage.
const LINE_MOST: usize = 2 * ANSWER_MOST + 256;
/// Largest file that is read; a larger one is not a record's. What a record must hold takes less
/// than 100 MiB.
const FILE_MOST: u64 = 1024 * 1024 * 1024;
/// How often a read is tried: unlike a sync, it may be tried again.
const READ_TRIES: usize = 2;
/// What the names of copies of damaged files begin with.
pub(super) const DAMAGED: &str = "damaged-";
/// Copies of damaged files that are kept; at the bound the next is only reported.
const DAMAGED_MOST: u32 = 100;

/// What the file was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loaded {
    /// Every byte of it is a line's: it may be gone on with.
    Whole(Tail),
    /// Not there, or without its tail: a new one is needed.
    Unfit,
    /// There are bytes that cannot be read; the file was not copied yet.
    Damaged {
        /// The number of bytes that cannot be read.
        bytes: u64,
    },
}

/// The end of a whole file: from its last floor line on. The first write behind each sync begins
/// with such a line, and the others have none; so all that may not be durable lies here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Offset of that line.
    pub begins: u64,
    /// Bytes of the file.
    pub ends: u64,
}

/// Reads lines and remembers what they say.
#[derive(Default)]
struct Reader {
    kept: Kept,
    /// The line that has begun.
    line: Vec<u8>,
    /// That one is too long: its bytes are passed over.
    too_long: bool,
    good: u64,
    /// Lines so far.
    lines: u64,
    /// Bytes of them, and of the line that has begun.
    bytes: u64,
    /// Where the last floor line begins.
    floor_at: u64,
    /// Bytes without a proven line since the last one.
    unproven: u64,
    /// Where they begin.
    unproven_line: u64,
    /// Bytes without a proven line that one came behind.
    damaged: u64,
    /// Where the first of them are.
    damaged_line: Option<u64>,
    /// There are zeros among the bytes without a proven line since the last one.
    zeros: bool,
    /// Such bytes that one came behind, and their line, since the last floor line: holes that a
    /// loss of power has left among what was not synced.
    holes: Option<(u64, u64)>,
}

/// What reading a record came to.
pub(super) struct Found {
    kept: Kept,
    /// Lines that were proven.
    pub good: u64,
    /// Bytes that are damaged, and where the first of them are, counted from 1. A start sets the
    /// file aside then.
    pub damaged: Option<(u64, u64)>,
    /// Bytes at the end that are not whole, and their line; or holes of zeros behind the last floor
    /// line, which were not synced. Nobody was told of them, and a start leaves them out.
    pub torn: Option<(u64, u64)>,
    /// The end; `None` where that is not a line's.
    tail: Option<Tail>,
}

impl Reader {
    fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.extend(&bytes[..end]);
            self.end_line(1);
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.too_long || self.line.len() + bytes.len() > LINE_MOST {
            self.too_long = true;
            self.unproven += (self.line.len() + bytes.len()) as u64;
            self.zeros |= [&self.line, bytes].iter().any(|bytes| memchr::memchr(0, bytes).is_some());
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, newline: u64) {
        self.lines += 1;
        self.bytes += newline;
        match line::parse(&self.line).filter(|_| !self.too_long) {
            Some(line) => {
                if matches!(line, Line::Floor { .. }) {
                    // What is before it was synced: no hole, then.
                    self.fill_holes();
                    self.zeros = false;
                    self.floor_at = self.bytes - newline - self.line.len() as u64;
                }
                self.kept.take(line);
                self.good += 1;
                if std::mem::take(&mut self.zeros) && self.unproven > 0 {
                    let (bytes, line) = self.take_unproven();
                    let (before, first) = self.holes.unwrap_or((0, line));
                    self.holes = Some((before + bytes, first));
                } else {
                    self.give_up();
                }
            }
            None => {
                self.zeros |= memchr::memchr(0, &self.line).is_some();
                self.unproven += self.line.len() as u64 + newline;
                self.unproven_line = if self.unproven_line == 0 { self.lines } else { self.unproven_line };
            }
        }
        self.line.clear();
        self.too_long = false;
    }
}

impl Reader {
    /// What was not proven up to here is damage.
    fn give_up(&mut self) {
        let (bytes, line) = self.take_unproven();
        if bytes > 0 {
            self.damaged += bytes;
            self.damaged_line.get_or_insert(line);
        }
    }

    fn take_unproven(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.unproven), std::mem::take(&mut self.unproven_line))
    }

    /// What was taken for holes is damage.
    fn fill_holes(&mut self) {
        if let Some((bytes, line)) = self.holes.take() {
            self.damaged += bytes;
            self.damaged_line = Some(self.damaged_line.map_or(line, |first| first.min(line)));
        }
    }

    fn finish(mut self) -> Found {
        // A last line that lost nothing but its newline is proven all the same.
        let unended = !self.line.is_empty() || self.too_long;
        if unended {
            self.end_line(0);
        }
        // The first line was durable before the file had its name: without any, more is missing
        // than a tail.
        let empty = self.good == 0;
        if empty {
            self.give_up();
        }
        let damaged = self.damaged_line.map(|line| (self.damaged, line)).or(empty.then_some((0, 1)));
        let end = (self.unproven > 0).then_some((self.unproven, self.unproven_line));
        let torn = match (self.holes, end) {
            (Some((holes, line)), end) => Some((holes + end.map_or(0, |(bytes, _)| bytes), line)),
            (None, end) => end,
        };
        let tail = (!unended).then_some(Tail { begins: self.floor_at, ends: self.bytes });
        Found { kept: self.kept, good: self.good, damaged, torn, tail }
    }
}

/// Reads a record's file.
pub(super) fn read<D: Disk>(disk: &mut D, path: &Path) -> Result<Found, StepError> {
    let found = disk.metadata(path).context("read", path)?;
    if found.kind != Kind::File || found.length > FILE_MOST {
        let cause = io::Error::other("it is not a record: no plain file, or too large");
        return Err(cause).context("read", path);
    }
    let mut reader = Reader::default();
    each_chunk(disk, path, |_, bytes, _| {
        reader.feed(bytes);
        Ok(())
    })?;
    Ok(reader.finish())
}

fn each_chunk<D: Disk>(
    disk: &mut D,
    path: &Path,
    mut each: impl FnMut(&mut D, &[u8], u64) -> Result<(), StepError>,
) -> Result<(), StepError> {
    let file = disk.open(path, false).context("open", path)?;
    let mut offset = 0;
    loop {
        let bytes = disk.read_at(&file, offset, CHUNK).context("read", path)?;
        if bytes.is_empty() {
            return Ok(());
        }
        each(disk, &bytes, offset)?;
        offset += bytes.len() as u64;
    }
}

impl<D: Disk> Record<D> {
    /// Reads the file, unless that was done.
    pub(super) fn read_once(&mut self) -> Result<(), StepError> {
        if self.state != State::Unread {
            return Ok(());
        }
        self.file = None;
        let mut tries = 1;
        let (kept, loaded) = loop {
            match self.read() {
                Err(error) if !error.is_missing() && tries < READ_TRIES => {
                    log::warn!("{error}; read again");
                    tries += 1;
                }
                Err(error) if error.is_missing() => break (Kept::default(), Loaded::Unfit),
                read => break read?,
            }
        };
        self.kept = kept;
        self.state = State::Read(loaded);
        Ok(())
    }

    fn read(&mut self) -> Result<(Kept, Loaded), StepError> {
        let path = self.dir.join(ANSWERS);
        let found = read(&mut self.disk, &path)?;
        Ok(match (found.damaged, found.torn) {
            (Some((bytes, _)), _) => (found.kept, Loaded::Damaged { bytes }),
            (None, Some((bytes, _))) => {
                log::warn!("read {}: {bytes} bytes at its end are not whole; left out", path.display());
                (found.kept, Loaded::Unfit)
            }
            (None, None) => (found.kept, found.tail.map_or(Loaded::Unfit, Loaded::Whole)),
        })
    }

    /// Copies the damaged file to a name of its own, before the record is written anew without what
    /// is damaged.
    pub(super) fn set_damaged_aside(&mut self, damaged: u64) -> Result<(), StepError> {
        let (path, new) = (self.dir.join(ANSWERS), self.dir.join(own_new()));
        for number in 1..=DAMAGED_MOST {
            let copy = self.dir.join(format!("{DAMAGED}{number}"));
            match self.disk.metadata(&copy) {
                Ok(_) => continue,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(cause).context("make", &copy),
            }
            let file = self.create_hidden(&new)?;
            each_chunk(&mut self.disk, &path, |disk, bytes, offset| {
                disk.write_at(&file, offset, bytes).context("write", &new)
            })?;
            self.disk.sync_data(&file).context("sync", &new)?;
            self.disk.rename(&new, &copy).context("rename", &new)?;
            self.disk.sync_dir(&self.dir).context("sync", &self.dir)?;
            log::error!(
                "read {}: {damaged} of its bytes are damaged; answers may be lost, and messages run again; a copy \
                 is kept as {}",
                path.display(),
                copy.display()
            );
            return Ok(());
        }
        log::error!(
            "read {}: {damaged} of its bytes are damaged; answers may be lost, and messages run again; \
             {DAMAGED_MOST} copies are there already, no more are made",
            path.display()
        );
        Ok(())
    }

    /// Makes the folder and the one above, and their names durable.
    pub(super) fn make_folders(&mut self) -> Result<(), StepError> {
        let dir = self.dir.clone();
        let received = dir.parent().unwrap_or(Path::new("."));
        let spool = received.parent().unwrap_or(Path::new("."));
        for folder in [spool, received, &dir] {
            self.disk.make_folder(folder).context("make", folder)?;
        }
        for folder in [spool, received] {
            self.disk.sync_dir(folder).context("sync", folder)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::disk::{FaultyDisk, RealDisk};

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    fn found(file: &[u8]) -> Found {
        let mut disk = FaultyDisk::new(&[]);
        disk.put(Path::new("/answers"), file);
        read(&mut disk, Path::new("/answers")).unwrap()
    }

    fn floor(number: u64) -> Vec<u8> {
        let mut line = Vec::new();
        line::append_floor(&mut line, EPOCH, number, &Default::default());
        line
    }

    #[test]
    fn damage_is_counted_to_the_byte_and_its_first_line_is_said() {
        for length in [0, 1, 500, LINE_MOST, LINE_MOST + 1, LINE_MOST + CHUNK, 3 * CHUNK] {
            let damage = [vec![b'?'; length], b"\n".to_vec()].concat();
            let file = [floor(1), floor(2), damage.clone(), b"x\n".to_vec(), floor(3), floor(4)].concat();
            let at = (file.len() - floor(4).len()) as u64;
            let middle = found(&file);
            assert_eq!((middle.good, middle.torn), (4, None));
            assert_eq!(middle.damaged, Some((damage.len() as u64 + 2, 3)), "{length}");
            assert_eq!(middle.tail, Some(Tail { begins: at, ends: file.len() as u64 }));
            // Twice, the first is said; and at the end it is a tail.
            let twice = found(&[&file[..], b"y\n", &floor(5)[..]].concat());
            assert_eq!(twice.damaged, Some((damage.len() as u64 + 4, 3)));
            let end = found(&[&floor(1)[..], &damage, b"x\n"].concat());
            assert_eq!((end.damaged, end.torn), (None, Some((damage.len() as u64 + 2, 2))), "{length}");
        }
    }

    #[test]
    fn a_hole_of_zeros_behind_the_last_floor_line_was_never_synced_and_any_other_is_damage() {
        let key = base::Key::new(b"K").unwrap();
        let mut answer = Vec::new();
        line::append_key(&mut answer, &key, false, b"yes");
        let hole = [&vec![0; 700][..], &answer[10..]].concat();
        let last = found(&[&floor(1)[..], &answer, &hole, &answer].concat());
        assert_eq!((last.good, last.damaged, last.torn), (3, None, Some((hole.len() as u64, 3))));
        assert_eq!(
            last.tail,
            Some(Tail { begins: 0, ends: (floor(1).len() + 2 * answer.len() + hole.len()) as u64 })
        );
        let before = found(&[&floor(1)[..], &answer, &hole, &floor(2), &answer].concat());
        assert_eq!((before.damaged, before.torn), (Some((hole.len() as u64, 3)), None));
        let other = found(&[&floor(1)[..], &answer, b"no zeros\n", &answer].concat());
        assert_eq!((other.damaged, other.torn), (Some((9, 3)), None));
    }

    #[test]
    fn the_longest_line_counts_and_a_longer_one_is_damage_whatever_it_says() {
        let key = base::Key::new(b"K").unwrap();
        let without = line::key_length(&key, false, b"") as usize - 1;
        for (beyond, good) in [(0, 3), (1, 2), (2, 2), (9, 2)] {
            let mut long = Vec::new();
            line::append_key(&mut long, &key, false, &vec![b'x'; LINE_MOST + beyond - without]);
            assert_eq!(long.len(), LINE_MOST + beyond + 1);
            let found = found(&[floor(1), long.clone(), floor(2)].concat());
            assert_eq!(found.good, good, "{beyond}");
            assert_eq!(found.damaged, (good == 2).then_some((long.len() as u64, 2)), "{beyond}");
        }
    }

    #[test]
    fn what_is_no_plain_file_or_too_large_is_no_record() {
        let mut disk = FaultyDisk::new(&[Path::new("/folder")]);
        let error = read(&mut disk, Path::new("/folder")).err().unwrap();
        assert!(error.cause.to_string().starts_with("it is not a record"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers");
        std::fs::File::create(&path).unwrap().set_len(FILE_MOST + 1).unwrap();
        let error = read(&mut RealDisk, &path).err().unwrap();
        assert!(error.cause.to_string().starts_with("it is not a record"), "{error}");
    }
}
