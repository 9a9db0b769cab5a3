//! Critical requests that are gathered for the next sync: one sync stores them all.
//!
//! They are in the order in which they will be in the spool. Their bytes count towards what may be
//! taken ([`super::MAX_TAKEN_BYTES`]), which bounds them.

use crate::link::Now;
use crate::pending::Owner;
use base::Sequence;
use store::spool::{Disk, NewMessage, Spool, StoreError};

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

impl Store {
    /// As the spool wants it.
    pub(super) fn message(&self) -> NewMessage<'_> {
        let user = self.owner.and_then(|owner| owner.user);
        NewMessage { user, sequence: self.sequence, request: &self.request }
    }
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
    requests: &[NewMessage<'_>],
    now: Now,
) -> Vec<Result<Sequence, StoreError>> {
    let (sent, new): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.sequence.is_some());
    let mut store = |requests: Vec<NewMessage<'_>>| match requests.is_empty() {
        true => Vec::new(),
        false => spool.store_all(&requests, now.wall),
    };
    let (mut sent, mut new) = (store(sent).into_iter(), store(new).into_iter());
    let next = |request: &NewMessage<'_>| match request.sequence {
        Some(_) => sent.next(),
        None => new.next(),
    };
    requests.iter().filter_map(next).collect()
}
