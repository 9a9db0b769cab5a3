//! The passages through which connected programs go from one child of a peer to the next.
//!
//! A peer has one from when its child is told to hand over until the next child has taken over, or
//! the peer is no longer served. When the passage goes, so do the programs in it. What lies in
//! there counts against the descriptors that `user` may have under way between processes, so none
//! is kept for a child that serves, nor for children that cannot take over what is in it: after
//! [`TRIES`] of them it goes.

use crate::handover::{Passage, Takeover};
use base::HostId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Children that are given what is in a passage, before it is given up.
const TRIES: u32 = 3;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Passages {
    ways: BTreeMap<HostId, Way>,
}

#[derive(Debug)]
struct Way {
    passage: Passage,
    /// A child that an older program started has had both ends from its birth.
    from_birth: bool,
    /// The child that is to hand over has its end.
    told: bool,
    /// Children that were to take over what is in it.
    tries: u32,
}

/// A passage as it crosses `exec`.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftPassage {
    peer: HostId,
    ends: [RawFd; 2],
    #[serde(default)]
    told: bool,
    #[serde(default)]
    tries: u32,
}

impl Passages {
    /// A child is to hand over: makes its passage, if need be. Whether it is to be sent its end: it
    /// may have had one from its birth.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub(super) fn open(&mut self, peer: &HostId) -> io::Result<bool> {
        let way = match self.ways.entry(peer.clone()) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                place.insert(Way { passage: Passage::new()?, from_birth: false, told: false, tries: 0 })
            }
        };
        way.told = way.from_birth;
        Ok(!way.told)
    }

    /// The passages whose ends are yet to be sent to children that are to hand over.
    pub(super) fn untold(&self) -> impl Iterator<Item = (&HostId, &Passage)> {
        self.ways.iter().filter(|(_, way)| !way.told).map(|(peer, way)| (peer, &way.passage))
    }

    /// The child of `peer` was sent its end, or needs none any more.
    pub(super) fn told(&mut self, peer: &HostId) {
        if let Some(way) = self.ways.get_mut(peer) {
            way.told = true;
        }
    }

    /// What is left for a child that is about to be forked.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub(super) fn for_child(&mut self, peer: &HostId) -> io::Result<Option<Takeover>> {
        let Some(way) = self.ways.get_mut(peer) else { return Ok(None) };
        if way.tries >= TRIES {
            log::error!(
                "{peer}: {TRIES} processes could not take its programs over: their connections are closed"
            );
            self.ways.remove(peer);
            return Ok(None);
        }
        let takeover = way.passage.takeover()?;
        (way.tries, way.from_birth, way.told) = (way.tries + 1, false, true);
        Ok(Some(takeover))
    }

    /// The child that serves `peer` has taken over what there was.
    pub(super) fn taken(&mut self, peer: &HostId) {
        if self.ways.get(peer).is_some_and(|way| way.tries > 0) {
            self.ways.remove(peer);
        }
    }

    /// Peers whose programs are between two children, or are about to be.
    pub(super) fn peers(&self) -> impl Iterator<Item = &HostId> {
        self.ways.iter().filter(|(_, way)| !way.from_birth).map(|(peer, _)| peer)
    }

    /// No child of `peer` follows: who is in its passage sees an end.
    pub(super) fn close(&mut self, peer: &HostId) {
        self.ways.remove(peer);
    }

    /// No child follows any.
    pub(super) fn close_all(&mut self) {
        self.ways.clear();
    }

    /// What the next program must know: of children that have theirs from birth, and the others.
    pub(super) fn leave(&self) -> [Vec<LeftPassage>; 2] {
        [true, false].map(|from_birth| {
            let these = self.ways.iter().filter(|(_, way)| way.from_birth == from_birth);
            let left = |(peer, way): (&HostId, &Way)| LeftPassage {
                peer: peer.clone(),
                ends: way.passage.ends().map(|end| end.as_raw_fd()),
                told: way.told,
                tries: way.tries,
            };
            these.map(left).collect()
        })
    }

    /// What must stay open over `exec`.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ways.values().flat_map(|way| way.passage.ends())
    }

    /// Takes over those of the program before `exec` whose peers are `served`; the others go.
    pub(super) fn adopt(
        &mut self,
        left: [Vec<LeftPassage>; 2],
        mut take: impl FnMut(RawFd) -> Option<OwnedFd>,
        served: impl Fn(&HostId) -> bool,
    ) {
        for (from_birth, left) in [true, false].into_iter().zip(left) {
            for LeftPassage { peer, ends: [into, out], told, tries } in left {
                if let (Some(into), Some(out), true) = (take(into), take(out), served(&peer)) {
                    let passage = Passage::from_ends(into, out);
                    self.ways.insert(peer, Way { passage, from_birth, told: told || from_birth, tries });
                }
            }
        }
    }
}
