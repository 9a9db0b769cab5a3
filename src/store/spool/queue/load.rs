//! How much waits, in all and of each user.
//!
//! What an older version stored says of no user. Its messages count as those of one more user,
//! `None`. Users of whom nothing waits are not remembered, so there are never more of them than
//! messages.

use std::collections::BTreeMap;

/// Whose a message is; `None` where that is not known.
pub(crate) type User = Option<u32>;

/// Messages and the bytes of their requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// The number of messages.
    pub messages: u64,
    /// Bytes of their requests.
    pub bytes: u64,
}

impl Load {
    /// Adds a message.
    pub(crate) fn add(&mut self, length: u64) {
        self.join(Load { messages: 1, bytes: length });
    }

    fn join(&mut self, other: Load) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    fn take(&mut self, other: Load) {
        self.messages = self.messages.saturating_sub(other.messages);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// A load, and of it each user's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Loads {
    /// The sum.
    pub all: Load,
    users: BTreeMap<User, Load>,
}

impl Loads {
    /// Of one message.
    pub(crate) fn one(user: User, length: u64) -> Loads {
        let mut loads = Loads::default();
        loads.add(user, length);
        loads
    }

    /// What this user has of it.
    pub(crate) fn of(&self, user: User) -> Load {
        self.users.get(&user).copied().unwrap_or_default()
    }

    /// Adds a message of this user.
    pub(crate) fn add(&mut self, user: User, length: u64) {
        self.all.add(length);
        self.users.entry(user).or_default().add(length);
    }

    /// Adds another load.
    pub(crate) fn join(&mut self, other: &Loads) {
        self.all.join(other.all);
        for (user, load) in &other.users {
            self.users.entry(*user).or_default().join(*load);
        }
    }

    /// Takes another load off. Only the sum is certain to hold it: the end of a line may have been
    /// damaged since it was counted, and then nobody knows any more whose message that is.
    pub(crate) fn take(&mut self, other: &Loads) {
        debug_assert!(self.all.messages >= other.all.messages && self.all.bytes >= other.all.bytes);
        self.all.take(other.all);
        for (user, load) in &other.users {
            if let Some(held) = self.users.get_mut(user) {
                held.take(*load);
                if held.messages == 0 {
                    self.users.remove(user);
                }
            }
        }
    }
}
