//! The passages through which connected programs go from one child of a peer to the next.
//!
//! A peer has one from its first child until it is no longer served. When the passage goes, so do
//! the programs in it.

use crate::handover::Passage;
use base::HostId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Passages(BTreeMap<HostId, Passage>);

/// A passage as it crosses `exec`.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftPassage {
    peer: HostId,
    ends: [RawFd; 2],
}

impl Passages {
    /// The passage for a child that is about to be forked.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub(super) fn for_child(&mut self, peer: &HostId) -> io::Result<Passage> {
        match self.0.entry(peer.clone()) {
            Entry::Occupied(passage) => passage.get().try_clone(),
            Entry::Vacant(place) => place.insert(Passage::new()?).try_clone(),
        }
    }

    /// Whether the child of `peer` has one: a child that an older program started may not.
    pub(super) fn has(&self, peer: &HostId) -> bool {
        self.0.contains_key(peer)
    }

    /// No child of `peer` follows: who is in its passage sees an end.
    pub(super) fn close(&mut self, peer: &HostId) {
        self.0.remove(peer);
    }

    /// No child follows any.
    pub(super) fn close_all(&mut self) {
        self.0.clear();
    }

    /// What the next program must know.
    pub(super) fn leave(&self) -> Vec<LeftPassage> {
        let left = |(peer, passage): (&HostId, &Passage)| LeftPassage {
            peer: peer.clone(),
            ends: passage.ends().map(|end| end.as_raw_fd()),
        };
        self.0.iter().map(left).collect()
    }

    /// What must stay open over `exec`.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.values().flat_map(Passage::ends)
    }

    /// Takes over those of the program before `exec` whose peers are `served`; the others go.
    pub(super) fn adopt(
        &mut self,
        left: Vec<LeftPassage>,
        mut take: impl FnMut(RawFd) -> Option<OwnedFd>,
        served: impl Fn(&HostId) -> bool,
    ) {
        for LeftPassage { peer, ends: [into, out] } in left {
            if let (Some(into), Some(out), true) = (take(into), take(out), served(&peer)) {
                self.0.insert(peer, Passage::from_ends(into, out));
            }
        }
    }
}
