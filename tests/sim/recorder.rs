//! The record that a child of `lond` has in the simulation: the real one on its host's disk, and
//! what was asked of it.

use crate::child::{Guard, Locks};
use crate::disk::SimDisk;
use crate::sabotage::Sabotage;
use lonnet::base::disk::{Disk, Keep};
use lonnet::lond::handler::Ticket;
use lonnet::lond::keeper::Keeper;
use lonnet::lond::secure::{Opening, Recalled, Recorder, Unrecorded, Wanted};
use lonnet::store::record::Record;
use std::cell::RefCell;
use std::rc::Rc;

/// What was asked of a record, and what came of it.
#[derive(Debug)]
pub enum Note {
    /// It was opened for this epoch; its mark, and whether all of it outlasts the machine.
    Opened(String, u64, bool),
    /// It could not be.
    NotOpened,
    /// A message was looked up.
    Looked { ticket: Ticket, sequence: u64, settled: u64, found: Recalled },
    /// Answers are about to be written, each with its sequence.
    Writing(Vec<(u64, Vec<u8>)>),
    /// They were, or not; `None`: the process, or its machine, died meanwhile.
    Written(Vec<u64>, Option<bool>),
    /// All that was written was synced, or not; likewise.
    Synced(Option<bool>),
    /// What was said to be synced is not.
    NotDurable,
}

pub type Notes = Rc<RefCell<Vec<Note>>>;

#[derive(Debug)]
pub struct SimRecorder {
    pub keeper: Keeper<SimDisk, Guard>,
    pub disk: SimDisk,
    pub locks: Locks,
    /// After so many bytes more the file is written anew.
    pub step: u64,
    pub notes: Notes,
    /// It was opened once.
    pub opened: bool,
    /// What was said to be written, and is not.
    pub deferred: Vec<Unrecorded>,
}

impl SimRecorder {
    fn note(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }

    fn is_alive(&self) -> bool {
        !self.disk.life.dead.get() && !self.disk.disk.is_dead()
    }

    /// Whether the loss of power would cost nothing of what is in the record.
    fn is_durable(&self) -> bool {
        let after = self.disk.disk.fork();
        after.restart(Keep::Nothing);
        let path = self.keeper.folder().join("answers");
        after.files().get(&path) == self.disk.disk.files().get(&path)
    }

    /// What fails is said to have failed just now, and to be well again after a moment.
    fn is_patient(&self) -> bool {
        self.disk.sabotage == Sabotage::PatienceWithoutEnd && self.opened
    }
}

impl Recorder for SimRecorder {
    fn open(&mut self, epoch: &str) -> Opening {
        let (locks, mut disk, step) = (self.locks.clone(), self.disk.clone(), self.step);
        let ignored = disk.sabotage == Sabotage::LockIgnored;
        let opening = self.keeper.open_with(epoch, |dir| {
            if !locks.borrow_mut().insert(dir.to_owned()) && !ignored {
                return Ok(None);
            }
            let guard = Guard { locks: locks.clone(), path: dir.to_owned() };
            // As the lock does. What fails here, the record finds out.
            let _ = dir.parent().map(|above| disk.make_folder(above));
            let _ = disk.make_folder(dir);
            Ok(Some((Record::open_with_step(disk, dir, step), guard)))
        });
        match &opening {
            Opening::Open(mark) => {
                self.opened = true;
                self.note(Note::Opened(epoch.to_owned(), *mark, self.is_durable()));
            }
            Opening::Failed(_) => self.note(Note::NotOpened),
            Opening::Busy => {}
        }
        match opening {
            Opening::Failed(_) if self.is_patient() => Opening::Open(0),
            opening => opening,
        }
    }

    fn is_open(&self) -> bool {
        self.keeper.has_record() || self.is_patient()
    }

    fn recall(&mut self, wanted: &Wanted<'_>) -> Recalled {
        let Wanted { ticket, sequence, settled, .. } = *wanted;
        let below = if self.disk.sabotage == Sabotage::SettlingNotRecorded { 0 } else { settled };
        let mut found = self.keeper.look_up(&Wanted { settled: below, ..*wanted });
        if self.disk.sabotage == Sabotage::NotRecalled {
            found = Recalled::New;
        }
        self.note(Note::Looked { ticket, sequence, settled, found: found.clone() });
        match found {
            Recalled::NoRoom(cause) if self.is_patient() => Recalled::Failed(cause),
            found => found,
        }
    }

    fn write(&mut self, answers: &[&Unrecorded]) -> Result<(), String> {
        let texts = answers.iter().map(|answer| (answer.sequence, answer.text.to_vec()));
        self.note(Note::Writing(texts.collect()));
        let written = match self.disk.sabotage {
            Sabotage::NotRecorded => Ok(()),
            Sabotage::PassedOnUnwritten => {
                self.deferred.extend(answers.iter().map(|answer| (*answer).clone()));
                Ok(())
            }
            Sabotage::KeyNotRecorded => {
                let mut keyless: Vec<Unrecorded> = answers.iter().map(|answer| (*answer).clone()).collect();
                keyless.iter_mut().for_each(|answer| answer.key = None);
                self.keeper.write_answers(&keyless.iter().collect::<Vec<_>>())
            }
            _ => self.keeper.write_answers(answers),
        };
        let sequences = answers.iter().map(|answer| answer.sequence).collect();
        self.note(Note::Written(sequences, self.is_alive().then_some(written.is_ok())));
        written
    }

    fn sync(&mut self) -> Result<(), String> {
        let deferred = std::mem::take(&mut self.deferred);
        let synced = match self.disk.sabotage {
            Sabotage::NotRecorded => Ok(()),
            // The answers go before it is done.
            Sabotage::AnsweredUnsynced => return Ok(()),
            Sabotage::PassedOnUnwritten => self
                .keeper
                .write_answers(&deferred.iter().collect::<Vec<_>>())
                .and_then(|()| self.keeper.sync_answers()),
            _ => self.keeper.sync_answers(),
        };
        self.note(Note::Synced(self.is_alive().then_some(synced.is_ok())));
        if self.is_alive() && synced.is_ok() && !self.is_durable() {
            self.note(Note::NotDurable);
        }
        synced
    }

    fn close(&mut self) {
        self.opened = false;
        self.keeper.let_go();
    }
}
