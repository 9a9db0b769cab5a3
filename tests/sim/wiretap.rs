//! What passes on a secure connection, frame by frame, seen by neither end: the rules of the wire
//! are checked here, and a sabotage changes it here.
//!
//! Checked: windows are kept and given back, no more and no less; ids begin once and are answered
//! once; a sequence of an epoch names one message for ever; what was called settled is never sent
//! again; GOAWAY names the last request that is taken, neither one before it nor one behind it.
//!
//! Some connections are not what they should be ([`Mistaken`]); what that changes of a HELLO is
//! changed here as well.

use crate::ledger::Checked;
use crate::net::End;
use crate::sabotage::Sabotage;
use crate::scenario::MAX_LINE;
use lonnet::wire::secure::least_window;
use std::collections::{BTreeMap, BTreeSet, HashMap};

const HEADER: usize = 12;
/// What a frame of a message costs beside its body.
const FRAME_COST: u64 = 64;
const HELLO: u8 = 1;
const REQUEST: u8 = 2;
const CRITICAL: u8 = 3;
const ANSWER: u8 = 4;
const PING: u8 = 6;
const WINDOW: u8 = 8;
const GO_AWAY: u8 = 9;
const NOT_TAKEN: u8 = 0xa0;
const HELD: u8 = 0xa2;
const MORE: u8 = 1;

/// How far a caller's messages are settled.
#[derive(Debug, Default)]
struct Settled {
    below: u64,
    /// Commands of which less is.
    held: BTreeMap<Vec<u8>, u64>,
}

impl Settled {
    /// What a message of `command` says while the commands `held` are held.
    fn say(&mut self, command: &[u8], below: u64, held: &BTreeSet<Vec<u8>>) {
        for name in held {
            self.held.entry(name.clone()).or_insert(self.below);
        }
        if held.contains(command) {
            self.held.entry(command.to_vec()).and_modify(|floor| *floor = below.max(*floor));
            return;
        }
        self.below = below.max(self.below);
        for (_, floor) in self.held.iter_mut().filter(|(name, _)| !held.contains(*name)) {
            *floor = below.max(*floor);
        }
        self.held.retain(|name, floor| held.contains(name) || *floor < self.below);
    }

    fn of(&self, command: &[u8]) -> u64 {
        self.held.get(command).copied().unwrap_or(self.below)
    }
}

/// What may be kept back of that which is to be given back, before it is.
pub const PORTION: u64 = least_window(MAX_LINE) as u64 / 4;

/// What is known of all connections of a network together.
#[derive(Debug, Default)]
pub struct Names {
    /// Caller, called, epoch, sequence: how the message begins.
    texts: HashMap<(usize, usize, Vec<u8>, u64), Vec<u8>>,
    /// Everything below is settled, the caller has said.
    settled: HashMap<(usize, usize, Vec<u8>), Settled>,
    /// A disk may have failed or forgotten something: what was settled may come again.
    forgetful: bool,
}

impl Names {
    pub fn new(forgetful: bool) -> Names {
        Names { forgetful, ..Names::default() }
    }
}

/// Who is at an end of a connection instead of the host that the other end thinks of. The keys
/// would tell; but whoever has the key of one host must not be taken for another either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistaken {
    /// The address led to a host that says its own name and takes whoever calls. This one was
    /// called.
    Called(usize),
    /// The caller has its own key and says that it is this host.
    Caller(usize),
}

/// One connection.
#[derive(Debug, Default)]
pub struct Wiretap {
    caller: usize,
    called: usize,
    pub mistaken: Option<Mistaken>,
    /// The beginnings of frames.
    pending: [Vec<u8>; 2],
    epoch: Vec<u8>,
    /// What each end has taken off the other's window, and what it was given back.
    spent: [u64; 2],
    credited: [u64; 2],
    begun: BTreeSet<u64>,
    answered: BTreeSet<u64>,
    /// Requests that have begun and not ended.
    unfinished: BTreeSet<u64>,
    /// The commands that the caller holds.
    held: BTreeSet<Vec<u8>>,
    /// The last request that is taken, the called side has said.
    go_away: Option<u64>,
    /// Neither has anything more to give back: what was sent last was longer than a portion.
    pub flushed: bool,
}

impl Wiretap {
    pub fn new(caller: usize, called: usize) -> Wiretap {
        Wiretap { caller, called, ..Wiretap::default() }
    }

    /// Bytes pass. Returns them as they arrive.
    pub fn pass(
        &mut self,
        from: End,
        bytes: &[u8],
        names: &mut Names,
        sabotage: Sabotage,
        random: &mut fastrand::Rng,
    ) -> Result<Vec<u8>, String> {
        let side = from as usize;
        self.pending[side].extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(end) = whole(&self.pending[side]) {
            frames.push(self.pending[side].drain(..end).collect::<Vec<u8>>());
        }
        if sabotage.is_of_frames() {
            tamper(&mut frames, from, sabotage, random);
        }
        let apart = sabotage.is_of_frames() || self.mistaken.is_some();
        self.mistake(&mut frames, from, sabotage);
        for frame in &frames {
            self.look_at(from, frame, names)
                .map_err(|why| format!("wire h{} -> h{}: {why}", self.caller, self.called))?;
        }
        let hello = frames.iter().position(|frame| frame[0] == HELLO);
        if sabotage == Sabotage::AnswersBeyondWindow
            && from == End::Caller
            && let Some(hello) = hello
        {
            // Whoever does not look at the window sends as if it were as large as can be; nobody
            // has said so.
            let boundless = u32::MAX / 2;
            let header = [WINDOW, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0];
            frames.insert(hello + 1, [&header[..], &boundless.to_be_bytes()].concat());
        }
        // A frame's first bytes may arrive before its last ones were written, but for one that is
        // to be changed.
        Ok(if apart { frames.concat() } else { bytes.to_vec() })
    }

    /// Has a HELLO say what it would between hosts that take each other for somebody else. A host
    /// that does not look at it is made to read what it expects.
    fn mistake(&self, frames: &mut [Vec<u8>], from: End, sabotage: Sabotage) {
        let (name, value) = match (self.mistaken, from) {
            (Some(Mistaken::Called(_)), End::Caller) => ("to", self.called),
            (Some(Mistaken::Called(host)), End::Called) if sabotage == Sabotage::CalledUnknown => {
                ("id", host)
            }
            (Some(Mistaken::Caller(host)), End::Caller) if sabotage != Sabotage::CallerUnknown => {
                ("id", host)
            }
            (Some(Mistaken::Called(_) | Mistaken::Caller(_)), _) | (None, _) => return,
        };
        for frame in frames.iter_mut().filter(|frame| frame[0] == HELLO) {
            change_hello(frame, |line| {
                line.starts_with(&format!("{name}=")).then(|| format!("{name}=h{value}"))
            });
        }
    }

    fn look_at(&mut self, from: End, frame: &[u8], names: &mut Names) -> Checked {
        let (kind, more, body) = (frame[0], frame[1] & MORE != 0, &frame[HEADER..]);
        let id = number(&frame[4..HEADER]);
        let cost = FRAME_COST + body.len() as u64;
        match kind {
            HELLO if from == End::Caller => {
                let text = String::from_utf8_lossy(body).into_owned();
                let epoch = text.lines().find_map(|line| line.strip_prefix("epoch="));
                self.epoch = epoch.unwrap_or_default().as_bytes().to_vec();
            }
            REQUEST | CRITICAL => {
                self.spend(from, cost)?;
                let begins = !self.unfinished.contains(&id);
                if begins && !self.begun.insert(id) {
                    return Err(format!("id {id} begins twice"));
                }
                if more {
                    self.unfinished.insert(id);
                } else {
                    self.unfinished.remove(&id);
                }
                if kind == CRITICAL && begins {
                    self.check_name(body, names)?;
                }
            }
            HELD => {
                let names = body.split(|byte| *byte == b'\n').filter(|name| !name.is_empty());
                self.held = names.map(<[u8]>::to_vec).collect();
            }
            NOT_TAKEN if !self.begun.contains(&id) || !self.answered.insert(id) => {
                return Err(format!("{id} is not taken, which was never asked or was answered"));
            }
            ANSWER => {
                self.spend(from, cost)?;
                if !self.begun.contains(&id) || self.answered.contains(&id) {
                    return Err(format!("an answer to {id}, which was never asked or was answered"));
                }
                if self.go_away.is_some_and(|last| id > last) {
                    return Err(format!("an answer to {id}, which was not to be taken: {:?}", self.go_away));
                }
                if !more {
                    self.answered.insert(id);
                }
            }
            GO_AWAY => {
                let last = number(body);
                let highest = self.begun.last().copied().unwrap_or_default();
                if last != u64::MAX && last > highest {
                    return Err(format!("GOAWAY takes {last}, and {highest} was the last that was asked"));
                }
                if let Some(answered) = self.answered.last().filter(|answered| **answered > last) {
                    return Err(format!("GOAWAY takes no more than {last}, and {answered} was answered"));
                }
                self.go_away = Some(last);
            }
            WINDOW => {
                let other = from.other() as usize;
                self.credited[other] += number(body);
                if self.credited[other] > self.spent[other] {
                    return Err("more is given back than was spent".to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn spend(&mut self, from: End, cost: u64) -> Checked {
        let side = from as usize;
        self.spent[side] += cost;
        if self.spent[side] - self.credited[side] > least_window(MAX_LINE) as u64 {
            return Err(format!("{from:?} sends beyond the window"));
        }
        Ok(())
    }

    fn check_name(&self, body: &[u8], names: &mut Names) -> Checked {
        let (sequence, settled, key) = (number(&body[..8]), number(&body[8..16]), usize::from(body[16]));
        let text: Vec<u8> = body[17 + key..].iter().take(40).copied().collect();
        let link = (self.caller, self.called, self.epoch.clone());
        let command = text.split(|byte| *byte == b':').next().unwrap_or_default();
        let floors = names.settled.entry(link.clone()).or_default();
        floors.say(command, settled, &self.held);
        let below = floors.of(command);
        if sequence < below && !names.forgetful {
            return Err(format!("sequence {sequence} is sent, and all below {below} was settled"));
        }
        let named = names.texts.entry((link.0, link.1, link.2, sequence)).or_insert_with(|| text.clone());
        if *named != text {
            let (old, new) = (String::from_utf8_lossy(named), String::from_utf8_lossy(&text));
            return Err(format!("sequence {sequence} names {new:?}, and named {old:?} before"));
        }
        Ok(())
    }

    /// At rest: each side has got back what it spent, but for a portion; and all of it when what
    /// came last was longer than that.
    pub fn at_rest(&self) -> Checked {
        let portion = if self.flushed { 0 } else { PORTION };
        for (spent, credited) in self.spent.iter().zip(self.credited) {
            if spent - credited > portion {
                return Err(format!("of {spent} bytes spent only {credited} were given back"));
            }
        }
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Where the first frame ends, if it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..HEADER)?;
    let end = HEADER + usize::from(u16::from_be_bytes([header[2], header[3]]));
    (end <= bytes.len()).then_some(end)
}

/// Does to the frames what the sabotage says.
fn tamper(frames: &mut Vec<Vec<u8>>, from: End, sabotage: Sabotage, random: &mut fastrand::Rng) {
    let kinds: Vec<u8> = frames.iter().map(|frame| frame[0]).collect();
    let pair = |kind: u8| kinds.windows(2).position(|two| two == [kind, kind]);
    match (sabotage, from) {
        (Sabotage::FramesSwapped, End::Caller) => swap(frames, pair(CRITICAL)),
        (Sabotage::AnswersSwapped, End::Called) => swap(frames, pair(ANSWER)),
        (Sabotage::CriticalLost, End::Caller) => {
            let dropped = random.u32(..20) == 0;
            frames.retain(|frame| frame[0] != CRITICAL || !dropped || frame[1] & MORE != 0);
        }
        (Sabotage::SettledTooFar, End::Caller) => {
            for frame in frames.iter_mut().filter(|frame| frame[0] == CRITICAL) {
                // Its sequence is all that it says to be settled, and the next one.
                let sequence = number(&frame[HEADER..HEADER + 8]);
                frame[HEADER + 8..HEADER + 16].copy_from_slice(&(sequence + 1).to_be_bytes());
            }
        }
        (Sabotage::EpochIgnored, End::Caller) => {
            for frame in frames.iter_mut().filter(|frame| frame[0] == HELLO) {
                change_hello(frame, |line| {
                    let epoch = line.strip_prefix("epoch=")?;
                    epoch.bytes().any(|digit| digit != b'0').then(|| format!("epoch={}", "1".repeat(32)))
                });
            }
        }
        (Sabotage::GoAwayTooLow, End::Called) => {
            for frame in frames.iter_mut().filter(|frame| frame[0] == GO_AWAY) {
                // As if nothing of what was sent were taken, though it is.
                frame.splice(HEADER.., 0_u64.to_be_bytes());
            }
        }
        (Sabotage::GoAwayOneLess | Sabotage::GoAwayOneMore, End::Called) => {
            for frame in frames.iter_mut().filter(|frame| frame[0] == GO_AWAY) {
                let last = number(&frame[HEADER..]);
                let changed = match sabotage {
                    Sabotage::GoAwayOneLess => last.saturating_sub(1),
                    _ => last.saturating_add(1),
                };
                if last != u64::MAX {
                    frame.splice(HEADER.., changed.to_be_bytes());
                }
            }
        }
        (Sabotage::WindowKept, _) => frames.retain(|frame| frame[0] != WINDOW),
        (Sabotage::WindowTwice, _) => {
            for frame in frames.iter_mut().filter(|frame| frame[0] == WINDOW) {
                let given = number(&frame[HEADER..]) as u32;
                frame.splice(HEADER.., (2 * given).to_be_bytes());
            }
        }
        (Sabotage::HeartbeatsUnsent, _) => frames.retain(|frame| frame[0] != PING),
        (Sabotage::HeldUntold, _) => frames.retain(|frame| frame[0] != HELD),
        _ => {}
    }
}

/// Changes the lines of a HELLO for which `other` has another; its length must fit the frame's.
fn change_hello(frame: &mut Vec<u8>, other: impl Fn(&str) -> Option<String>) {
    let text = String::from_utf8_lossy(&frame[HEADER..]).into_owned();
    let changed: String =
        text.lines().map(|line| other(line).unwrap_or_else(|| line.to_owned()) + "\n").collect();
    frame.splice(HEADER.., changed.bytes());
    let length = u16::try_from(frame.len() - HEADER).unwrap_or(u16::MAX);
    frame[2..4].copy_from_slice(&length.to_be_bytes());
}

/// Two whole messages that follow each other change places; the ids stay where they are.
fn swap(frames: &mut [Vec<u8>], first: Option<usize>) {
    let Some(at) = first else { return };
    if frames[at][1] & MORE != 0 || frames[at + 1][1] & MORE != 0 {
        return;
    }
    let ids = [frames[at][4..HEADER].to_vec(), frames[at + 1][4..HEADER].to_vec()];
    frames.swap(at, at + 1);
    for (offset, id) in ids.iter().enumerate() {
        frames[at + offset][4..HEADER].copy_from_slice(id);
    }
}
