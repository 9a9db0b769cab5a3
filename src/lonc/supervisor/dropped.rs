//! Files that programs have dropped into the delayed directory: moved into the folders of the peers
//! that they are for, whose children are told then.
//!
//! Which files there are `watch` notices; how they are moved is `store::spool::Arrivals`. A bounded
//! number is moved in a turn of the loop, so that signals are heard and children looked after while
//! thousands come. The folders themselves are made again here, if somebody removes them.

use super::{Lonc, Machine};
use crate::messages::ToLink;
use base::HostId;
use base::disk::check_ours;
use config::Config;
use jiff::Timestamp;
use std::ffi::OsStr;
use std::io;
use std::time::{Instant, SystemTime};
use store::spool::{Disk, RealDisk, SpoolError, inbox_owner};
use supervise::daemon::Role;

/// Whose a file in the delayed directory is, by its name: that of the host with the longest id that
/// ends it, if that is a peer.
pub(super) fn owner(config: &Config, name: &OsStr) -> Option<HostId> {
    let host = |id: &str| HostId::new(id).ok().filter(|id| config.hosts.get(id).is_some());
    let id = inbox_owner(name, |id| host(id).is_some())?;
    host(id).filter(|id| config.peer(id).is_some())
}

impl Lonc {
    /// Moves some of the files that are due, and tells the children whose they are.
    pub(super) fn move_dropped(&mut self, m: &mut Machine<'_>, now: Instant) {
        let arrivals = &mut self.lookout.arrivals;
        if arrivals.deadline(now).is_none_or(|at| at > now) {
            return;
        }
        let (config, wall) = (m.start.config.clone(), Timestamp::now());
        let whose = |name: &OsStr| owner(&config, name);
        let passed = arrivals.pass(&mut RealDisk, &config.spool_dir, &whose, now, wall);
        for (peer, error) in &passed.trouble {
            self.say_left(peer, error, now, wall);
        }
        for (peer, error) in &passed.alone {
            let text = format!("{peer}: {error}; it stays, others go past it, and it is tried again");
            if let Some(line) = self.lookout.odd.line(&text, now) {
                log::warn!("{line}");
            }
        }
        for (peer, path) in &passed.irregular {
            let path = path.display();
            let text = format!("{peer}: {path} is no plain file, and is left alone (there may be others)");
            if let Some(line) = self.lookout.odd.line(&text, now) {
                log::warn!("{line}");
            }
        }
        if let Some(error) = passed.unlisted
            && let Some(line) = self.lookout.repeats.line(&format!("{error}; tried again"), now)
        {
            log::error!("{line}");
        }
        passed.peers.iter().for_each(|peer| self.send(m, peer, &ToLink::TakeIn, now));
    }

    /// Makes the folders of peers that are not there. A child cannot have another one than it had:
    /// it is told, to notice that, and the next child begins there. Whoever keeps something in a
    /// folder makes its name durable.
    pub(super) fn keep_folders(&mut self, m: &mut Machine<'_>, now: Instant) {
        let config = m.start.config.clone();
        if !self.spool_names.may_have_changed(&config.spool_dir, SystemTime::now()) {
            return;
        }
        let mut made = Vec::new();
        let mut failed = None;
        for peer in config.peers.iter().map(|peer| &peer.host.id) {
            let folder = config.spool_path(peer);
            match check_ours(&folder) {
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    match RealDisk.make_folder(&folder) {
                        Ok(()) => made.push(peer),
                        // It would be so for each.
                        Err(cause) => {
                            failed = Some(format!("make {}: {cause}; tried again", folder.display()));
                            break;
                        }
                    }
                }
                Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                    failed = Some(format!("use {}: {cause}", folder.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        if failed.is_some() {
            self.spool_names.forget();
        }
        if let Some(line) = failed.and_then(|text| self.lookout.repeats.line(&text, now)) {
            log::error!("{line}");
        }
        made.iter().for_each(|peer| self.send(m, peer, &ToLink::TakeIn, now));
    }

    /// A file stays where it is, and those behind it.
    fn say_left(&mut self, peer: &HostId, error: &SpoolError, now: Instant, wall: Timestamp) {
        let text = match error.cause.kind() {
            io::ErrorKind::CrossesDevices => format!(
                "{peer}: {error}: its folder is on another file system than the delayed directory; no file that is \
                 dropped in for it is sent until both are on one"
            ),
            _ => format!("{peer}: {error}; it stays, and those behind it, and is tried again"),
        };
        if let Some(line) = self.lookout.repeats.line(&text, now) {
            log::error!("{line}");
            self.board.went_wrong(peer, text, wall);
        }
    }
}
