//! Critical requests that are gathered for the next sync: one sync stores them all.
//!
//! They are in the order in which they will be in the spool. Their bytes count towards what may be
//! taken ([`super::MAX_TAKEN_BYTES`]), which bounds them.

use crate::link::Now;
use crate::pending::Owner;
use base::Sequence;
use store::spool::{Disk, Spool, StoreError};

/// A critical request that is to be stored at the next sync.
#[derive(Debug)]
pub(super) struct Store {
    /// Who is to be told.
    pub owner: Option<Owner>,
    /// Its place, if it was sent under one.
    pub sequence: Option<Sequence>,
    /// In the form in which it is stored.
    pub request: Box<[u8]>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stores {
    waiting: Vec<Store>,
    bytes: usize,
}

impl Stores {
    /// Whether none is gathered.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of all that are gathered.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a program's request, as the newest. It has no place yet.
    pub(super) fn push(&mut self, owner: Owner, text: &[u8]) {
        self.bytes += text.len();
        self.waiting.push(Store { owner: Some(owner), sequence: None, request: text.into() });
    }

    /// Adds these, in their order, before all that are gathered: they are older.
    pub(super) fn push_before(&mut self, older: Vec<Store>) {
        self.bytes += older.iter().map(|store| store.request.len()).sum::<usize>();
        self.waiting.splice(0..0, older);
    }

    /// Takes them all, to be stored or given up.
    pub(super) fn take(&mut self) -> Vec<Store> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// How many are gathered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// Stores requests in their order: those that were sent under a sequence keep it, and the others
/// are newer. (Only where the disk could give no sequence is one that was sent without the elder,
/// and then it loses its place in the order.)
pub(super) fn store_all<D: Disk>(
    spool: &mut Spool<D>,
    requests: &[(Option<Sequence>, &[u8])],
    now: Now,
) -> Vec<Result<Sequence, StoreError>> {
    let sent: Vec<_> = requests.iter().filter_map(|(sequence, text)| Some(((*sequence)?, *text))).collect();
    let new: Vec<_> =
        requests.iter().filter(|(sequence, _)| sequence.is_none()).map(|(_, text)| *text).collect();
    let mut sent = if sent.is_empty() { Vec::new() } else { spool.store_at(&sent, now.wall) }.into_iter();
    let mut new = if new.is_empty() { Vec::new() } else { spool.store(&new, now.wall) }.into_iter();
    let next = |(sequence, _): &(Option<Sequence>, &[u8])| match sequence {
        Some(_) => sent.next(),
        None => new.next(),
    };
    requests.iter().filter_map(next).collect()
}
