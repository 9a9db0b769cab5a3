//! The system's limit of open files: what a supervisor needs of it.
//!
//! Raised as far as it goes. Where that is too little, it is an error in the log, and the links
//! that then get no descriptor are tried again later (`lonc`), or given up for others (`lond`).

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that a supervisor needs beside those of its links.
const OTHER_DESCRIPTORS: u64 = 64;

/// Raises the limit, for so many links with so many descriptors each in the supervisor; how many
/// links it lets be. The default of 1,024 is reached with 240 peers.
pub fn raise_descriptor_limit(links: usize, each: u64) -> usize {
    let needed = links as u64 * each + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        raised
            .inspect_err(|errno| log::error!("raise the limit of open files: {errno}"))
            .map_or(Ok(soft), |()| Ok(hard))
    });
    let limit = limit.unwrap_or(needed);
    if limit < needed {
        log::error!("{links} links need {needed} open files, and the limit is {limit}: some cannot start");
    }
    usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / each.max(1)).unwrap_or(usize::MAX)
}
