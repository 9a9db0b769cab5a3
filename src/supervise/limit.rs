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
    let needed = needed(links, each);
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
    links_within(limit, each)
}

fn needed(links: usize, each: u64) -> u64 {
    links as u64 * each + OTHER_DESCRIPTORS
}

fn links_within(limit: u64, each: u64) -> usize {
    usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / each.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_room_for_just_as_many_links_as_need_it() {
        for links in [0, 1, 240, 5000] {
            for each in [1, 4, 7] {
                assert_eq!(links_within(needed(links, each), each), links);
                assert!(links_within(needed(links + 1, each) - 1, each) <= links);
            }
        }
        assert_eq!(links_within(1024, 4), 240);
        assert_eq!(links_within(10, 4), 0);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let within = raise_descriptor_limit(1, 4);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, within), (hard, links_within(hard, 4)));
    }
}
