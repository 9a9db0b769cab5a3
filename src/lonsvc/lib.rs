//! The services of this host: `supervisor` starts the program of each `[service.<name>]` by fork
//! and exec, and keeps it running; `program` is what the child does between the two.

pub mod messages;
mod program;
pub mod supervisor;
