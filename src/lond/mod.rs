//! The called side: `supervisor` accepts and forks a child for each link; `entry` is where such a child begins.

pub mod entry;
pub mod supervisor;
