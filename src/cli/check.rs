//! `lon check`: everything that is wrong, and what is hardly meant, as `file:line: what`; touches
//! nothing.
//!
//! Beyond what reading the files tells, it looks at what they name: folders, the user, keys; and
//! with that user's rights (`access`) at whether the programs could use them, at sockets of
//! handlers, free space, listening addresses. All goes to standard output, a line each, warnings
//! marked `warning: `; with `--json` as one line of JSON, `errors` and `warnings`. Exit code 0 when
//! nothing is an error, else 1. `--who HOST` tells what that host may ask instead (`who`),
//! `--sandbox` what this kernel has to confine link children (0: all).

mod access;
mod who;

use super::{Failure, print, typed};
use base::{Pin, WireKind};
use config::{Config, Problem, Sandbox, Service};
use nix::unistd::{User, geteuid};
use serde::Serialize;
use status::json;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use supervise::sandbox::InForce;
use wire::secure::{HostKey, KeyError, KeyFile};

/// The value of `user` that means to serve as root, in so many words.
const ROOT: &str = "root";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// As one line of JSON.
    #[arg(long)]
    json: bool,
    /// Say what this host may ask here, and by which entry, and check nothing else.
    #[arg(long, value_name = "HOST")]
    who: Option<String>,
    /// Say what this kernel has to confine link children, and check nothing else.
    #[arg(long, conflicts_with_all = ["json", "who"])]
    sandbox: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    errors: Vec<Told>,
    warnings: Vec<Told>,
}

/// A problem as JSON has it.
#[derive(Serialize)]
struct Told {
    file: String,
    line: Option<usize>,
    what: String,
}

impl Told {
    fn all(problems: Vec<Problem>) -> Vec<Told> {
        let told =
            |Problem { file, line, what }: Problem| Told { file: file.display().to_string(), line, what };
        problems.into_iter().map(told).collect()
    }
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> Result<u8, Failure> {
    if let Some(host) = &arguments.who {
        return who::run(file, host, arguments.json);
    }
    if arguments.sandbox {
        let there = InForce::in_this_kernel();
        print(format!("{there}\n").as_bytes())?;
        return Ok(u8::from(there.missing().is_some()));
    }
    let mut found = match Config::load(file) {
        Ok(config) => {
            let mut found = Found { problems: Vec::new(), warnings: config.warnings.clone() };
            found.look_around(&config);
            found
        }
        Err(errors) => Found { problems: errors.0, warnings: Vec::new() },
    };
    let code = u8::from(!found.problems.is_empty());
    if arguments.json {
        let report = Report { errors: Told::all(found.problems), warnings: Told::all(found.warnings) };
        print((json(&report) + "\n").as_bytes())?;
        return Ok(code);
    }
    let mut text = String::new();
    for problem in &found.problems {
        text.push_str(&format!("{problem}\n"));
    }
    for warning in found.warnings.drain(..) {
        text.push_str(&format!("warning: {warning}\n"));
    }
    if code == 0 {
        text.push_str(&format!("{}: no errors\n", file.display()));
    }
    print(text.as_bytes())?;
    Ok(code)
}

struct Found {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Found {
    fn look_around(&mut self, config: &Config) {
        for (key, folder) in [
            ("key_dir", &config.key_dir),
            ("run_dir", &config.run_dir),
            ("spool_dir", &config.spool_dir),
            ("log_dir", &config.log_dir),
            ("status_dir", &config.status_dir),
        ] {
            if let Err(cause) = check_folder(folder) {
                self.problem(config, key, format!("{key}: {cause}"));
            }
        }
        self.look_at_keys(config);
        self.look_at_user(config);
        self.look_at_services(config);
        self.look_at_sandbox(config);
        access::look(self, config);
    }

    fn look_at_keys(&mut self, config: &Config) {
        let secure = config.peers.iter().any(|peer| peer.wire == WireKind::Secure) || !config.lond.classic;
        if let Ok(metadata) = fs::metadata(&config.key_dir) {
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let what = format!(
                    "key_dir: {} is open to others than its owner (mode {mode:04o}): chmod 0700",
                    config.key_dir.display()
                );
                self.warning(config, "key_dir", what);
            }
        }
        let (mut current, mut own) = (None, Vec::new());
        for which in [KeyFile::Current, KeyFile::New, KeyFile::Old] {
            match HostKey::load_file(&config.key_dir, which) {
                Ok(key) => {
                    own.push(key.pin());
                    if which == KeyFile::Current {
                        current = Some(key.pin());
                    }
                }
                Err(error @ KeyError::Missing(_)) if which == KeyFile::Current && secure => {
                    self.problem(config, "key_dir", format!("key_dir: {error}"));
                }
                Err(KeyError::Missing(_)) => {}
                Err(KeyError::Read { path, cause }) if cause.kind() == io::ErrorKind::PermissionDenied => {
                    // Whoever asks may not be who serves.
                    let what = format!("key_dir: read {}: {cause}: not checked", path.display());
                    self.warning(config, "key_dir", what);
                    return;
                }
                Err(error) => self.problem(config, "key_dir", format!("key_dir: {error}")),
            }
        }
        if secure {
            self.look_at_own_pins(config, current, &own);
        }
    }

    /// Whether those who know us by `hosts.pins`, which is the same file everywhere, know the keys
    /// that we have.
    fn look_at_own_pins(&mut self, config: &Config, current: Option<Pin>, own: &[Pin]) {
        let Some(current) = current else { return };
        if let Some(owner) = config.pins.who(&current).filter(|owner| **owner != config.id) {
            // Its line is not to be added, as for a key that is new: that would make one key two
            // hosts'.
            let what = format!(
                "this host's key, {}, is {owner}'s: it was copied from there, and each of the two hosts would put an \
                 end to the other's links; move it away, make this host a key of its own ({}), and put \
                 the line that this says into {} on every host",
                KeyFile::Current.path(&config.key_dir).display(),
                typed(&config.file, "pin --make"),
                config.pins_file.display()
            );
            self.problems.push(Problem::of(&config.pins_file, what));
            return;
        }
        let pinned = config.pins.of(&config.id);
        let mut say = |what| self.warnings.push(Problem::of(&config.pins_file, what));
        if !pinned.contains(&current) {
            say(format!("this host's own line is not in it: {} {current}", config.id));
        }
        for pin in pinned.iter().filter(|pin| !own.contains(pin)) {
            say(format!("{} {pin} is none of this host's keys: remove the line", config.id));
        }
    }

    fn look_at_user(&mut self, config: &Config) {
        match config.user.as_deref() {
            None if geteuid().is_root() => {
                self.warning(
                    config,
                    "user",
                    "user: is unset: started as root, lonc and lond refuse to serve".to_owned(),
                );
            }
            None | Some(ROOT) => {}
            Some(name) => match User::from_name(name) {
                Ok(Some(_)) => {}
                Ok(None) => self.problem(config, "user", format!("user: there is no user {name:?}")),
                Err(error) => self.warning(config, "user", format!("user: look up {name:?}: {error}")),
            },
        }
    }

    /// Whether the programs of services are there, and their users and folders. That they may not
    /// be seen by who asks is no mistake.
    fn look_at_services(&mut self, config: &Config) {
        for Service { name, program, user, dir, .. } in &config.services {
            let mut say = |key: &str, what: String| {
                let about = format!("service.{name}");
                self.problem(config, &format!("{about}.{key}"), format!("{about}: {key}: {what}"));
            };
            match fs::metadata(program) {
                Ok(found) if !found.is_file() => say("command", format!("{} is no file", program.display())),
                Ok(found) if found.permissions().mode() & 0o111 == 0 => {
                    say("command", format!("{} cannot be executed: chmod +x it", program.display()));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => say("command", format!("{}: {error}", program.display())),
            }
            match fs::metadata(dir) {
                Ok(found) if !found.is_dir() => say("dir", format!("{} is no folder", dir.display())),
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                    say("dir", format!("{}: {error}", dir.display()));
                }
                Ok(_) | Err(_) => {}
            }
            if let Some(user) = user
                && matches!(User::from_name(user), Ok(None))
            {
                say("user", format!("there is no user {user:?}"));
            }
        }
    }

    /// What this kernel has to confine link children.
    fn look_at_sandbox(&mut self, config: &Config) {
        let there = InForce::in_this_kernel();
        match (config.sandbox, there.missing()) {
            (Sandbox::Auto, Some(missing)) => {
                let what = format!("sandbox: this kernel has no {missing}; link children are less confined");
                self.warning(config, "sandbox", what);
            }
            (Sandbox::Required, Some(missing)) => {
                self.problem(
                    config,
                    "sandbox",
                    format!("sandbox: is \"required\", and this kernel has no {missing}"),
                );
            }
            (_, None) | (Sandbox::Off, Some(_)) => {}
        }
    }

    /// Adds what is wrong with a key, with where that stands; `""`: with the file as a whole.
    fn problem(&mut self, config: &Config, key: &str, what: String) {
        self.problems.push(placed(config, key, what));
    }

    fn warning(&mut self, config: &Config, key: &str, what: String) {
        self.warnings.push(placed(config, key, what));
    }
}

fn placed(config: &Config, key: &str, what: String) -> Problem {
    match config.place_of(key) {
        Some(place) => Problem::at(&place.file, place.line, what),
        None => Problem::of(&config.file, what),
    }
}

/// Whether `folder` is one, or could be made: then the nearest thing above it that exists must be a
/// folder.
fn check_folder(folder: &Path) -> Result<(), String> {
    for place in folder.ancestors() {
        match fs::metadata(place) {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => return Err(format!("{} is no folder", place.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // What stands above is a file: the next turn says which.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(format!("{}: {error}", place.display())),
        }
    }
    Ok(())
}
