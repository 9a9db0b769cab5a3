//! `lon status [PEER] [--check] [--json] [--watch]`: what the links do, asked of the running
//! `lonc`, and who calls, asked of `lond`; and how the services do, asked of `lonsvc`, where there
//! are some.
//!
//! When `lonc` does not answer, the last `status.json` that it wrote is shown, with its age, and
//! the exit code is 1: what a dead program said last must not pass for what is. A `lond` that is
//! away is said so in place of its table, and is `null` in the JSON; that alone is no failure,
//! since a host may run no listener.
//!
//! With `--check` the exit code tells how things are, the worst counts: 0 all well, 1 a warning, 2
//! bad, 3 not running, 4 no permission to look. What is a warning and what is bad:
//! [`status::findings`]; mistakes in the files on disk are a warning. A `lond` that does not
//! run counts as not running where it has ever run (it has left its file in `status_dir`).

use super::admin::{MAX_ANSWER, ask, is_away, is_forbidden};
use super::bearings::Bearings;
use super::{Failure, as_service_user, complain, patience, print, terminal};
use config::Config;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use nix::errno::Errno;
use nix::poll::poll;
use serde::Serialize;
use serde::de::DeserializeOwned;
use status::{
    Finding, Level, LinkState, ServeSnapshot, ServicesSnapshot, Snapshot, Uptime, age, callers, findings,
    json, one_peer, parse, service_findings, services, table,
};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};
use supervise::publish::uptime;

/// Exit codes of `--check`.
const WARNING: u8 = 1;
const BAD: u8 = 2;
const NOT_RUNNING: u8 = 3;
const NO_PERMISSION: u8 = 4;

/// Seconds between two looks of `--watch`.
const WATCH_EVERY: &str = "2";

/// The file that `lond` leaves in `status_dir`.
pub(super) const LOND_FILE: &str = "lond.json";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// All about the link to this host, uncut.
    peer: Option<String>,
    /// Tell by the exit code how things are: 0 all well, 1 a warning, 2 bad, 3 not running, 4 no
    /// permission to look.
    #[arg(long)]
    check: bool,
    /// As one line of JSON.
    #[arg(long)]
    json: bool,
    /// Show it again every so many seconds, until interrupted.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = WATCH_EVERY,
        value_parser = clap::value_parser!(u16).range(1..=3600),
        conflicts_with = "check"
    )]
    watch: Option<u16>,
}

/// What `--json` prints: `lonc`'s snapshot, and `lond`'s beside its fields.
#[derive(Serialize)]
struct Both<'a> {
    /// Whether `lonc` says so now, or has said so last.
    running: bool,
    #[serde(flatten)]
    lonc: &'a Snapshot,
    lond: Option<&'a ServeSnapshot>,
    /// Not there where there are no services.
    #[serde(skip_serializing_if = "Option::is_none")]
    lonsvc: Option<Option<&'a ServicesSnapshot>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'a Check>,
}

/// What `--check` found.
#[derive(Serialize)]
struct Check {
    /// The exit code.
    code: u8,
    findings: Vec<Finding>,
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> Result<u8, Failure> {
    if arguments.check && File::open(file).is_err_and(|error| is_forbidden(&error)) {
        complain(format_args!("read {}: no permission", file.display()));
        return Ok(NO_PERMISSION);
    }
    let mut bearings = Bearings::take(file)?;
    let Some(seconds) = arguments.watch else { return look(&bearings, arguments, "") };
    let before = if terminal::is_one() && !arguments.json { terminal::CLEAR } else { "" };
    loop {
        look(&bearings, arguments, before)?;
        // Whoever watches ends it: by a signal, or by reading no more.
        match poll(&mut [], patience(Instant::now() + Duration::from_secs(seconds.into()))) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Failure::did("wait", "for the next look", error)),
        }
        if bearings.broken {
            bearings = Bearings::take(file)?;
        }
    }
}

/// One look at both programs.
fn look(bearings: &Bearings, arguments: &Arguments, before: &str) -> Result<u8, Failure> {
    let config = &bearings.config;
    let lond: io::Result<ServeSnapshot> = status(&config.run_dir.join("lond.sock"));
    let services: io::Result<ServicesSnapshot> = status(&config.run_dir.join("lonsvc.sock"));
    let services = Some(services).filter(|asked| asked.is_ok() || !config.services.is_empty());
    let socket = config.run_dir.join("lonc.sock");
    let asked: io::Result<Snapshot> = status(&socket);
    let mut seen = match asked {
        Ok(lonc) => Seen { lonc, lond, services, away: None, age: SignedDuration::ZERO },
        Err(error) => {
            complain(format_args!("ask {}: {error}", socket.display()));
            let code = if is_forbidden(&error) { NO_PERMISSION } else { NOT_RUNNING };
            match Seen::last(config, lond, services, error) {
                Ok(seen) => seen,
                Err(failure) if arguments.check => {
                    complain(failure);
                    return Ok(code);
                }
                Err(failure) => return Err(failure),
            }
        }
    };
    if let Some(peer) = &arguments.peer {
        seen.narrow(bearings, peer)?;
    }
    let check = arguments.check.then(|| seen.check(bearings, arguments.peer.is_some()));
    let text = match (arguments.json, &arguments.peer) {
        (true, _) => json(&seen.both(check.as_ref())) + "\n",
        (false, Some(_)) => seen.one(),
        (false, None) => seen.all(),
    };
    let verdict = check.as_ref().filter(|_| !arguments.json).map(Check::text).unwrap_or_default();
    print(format!("{before}{text}{verdict}").as_bytes())?;
    Ok(match check {
        Some(check) => check.code,
        None => u8::from(seen.away.is_some()),
    })
}

/// What both programs say.
struct Seen {
    lonc: Snapshot,
    lond: io::Result<ServeSnapshot>,
    /// What `lonsvc` says; `None` where there are no services.
    services: Option<io::Result<ServicesSnapshot>>,
    /// Why `lonc` was not asked: what is shown is what it wrote last.
    away: Option<io::Error>,
    /// How long ago that was.
    age: SignedDuration,
}

impl Seen {
    /// What `lonc`, which does not answer because of `error`, wrote last.
    fn last(
        config: &Config,
        lond: io::Result<ServeSnapshot>,
        services: Option<io::Result<ServicesSnapshot>>,
        error: io::Error,
    ) -> Result<Seen, Failure> {
        let file = config.status_dir.join("status.json");
        let failed = |error| Failure::did("read", file.display(), error);
        let lonc: Snapshot = as_service_user(config, || read(&file).map_err(failed))?;
        let passed = written_ago(lonc.written, lonc.written_uptime.as_ref());
        let told = age(passed);
        match lonc.peers.iter().all(|peer| peer.state == LinkState::Stopped) && lonc.doing == "stopped" {
            true => complain(format_args!("lonc does not run: it was stopped {told} ago")),
            false if is_away(&error) => {
                complain(format_args!("lonc does not run: this is what it wrote {told} ago"));
            }
            false => complain(format_args!("lonc does not answer: this is what it wrote {told} ago")),
        }
        Ok(Seen { lonc, lond, services, away: Some(error), age: passed })
    }

    /// Leaves nothing but one peer.
    fn narrow(&mut self, bearings: &Bearings, peer: &str) -> Result<(), Failure> {
        if !self.lonc.peers.iter().any(|status| status.peer.as_str() == peer) {
            let id = bearings.peer(peer)?;
            return Err(Failure::did(
                "show",
                id,
                "lonc has no link to it: lon reload if it is new in the table",
            ));
        }
        self.lonc.peers.retain(|status| status.peer.as_str() == peer);
        if let Ok(lond) = &mut self.lond {
            lond.links.retain(|link| link.caller.as_str() == peer);
        }
        Ok(())
    }

    /// The moment that ages are told by: that of the snapshot, by its own clock. Since a stopped
    /// broker stopped, nothing has happened but that time went by.
    fn now(&self) -> Timestamp {
        let stopped = self.lonc.doing == "stopped";
        let passed = if stopped { self.age } else { SignedDuration::ZERO };
        self.lonc.written.checked_add(passed).unwrap_or(self.lonc.written)
    }

    fn both<'a>(&'a self, check: Option<&'a Check>) -> Both<'a> {
        let lonsvc = self.services.as_ref().map(|asked| asked.as_ref().ok());
        Both { running: self.away.is_none(), lonc: &self.lonc, lond: self.lond.as_ref().ok(), lonsvc, check }
    }

    fn one(&self) -> String {
        let lond = self.lond.as_ref().ok();
        let (now, zone, running) = (self.now(), TimeZone::system(), self.away.is_none());
        self.lonc.peers.iter().map(|peer| one_peer(peer, lond, now, &zone, running)).collect()
    }

    fn all(&self) -> String {
        let below = match &self.lond {
            Ok(lond) => callers(lond, lond.written),
            Err(error) if is_away(error) => "lond does not run: nobody can call\n".to_owned(),
            Err(error) => format!("lond does not answer: {error}\n"),
        };
        let services = match &self.services {
            None => String::new(),
            Some(Ok(snapshot)) => format!("\n{}", services(snapshot, snapshot.written)),
            Some(Err(error)) if is_away(error) => "\nlonsvc does not run: no service is started\n".to_owned(),
            Some(Err(error)) => format!("\nlonsvc does not answer: {error}\n"),
        };
        let width = terminal::width();
        let above = table(&self.lonc, self.now(), &TimeZone::system(), width, self.away.is_none());
        above + "\n" + &below + &services
    }

    /// How things are. `one`: with the link to one peer alone.
    fn check(&self, bearings: &Bearings, one: bool) -> Check {
        let mut found = findings(&self.lonc, self.lond.as_ref().ok(), self.now());
        let mut codes = vec![0];
        let mut program = |name: &str, error: &io::Error| {
            let (code, what) = match error {
                error if is_forbidden(error) => (NO_PERMISSION, "no permission to ask it".to_owned()),
                error if is_away(error) => (NOT_RUNNING, "does not run".to_owned()),
                error => (NOT_RUNNING, format!("does not answer: {error}")),
            };
            codes.push(code);
            found.insert(0, Finding::new(Level::Bad, name, &what));
        };
        if let Some(error) = &self.away {
            program("lonc", error);
        }
        match &self.lond {
            Err(error) if is_away(error) && !bearings.config.status_dir.join(LOND_FILE).exists() => {}
            Err(error) => program("lond", error),
            Ok(_) => {}
        }
        if let (Some(Err(error)), false) = (&self.services, one) {
            program("lonsvc", error);
        }
        if let (Some(Ok(snapshot)), false) = (&self.services, one) {
            found.extend(service_findings(snapshot));
        }
        if one {
            found.retain(|finding| self.lonc.peers.iter().any(|peer| peer.peer.as_str() == finding.about));
            codes.truncate(1 + usize::from(self.away.is_some()));
        } else if bearings.broken {
            let what = "has mistakes: lon check says them; nothing can be started or reloaded until they are put right";
            found.push(Finding::new(Level::Warning, "configuration", what));
        }
        codes.extend(found.iter().map(|finding| match finding.level {
            Level::Warning => WARNING,
            Level::Bad => BAD,
        }));
        Check { code: codes.into_iter().max().unwrap_or_default(), findings: found }
    }
}

impl Check {
    fn text(&self) -> String {
        if self.findings.is_empty() && self.code == 0 {
            return "\nall is well\n".to_owned();
        }
        let line =
            |finding: &Finding| format!("{}: {}: {}\n", finding.level.as_str(), finding.about, finding.what);
        format!("\n{}", self.findings.iter().map(line).collect::<String>())
    }
}

/// How long ago a snapshot was written: by the machine's uptime, which nobody sets, or else by the
/// clock.
fn written_ago(written: Timestamp, by_uptime: Option<&Uptime>) -> SignedDuration {
    let since_boot = by_uptime.zip(uptime()).and_then(|(then, now)| then.age(&now));
    let by_clock = || Timestamp::now().duration_since(written).max(SignedDuration::ZERO);
    since_boot.and_then(|age| SignedDuration::try_from(age).ok()).unwrap_or_else(by_clock)
}

pub(super) fn status<T: DeserializeOwned>(socket: &Path) -> io::Result<T> {
    parse(&ask(socket, "status")?).map_err(io::Error::from)
}

fn read<T: DeserializeOwned>(file: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    parse(&bytes).map_err(io::Error::from)
}
