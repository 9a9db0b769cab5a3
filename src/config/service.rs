//! `[service.<name>]`: a program that `lonsvc` starts.

use super::section::{Report, Section};
use super::value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where a program finds others if nothing else is said.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// One service. All of it is what its program depends on: a reload replaces a program whose service
/// is another one then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What it is called.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whose rights it has; `None`: those that `lonsvc` has.
    pub user: Option<String>,
    /// The folder that it begins in (default `/`).
    pub dir: PathBuf,
    /// All that stands in its environment, but for what names the service and its configuration.
    pub env: BTreeMap<String, String>,
    /// When it is started again.
    pub restart: Restart,
    /// How long it may take to end when it is told to (TERM) before it is killed (default 10 s).
    pub drain_timeout: Duration,
    /// Most files that it may have open; `None`: as many as `lonsvc` may.
    pub open_files: Option<u64>,
    /// Most bytes of memory that it may have mapped; `None`: no bound.
    pub memory: Option<u64>,
}

/// When a program that has ended is started again. One that was told to end, for a reload or HUP,
/// always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// However it has ended.
    Always,
    /// Unless it has exited with 0.
    OnFailure,
    /// Not at all.
    Never,
}

pub(super) fn read_services(tables: Section<'_>, report: &mut Report) -> Vec<Service> {
    let tables = tables.tables(report).into_iter();
    tables.filter_map(|(name, section)| read_service(name, section, report)).collect()
}

fn read_service(name: &str, mut section: Section<'_>, report: &mut Report) -> Option<Service> {
    if let Err(what) = value::service_name(name) {
        report.problem(section.line, section.about_all(&what));
    }
    if !section.has("command") {
        report.problem(
            section.line,
            section.about_all("command: is missing: the program's path and its arguments"),
        );
    }
    let command = section.take(report, "command", value::command);
    let user = section.take(report, "user", value::text);
    let dir = section.take(report, "dir", value::path).unwrap_or_else(|| PathBuf::from("/"));
    let restart = section.take(report, "restart", value::restart).unwrap_or(Restart::Always);
    let drain_timeout =
        section.take(report, "drain_timeout", value::duration_or_zero).unwrap_or(DEFAULT_DRAIN_TIMEOUT);
    let open_files = section.take(report, "open_files", value::count);
    let memory = section.take(report, "memory", value::positive_size);
    let mut env: BTreeMap<String, String> = [("PATH".to_owned(), DEFAULT_PATH.to_owned())].into();
    let mut named = section.table(report, "env");
    for key in named.names() {
        if key.is_empty() || key.contains(['=', '\0']) {
            report.problem(named.line, named.about(key, "is no name of a variable"));
        }
        env.extend(named.take(report, key, value::string_without_nul).map(|value| (key.to_owned(), value)));
    }
    section.finish(report);
    let (program, arguments) = command?;
    Some(Service {
        name: name.to_owned(),
        program,
        arguments,
        user,
        dir,
        env,
        restart,
        drain_timeout,
        open_files,
        memory,
    })
}
