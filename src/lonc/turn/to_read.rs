//! The programs that are to be read, in the order in which they came to it, each once.

use crate::session::ClientId;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ToRead {
    queue: VecDeque<ClientId>,
    /// The same, by their places.
    listed: Vec<Option<ClientId>>,
}

impl ToRead {
    /// One more, unless it is there.
    pub(super) fn add(&mut self, id: ClientId) {
        if self.listed.len() <= id.index() {
            self.listed.resize(id.index() + 1, None);
        }
        if let Some(place) = self.listed.get_mut(id.index())
            && *place != Some(id)
        {
            *place = Some(id);
            self.queue.push_back(id);
        }
    }

    /// The next one, which is not among them any more.
    pub(super) fn next(&mut self) -> Option<ClientId> {
        let id = self.queue.pop_front()?;
        if let Some(place) = self.listed.get_mut(id.index()).filter(|place| **place == Some(id)) {
            *place = None;
        }
        Some(id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
