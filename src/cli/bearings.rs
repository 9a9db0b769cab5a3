//! How the commands that ask a running program find their way: by the configuration, or, while it
//! has mistakes, by what runs.
//!
//! A broker that serves is not touched by a bad line in `hosts.tab`; neither are the commands that
//! ask it. They say each mistake on standard error, then what they go by: the word of the program
//! that runs, which they ask on its own socket in `run_dir`, or, when none answers, what is right
//! in the files. Where a mistake may have hidden `spool_dir`, the status file of the broker that
//! ran last is asked for it. Only a folder that cannot be told from what is left of the files is
//! not guessed where a wrong guess would lose something: see [`Bearings::spool`].
//!
//! `lon check`, `reload`, `pin` and `rotate` are about the files themselves and do not go on
//! without them.

use super::admin::ask;
use super::{Failure, as_service_user, complain};
use base::HostId;
use config::{Config, ConfigErrors, Salvage};
use status::{Snapshot, parse};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use store::record;
use supervise::admin::About;

/// Mistakes that are said one by one.
const MISTAKES_SAID: usize = 5;

/// What a command goes by.
#[derive(Debug)]
pub(super) struct Bearings {
    /// The configuration: whole, or as much of it as can be had.
    pub config: Config,
    /// The files have mistakes.
    pub broken: bool,
    /// `spool_dir` may be another folder than the one that is meant.
    unsure: bool,
}

impl Bearings {
    /// Reads the configuration; says what is wrong with it, and goes on.
    ///
    /// # Errors
    /// The file is not there, or cannot be read, and no program runs where it would be found
    /// without one.
    pub(super) fn take(file: &Path) -> Result<Bearings, Failure> {
        let errors = match Config::load(file) {
            Ok(config) => return Ok(Bearings { config, broken: false, unsure: false }),
            Err(errors) => errors,
        };
        let salvage = Config::salvage(file, None);
        let runs =
            ["lonc", "lond", "lonsvc"].into_iter().find_map(|program| about(&salvage.config, program).ok());
        if runs.is_none() && fs::metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(errors.into());
        }
        say(&errors);
        let salvage = match &runs {
            Some(About { program, pid, whereabouts, .. }) => {
                complain(format_args!(
                    "the configuration has mistakes: going by what {program} [{pid}] goes by"
                ));
                Config::salvage(file, Some(whereabouts))
            }
            None => {
                complain(
                    "the configuration has mistakes, and no program answers: going by what is right in it",
                );
                salvage
            }
        };
        Ok(Bearings::of(salvage))
    }

    fn of(salvage: Salvage) -> Bearings {
        let mut unsure = !salvage.is_sure("spool_dir");
        let mut config = salvage.config;
        if unsure && let Some(folder) = told_last(&config) {
            (config.spool_dir, unsure) = (folder, false);
        }
        unsure &= !serves_as_spool(&config);
        Bearings { config, broken: true, unsure }
    }

    /// Whether messages may be put into the delayed directory of [`Bearings::config`].
    ///
    /// # Errors
    /// It may be the wrong folder: a message there would be sent by nobody.
    pub(super) fn spool(&self) -> Result<(), String> {
        if !self.unsure {
            return Ok(());
        }
        Err(format!(
            "spool_dir cannot be told from what is left of {}, and no program runs that could be asked",
            self.config.file.display()
        ))
    }

    /// The host that an argument names. While the files have mistakes a host is one, too, that has
    /// a socket or a spool.
    ///
    /// # Errors
    /// It is none, or this host itself.
    pub(super) fn peer(&self, text: &str) -> Result<HostId, Failure> {
        match (HostId::new(text), self.broken) {
            (Ok(id), true) if self.config.peer(&id).is_none() && self.has_traces(&id) => Ok(id),
            _ => super::known_peer(&self.config, text),
        }
    }

    fn has_traces(&self, id: &HostId) -> bool {
        self.config.socket_path(id).exists() || self.config.spool_path(id).is_dir()
    }
}

/// Where the broker that ran last stored messages, as its status file says.
fn told_last(config: &Config) -> Option<PathBuf> {
    let file = config.status_dir.join("status.json");
    let bytes = as_service_user(config, || Ok(fs::read(file).ok())).ok()??;
    parse::<Snapshot>(&bytes).ok()?.spool_dir
}

/// Whether the delayed directory is one that a broker has used: it has the folder of a host in it.
fn serves_as_spool(config: &Config) -> bool {
    let mut hosts = config.peers.iter().map(|peer| &peer.host.id);
    hosts.any(|id| config.spool_path(id).is_dir() || record::folder(&config.spool_dir, id).is_dir())
}

/// What a program that runs says of itself.
///
/// # Errors
/// It does not run, or does not answer.
pub(super) fn about(config: &Config, program: &str) -> io::Result<About> {
    let socket = config.run_dir.join(format!("{program}.sock"));
    parse(&ask(&socket, "about")?).map_err(io::Error::from)
}

fn say(ConfigErrors(problems): &ConfigErrors) {
    problems.iter().take(MISTAKES_SAID).for_each(complain);
    if let Some(more) = problems.len().checked_sub(MISTAKES_SAID).filter(|&more| more > 0) {
        complain(format_args!("and {more} more mistakes: lon check says them all"));
    }
}
