//! The caller's side: `supervisor` forks a child for each peer; `entry` is where such a child begins.

pub mod entry;
pub mod inbox_owner;
pub mod supervisor;
