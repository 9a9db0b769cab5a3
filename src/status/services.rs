//! What `lonsvc` tells of itself, and the table of services that people see. Pure.

use super::{Finding, Head, Level, Uptime, ago, columns, not_restarted, one_line};
use base::HostId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const HEADS: [Head; 5] = [
    Head::left("SERVICE"),
    Head::left("STATE"),
    Head::right("FOR"),
    Head::right("PID"),
    Head::right("STARTS"),
];

/// All that is known of the services at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicesSnapshot {
    /// `lonsvc`.
    pub program: String,
    /// Version of the program.
    pub version: String,
    /// This host.
    pub id: HostId,
    /// The supervisor's process.
    pub pid: u32,
    /// When the first program under this pid started.
    pub started: Timestamp,
    /// When this was written.
    pub written: Timestamp,
    /// The same by a clock that nobody sets.
    #[serde(default)]
    pub written_uptime: Option<Uptime>,
    /// What the supervisor does.
    pub doing: String,
    /// Why the last restart came to nothing.
    #[serde(default)]
    pub not_restarted: Option<String>,
    /// The last line of the log.
    pub last_log: String,
    /// In the order of their names.
    pub services: Vec<ServiceStatus>,
}

/// How one service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// What it is called.
    pub name: String,
    /// Where its program stands.
    pub state: ServiceState,
    /// When it came into this state.
    pub since: Timestamp,
    /// Its process; 0: none.
    pub pid: u32,
    /// How often its program was started since the supervisor was.
    pub starts: u64,
    /// When it is started next, if it waits for that.
    pub next_start: Option<Timestamp>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When `last_error` came about.
    pub last_error_at: Option<Timestamp>,
}

/// Where the program of a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// Its process is there.
    Running,
    /// It is to be started, after a pause.
    Waiting,
    /// It was told to end.
    Ending,
    /// It was killed, and is not gone yet.
    Killed,
    /// It has ended, and is not to be started again.
    Ended,
    /// The supervisor has stopped.
    Stopped,
}

impl ServiceState {
    /// The word of every view.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceState::Running => "running",
            ServiceState::Waiting => "waiting",
            ServiceState::Ending => "ending",
            ServiceState::Killed => "killed",
            ServiceState::Ended => "ended",
            ServiceState::Stopped => "stopped",
        }
    }
}

/// The table of services as it is at `now`: a summary line, then a line a service, and one more for
/// what went wrong.
pub fn services(snapshot: &ServicesSnapshot, now: Timestamp) -> String {
    let count = match snapshot.services.len() {
        1 => "1 service".to_owned(),
        many => format!("{many} services"),
    };
    let mut text = format!("{count}, {}\n", one_line(&snapshot.doing));
    text.push_str(&not_restarted(snapshot.not_restarted.as_deref()));
    if snapshot.services.is_empty() {
        return text;
    }
    let row = |service: &ServiceStatus| {
        let process = if service.pid == 0 { "-".to_owned() } else { service.pid.to_string() };
        let state = service.state.as_str().to_owned();
        vec![service.name.clone(), state, ago(service.since, now), process, service.starts.to_string()]
    };
    let rows: Vec<Vec<String>> = snapshot.services.iter().map(row).collect();
    text.push_str(&columns(&HEADS, &rows));
    for service in &snapshot.services {
        if let (Some(error), Some(at)) = (&service.last_error, service.last_error_at) {
            text.push_str(&format!("{}: {} ({} ago)\n", service.name, one_line(error), ago(at, now)));
        }
    }
    text
}

/// What is not well with the services.
pub fn service_findings(snapshot: &ServicesSnapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(why) = &snapshot.not_restarted {
        found.push(Finding::new(Level::Warning, "lonsvc", &format!("not restarted: {why}")));
    }
    for service in &snapshot.services {
        let error = service.last_error.as_deref();
        let (level, what) = match (service.state, error) {
            (ServiceState::Waiting, Some(error)) => (Level::Bad, format!("is not running: {error}")),
            (ServiceState::Ended, Some(error)) => (Level::Warning, format!("has ended: {error}")),
            (ServiceState::Killed | ServiceState::Ending, _) => {
                (Level::Warning, service.state.as_str().to_owned())
            }
            (ServiceState::Waiting | ServiceState::Ended, None)
            | (ServiceState::Running | ServiceState::Stopped, _) => continue,
        };
        found.push(Finding::new(level, format!("service {}", service.name), &what));
    }
    found
}
