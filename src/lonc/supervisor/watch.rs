//! Notices files that programs drop into the delayed directory, so that nobody has to look there
//! again and again.
//!
//! What is noticed is the name of the peer; its child looks for itself. When the kernel's queue
//! overflows, every peer's child is to look ([`Noticed::All`]): nothing is missed.
//!
//! Where there can be no watch (the system has none left, the folder is away) the folder is looked
//! into every few seconds instead ([`Lonc::keep_watch`]), and a watch tried for again; so it is
//! when another folder has come to stand in its place.
//!
//! At HUP the watch is handed over ([`Watch::leave`], [`Watch::take_over`]): the kernel may take
//! seconds to end one, and `exec` would wait for that with every signal blocked. It also keeps what
//! was noticed meanwhile.

use super::{Lonc, Machine, WATCH};
use crate::messages::ToLink;
use base::HostId;
use config::Config;
use net::SourceFd;
use net::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;
use store::spool::inbox_owner;
use supervise::daemon::Role;

/// Most reads (of up to 4 KiB of events) before other work has its turn.
const BUDGET: usize = 64;

/// Names in the delayed directory that are looked at where there is no watch. Where there are more,
/// every peer's child is to look.
const LOOKED_AT: usize = 10_000;

/// The watched delayed directory.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
    folder: Identity,
}

/// Tells a folder from another one that has come to stand in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
}

/// What a program leaves to the next one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LeftWatch {
    descriptor: RawFd,
    folder: Identity,
}

/// Who has files waiting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// These peers, as the names of their files say.
    Some(BTreeSet<HostId>),
    /// Any peer may: there were too many files to say whose.
    All,
}

impl Watch {
    /// Watches `folder`.
    ///
    /// # Errors
    /// When the folder is away, or the system has no more watches.
    pub(super) fn new(folder: &Path, registry: &Registry, token: Token) -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let identity = Identity::of(folder)?;
        let what = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(folder, what)?;
        Watch { inotify, folder: identity }.register(registry, token)
    }

    /// Goes on with what the program before this one watched, if that is `folder` still; else
    /// watches `folder` anew. `take`: gives a descriptor that was left.
    ///
    /// # Errors
    /// As [`Watch::new`].
    pub(super) fn take_over(
        left: LeftWatch,
        take: impl FnOnce(RawFd) -> Option<OwnedFd>,
        folder: &Path,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Watch> {
        let same = Identity::of(folder).is_ok_and(|identity| identity == left.folder);
        match same.then(|| take(left.descriptor)).flatten() {
            Some(fd) => {
                // SAFETY: the program before this one described it as its inotify descriptor.
                let inotify = unsafe { Inotify::from_owned_fd(fd) };
                Watch { inotify, folder: Identity::of(folder)? }.register(registry, token)
            }
            None => Watch::new(folder, registry, token),
        }
    }

    fn register(self, registry: &Registry, token: Token) -> io::Result<Watch> {
        registry.register(&mut SourceFd(&self.as_fd().as_raw_fd()), token, Interest::READABLE)?;
        Ok(self)
    }

    /// Whether `folder` is what is watched.
    pub(super) fn is_of(&self, folder: &Path) -> bool {
        Identity::of(folder).is_ok_and(|identity| identity == self.folder)
    }

    /// What the next program needs; the descriptor is to stay open.
    pub(super) fn leave(&self) -> LeftWatch {
        LeftWatch { descriptor: self.as_fd().as_raw_fd(), folder: self.folder }
    }

    /// What must stay open over `exec`.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Who has files since the last call, and whether there is more to read at once.
    ///
    /// # Errors
    /// What `read` said; the watch is of no more use then.
    pub(super) fn read(&self, is_peer: impl Fn(&str) -> bool) -> io::Result<(Noticed, bool)> {
        let mut peers = BTreeSet::new();
        for _ in 0..BUDGET {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok((Noticed::Some(peers), false)),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    return Ok((Noticed::All, true));
                }
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "the folder was removed"));
                }
                // A name that is no text is no peer's.
                let name = event.name.as_deref().and_then(|name| name.to_str());
                let owner = name.and_then(|name| inbox_owner(name, &is_peer));
                peers.extend(owner.and_then(|id| HostId::new(id).ok()));
            }
        }
        Ok((Noticed::Some(peers), true))
    }
}

/// Who has files in `folder` now.
///
/// # Errors
/// The folder cannot be listed.
fn look_into(folder: &Path, is_peer: impl Fn(&str) -> bool) -> io::Result<Noticed> {
    let mut peers = BTreeSet::new();
    for (count, entry) in folder.read_dir()?.enumerate() {
        if count >= LOOKED_AT {
            return Ok(Noticed::All);
        }
        let name = entry?.file_name();
        let owner = name.to_str().and_then(|name| inbox_owner(name, &is_peer));
        peers.extend(owner.and_then(|id| HostId::new(id).ok()));
    }
    Ok(Noticed::Some(peers))
}

/// How files that are dropped in are noticed just now.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// `None` where the system has no watch for us: [`Lonc::keep_watch`] tries again.
    pub watch: Option<Watch>,
    /// Why there was none the last time, if it was said.
    trouble: Option<String>,
    /// The watch has more to read than one turn's share.
    pub again: bool,
}

impl Lonc {
    /// Goes on with the watch of the program before this one.
    pub(super) fn take_over_watch(
        &mut self,
        m: &Machine<'_>,
        left: Option<LeftWatch>,
        take: &mut impl FnMut(RawFd) -> Option<OwnedFd>,
    ) {
        let Some(left) = left else { return };
        let folder = &m.start.config.spool_dir;
        match Watch::take_over(left, take, folder, m.poll.registry(), WATCH) {
            Ok(watch) => self.lookout.watch = Some(watch),
            Err(error) => log::warn!("watch {}: {error}; watched anew", folder.display()),
        }
    }

    /// Tells the children whose files were noticed.
    pub(super) fn look_for_files(&mut self, m: &mut Machine<'_>, now: Instant) {
        let Some(watch) = &self.lookout.watch else { return };
        let config = &m.start.config;
        match watch.read(|id| is_peer(config, id)) {
            Ok((noticed, again)) => {
                self.lookout.again = again;
                self.have_taken_in(m, noticed, now);
            }
            Err(error) => {
                log::warn!("watch {}: {error}; watched anew", config.spool_dir.display());
                (self.lookout.watch, self.lookout.again) = (None, false);
                self.keep_watch(m, now);
            }
        }
    }

    /// Sees to it that the delayed directory is watched. Where it was not, it is looked into: for
    /// what came before the watch, or instead of one.
    pub(super) fn keep_watch(&mut self, m: &mut Machine<'_>, now: Instant) {
        let config = m.start.config.clone();
        let folder = &config.spool_dir;
        let lookout = &mut self.lookout;
        if lookout.watch.as_ref().is_some_and(|watch| watch.is_of(folder)) {
            return;
        }
        let watch = Watch::new(folder, m.poll.registry(), WATCH);
        if let Err(error) = &watch
            && lookout.trouble.is_none()
        {
            let folder = folder.display();
            log::warn!("watch {folder}: {error}; looked into every few seconds instead, and tried again");
            lookout.trouble = Some(error.to_string());
        } else if watch.is_ok() && lookout.trouble.take().is_some() {
            log::info!("watch {}: it is watched now", folder.display());
        }
        lookout.again = watch.is_ok();
        lookout.watch = watch.ok();
        // One that cannot be listed is away; that is said by who makes it again.
        if let Ok(noticed) = look_into(folder, |id| is_peer(&config, id)) {
            self.have_taken_in(m, noticed, now);
        }
    }

    fn have_taken_in(&mut self, m: &mut Machine<'_>, noticed: Noticed, now: Instant) {
        let peers = match noticed {
            Noticed::Some(peers) => peers.into_iter().collect(),
            Noticed::All => self.peers(),
        };
        peers.iter().for_each(|peer| self.send(m, peer, &ToLink::TakeIn, now));
    }
}

fn is_peer(config: &Config, id: &str) -> bool {
    HostId::new(id).is_ok_and(|id| config.peer(&id).is_some())
}

impl Identity {
    fn of(folder: &Path) -> io::Result<Identity> {
        let found = folder.metadata()?;
        Ok(Identity { device: found.dev(), inode: found.ino() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noticed_during_a_handover_is_kept_and_another_folder_in_its_place_is_watched_anew() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("delayed");
        std::fs::create_dir(&folder).unwrap();
        let poll = net::Poll::new().unwrap();
        let msul1 = || Noticed::Some([HostId::new("msul1").unwrap()].into());
        let drop_in = || std::fs::write(folder.join("1.msul1"), "ping\n").unwrap();

        let old = Watch::new(&folder, poll.registry(), Token(0)).unwrap();
        drop_in();
        let left = old.leave();
        let copy = old.as_fd().try_clone_to_owned().unwrap();
        let mut taken = None;
        let take = |number| {
            taken = Some(number);
            Some(copy)
        };
        // A registry of its own, as the next program has.
        let next = net::Poll::new().unwrap();
        let new = Watch::take_over(left, take, &folder, next.registry(), Token(0)).unwrap();
        assert_eq!(taken, Some(left.descriptor));
        assert_eq!(new.read(|_| true).unwrap().0, msul1());
        assert_eq!(new.leave().folder, left.folder);

        std::fs::rename(&folder, above.path().join("old")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let never = |_| panic!("it watches another folder");
        let anew = Watch::take_over(left, never, &folder, poll.registry(), Token(1)).unwrap();
        drop_in();
        assert_eq!(anew.read(|_| true).unwrap().0, msul1());
    }

    #[test]
    fn files_that_are_written_or_moved_in_are_noticed_for_their_peer() {
        let folder = tempfile::tempdir().unwrap();
        let poll = net::Poll::new().unwrap();
        let watch = Watch::new(folder.path(), poll.registry(), Token(0)).unwrap();
        let is_peer = |id: &str| ["msul1", "msul2", "msul3"].contains(&id);
        let noticed = || watch.read(is_peer).unwrap().0;
        assert_eq!(noticed(), Noticed::Some(BTreeSet::new()));
        std::fs::write(folder.path().join("1.msul1"), "ping\n").unwrap();
        std::fs::write(folder.path().join(".hidden.msul3"), "ping\n").unwrap();
        std::fs::rename(folder.path().join(".hidden.msul3"), folder.path().join("2.msul2")).unwrap();
        std::fs::write(folder.path().join("3.stranger"), "ping\n").unwrap();
        let both = ["msul1", "msul2"].map(|id| HostId::new(id).unwrap());
        assert_eq!(noticed(), Noticed::Some(both.into()));
        // More than one read holds.
        for n in 0..1000 {
            std::fs::write(folder.path().join(format!("{n}.msul3")), "ping\n").unwrap();
        }
        assert_eq!(noticed(), Noticed::Some([HostId::new("msul3").unwrap()].into()));
        assert!(Watch::new(&folder.path().join("missing"), poll.registry(), Token(1)).is_err());
        assert!(Watch::new(&folder.path().join("1.msul1"), poll.registry(), Token(1)).is_err(), "a file");
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(watch.read(is_peer).is_err());
    }
}
