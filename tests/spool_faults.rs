//! Walks through every disk operation of a spool's life and makes it fail, tears it, or lets the
//! machine die there and forget any part of what was not synced; after each, nothing acknowledged
//! may be lost, reordered or made up, and no sequence may name two messages, those among them that
//! were sent without being stored.
//!
//! The life: a new folder, batches, rolled segments, a spare, replay with a lost link, answers out
//! of order, a refused message, files moved into the folder and taken in, messages sent at once and
//! stored later, restarts with and without a crash, a message larger than a segment. [`careless`]
//! shows that the walk can find a loss.

mod faults;

use faults::walk::{self, Broken, Step, Wrap, walk, walk_whole};
use jiff::Timestamp;
use lonnet::base::disk::{Disk, Fault, FaultyDisk, Keep};
use lonnet::base::{HostId, Sequence};
use lonnet::store::spool::{Arrivals, NewMessage, Spool, SpoolLimits, StoreError, inbox_owner};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

const DELAYED: &str = "/delayed";
const DIR: &str = "/delayed/msul1";
const SEGMENT: u64 = 1024;
const LIMITS: SpoolLimits = SpoolLimits { messages: 1000, bytes: 1 << 20, keep_free: 0 };
fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// What the callers of the spool saw.
#[derive(Default, Clone)]
struct Story {
    presented: BTreeSet<Vec<u8>>,
    /// Acknowledged, by sequence.
    acknowledged: BTreeMap<Sequence, Vec<u8>>,
    /// All that a sequence was ever seen to stand for.
    known: BTreeMap<Sequence, Vec<u8>>,
    /// Allocated for messages that were sent at once and not settled.
    in_flight: Vec<(Sequence, Vec<u8>)>,
    settled: BTreeSet<Sequence>,
    aside: BTreeSet<Sequence>,
    files: BTreeSet<Vec<u8>>,
    settled_payloads: BTreeSet<Vec<u8>>,
    refused: usize,
}

impl Story {
    fn know(&mut self, sequence: Sequence, payload: &[u8]) -> Result<(), Broken> {
        let before = self.known.entry(sequence).or_insert_with(|| payload.to_vec());
        if before != payload {
            return Err(format!("sequence {sequence} stands for two messages"));
        }
        if !self.presented.contains(payload) {
            return Err(format!("sequence {sequence} was never stored"));
        }
        Ok(())
    }
}

/// The program that uses the spool, on one disk.
struct Life<D: Disk> {
    disk: FaultyDisk,
    wrap: fn(FaultyDisk) -> D,
    story: Story,
    spool: Option<Spool<D>>,
}

impl<D: Disk> Life<D> {
    fn open(&mut self) -> &mut Spool<D> {
        let disk = (self.wrap)(self.disk.clone());
        self.spool.insert(Spool::open_with_segments(disk, Path::new(DIR), LIMITS, SEGMENT))
    }

    fn spool(&mut self) -> &mut Spool<D> {
        self.spool.as_mut().expect("a life begins with opening")
    }

    fn store(&mut self, name: &str, sizes: &[usize]) -> Result<(), Broken> {
        let payloads: Vec<Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(number, size)| {
                let mut payload = format!("{name}-{number}:").into_bytes();
                payload.resize((*size).max(payload.len()), b'x');
                payload
            })
            .collect();
        self.story.presented.extend(payloads.iter().cloned());
        // Of every other one it is known whose it is.
        let users = (0..).map(|number| (number % 2 == 1).then_some(number));
        let new = |(payload, user)| NewMessage { user, sequence: None, request: Vec::as_slice(payload) };
        let messages: Vec<_> = payloads.iter().zip(users).map(new).collect();
        let results = self.spool().store_all(&messages, now());
        self.acknowledge(payloads, results)
    }

    fn acknowledge(
        &mut self,
        payloads: Vec<Vec<u8>>,
        results: Vec<Result<Sequence, StoreError>>,
    ) -> Result<(), Broken> {
        assert_eq!(results.len(), payloads.len());
        for (payload, result) in payloads.into_iter().zip(results) {
            match result {
                Ok(sequence) => {
                    self.story.know(sequence, &payload)?;
                    if self.story.acknowledged.last_key_value().is_some_and(|(last, _)| *last >= sequence) {
                        return Err(format!("sequence {sequence} does not rise"));
                    }
                    self.story.acknowledged.insert(sequence, payload);
                }
                Err(_) => self.story.refused += 1,
            }
        }
        Ok(())
    }

    /// Messages that are sent at once: each sequence is on the wire, and must never come with
    /// another message.
    fn send_at_once(&mut self, name: &str, count: usize) -> Result<(), Broken> {
        for number in 0..count {
            let payload = format!("{name}-{number}: {}", "y".repeat(100)).into_bytes();
            let Ok(sequence) = self.spool().allocate() else {
                self.story.refused += 1;
                continue;
            };
            if self.story.known.contains_key(&sequence) {
                return Err(format!("sequence {sequence} stands for two messages"));
            }
            self.story.presented.insert(payload.clone());
            self.story.know(sequence, &payload)?;
            self.story.in_flight.push((sequence, payload));
        }
        Ok(())
    }

    /// The link is lost: what was sent at once is stored, but for the first, which was answered.
    fn store_in_flight(&mut self) -> Result<(), Broken> {
        let (sequences, payloads): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.story.in_flight).into_iter().skip(1).unzip();
        let requests: Vec<(Sequence, &[u8])> =
            sequences.iter().copied().zip(payloads.iter().map(Vec::as_slice)).collect();
        let results = self.spool().store_at(&requests, now());
        for (sequence, result) in sequences.iter().zip(&results) {
            if result.as_ref().is_ok_and(|stored| stored != sequence) {
                return Err(format!("{sequence} was stored under another sequence"));
            }
        }
        self.acknowledge(payloads, results)
    }

    /// Gets up to `most` messages to send; they must come in order.
    fn send(&mut self, most: usize) -> Result<Vec<(Sequence, Vec<u8>)>, Broken> {
        let mut sent: Vec<(Sequence, Vec<u8>)> = Vec::new();
        let mut errors = 0;
        while sent.len() < most && errors < 20 {
            match self.spool().next_unsent() {
                Ok(Some(message)) => {
                    self.story.know(message.sequence, &message.request)?;
                    if sent.last().is_some_and(|(last, _)| *last >= message.sequence) {
                        return Err(format!("{} came out of order", message.sequence));
                    }
                    sent.push((message.sequence, message.request));
                }
                Ok(None) => break,
                Err(_) => errors += 1,
            }
        }
        Ok(sent)
    }

    fn settle(&mut self, message: &(Sequence, Vec<u8>)) {
        self.story.settled.insert(message.0);
        self.story.settled_payloads.insert(message.1.clone());
        self.spool().settle(message.0);
    }

    fn set_aside(&mut self, message: &(Sequence, Vec<u8>)) {
        if self.spool().set_aside(message.0, &message.1, b"refused", now()).is_ok() {
            self.story.aside.insert(message.0);
            self.story.settled_payloads.insert(message.1.clone());
        }
    }

    fn drop_file(&mut self, name: &str) {
        let payload = format!("file {name}").into_bytes();
        self.story.presented.insert(payload.clone());
        self.story.files.insert(payload.clone());
        let text = [&payload[..], b"\n"].concat();
        self.disk.put(&Path::new(DELAYED).join(format!("{name}.msul1")), &text);
    }

    /// As two processes do: one moves the files into the folder, the other takes them in.
    fn take_in(&mut self) {
        let owner = |name: &OsStr| {
            let id = inbox_owner(name, |id| id == "msul1")?;
            Some(HostId::new(id).expect("an id"))
        };
        let mut disk = (self.wrap)(self.disk.clone());
        Arrivals::default().pass(&mut disk, Path::new(DELAYED), &owner, Instant::now(), now());
        self.spool().take_in(now());
    }

    fn works_again(&mut self, sent: &[(Sequence, Vec<u8>)]) -> Result<(), Broken> {
        let before = self.story.acknowledged.len();
        self.store("new", &[100; 5])?;
        self.send_at_once("new in flight", 5)?;
        self.store_in_flight()?;
        if self.story.acknowledged.len() != before + 9 {
            return Err("does not store again".to_owned());
        }
        self.take_in();
        let new = self.send(usize::MAX)?;
        if new.len() < 9 || !self.send(1)?.is_empty() {
            return Err(format!("{} of 9 new ones came", new.len()));
        }
        for message in sent.iter().chain(&new) {
            self.settle(message);
        }
        if !self.spool().is_empty() || self.spool().has_unsent() || self.spool().waiting().oldest.is_some() {
            return Err(format!("is not empty at the end: {:?}", self.spool().waiting()));
        }
        let used = self.story.known.last_key_value().map(|(last, _)| *last);
        if Some(self.spool().settled_below()) <= used {
            return Err("is not said to be done with all".to_owned());
        }
        self.open();
        let left = self.send(1)?;
        let segments =
            self.disk.files().keys().filter(|path| path.extension() == Some(OsStr::new("seg"))).count();
        if !left.is_empty() || segments != 1 {
            return Err(format!("{} messages and {segments} segments are left", left.len()));
        }
        Ok(())
    }
}

/// Until the process is killed and started again.
fn first_process<D: Disk>() -> Vec<Step<Life<D>>> {
    vec![
        |life| {
            life.open();
            Ok(())
        },
        |life| life.store("first", &[10, 200, 30]),
        |life| life.store("single", &[50]),
        |life| life.send_at_once("direct", 4),
        |life| life.store_in_flight(),
        |life| life.store("rolls", &[120; 14]),
        |life| {
            let sent = life.send(6)?;
            for index in [0, 2, 1] {
                if let Some(message) = sent.get(index) {
                    life.settle(message);
                }
            }
            life.spool().rewind();
            Ok(())
        },
        |life| {
            for name in ["0001", "0002", "0003"] {
                life.drop_file(name);
            }
            life.take_in();
            Ok(())
        },
        |life| {
            let sent = life.send(5)?;
            if let Some(message) = sent.get(1) {
                life.set_aside(message);
            }
            for message in sent.iter().skip(2) {
                life.settle(message);
            }
            Ok(())
        },
    ]
}

/// The process is killed and started again, the machine is not; later the machine is, too.
fn later_processes<D: Disk>() -> Vec<Step<Life<D>>> {
    vec![
        |life| {
            life.open();
            Ok(())
        },
        |life| life.send_at_once("lost with the process", 2),
        |life| {
            life.story.in_flight.clear();
            life.open();
            life.send_at_once("long in flight", 12)
        },
        |life| life.store_in_flight(),
        |life| life.store("huge", &[20, 3000, 20]),
        |life| life.send_at_once("lost with the machine", 1),
        |life| {
            for message in life.send(9)? {
                life.settle(&message);
            }
            Ok(())
        },
        |life| life.store("later", &[300, 300, 300]),
        // The machine dies and starts again.
        |life| {
            life.disk.restart(Keep::Some(7));
            life.story.in_flight.clear();
            life.open();
            life.send_at_once("after the machine", 2)
        },
        |life| life.store("after", &[100, 100]),
        |life| {
            let sent = life.send(usize::MAX)?;
            for message in sent.iter().rev().skip(2) {
                life.settle(message);
            }
            Ok(())
        },
        |life| life.store("last", &[40]),
    ]
}

impl<D: Disk> walk::Life for Life<D> {
    type Disk = D;
    type Story = Story;

    const LEAST_OPERATIONS: usize = 200;
    const LEAST_RENAMES: usize = 1;
    const SECOND: &[Fault] = &[Fault::CrashBefore];

    fn new_disk() -> FaultyDisk {
        FaultyDisk::new(&[Path::new("/")])
    }

    fn new(disk: FaultyDisk, wrap: Wrap<Self>, story: Story) -> Life<D> {
        Life { disk, wrap, story, spool: None }
    }

    fn steps() -> Vec<Step<Self>> {
        let mut steps = first_process();
        steps.extend(later_processes());
        steps
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

    fn check(&mut self, repeats_allowed: bool) -> Result<(), Broken> {
        self.open();
        if let Some(trouble) = self.spool().trouble() {
            return Err(format!("does not open: {trouble}"));
        }
        let waiting = self.spool().waiting();
        let sent = self.send(usize::MAX)?;
        if waiting.messages != sent.len() as u64 {
            return Err(format!("{} wait, {} came", waiting.messages, sent.len()));
        }
        let came: BTreeMap<_, _> = sent.iter().cloned().collect();
        let bound = self.spool().settled_below();
        if came.first_key_value().is_some_and(|(first, _)| *first < bound) {
            return Err(format!("{bound} is said to be above all that is done"));
        }
        self.story.in_flight.clear();
        let files = self.disk.files();
        for (sequence, payload) in &self.story.acknowledged {
            let copy = files.get(&Path::new(DIR).join("failed").join(sequence.to_string()));
            let aside = copy.is_some_and(|text| text.windows(payload.len()).any(|part| part == payload));
            let done =
                self.story.settled.contains(sequence) || (self.story.aside.contains(sequence) && aside);
            if !done && came.get(sequence) != Some(payload) {
                return Err(format!("{sequence} was acknowledged and is lost"));
            }
        }
        for payload in &self.story.files {
            let is_inbox = |path: &Path| path == Path::new(DELAYED) || path.ends_with("dropped");
            let there = files
                .iter()
                .any(|(path, bytes)| path.parent().is_some_and(is_inbox) && bytes.starts_with(payload));
            let moved = came.values().any(|other| other == payload);
            if !there && !moved && !self.story.settled_payloads.contains(payload) {
                return Err(format!("{:?} is lost", String::from_utf8_lossy(payload)));
            }
        }
        for (sequence, payload) in &came {
            let done = self.story.settled.contains(sequence) || self.story.aside.contains(sequence);
            if done && !repeats_allowed {
                return Err(format!("{sequence} was settled and came again"));
            }
            let twice = came.values().filter(|other| *other == payload).count();
            if twice > 1 && !self.story.files.contains(payload) {
                return Err(format!("{sequence} came twice"));
            }
        }
        self.works_again(&sent)
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_step_fails_first_quarter() {
    walk_whole::<Life<FaultyDisk>>(|disk| disk, 0, 4);
}

#[test]
fn nothing_acknowledged_is_lost_whatever_step_fails_second_quarter() {
    walk_whole::<Life<FaultyDisk>>(|disk| disk, 1, 4);
}

#[test]
fn nothing_acknowledged_is_lost_whatever_step_fails_third_quarter() {
    walk_whole::<Life<FaultyDisk>>(|disk| disk, 2, 4);
}

#[test]
fn nothing_acknowledged_is_lost_whatever_step_fails_last_quarter() {
    walk_whole::<Life<FaultyDisk>>(|disk| disk, 3, 4);
}

mod careless {
    //! Disks that leave out one thing which the spool relies on. The walk must notice each.

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
        assert!(broken.contains("lost") || broken.contains("two messages"), "{broken}");
    }

    #[test]
    fn the_walk_notices_a_failed_sync_that_is_taken_for_a_good_one() {
        let broken = found(|disk| Careless(disk, Flaw::FailedSyncSwallowed));
        assert!(broken.contains("lost") || broken.contains("two messages"), "{broken}");
    }

    #[test]
    fn the_walk_notices_a_failed_write_that_is_taken_for_a_good_one() {
        let broken = found(|disk| Careless(disk, Flaw::FailedWriteSwallowed));
        assert!(broken.contains("lost"), "{broken}");
    }
}
