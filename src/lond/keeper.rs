//! A session's hold on the record of its caller's critical messages: the lock, the file, and what
//! is asked of it.
//!
//! Owns both from when the first HELLO of the caller is there until nobody will be answered from
//! the record any more. Fails as the record does, in words for the session, which then waits and
//! has it tried again.

use crate::secure::{Opening, Recalled, Recorded, Recorder, Unrecorded, Wanted};
use base::HostId;
use base::disk::{Above, Context, Disk, FolderLock, Guarded, Identity, RealDisk, StepError, locked_by};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::record::{self, Answered, Look, Record, RecordError};
use supervise::places::is_same_place;

/// The record of one caller, while this process has it: on a disk `D`, under a lock `L` if the disk
/// itself has none.
pub struct Keeper<D: Disk = Guarded<RealDisk>, L = ()> {
    dir: PathBuf,
    /// In this order: the record is done with before the lock is given back.
    held: Option<(Record<D>, L)>,
    holder: String,
    /// What a process that gave its other folders up has of those above.
    above: Arc<Above>,
    /// The folder that this process is confined to, if it is.
    only: Option<Identity>,
}

impl Keeper {
    /// Has others be told that `holder` has the record, while this process does.
    pub fn signed(self, holder: String) -> Keeper {
        Keeper { holder, ..self }
    }

    /// This process is confined to this folder: it can have no other of that name.
    pub fn confined_to(self, only: Option<Identity>) -> Keeper {
        Keeper { only, ..self }
    }

    /// Syncs the folders above by what was opened of them.
    pub fn with_above(self, above: Arc<Above>) -> Keeper {
        Keeper { above, ..self }
    }
}

impl Recorder for Keeper {
    fn open(&mut self, epoch: &str) -> Opening {
        let (holder, above) = (self.holder.clone(), self.above.clone());
        self.open_with(epoch, |dir| {
            let Some(lock) = FolderLock::try_acquire(dir)? else {
                // An older link of the caller ends, and is waited for; another lond may not.
                let other = FolderLock::holder(dir).filter(|other| !is_same_place(other, &holder));
                return match other {
                    Some(other) => Err(io::Error::other(locked_by(Some(other)))).context("lock", dir),
                    None => Ok(None),
                };
            };
            let disk = Guarded::new(RealDisk, dir, Some(lock), holder).with_above(above);
            Ok(Some((Record::open(disk, dir), ())))
        })
    }

    fn is_open(&self) -> bool {
        self.has_record()
    }

    fn recall(&mut self, wanted: &Wanted<'_>) -> Recalled {
        // Before it is run: its answer could not be recorded, and it would be run again.
        if self.is_lost() {
            return Recalled::Failed(format!("use {}", self.dir.display()));
        }
        self.look_up(wanted)
    }

    fn write(&mut self, answers: &[&Unrecorded]) -> Result<(), String> {
        self.write_answers(answers)
    }

    fn sync(&mut self) -> Result<(), String> {
        self.sync_answers()
    }

    fn is_lost(&self) -> bool {
        self.only.is_some() && self.only != Identity::named(&self.dir).ok()
    }

    fn close(&mut self) {
        self.let_go();
    }
}

impl<D: Disk, L> Keeper<D, L> {
    /// The record of `caller`; nothing is touched yet.
    pub fn new(spool_dir: &Path, caller: &HostId) -> Keeper<D, L> {
        Keeper {
            dir: record::folder(spool_dir, caller),
            held: None,
            holder: String::new(),
            above: Arc::default(),
            only: None,
        }
    }

    /// Where the record is.
    pub fn folder(&self) -> &Path {
        &self.dir
    }

    /// [`Recorder::open`], with the lock and the record that `acquire` has for the folder; `None`:
    /// another process has it.
    pub fn open_with(
        &mut self,
        epoch: &str,
        acquire: impl FnOnce(&Path) -> Result<Option<(Record<D>, L)>, StepError>,
    ) -> Opening {
        if self.held.is_none() {
            match acquire(&self.dir) {
                Ok(Some(held)) => self.held = Some(held),
                Ok(None) => return Opening::Busy,
                Err(error) => return Opening::Failed(error.to_string()),
            }
        }
        match self.held.as_mut().map(|(record, _)| record.begin_epoch(epoch)) {
            Some(Ok(mark)) => Opening::Open(mark),
            Some(Err(error)) => Opening::Failed(error.to_string()),
            None => Opening::Busy,
        }
    }

    /// [`Recorder::is_open`].
    pub fn has_record(&self) -> bool {
        self.held.as_ref().is_some_and(|(record, _)| record.is_ready())
    }

    /// [`Recorder::recall`].
    pub fn look_up(&mut self, wanted: &Wanted<'_>) -> Recalled {
        let Wanted { sequence, command, settled, held, running, behind, key, .. } = *wanted;
        let Some((record, _)) = &mut self.held else {
            return Recalled::Failed("the record of critical messages is not open".to_owned());
        };
        record.settled_but(command, settled, held);
        let new = record.look_up_in(command, sequence, key) == Look::Unknown;
        // On a sick disk nothing is to be run in vain. What is being run is recorded in the room
        // that it has.
        match new.then(|| record.may_run(running, behind).err()).flatten() {
            None => {}
            Some(error @ RecordError::HeldUp) => return Recalled::HeldUp(error.to_string()),
            Some(error) => return Recalled::NoRoom(error.to_string()),
        }
        let recorded = |text: &[u8], broken| Recorded { text: text.into(), broken };
        let by_key = record.look_up_in(command, sequence, key);
        match (record.look_up_in(command, sequence, None), by_key) {
            (Look::Answered(text), _) => Recalled::Answered(recorded(text, false)),
            (Look::Broken(text), _) => Recalled::Answered(recorded(text, true)),
            (Look::SettledBefore, _) => Recalled::SettledBefore,
            (Look::Unknown, Look::Answered(text)) => Recalled::AnsweredByKey(recorded(text, false)),
            (Look::Unknown, Look::Broken(text)) => Recalled::AnsweredByKey(recorded(text, true)),
            (Look::Unknown, Look::Unknown) => Recalled::New,
            (Look::Unknown, Look::SettledBefore | Look::NotReady) | (Look::NotReady, _) => {
                Recalled::Failed("the record of critical messages is not ready".to_owned())
            }
        }
    }

    /// [`Recorder::write`].
    ///
    /// # Errors
    /// As said there.
    pub fn write_answers(&mut self, answers: &[&Unrecorded]) -> Result<(), String> {
        let Some((record, _)) = &mut self.held else {
            return Err("the record of critical messages is not open".to_owned());
        };
        let answers: Vec<Answered<'_>> = answers
            .iter()
            .map(|answer| Answered {
                sequence: answer.sequence,
                key: answer.key.as_ref(),
                command: &answer.command,
                broken: answer.broken,
                text: &answer.text,
            })
            .collect();
        record.write(&answers).map_err(|error| error.to_string())
    }

    /// [`Recorder::sync`].
    ///
    /// # Errors
    /// As said there.
    pub fn sync_answers(&mut self) -> Result<(), String> {
        let Some((record, _)) = &mut self.held else {
            return Err("the record of critical messages is not open".to_owned());
        };
        record.sync().map_err(|error| error.to_string())
    }

    /// [`Recorder::close`].
    pub fn let_go(&mut self) {
        self.held = None;
    }
}

impl<D: Disk, L> fmt::Debug for Keeper<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("dir", &self.dir).field("open", &self.held.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn holder(run_dir: &str) -> String {
        format!("lond, process 7 (its child 8), run_dir {run_dir}")
    }

    #[test]
    fn an_older_link_that_has_the_record_is_waited_for_and_another_lond_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let caller = HostId::new("msua1").unwrap();
        let epoch = "a".repeat(32);
        let mut keeper = Keeper::new(folder.path(), &caller).signed(holder("/run/a"));
        let other = FolderLock::try_acquire(&record::folder(folder.path(), &caller)).unwrap().unwrap();
        assert_eq!(keeper.open(&epoch), Opening::Busy, "who says nothing may be an older link");
        other.sign(&holder("/run/a"));
        assert_eq!(keeper.open(&epoch), Opening::Busy);
        other.sign(&holder("/run/b"));
        let Opening::Failed(why) = keeper.open(&epoch) else { panic!("another lond has it") };
        assert!(
            why.starts_with("lock ") && why.ends_with(&format!("locked by {}", holder("/run/b"))),
            "{why}"
        );
        other.sign(&holder("/run/a"));
        drop(other);
        // A process that another test is just starting has a copy of its descriptor for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while keeper.open(&epoch) != Opening::Open(0) {
            assert!(Instant::now() < deadline, "the lock is not let go of");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_record_whose_folder_was_removed_goes_on_in_a_new_one_with_all_that_it_knows() {
        let folder = tempfile::tempdir().unwrap();
        let caller = HostId::new("msua1").unwrap();
        let dir = record::folder(folder.path(), &caller);
        let mut keeper = Keeper::new(folder.path(), &caller).signed(holder("/run/a"));
        assert_eq!(keeper.open(&"a".repeat(32)), Opening::Open(0));
        let Some((record, ())) = &mut keeper.held else { panic!("it is open") };
        record.add(&[(1, None, b"one")]).unwrap();
        std::fs::remove_dir_all(folder.path().join(".received")).unwrap();
        record.add(&[(2, None, b"two")]).unwrap();
        assert!(FolderLock::try_acquire(&dir).unwrap().is_none(), "it has the lock of the new folder");
        drop(keeper);
        let again = Record::open(RealDisk, &dir);
        drop(again);
        let text = std::fs::read_to_string(dir.join("answers")).unwrap();
        assert!(text.contains(" one\n") && text.contains(" two\n"), "{text}");
    }
}
