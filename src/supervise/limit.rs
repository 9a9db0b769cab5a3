//! The system's limit of open files: what a supervisor needs of it.
//!
//! Raised as far as it goes. Where that is too little, it is an error in the log, and the links
//! that then get no descriptor are tried again later (`lonc`), or given up for others (`lond`).

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

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

/// What is kept above every child's limit, where there is as much: the descriptors of one message
/// that went just below it, and those that this process has under way.
const ABOVE: u64 = 2048;

/// The limits of open files in a supervisor whose children may have been taken over.
///
/// The system also counts what is under way between the processes of a user, in messages that
/// nobody has read, and refuses to send more where that is above the *sender's* limit. So no child
/// has the supervisor's limit: whatever children put under way, it can still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    /// Of a child that serves.
    pub child: u64,
    /// Of a child that hands its programs over.
    pub hands_over: u64,
}

impl Tiers {
    /// Below the limit that this process has now. `needed`: what a child needs that serves.
    pub fn of_this_process(needed: u64) -> Tiers {
        getrlimit(Resource::RLIMIT_NOFILE)
            .map_or(Tiers { child: needed, hands_over: needed }, |(limit, _)| Tiers::below(limit, needed))
    }

    fn below(limit: u64, needed: u64) -> Tiers {
        let hands_over = limit - ABOVE.min(limit / 4);
        Tiers { child: needed.min(hands_over), hands_over }
    }

    /// How much children that hand over may have under way, whatever those that serve have.
    pub fn under_way(self) -> u64 {
        self.hands_over - self.child
    }
}

/// Lowers the limit of this process, if it is higher. It can be raised again.
pub fn lower(to: u64) {
    let lowered = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if to < soft { setrlimit(Resource::RLIMIT_NOFILE, to, hard) } else { Ok(()) }
    });
    if let Err(errno) = lowered {
        log::error!("lower the limit of open files: {errno}");
    }
}

/// Raises the limit of a child.
pub fn raise_of(pid: u32, to: u64) {
    let raised = limit_of(pid, None).and_then(|limit| {
        let higher = libc::rlimit { rlim_cur: to.min(limit.rlim_max), ..limit };
        limit_of(pid, Some(&higher))
    });
    if let Err(error) = raised {
        log::error!("raise the limit of open files of process {pid}: {error}");
    }
}

/// What the limit of a process is, or was before this one.
fn limit_of(pid: u32, to: Option<&libc::rlimit>) -> io::Result<libc::rlimit> {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let to = to.map_or(std::ptr::null(), std::ptr::from_ref);
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: both addresses are of limits that live through the call, or null.
    let done = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, to, &raw mut before) };
    if done == 0 { Ok(before) } else { Err(io::Error::last_os_error()) }
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
    fn a_supervisor_can_send_whatever_its_children_have_under_way() {
        for limit in [256, 1024, 4096, 20_000, 524_288] {
            let Tiers { child, hands_over } = Tiers::below(limit, 4224);
            assert!(child <= hands_over && child <= 4224);
            // A message goes where the count is not above the limit, and may have 253.
            assert!(hands_over + 253 < limit || limit < 1024, "{limit}: {hands_over}");
        }
        assert_eq!(Tiers::below(524_288, 4224), Tiers { child: 4224, hands_over: 522_240 });
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let within = raise_descriptor_limit(1, 4);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, within), (hard, links_within(hard, 4)));
    }
}
