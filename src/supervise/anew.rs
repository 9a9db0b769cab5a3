//! What HUP and `lon reload` read anew, and what neither can change.
//!
//! A reload goes on in the same process: after it everything runs as the configuration says, or nothing was
//! changed. Both supervisors compare what was with what is read, touch only what differs, and answer in lines:
//!
//! ```text
//! error:/etc/lonnet/hosts.tab:7: ...                        nothing was changed
//! reloaded: 2 links replaced, 1 added, 0 removed, 3 kept    one line, where nothing is an error
//! ```
//!
//! This host's own key is read with the configuration: a new one replaces every secure link, one that cannot be used
//! is an error like any other.
//!
//! The user and `run_dir` are as old as the process: root was given up, and the lock lies in the folder; the log is
//! as old as the program. Where such a key has another value in the file, the old configuration stays and the answer
//! says what to do instead.

use super::background;
use super::startup::Load;
use crate::config::{Config, ConfigErrors, HostId, Pin};
use crate::wire::secure::{HostKey, KeyError};
use std::collections::BTreeSet;

/// What stands before a problem in the answer to `reload`.
pub const ERROR: &str = "error:";
/// What the answer begins with when nothing is an error.
pub const RELOADED: &str = "reloaded: ";

/// A key that a running process cannot follow.
struct Fixed {
    key: &'static str,
    same: fn(&Config, &Config) -> bool,
    instead: &'static str,
}

/// As old as the process.
const OF_THE_PROCESS: [Fixed; 2] = [
    Fixed { key: "run_dir", same: |a, b| a.run_dir == b.run_dir, instead: "stop and start instead" },
    Fixed { key: "user", same: |a, b| a.user == b.user, instead: "stop and start instead" },
];

/// As old as the program, which HUP starts anew.
const OF_THE_PROGRAM: [Fixed; 1] =
    [Fixed { key: "log_dir", same: |a, b| a.log_dir == b.log_dir, instead: "send HUP instead" }];

/// Whether the program can be started anew with what the files say now; logs what is wrong if not.
pub fn can_restart(load: Load, current: &Config) -> bool {
    match read(load, current, OF_THE_PROCESS.iter()) {
        Ok(_) => true,
        Err(problems) => {
            complain("restart", &problems);
            false
        }
    }
}

/// What the files say now, for a process that goes on; its folders are there.
///
/// # Errors
/// What is wrong, a line each.
pub fn reload(load: Load, current: &Config) -> Result<Config, Vec<String>> {
    let new = read(load, current, OF_THE_PROCESS.iter().chain(&OF_THE_PROGRAM))?;
    background::make_folders(&new, None).map_err(|error| vec![error.to_string()])?;
    Ok(new)
}

fn read<'a>(
    load: Load,
    current: &Config,
    fixed: impl IntoIterator<Item = &'a Fixed>,
) -> Result<Config, Vec<String>> {
    let new = load(&current.file)
        .map_err(|ConfigErrors(problems)| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let file = current.file.display();
    let problems: Vec<String> = fixed
        .into_iter()
        .filter(|fixed| !(fixed.same)(&new, current))
        .map(|Fixed { key, instead, .. }| format!("{file}: {key} has changed: {instead}"))
        .collect();
    if problems.is_empty() { Ok(new) } else { Err(problems) }
}

/// The answer where nothing was changed; what is wrong is in the log then too.
pub fn refused(problems: &[String]) -> String {
    complain("reload", problems);
    let lines: Vec<String> = problems.iter().map(|problem| format!("{ERROR}{problem}")).collect();
    lines.join("\n")
}

/// The answer where `config` was taken over, and what was `done` with it; both that and the warnings are in the log then too.
pub fn taken_over(config: &Config, done: &str) -> String {
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    log::info!("{RELOADED}{done}");
    format!("{RELOADED}{done}")
}

fn complain(what: &str, problems: &[String]) {
    problems.iter().for_each(|problem| log::error!("{what}: {problem}; the old configuration stays"));
}

/// `1 link`, `2 links`.
pub fn links(count: usize) -> String {
    if count == 1 { "1 link".to_owned() } else { format!("{count} links") }
}

/// The pin of this host's own key; `None` where there is no key, or no other host has a pin: then nothing needs it.
///
/// # Errors
/// The key is there and cannot be used; what is wrong with it.
pub fn own_pin(config: &Config) -> Result<Option<Pin>, Vec<String>> {
    if config.peers.iter().all(|peer| config.pins.of(&peer.host.id).is_empty()) {
        return Ok(None);
    }
    match HostKey::load(&config.key_dir) {
        Ok(key) => Ok(Some(key.pin())),
        Err(KeyError::Missing(_)) => Ok(None),
        Err(error) => Err(vec![error.to_string()]),
    }
}

/// The pins of a host, in an order of their own: that of the file means nothing.
pub fn pins_of(config: &Config, host: &HostId) -> BTreeSet<Pin> {
    config.pins.of(host).iter().copied().collect()
}
