//! Walks through every disk operation of the life of a caller's record and makes it fail, tears it,
//! or lets the machine die there and forget any part of what was not synced; after each, every
//! answer that was synced is found, where only the process died every one that was written, none is
//! made up, and none of an earlier epoch is found under a sequence of a later one.
//!
//! The life: a new folder, batches, client keys, settling, a file that is written anew when it has
//! grown, restarts of the process and of the machine, a new epoch with the same sequences.
//! [`careless`] shows that the walk can find a loss.

mod faults;

use faults::walk::{self, Broken, Step, Wrap, walk, walk_whole};
use lonnet::base::Key;
use lonnet::base::disk::{Disk, Fault, FaultyDisk, Keep};
use lonnet::store::record::{Look, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const DIR: &str = "/spool/.received/msul1";
const A: &str = "0000000000000000000000000000000a";
const B: &str = "0000000000000000000000000000000b";
/// The file is written anew after it grew by this.
const STEP: u64 = 1500;
/// Above all sequences of a life.
const SEQUENCES: u64 = 60;

/// What the caller of the record saw.
#[derive(Default, Clone)]
struct Story {
    /// The epoch that was begun last, whether with success or not.
    epoch: &'static str,
    /// Given to `add`, in this epoch.
    presented: BTreeSet<(u64, Vec<u8>)>,
    /// Of those, the ones that `add` answered `Ok` for.
    recorded: BTreeMap<u64, Vec<u8>>,
    /// The same for client keys, in any epoch.
    presented_keys: BTreeSet<(Vec<u8>, Vec<u8>)>,
    recorded_keys: BTreeMap<Vec<u8>, Vec<u8>>,
    /// All below were said to be settled.
    settled: u64,
    refused: usize,
}

/// The child that uses the record, on one disk.
struct Life<D: Disk> {
    disk: FaultyDisk,
    wrap: fn(FaultyDisk) -> D,
    story: Story,
    record: Option<Record<D>>,
    /// Written and not synced: it outlasts the process, and perhaps the machine.
    written: BTreeSet<u64>,
}

impl<D: Disk> Life<D> {
    fn record(&mut self) -> &mut Record<D> {
        self.record.as_mut().expect("a life begins with opening")
    }

    /// A child begins: its folder is there as soon as it has the lock, but nobody synced it.
    fn open(&mut self, epoch: &'static str) -> Result<(), Broken> {
        let mut disk = self.disk.clone();
        let _ = disk.make_folder(Path::new("/spool/.received"));
        let _ = disk.make_folder(Path::new(DIR));
        let disk = (self.wrap)(self.disk.clone());
        self.record = Some(Record::open_with_step(disk, Path::new(DIR), STEP));
        self.begin(epoch)
    }

    fn begin(&mut self, epoch: &'static str) -> Result<(), Broken> {
        if self.story.epoch != epoch {
            self.written.clear();
            self.story.epoch = epoch;
            self.story.presented.clear();
            self.story.recorded.clear();
            self.story.settled = 0;
        }
        match self.record().begin_epoch(epoch) {
            Ok(mark) if mark + 1 > self.story.settled.max(1) => Err(format!("the mark {mark} is too high")),
            Ok(_) => {
                self.see_written()?;
                self.compare()
            }
            Err(_) => {
                self.story.refused += 1;
                Ok(())
            }
        }
    }

    /// What was written is found by the next process, and by this one after a failure.
    fn see_written(&mut self) -> Result<(), Broken> {
        let record = self.record.as_mut().expect("a life begins with opening");
        let lost = self.written.iter().find(|sequence| record.look_up(**sequence, None) == Look::Unknown);
        match lost {
            Some(sequence) => {
                Err(format!("the answer to {sequence} was written and is lost with the process"))
            }
            None => Ok(()),
        }
    }

    /// Writes an answer to each of these sequences, and syncs none.
    fn write(&mut self, sequences: &[u64]) -> Result<(), Broken> {
        if self.record().may_run(0, false).is_err() {
            self.begin(self.story.epoch)?;
        }
        let text = |sequence: &u64| {
            let long = "w".repeat(200 * (*sequence as usize % 3));
            format!("written {sequence} {long}").into_bytes()
        };
        let answers: Vec<(u64, Vec<u8>)> =
            sequences.iter().map(|sequence| (*sequence, text(sequence))).collect();
        self.story.presented.extend(answers.iter().cloned());
        let asked: Vec<(u64, Option<&Key>, &[u8])> =
            answers.iter().map(|(sequence, answer)| (*sequence, None, answer.as_slice())).collect();
        match self.record().write(&asked) {
            Ok(()) => self.written.extend(sequences),
            Err(_) => self.story.refused += 1,
        }
        Ok(())
    }

    /// Syncs what was written: it may be sent.
    fn sync(&mut self) -> Result<(), Broken> {
        match self.record().sync() {
            Ok(()) => {
                self.see_written()?;
                self.compare()
            }
            Err(_) => {
                self.story.refused += 1;
                Ok(())
            }
        }
    }

    /// The machine loses power, and with it perhaps what was not synced.
    fn lose_power(&mut self, keep: Keep) {
        self.written.clear();
        self.disk.restart(keep);
    }

    /// Records an answer to each sequence; every third has a key.
    fn add(&mut self, name: &str, sequences: &[u64]) -> Result<(), Broken> {
        if self.record().may_run(0, false).is_err() {
            // As the next link does.
            self.begin(self.story.epoch)?;
        }
        let mut answers: Vec<(u64, Option<Vec<u8>>, Vec<u8>)> = Vec::new();
        for sequence in sequences {
            // Lines that lie in several blocks of the disk.
            let long = "z".repeat(150 * (*sequence as usize % 4));
            let key =
                (sequence % 3 == 0).then(|| format!("{name}-{sequence}").replace(' ', ".").into_bytes());
            answers.push((*sequence, key, format!("{name} {} {sequence} {long}", self.story.epoch).into()));
        }
        for (sequence, key, answer) in &answers {
            self.story.presented.insert((*sequence, answer.clone()));
            self.story.presented_keys.extend(key.iter().map(|key| (key.clone(), answer.clone())));
        }
        let keys: Vec<Option<Key>> =
            answers.iter().map(|(_, key, _)| key.as_ref().and_then(|key| Key::new(key))).collect();
        let asked: Vec<(u64, Option<&Key>, &[u8])> = answers
            .iter()
            .zip(&keys)
            .map(|((sequence, _, answer), key)| (*sequence, key.as_ref(), answer.as_slice()))
            .collect();
        if self.record().add(&asked).is_err() {
            self.story.refused += 1;
            return Ok(());
        }
        for (sequence, key, answer) in answers {
            if let Some(key) = key {
                self.story.recorded_keys.entry(key).or_insert_with(|| answer.clone());
            }
            // One that was tried before and refused may have been found since.
            self.story.recorded.entry(sequence).or_insert(answer);
        }
        self.compare()
    }

    fn settle(&mut self, below: u64) {
        self.story.settled = self.story.settled.max(below);
        self.record().settled(below);
    }

    /// What the record says, against the story.
    fn compare(&mut self) -> Result<(), Broken> {
        let story = self.story.clone();
        let mut found = Vec::new();
        let record = self.record();
        for sequence in 0..SEQUENCES {
            match record.look_up(sequence, None) {
                Look::Answered(answer) | Look::Broken(answer) => {
                    if !story.presented.contains(&(sequence, answer.to_vec())) {
                        return Err(format!("the answer to {sequence} is made up, or of another epoch"));
                    }
                    if story.recorded.get(&sequence).is_some_and(|recorded| recorded != answer) {
                        return Err(format!("the answer to {sequence} changed"));
                    }
                    // It may have been sent: from here on it counts as recorded, though its `add`
                    // may have failed.
                    found.push((sequence, answer.to_vec()));
                }
                Look::SettledBefore if sequence < story.settled => {}
                Look::SettledBefore => return Err(format!("{sequence} was not settled")),
                Look::Unknown if sequence >= story.settled && story.recorded.contains_key(&sequence) => {
                    return Err(format!("the answer to {sequence} was recorded and is lost"));
                }
                Look::Unknown => {}
                Look::NotReady => return Err("is not ready".to_owned()),
            }
        }
        for (key, recorded) in &story.recorded_keys {
            let known = Key::new(key);
            if record.look_up(u64::MAX, known.as_ref()) != Look::Answered(recorded) {
                return Err(format!("the key {} is lost", String::from_utf8_lossy(key)));
            }
        }
        for (key, _) in &story.presented_keys {
            if let Look::Answered(answer) = record.look_up(u64::MAX, Key::new(key).as_ref())
                && !story.presented_keys.contains(&(key.clone(), answer.to_vec()))
            {
                return Err(format!("the answer to the key {} is made up", String::from_utf8_lossy(key)));
            }
        }
        self.story.recorded.extend(found);
        Ok(())
    }
}

impl<D: Disk> walk::Life for Life<D> {
    type Disk = D;
    type Story = Story;

    const LEAST_OPERATIONS: usize = 120;
    // It is written anew in between.
    const LEAST_RENAMES: usize = 3;
    const SECOND: &[Fault] = &[Fault::CrashBefore, Fault::Fail(libc::EIO)];

    fn new_disk() -> FaultyDisk {
        FaultyDisk::new(&[Path::new("/spool")])
    }

    fn new(disk: FaultyDisk, wrap: Wrap<Self>, story: Story) -> Life<D> {
        Life { disk, wrap, story, record: None, written: BTreeSet::new() }
    }

    fn steps() -> Vec<Step<Self>> {
        vec![
            |life| life.open(A),
            |life| life.add("first", &[1, 2, 3]),
            |life| life.add("single", &[5]),
            |life| {
                life.settle(3);
                life.add("out of order", &[9, 7, 8, 6])
            },
            // The process is killed and started again; the machine is not.
            |life| life.open(A),
            |life| life.add("grows", &[10, 11, 12, 13]),
            |life| {
                life.settle(12);
                life.add("grows more", &[15, 16, 17])
            },
            |life| life.add("until it is written anew", &[18, 19, 20, 21]),
            // Several writes for one sync, and the process is killed before it.
            |life| life.write(&[25]),
            |life| life.write(&[26, 27]),
            |life| life.sync(),
            |life| life.write(&[28]),
            |life| life.write(&[29]),
            |life| life.open(A),
            |life| life.write(&[35, 36]),
            // The machine dies and starts again.
            |life| {
                life.lose_power(Keep::Some(7));
                life.open(A)
            },
            |life| life.add("after", &[22, 24]),
            // The caller's spool was wiped: the same sequences are other messages.
            |life| life.open(B),
            |life| life.add("new epoch", &[1, 2, 3, 18]),
            |life| {
                life.settle(2);
                life.add("settles in it", &[20, 21])
            },
            |life| life.add("grows again", &[30, 31, 32, 33, 34]),
            |life| {
                life.lose_power(Keep::Some(9));
                life.open(B)
            },
            |life| life.add("last", &[41, 42]),
        ]
    }

    fn disk(&self) -> &FaultyDisk {
        &self.disk
    }

    fn story(&self) -> &Story {
        &self.story
    }

    fn refused(&self) -> usize {
        self.story.refused
    }

    fn check(&mut self, _repeats_allowed: bool) -> Result<(), Broken> {
        let (epoch, refused) = (self.story.epoch, self.story.refused);
        self.open(epoch)?;
        self.add("new", &[50, 51])?;
        self.settle(51);
        self.add("newer", &[52])?;
        if self.story.refused != refused {
            return Err(format!("does not work again: {:?}", self.record().trouble()));
        }
        self.open(epoch)?;
        if self.record().mark() != 50 {
            return Err(format!("the mark is {}", self.record().mark()));
        }
        self.open("0000000000000000000000000000000c")
    }

    /// It answers from what it found, which need not have been synced, and then the machine dies.
    fn go_on_and_crash(&mut self) -> Result<(), Broken> {
        self.open(self.story.epoch)?;
        self.lose_power(Keep::Nothing);
        self.check(true)
    }

    fn look_at(whole: &FaultyDisk) {
        let aside = whole.files().into_keys().find(|path| path.to_string_lossy().contains("damaged"));
        assert_eq!(aside, None, "what is whole is not damaged");
    }
}

#[test]
fn no_recorded_answer_is_lost_or_made_up_whatever_step_fails_first_half() {
    walk_whole::<Life<FaultyDisk>>(|disk| disk, 0, 2);
}

#[test]
fn no_recorded_answer_is_lost_or_made_up_whatever_step_fails_second_half() {
    walk_whole::<Life<FaultyDisk>>(|disk| disk, 1, 2);
}

mod careless {
    //! Disks that leave out one thing which the record relies on. The walk must notice each.

    use super::*;
    use faults::{Careless, Flaw};

    fn found(wrap: fn(FaultyDisk) -> Careless) -> String {
        walk::<Life<Careless>>(wrap, 0, 1).expect_err("the walk must find that")
    }

    #[test]
    fn the_walk_notices_data_that_is_not_synced() {
        let broken = found(|disk| Careless(disk, Flaw::DataNotSynced));
        assert!(broken.contains("lost"), "{broken}");
    }

    #[test]
    fn the_walk_notices_names_that_are_not_synced() {
        let broken = found(|disk| Careless(disk, Flaw::NamesNotSynced));
        assert!(broken.contains("lost"), "{broken}");
    }

    #[test]
    fn the_walk_notices_a_failed_sync_that_is_taken_for_a_good_one() {
        let broken = found(|disk| Careless(disk, Flaw::FailedSyncSwallowed));
        assert!(broken.contains("lost"), "{broken}");
    }

    #[test]
    fn the_walk_notices_a_failed_write_that_is_taken_for_a_good_one() {
        let broken = found(|disk| Careless(disk, Flaw::FailedWriteSwallowed));
        assert!(broken.contains("lost"), "{broken}");
    }
}
