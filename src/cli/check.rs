//! `lon check`: everything that is wrong, and what is hardly meant, as `file:line: what`; touches nothing.
//!
//! Beyond what reading the files tells, it looks at what they name: folders, the user, sockets of handlers. All goes
//! to standard output, a line each, warnings marked `warning: `. Exit code 0 when nothing is an error, else 1.

use super::{Failure, print};
use crate::config::{Config, Problem};
use nix::unistd::{User, geteuid};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// The value of `user` that means to serve as root, in so many words.
const ROOT: &str = "root";

pub(super) fn run(file: &Path) -> Result<u8, Failure> {
    let mut found = match Config::load(file) {
        Ok(config) => {
            let mut found = Found { problems: Vec::new(), warnings: config.warnings.clone() };
            found.look_around(&config);
            found
        }
        Err(errors) => Found { problems: errors.0, warnings: Vec::new() },
    };
    let code = u8::from(!found.problems.is_empty());
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
                self.problem(config, format!("{key}: {cause}"));
            }
        }
        self.look_at_keys(config);
        self.look_at_user(config);
        self.look_at_handlers(config);
    }

    fn look_at_keys(&mut self, config: &Config) {
        let Ok(metadata) = fs::metadata(&config.key_dir) else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let what = format!(
                "key_dir: {} is open to others than its owner (mode {mode:04o}): chmod 0700",
                config.key_dir.display()
            );
            self.warning(config, what);
        }
    }

    fn look_at_user(&mut self, config: &Config) {
        match config.user.as_deref() {
            None if geteuid().is_root() => {
                self.warning(
                    config,
                    "user: is unset: started as root, lonc and lond refuse to serve".to_owned(),
                );
            }
            None | Some(ROOT) => {}
            Some(name) => match User::from_name(name) {
                Ok(Some(_)) => {}
                Ok(None) => self.problem(config, format!("user: there is no user {name:?}")),
                Err(error) => self.warning(config, format!("user: look up {name:?}: {error}")),
            },
        }
    }

    fn look_at_handlers(&mut self, config: &Config) {
        for handler in &config.handlers {
            let cause = match fs::metadata(&handler.socket) {
                Ok(metadata) if metadata.file_type().is_socket() => continue,
                Ok(_) => "is no socket".to_owned(),
                Err(error) => error.to_string(),
            };
            let what = format!(
                "handler.{}: socket: {}: {cause}: requests are answered error: until a program listens there",
                handler.name,
                handler.socket.display()
            );
            self.warning(config, what);
        }
    }

    fn problem(&mut self, config: &Config, what: String) {
        self.problems.push(Problem::of(&config.file, what));
    }

    fn warning(&mut self, config: &Config, what: String) {
        self.warnings.push(Problem::of(&config.file, what));
    }
}

/// Whether `folder` is one, or could be made: then the nearest thing above it that exists must be a folder.
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
