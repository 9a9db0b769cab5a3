//! `lon rotate`: this host gets another key, in three steps, and no link is refused on the way.
//!
//! | step | what happens here | what people do then, on every host |
//! | --- | --- | --- |
//! | `--prepare` | `host.key.new` is made | add its line to `hosts.pins`, `lon reload` |
//! | `--switch` | `host.key` becomes `host.key.old`, `host.key.new` becomes `host.key` | `lon reload`, here only |
//! | `--finish` | `host.key.old` is removed | remove its line from `hosts.pins`, `lon reload` |
//!
//! Where it stands is read from the files alone, so any step may be cut off anywhere: at each
//! moment there is a whole `host.key`, and the same command goes on where it stopped. `--undo`
//! takes back `--prepare` or `--switch`. Two who take a step at once: one is refused. The other
//! hosts cannot be asked whether they have the new line; our own `hosts.pins`, which is the same
//! file, can. So `--finish` looks at the links before it lets go of the old key: each that `lonc`
//! makes on the secure wire must be up with the new one, and each that others have made to `lond`,
//! as far as `lond` knows them since its start, must have been made with it. `--force` finishes all
//! the same.

mod links;

use super::pin::{line, with_keys};
use super::{Failure, print, typed};
use base::Pin;
use config::Config;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use wire::secure::{HostKey, KeyError, KeyFile, sync_folder};

/// Links that `--finish` names as not up with the new key.
const SAID: usize = 10;

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("step").args(["prepare", "switch", "finish", "undo"]).multiple(false))]
pub(super) struct Arguments {
    /// First: make the new key, to be made known to all hosts.
    #[arg(long)]
    prepare: bool,
    /// Second: use it. The old one is kept.
    #[arg(long)]
    switch: bool,
    /// Third: remove the old one. Refused unless every link is up with the new one.
    #[arg(long)]
    finish: bool,
    /// Remove it all the same: whoever does not know the new key is cut off then.
    #[arg(long, requires = "finish")]
    force: bool,
    /// Take back what was prepared or switched.
    #[arg(long)]
    undo: bool,
}

/// What the command line asks for.
#[derive(Debug, Clone, Copy)]
enum Step {
    Show,
    Prepare,
    Switch,
    Finish,
    Undo,
}

/// Where the change of keys stands.
#[derive(Debug)]
enum Stage {
    /// One key, in use.
    Idle,
    /// A new key waits. After a switch that was cut off the old one is kept already.
    Prepared { new: HostKey },
    /// The new key is in use, the old one is kept. After an undo that was cut off it waits already.
    Switched { old: HostKey },
}

pub(super) fn run(config: &Config, arguments: &Arguments) -> Result<u8, Failure> {
    let Arguments { prepare, switch, finish, force, undo } = *arguments;
    let step = match (prepare, switch, finish, undo) {
        (true, ..) => Step::Prepare,
        (_, true, ..) => Step::Switch,
        (_, _, true, _) => Step::Finish,
        (_, _, _, true) => Step::Undo,
        (false, false, false, false) => Step::Show,
    };
    let text = with_keys(config, |_| take(config, step, force))?;
    print(text.as_bytes())?;
    Ok(0)
}

/// Takes the step; what is to be said.
fn take(config: &Config, step: Step, force: bool) -> Result<String, Failure> {
    let _alone = match step {
        Step::Show => None,
        Step::Prepare | Step::Switch | Step::Finish | Step::Undo => Some(alone(config)?),
    };
    let rotation = Rotation::read(config)?;
    Ok(match (step, &rotation.stage) {
        (Step::Show, _) => rotation.stands(),
        (Step::Prepare, Stage::Idle) => rotation.prepare()?,
        (Step::Prepare, Stage::Prepared { .. }) => return Err(rotation.refuse("a new key waits already")),
        (Step::Prepare, Stage::Switched { .. }) => {
            return Err(rotation.refuse("the last change of keys is not finished"));
        }
        (Step::Switch, Stage::Prepared { new }) => rotation.switch(new)?,
        (Step::Switch, Stage::Idle) => return Err(rotation.refuse("there is no new key")),
        (Step::Switch, Stage::Switched { .. }) => {
            return Err(rotation.refuse("the new key is in use already"));
        }
        (Step::Finish, Stage::Switched { old }) => {
            if !force {
                rotation.check_links()?;
            }
            rotation.finish(old)?
        }
        (Step::Finish, Stage::Idle) => return Err(rotation.refuse("there is no old key")),
        (Step::Finish, Stage::Prepared { .. }) => {
            return Err(rotation.refuse("the new key is not in use yet"));
        }
        (Step::Undo, Stage::Prepared { new }) => rotation.undo_prepare(new)?,
        (Step::Undo, Stage::Switched { .. }) => rotation.undo_switch()?,
        (Step::Undo, Stage::Idle) => return Err(rotation.refuse("nothing is under way")),
    })
}

/// Keeps two who change the key at once apart for as long as the file is open: what one has seen of
/// the files is not to be changed by the other before it takes its step.
fn alone(config: &Config) -> Result<File, Failure> {
    let folder =
        File::open(&config.key_dir).map_err(|error| Failure::did("open", config.key_dir.display(), error))?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Failure::did("rotate", config.key_dir.display(), "another lon rotate is at work there"))
        }
        // A file system that has no locks for folders: each step is one that only one of two can
        // take.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(folder),
    }
}

struct Rotation<'a> {
    config: &'a Config,
    current: HostKey,
    stage: Stage,
}

impl<'a> Rotation<'a> {
    fn read(config: &'a Config) -> Result<Rotation<'a>, Failure> {
        let current = HostKey::load(&config.key_dir)?;
        let other = |which| match HostKey::load_file(&config.key_dir, which) {
            Ok(key) => Ok(Some(key)),
            Err(KeyError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        };
        let (new, old) = (other(KeyFile::New)?, other(KeyFile::Old)?);
        let pin = current.pin();
        let strange = |what| Failure::did("rotate", config.key_dir.display(), what);
        let stage = match (new, old) {
            (None, None) => Stage::Idle,
            (Some(new), None) if new.pin() != pin => Stage::Prepared { new },
            (None, Some(old)) if old.pin() != pin => Stage::Switched { old },
            (Some(new), Some(old)) if old.pin() == pin && new.pin() != pin => Stage::Prepared { new },
            (Some(new), Some(old)) if new.pin() == pin && old.pin() != pin => Stage::Switched { old },
            (Some(_), Some(_)) => {
                return Err(strange("host.key, .new and .old are three keys: remove what is not in use"));
            }
            (Some(_), None) => return Err(strange("host.key.new is the key in use: remove that copy")),
            (None, Some(_)) => return Err(strange("host.key.old is the key in use: remove that copy")),
        };
        Ok(Rotation { config, current, stage })
    }

    fn prepare(&self) -> Result<String, Failure> {
        let owner = fs::metadata(self.path(KeyFile::Current))
            .map(|metadata| (metadata.uid(), metadata.gid()))
            .map_err(|error| self.failed("look at", KeyFile::Current, error))?;
        let new = HostKey::make_file(&self.config.key_dir, KeyFile::New, Some(owner))?;
        Ok(format!("step 1 of 3 is done: the new key is made, and not in use yet.\n{}", self.spread(&new)))
    }

    fn switch(&self, new: &HostKey) -> Result<String, Failure> {
        if !self.knows(new.pin()) {
            return Err(Failure::did(
                "rotate",
                "--switch",
                format!(
                    "the new key is not in {}: the other hosts would refuse this one; first add this line on every \
                     host: {}",
                    self.config.pins_file.display(),
                    line(self.config, new).trim_end()
                ),
            ));
        }
        self.keep_as(KeyFile::Old)?;
        self.put(KeyFile::New)?;
        Ok(format!("step 2 of 3 is done: the new key is host.key, the old one is kept.\n{}", self.reload()))
    }

    fn finish(&self, old: &HostKey) -> Result<String, Failure> {
        // After an undo that was cut off, the key in use has a second name.
        self.remove(KeyFile::New)?;
        self.remove(KeyFile::Old)?;
        Ok(format!("step 3 of 3 is done: the old key is gone.\n{}", self.forget(old)))
    }

    fn undo_prepare(&self, new: &HostKey) -> Result<String, Failure> {
        // After a switch that was cut off, the key in use has a second name.
        self.remove(KeyFile::Old)?;
        self.remove(KeyFile::New)?;
        Ok(format!("undone: the new key is gone; host.key is as it was.\n{}", self.forget(new)))
    }

    fn undo_switch(&self) -> Result<String, Failure> {
        self.keep_as(KeyFile::New)?;
        self.put(KeyFile::Old)?;
        Ok(format!(
            "undone: the old key is host.key again, the new one waits in host.key.new.\n\
             next, on this host:  {}\n\
             then:  {} to go on, or {} to drop the new key\n",
            self.typed("reload"),
            self.typed("rotate --switch"),
            self.typed("rotate --undo")
        ))
    }

    /// Where it stands, and what is next.
    fn stands(&self) -> String {
        let current = line(self.config, &self.current);
        match &self.stage {
            Stage::Idle => {
                format!(
                    "no change of keys is under way. The key in use:\n  {current}next:  {}\n",
                    self.typed("rotate --prepare")
                )
            }
            Stage::Prepared { new } if self.knows(new.pin()) => format!(
                "step 1 of 3 is done: a new key waits. It is in this host's {}:\n  {}\
                 next, once it is in that file on every host and it was reloaded:  {}\n",
                self.config.pins_file.display(),
                line(self.config, new),
                self.typed("rotate --switch"),
            ),
            Stage::Prepared { new } => {
                format!("step 1 of 3 is done: a new key waits.\n{}", self.spread(new))
            }
            Stage::Switched { .. } => {
                format!(
                    "step 2 of 3 is done: the new key is host.key, the old one is kept.\n{}",
                    self.reload()
                )
            }
        }
    }

    fn spread(&self, new: &HostKey) -> String {
        format!(
            "next: add this line to hosts.pins on EVERY host, beside the present one:\n  {}\
             and on every host:  {}\n\
             then, on this host:  {}\n",
            line(self.config, new),
            self.typed("reload"),
            self.typed("rotate --switch")
        )
    }

    fn reload(&self) -> String {
        format!(
            "next, on this host:  {}\n\
             then see that all links are up ({}, here and on the others), and:  {}\n\
             If they are not:  {}\n",
            self.typed("reload"),
            self.typed("wait --up"),
            self.typed("rotate --finish"),
            self.typed("rotate --undo")
        )
    }

    fn forget(&self, key: &HostKey) -> String {
        if !self.knows(key.pin()) {
            return "Its line is not in this host's hosts.pins: nothing is left to do here.\n".to_owned();
        }
        format!(
            "next: remove this line from hosts.pins on EVERY host:\n  {}and on every host:  {}\n",
            line(self.config, key),
            self.typed("reload")
        )
    }

    /// Refuses to let go of the old key while somebody may need it.
    fn check_links(&self) -> Result<(), Failure> {
        let mut against = links::against(self.config, &self.current.pin().to_string());
        if against.is_empty() {
            return Ok(());
        }
        if let Some(more) = against.len().checked_sub(SAID).filter(|&more| more > 0) {
            against.truncate(SAID);
            against.push(format!("and {more} more"));
        }
        let what = format!(
            "not every link is up with the new key, so that the old one may still be needed; it stays:\n  {}\n\
             when they are up, try again; or, to cut those off that do not know the new key:  {}",
            against.join("\n  "),
            self.typed("rotate --finish --force")
        );
        Err(Failure::did("rotate", "--finish", what))
    }

    /// A command as it has to be typed for this configuration.
    fn typed(&self, command: &str) -> String {
        typed(&self.config.file, command)
    }

    /// Whether our own `hosts.pins` has it for this host.
    fn knows(&self, pin: Pin) -> bool {
        self.config.pins.of(&self.config.id).contains(&pin)
    }

    /// Gives the key in use a second name, unless an earlier try did.
    fn keep_as(&self, which: KeyFile) -> Result<(), Failure> {
        match fs::hard_link(self.path(KeyFile::Current), self.path(which)) {
            Ok(()) => {}
            // `Rotation::read` has seen that it is the key in use.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(self.failed("make", which, error)),
        }
        self.sync()
    }

    /// Makes a key the one in use, in one step.
    fn put(&self, which: KeyFile) -> Result<(), Failure> {
        fs::rename(self.path(which), self.path(KeyFile::Current))
            .map_err(|error| self.failed("rename", which, error))?;
        self.sync()
    }

    fn remove(&self, which: KeyFile) -> Result<(), Failure> {
        match fs::remove_file(self.path(which)) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.failed("remove", which, error)),
        }
    }

    fn sync(&self) -> Result<(), Failure> {
        let folder = &self.config.key_dir;
        sync_folder(folder).map_err(|error| Failure::did("sync", folder.display(), error))
    }

    fn path(&self, which: KeyFile) -> PathBuf {
        which.path(&self.config.key_dir)
    }

    fn failed(&self, verb: &'static str, which: KeyFile, error: io::Error) -> Failure {
        Failure::did(verb, self.path(which).display(), error)
    }

    /// A step out of turn: why, and what would be next.
    fn refuse(&self, why: &str) -> Failure {
        Failure::did("rotate", "this host's key", format!("{why}\n{}", self.stands().trim_end()))
    }
}
