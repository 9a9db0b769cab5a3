//! What HUP and `lon reload` read again, and what neither can change.
//!
//! A reload goes on in the same process: after it everything runs as the configuration says, or
//! nothing was changed. Both supervisors compare what was with what is read, touch only what
//! differs, and answer in lines:
//!
//! ```text
//! error:/etc/lonnet/hosts.tab:7: ...                        nothing was changed
//! reloaded: 2 links replaced, 1 added, 0 removed, 3 kept    one line, where nothing is an error
//! ```
//!
//! This host's own key is read with the configuration: a new one replaces every secure link, one
//! that cannot be used is an error like any other.
//!
//! The user and `run_dir` are as old as the process: root was given up, and the lock lies in the
//! folder; the log is as old as the program. Where such a key has another value in the file, the
//! old configuration stays and the answer says what to do instead.

use super::background;
use base::json_path::JsonPath;
use config::{Config, ConfigErrors};
use serde::{Deserialize, Serialize};

/// Reads a configuration: [`Config::load`].
pub type Load = fn(&std::path::Path) -> Result<Config, ConfigErrors>;

/// What stands before a problem in the answer to `reload`.
pub const ERROR: &str = "error:";
/// What the answer begins with when nothing is an error.
pub const RELOADED: &str = "reloaded: ";

/// What is as old as the process, and so the same before and after HUP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    run_dir: JsonPath,
    user: Option<String>,
}

impl Ground {
    /// What `config` says of it.
    pub fn of(config: &Config) -> Ground {
        Ground { run_dir: JsonPath(config.run_dir.clone()), user: config.user.clone() }
    }

    /// What `new` has that no process which stands on this can follow, a line each.
    pub fn changed_in(&self, new: &Config) -> Vec<String> {
        let Ground { run_dir, user } = Ground::of(new);
        let keys = [("run_dir", run_dir == self.run_dir), ("user", user == self.user)];
        let changed = keys.into_iter().filter(|(_, same)| !same);
        changed.map(|(key, _)| has_changed(new, key, "stop and start instead")).collect()
    }
}

fn has_changed(config: &Config, key: &str, instead: &str) -> String {
    format!("{}: {key} has changed: {instead}", config.file.display())
}

/// What the files say now, for a process that goes on; its folders are there.
///
/// # Errors
/// What is wrong, a line each.
pub fn read(load: Load, current: &Config) -> Result<Config, Vec<String>> {
    let new = load(&current.file)
        .map_err(|ConfigErrors(problems)| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let mut problems = Ground::of(current).changed_in(&new);
    if new.log_dir != current.log_dir {
        problems.push(has_changed(&new, "log_dir", "send HUP instead"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    background::make_folders(&new, None).map_err(|error| vec![error.to_string()])?;
    Ok(new)
}

/// The answer where nothing was changed; what is wrong is in the log then too.
pub fn refused(problems: &[String]) -> String {
    problems.iter().for_each(|problem| log::error!("reload: {problem}; the old configuration stays"));
    let lines: Vec<String> = problems.iter().map(|problem| format!("{ERROR}{problem}")).collect();
    lines.join("\n")
}

/// The answer where `config` was taken over, and what was `done` with it; both that and the
/// warnings are in the log then too.
pub fn taken_over(config: &Config, done: &str) -> String {
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    log::info!("{RELOADED}{done}");
    format!("{RELOADED}{done}")
}

/// `1 link`, `2 links`.
pub fn links(count: usize) -> String {
    if count == 1 { "1 link".to_owned() } else { format!("{count} links") }
}
