//! Who a local program is, as the system says: a value.

/// No user has this number: system calls take it for none.
const NOBODY: u32 = u32::MAX;

/// The user and the groups of the process that connected, when it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its user.
    pub user: u32,
    /// Its group, and the further ones.
    pub groups: Box<[u32]>,
}

/// A user, unless it is the one of [`Credentials::nobody`].
pub fn known(user: u32) -> Option<u32> {
    (user != NOBODY).then_some(user)
}

impl Credentials {
    /// Of a user of whom no groups are known.
    pub fn of_user(user: u32) -> Credentials {
        Credentials { user, groups: Box::default() }
    }

    /// Of somebody whom the system does not name: no rule names him either.
    pub fn nobody() -> Credentials {
        Credentials::of_user(NOBODY)
    }
}
