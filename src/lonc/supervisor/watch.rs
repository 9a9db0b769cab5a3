//! Notices files that programs drop into the delayed directory, so that nobody has to look there
//! again and again.
//!
//! What is noticed are the names of files, by peer; `dropped` moves them. When the kernel's queue
//! overflows, the folder is to be listed ([`Noticed::All`]): nothing is missed.
//!
//! Where there can be no watch (the system has none left, the folder is away) the folder is listed
//! every few seconds instead ([`Lonc::keep_watch`]), and a watch tried for again; so it is
//! when another folder has come to stand in its place.
//!
//! At HUP the watch is handed over ([`Watch::leave`], [`Watch::take_over`]): the kernel may take
//! seconds to end one, and `exec` would wait for that with every signal blocked. It also keeps what
//! was noticed meanwhile.

use super::dropped::owner;
use super::{Lonc, Machine, WATCH};
use base::HostId;
use base::disk::Identity;
use base::log_quota::Repeats;
use net::SourceFd;
use net::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Instant;
use store::spool::Arrivals;

/// Most reads (of up to 4 KiB of events) before other work has its turn.
const BUDGET: usize = 64;

/// The watched delayed directory.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
    folder: Identity,
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
    /// These peers, these files.
    Some(BTreeSet<(HostId, OsString)>),
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
        let identity = Identity::named(folder)?;
        inotify.add_watch(folder, what())?;
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
        let same = Identity::named(folder).is_ok_and(|identity| identity == left.folder);
        match same.then(|| take(left.descriptor)).flatten() {
            Some(fd) => {
                // SAFETY: the program before this one described it as its inotify descriptor.
                let inotify = unsafe { Inotify::from_owned_fd(fd) };
                // That one may have looked for less.
                inotify.add_watch(folder, what())?;
                Watch { inotify, folder: Identity::named(folder)? }.register(registry, token)
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
        Identity::named(folder).is_ok_and(|identity| identity == self.folder)
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
    pub(super) fn read(&self, owner: impl Fn(&OsStr) -> Option<HostId>) -> io::Result<(Noticed, bool)> {
        let mut files = BTreeSet::new();
        for _ in 0..BUDGET {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok((Noticed::Some(files), false)),
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
                let Some(name) = event.name else { continue };
                files.extend(owner(&name).map(|peer| (peer, name)));
            }
        }
        Ok((Noticed::Some(files), true))
    }
}

/// What is watched for. A file that is linked in is created, and neither written nor moved.
fn what() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_ONLYDIR
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
    /// What is to be moved.
    pub arrivals: Arrivals,
    /// For what is said of that.
    pub repeats: Repeats,
    /// For what is said of files that hold up no other: whoever makes them cannot keep what
    /// `repeats` says out of the log.
    pub odd: Repeats,
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

    /// Has those files moved that were noticed.
    pub(super) fn look_for_files(&mut self, m: &mut Machine<'_>, now: Instant) {
        let Some(watch) = &self.lookout.watch else { return };
        let config = &m.start.config;
        match watch.read(|name| owner(config, name)) {
            Ok((noticed, again)) => {
                self.lookout.again = again;
                match noticed {
                    Noticed::All => self.lookout.arrivals.look_again(),
                    Noticed::Some(files) => {
                        files.into_iter().for_each(|(peer, name)| {
                            self.lookout.arrivals.notice(peer, name, now);
                        });
                    }
                }
            }
            Err(error) => {
                log::warn!("watch {}: {error}; watched anew", config.spool_dir.display());
                (self.lookout.watch, self.lookout.again) = (None, false);
                self.keep_watch(m);
            }
        }
    }

    /// Sees to it that the delayed directory is watched. Where it was not, it is listed: for what
    /// came before the watch, or instead of one.
    pub(super) fn keep_watch(&mut self, m: &Machine<'_>) {
        let folder = &m.start.config.spool_dir;
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
        lookout.arrivals.look_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &OsStr) -> Option<HostId> {
        let known = |id: &str| ["msul1", "msul2", "msul3"].contains(&id);
        HostId::new(store::spool::inbox_owner(name, known)?).ok()
    }

    fn file(name: &str) -> (HostId, OsString) {
        (owner(name.as_ref()).unwrap(), name.into())
    }

    #[test]
    fn what_is_noticed_during_a_handover_is_kept_and_another_folder_in_its_place_is_watched_anew() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("delayed");
        std::fs::create_dir(&folder).unwrap();
        let poll = net::Poll::new().unwrap();
        let msul1 = || Noticed::Some([file("1.msul1")].into());
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
        assert_eq!(new.read(owner).unwrap().0, msul1());
        assert_eq!(new.leave().folder, left.folder);

        std::fs::rename(&folder, above.path().join("old")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let never = |_| panic!("it watches another folder");
        let anew = Watch::take_over(left, never, &folder, poll.registry(), Token(1)).unwrap();
        drop_in();
        assert_eq!(anew.read(owner).unwrap().0, msul1());
    }

    #[test]
    fn files_that_are_written_or_moved_in_are_noticed_for_their_peer() {
        let folder = tempfile::tempdir().unwrap();
        let poll = net::Poll::new().unwrap();
        let watch = Watch::new(folder.path(), poll.registry(), Token(0)).unwrap();
        let noticed = || watch.read(owner).unwrap().0;
        assert_eq!(noticed(), Noticed::Some(BTreeSet::new()));
        std::fs::write(folder.path().join("1.msul1"), "ping\n").unwrap();
        std::fs::write(folder.path().join(".hidden.msul3"), "ping\n").unwrap();
        std::fs::rename(folder.path().join(".hidden.msul3"), folder.path().join("2.msul2")).unwrap();
        std::fs::write(folder.path().join("3.stranger"), "ping\n").unwrap();
        assert_eq!(noticed(), Noticed::Some([file("1.msul1"), file("2.msul2")].into()));
        std::fs::hard_link(folder.path().join("1.msul1"), folder.path().join("4.msul1")).unwrap();
        assert_eq!(noticed(), Noticed::Some([file("4.msul1")].into()));
        // More than one read holds.
        for n in 0..1000 {
            std::fs::write(folder.path().join(format!("{n}.msul3")), "ping\n").unwrap();
        }
        let all = (0..1000).map(|n| file(&format!("{n}.msul3"))).collect();
        assert_eq!(noticed(), Noticed::Some(all));
        assert!(Watch::new(&folder.path().join("missing"), poll.registry(), Token(1)).is_err());
        assert!(Watch::new(&folder.path().join("1.msul1"), poll.registry(), Token(1)).is_err(), "a file");
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(watch.read(owner).is_err());
    }
}
