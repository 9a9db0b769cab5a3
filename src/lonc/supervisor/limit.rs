//! The system's limit of open files: what `lonc`'s supervisor needs of it.
//!
//! Raised as far as it goes. Where that is too little, it is an error in the log, and the links that then get no
//! descriptor are tried again later.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that the supervisor needs for each peer: its socket, a control socket, the two ends of a passage.
const DESCRIPTORS_A_PEER: u64 = 4;
/// Descriptors that the supervisor needs beside those.
const OTHER_DESCRIPTORS: u64 = 64;

/// The default limit of 1,024 is reached with 240 peers.
pub fn raise_descriptor_limit(peers: usize) {
    let needed = peers as u64 * DESCRIPTORS_A_PEER + OTHER_DESCRIPTORS;
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(hard) if hard >= needed => {}
        Ok(hard) => {
            log::error!("{peers} links need {needed} open files, and the limit is {hard}: some cannot start")
        }
        Err(errno) => log::error!("raise the limit of open files: {errno}"),
    }
}
