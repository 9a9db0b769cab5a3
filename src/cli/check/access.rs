//! What the user who serves may do: looked at with that user's rights, touching nothing.
//!
//! Root has them for a moment ([`Owner::act`]); whoever is that user has them anyway; anybody else
//! cannot know, and is told so. What is for the user alone to say (a file that is closed to it) is
//! an error: the programs would start, and fail then.

use super::Found;
use config::{Config, Program};
use net::listen::could_listen;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, Uid, User, faccessat};
use owner::{Owner, folders};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use supervise::files::pid_file;
use supervise::lock::running_pid;
use wire::secure::KeyFile;

/// Files of one kind that are named; how many more there are is said behind them.
const MOST_NAMED: usize = 5;
/// Less room than this in a folder of files is none: a page for each of the few small files that
/// are made there.
const LEAST_ROOM: u64 = 64 * 1024;
/// Where the kernel says from which port on anybody may listen.
const FREE_PORTS: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// The key of listening addresses.
const LISTEN: &str = "lond.listen";
/// To use a folder: list it, make files there, reach them.
const USE: AccessFlags = AccessFlags::R_OK.union(AccessFlags::W_OK).union(AccessFlags::X_OK);

/// Adds what is wrong to `found`.
pub(super) fn look(found: &mut Found, config: &Config) {
    // A user that there is not is reported with `user`; then this one's rights are as good as any.
    let owner = Owner::beside_root(config).ok().flatten();
    let served_by = config.user.as_deref().and_then(|name| User::from_name(name).ok().flatten());
    let own = Uid::effective();
    let another = served_by.filter(|user| user.uid != own && !own.is_root());
    if let Some(user) = &another {
        let what = format!("user: what {0} may do was not looked at: only root or {0} itself can", user.name);
        found.warning(config, "user", what);
    }
    // As root, before its rights are put down.
    let places = [
        Place::of("run_dir", &config.run_dir, owner.as_ref()),
        Place::of("status_dir", &config.status_dir, owner.as_ref()),
        Place::of("spool_dir", &config.spool_dir, owner.as_ref()),
        Place::of("log_dir", &config.log_dir, owner.as_ref()),
    ];
    let name = owner.as_ref().map_or_else(|| "this user".to_owned(), |owner| owner.name.clone());
    let acting = owner.as_ref().map(Owner::act).transpose();
    let _acting = match acting {
        Ok(acting) => acting,
        Err(error) => {
            return found.warning(config, "user", format!("user: act as {name}: {error}: not looked at"));
        }
    };
    let mut look = Look { found, config, name };
    if another.is_none() {
        look.configuration();
        places.iter().for_each(|place| look.folder(place));
        look.keys();
        look.own_files();
        look.delayed();
    }
    look.handlers(another.is_none());
    look.room();
    look.addresses(owner.as_ref());
}

/// A folder that the programs make if it is not there.
struct Place<'a> {
    key: &'static str,
    folder: &'a Path,
    /// It, or the nearest that is there above it.
    there: Option<PathBuf>,
    /// What is missing, root makes at the start.
    made_by_root: bool,
}

impl<'a> Place<'a> {
    fn of(key: &'static str, folder: &'a Path, owner: Option<&Owner>) -> Place<'a> {
        let there = folder.ancestors().find(|path| path.is_dir()).map(Path::to_owned);
        let guarded = |owner, there| folders::root_alone(there, owner).unwrap_or(false);
        let made_by_root = owner.zip(there.as_deref()).is_some_and(|(owner, there)| guarded(owner, there));
        Place { key, folder, there, made_by_root }
    }
}

struct Look<'a> {
    found: &'a mut Found,
    config: &'a Config,
    /// Whose rights are looked at.
    name: String,
}

impl Look<'_> {
    /// What is read again at HUP and at a reload.
    fn configuration(&mut self) {
        for path in [&self.config.file, &self.config.hosts_file, &self.config.pins_file] {
            if let Err(cause) = may(path, AccessFlags::R_OK)
                && cause.kind() != io::ErrorKind::NotFound
            {
                let what =
                    self.closed(path, &cause, "cannot read it: neither the start, HUP nor lon reload could");
                self.found.problem(self.config, "", what);
            }
        }
    }

    fn folder(&mut self, place: &Place<'_>) {
        let Place { key, folder, there, made_by_root } = place;
        // That something is no folder is said where the folders are looked at.
        let Some(there) = there else { return };
        let (wanted, cannot) = match () {
            () if there == folder => (USE, "cannot use it"),
            () if *made_by_root => (AccessFlags::X_OK, "cannot reach what is to be made there"),
            () => (AccessFlags::W_OK | AccessFlags::X_OK, "cannot make what is missing there"),
        };
        if let Err(cause) = may(there, wanted) {
            let what = self.closed(there, &cause, cannot);
            self.found.problem(self.config, key, format!("{key}: {what}"));
        }
    }

    /// What is for its owner alone must be owned by who serves: the keys, and their folder.
    fn keys(&mut self) {
        let folder = &self.config.key_dir;
        let keys = [KeyFile::Current, KeyFile::New, KeyFile::Old].map(|which| which.path(folder));
        let closed = |path: &Path, wanted| matches!(may(path, wanted), Err(cause) if is_denied(&cause));
        let path = if closed(folder, AccessFlags::X_OK) {
            Some(folder)
        } else {
            keys.iter().find(|key| closed(key, AccessFlags::R_OK))
        };
        if let Some(path) = path {
            let Look { name, .. } = self;
            let (path, folder) = (path.display(), folder.display());
            let what = format!(
                "key_dir: {path} is closed to {name}, who is to read the key: chown -R {name} {folder}"
            );
            self.found.problem(self.config, "key_dir", what);
        }
    }

    /// Files that an earlier start has made, by another user perhaps.
    fn own_files(&mut self) {
        let config = self.config;
        let logs = ["lonc.log", "lond.log", "lonnet.perm.log"].map(|name| config.log_dir.join(name));
        let locks = ["lonc", "lond"].map(|program| pid_file(program, config));
        for (key, path) in
            logs.iter().map(|log| ("log_dir", log)).chain(locks.iter().map(|lock| ("run_dir", lock)))
        {
            // A folder that is closed was said already.
            let reached = path.parent().is_none_or(|folder| may(folder, AccessFlags::X_OK).is_ok());
            if let Err(cause) = may(path, AccessFlags::W_OK)
                && reached
                && is_denied(&cause)
            {
                let what = self.closed(path, &cause, "cannot write to it");
                self.found.problem(config, key, format!("{key}: {what}"));
            }
        }
        let sockets = config.peers.iter().map(|peer| config.socket_path(&peer.host.id));
        for path in sockets.chain(["lonc.sock", "lond.sock"].map(|name| config.run_dir.join(name))) {
            if fs::symlink_metadata(&path).is_ok_and(|there| !there.file_type().is_socket()) {
                let what = format!("run_dir: {} is no socket: it keeps one from being there", path.display());
                self.found.problem(config, "run_dir", what);
            }
        }
    }

    /// What is stored, what was dropped in, and the records of answers.
    fn delayed(&mut self) {
        let mut closed = Vec::new();
        self.walk(&self.config.spool_dir, 2, &mut closed);
        let more = closed.len().saturating_sub(MOST_NAMED);
        for (path, cause) in closed.into_iter().take(MOST_NAMED) {
            let what = self.closed(&path, &cause, "cannot use it: what is in it is neither sent nor kept");
            self.found.problem(self.config, "spool_dir", format!("spool_dir: {what}"));
        }
        if more > 0 {
            self.found.problem(
                self.config,
                "spool_dir",
                format!("spool_dir: {more} more are closed like these"),
            );
        }
        self.mounts();
    }

    /// A file that is dropped in is moved to its peer's folder, which no rename does from one file
    /// system to another.
    fn mounts(&mut self) {
        let config = self.config;
        let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
        let Some(own) = device(&config.spool_dir) else { return };
        for peer in &config.peers {
            let folder = config.spool_path(&peer.host.id);
            if device(&folder).is_some_and(|device| device != own) {
                let (folder, all) = (folder.display(), config.spool_dir.display());
                let what = format!(
                    "spool_dir: {folder} is on another file system than {all}: no file that is dropped in for {} is sent",
                    peer.host.id
                );
                self.found.problem(config, "spool_dir", what);
            }
        }
    }

    /// Gathers what is closed in `folder`, and so many levels below it.
    fn walk(&self, folder: &Path, below: u32, closed: &mut Vec<(PathBuf, io::Error)>) {
        // A folder that is closed was said by who led here.
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            let wanted = match () {
                () if kind.is_dir() => USE,
                // A dropped file is read, and then removed by way of its folder.
                () if kind.is_file() && (folder == self.config.spool_dir || folder.ends_with("dropped")) => {
                    AccessFlags::R_OK
                }
                () if kind.is_file() => AccessFlags::R_OK | AccessFlags::W_OK,
                () => continue,
            };
            match may(&path, wanted) {
                Err(cause) if is_denied(&cause) => closed.push((path, cause)),
                // Gone meanwhile; or something else is wrong with it, which a start says.
                Err(_) => {}
                Ok(()) if kind.is_dir() && below > 0 => self.walk(&path, below - 1, closed),
                Ok(()) => {}
            }
        }
    }

    /// `decides`: what is closed to this process is closed to the programs.
    fn handlers(&mut self, decides: bool) {
        for handler in &self.config.handlers {
            if let Some(program) = &handler.program {
                // Its socket is lond's own.
                self.program(&handler.name, program, decides);
                continue;
            }
            let path = &handler.socket;
            let (about, shown) = (format!("handler.{}: socket", handler.name), path.display());
            let key = format!("handler.{}.socket", handler.name);
            let cause = match fs::metadata(path) {
                Ok(metadata) if metadata.file_type().is_socket() => match may(path, AccessFlags::W_OK) {
                    Ok(()) => continue,
                    Err(_) if !decides => continue,
                    Err(cause) => {
                        let what = self.closed(path, &cause, "cannot connect to it: requests are not taken");
                        self.found.problem(self.config, &key, format!("{about}: {what}"));
                        continue;
                    }
                },
                Ok(_) => "is no socket".to_owned(),
                Err(error) if is_denied(&error) && !decides => continue,
                Err(error) if is_denied(&error) => {
                    let what = self.closed(path, &error, "cannot reach it: requests are not taken");
                    self.found.problem(self.config, &key, format!("{about}: {what}"));
                    continue;
                }
                Err(error) => error.to_string(),
            };
            let what = format!(
                "{about}: {shown}: {cause}: requests are answered error: until a program listens there"
            );
            self.found.warning(self.config, &key, what);
        }
    }

    /// A program that `lond` is to run.
    fn program(&mut self, handler: &str, program: &Program, decides: bool) {
        let (file, about) = (&program.file, format!("handler.{handler}: program"));
        let (key, shown) = (format!("handler.{handler}.{}", program.run.key()), file.display());
        let cause = match fs::metadata(file) {
            Ok(found) if !found.is_file() => "is no file".to_owned(),
            Ok(_) => match may(file, AccessFlags::X_OK) {
                Ok(()) => return,
                Err(_) if !decides => return,
                Err(cause) => {
                    let what = self.closed(file, &cause, "cannot run it: requests are not taken");
                    self.found.problem(self.config, &key, format!("{about}: {what}"));
                    return;
                }
            },
            Err(error) if is_denied(&error) && !decides => return,
            Err(error) if is_denied(&error) => {
                let what = self.closed(file, &error, "cannot reach it: requests are not taken");
                self.found.problem(self.config, &key, format!("{about}: {what}"));
                return;
            }
            Err(error) => error.to_string(),
        };
        self.found.problem(self.config, &key, format!("{about}: {shown}: {cause}: requests are not taken"));
    }

    fn room(&mut self) {
        let config = self.config;
        if let Some(free) = free_at(&config.spool_dir) {
            let keep = config.peers.iter().map(|peer| peer.spool.keep_free).max().unwrap_or(0);
            let bytes = config.peers.iter().map(|peer| peer.spool.bytes).max().unwrap_or(0);
            let (at, free_shown) = (config.spool_dir.display(), size(free));
            if free < keep {
                let what = format!(
                    "spool_dir: {free_shown} are free where {at} is, and {} are to stay free (spool_keep_free): \
                     critical messages that have to wait are answered con_failed",
                    size(keep)
                );
                self.found.problem(config, "spool_dir", what);
            } else if free - keep < bytes {
                let what = format!(
                    "spool_dir: {free_shown} are free where {at} is, of which {} stay free: less than the {} that \
                     may wait for one host (spool_bytes)",
                    size(keep),
                    size(bytes)
                );
                self.found.warning(config, "spool_dir", what);
            }
        }
        let folders =
            [("run_dir", &config.run_dir), ("log_dir", &config.log_dir), ("status_dir", &config.status_dir)];
        for (key, folder) in folders {
            if free_at(folder).is_some_and(|free| free < LEAST_ROOM) {
                self.found.problem(config, key, format!("{key}: the disk of {} is full", folder.display()));
            }
        }
    }

    fn addresses(&mut self, owner: Option<&Owner>) {
        let (config, all) = (self.config, &self.config.lond.listen);
        let runs = running_pid(&pid_file("lond", config)).is_some();
        for address in all {
            // Root's rights to ports are not put down with those over files.
            let low = owner.is_some() && address.port() != 0 && address.port() < first_free_port();
            let cause =
                if low { Some(io::Error::from(Errno::EACCES)) } else { could_listen(*address, all).err() };
            match cause {
                None => {}
                Some(cause) if is_denied(&cause) => {
                    let what = format!("lond.listen: {address}: only root may: {} cannot", self.name);
                    self.found.problem(config, LISTEN, what);
                }
                Some(cause) if cause.kind() == io::ErrorKind::AddrInUse && runs => {}
                Some(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
                    let what = format!("lond.listen: {address}: another program listens there");
                    self.found.problem(config, LISTEN, what);
                }
                Some(cause) => self.found.warning(config, LISTEN, format!("lond.listen: {address}: {cause}")),
            }
        }
    }

    /// What cannot be done with `path`; where a folder above it is closed, it is that.
    fn closed(&self, path: &Path, cause: &io::Error, cannot: &str) -> String {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        let shut =
            above.into_iter().rev().find(|path| may(path, AccessFlags::X_OK).is_err_and(|e| is_denied(&e)));
        let Look { name, .. } = self;
        match shut.filter(|_| is_denied(cause)) {
            Some(shut) => format!("{}: {name} {cannot}: {} is closed to it", path.display(), shut.display()),
            None => format!("{}: {name} {cannot}: {cause}", path.display()),
        }
    }
}

/// Whether this thread, with the rights that it has just now, may.
fn may(path: &Path, wanted: AccessFlags) -> io::Result<()> {
    Ok(faccessat(AT_FDCWD, path, wanted, AtFlags::AT_EACCESS)?)
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Bytes that are free for this user where `folder` is, or will be when it is made.
fn free_at(folder: &Path) -> Option<u64> {
    let found = folder.ancestors().find_map(|path| statvfs(path).ok())?;
    Some(found.blocks_available().saturating_mul(found.fragment_size()))
}

fn first_free_port() -> u16 {
    fs::read_to_string(FREE_PORTS).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}
