//! `lon queue check [PEER]`: reads all that is stored and says what is damaged, as `file:line:
//! what`. Changes nothing and takes no lock; the programs may run or not.
//!
//! It reads the spool of each host, the files that were dropped in, what this host answered to the
//! critical messages of others, and says at the end where it looked and what it counted. What is
//! odd and hinders nothing is marked `warning: `. All goes to standard output, with `--json` as one
//! line of JSON. Exit code 0 when nothing is damaged, 1 when something is, or could not be read.

use super::{delayed, named};
use crate::bearings::Bearings;
use crate::{Failure, print};
use base::HostId;
use base::disk::StepError;
use config::Config;
use jiff::Timestamp;
use serde::Serialize;
use status::json;
use std::thread;
use std::time::Duration;
use store::record;
use store::spool::{self, Delayed, Finding, RealDisk, Tally, Told};

/// How long damage must be the same to be believed: longer than one write of a link child takes.
const PAUSE: Duration = Duration::from_millis(100);

/// Findings that are held until they are printed.
const HELD_MOST: usize = 1000;

pub(crate) fn run(bearings: &Bearings, peer: Option<&str>, as_json: bool) -> Result<u8, Failure> {
    let config = &bearings.config;
    let delayed = delayed(config)?;
    let mut round = Round { as_json, ..Round::default() };
    let peer = peer.map(|peer| named(bearings, &delayed, peer)).transpose()?;
    if as_json {
        print(b"{\"findings\":[")?;
    }
    match &peer {
        Some(peer) => round.host(config, &delayed, peer)?,
        None => {
            for host in config.peers.iter().map(|peer| &peer.host.id).chain(&delayed.strangers) {
                round.host(config, &delayed, host)?;
            }
            for stray in &delayed.strays {
                let what = "is for no host of hosts.tab: nobody takes it in";
                round.note(Finding::warning(&config.spool_dir.join(stray), None, what))?;
            }
        }
    }
    round.show()?;
    print(if as_json { round.totals(config) } else { round.summary(config) }.as_bytes())?;
    Ok(u8::from(round.total.damaged > 0))
}

/// What was found so far.
#[derive(Debug, Default)]
struct Round {
    total: Tally,
    spools: u64,
    records: u64,
    /// Lines of records that were proven.
    answers: u64,
    held: Vec<Finding>,
    as_json: bool,
    /// As JSON: some were printed.
    printed: bool,
}

/// A finding as JSON has it.
#[derive(Serialize)]
struct Said<'a> {
    file: std::borrow::Cow<'a, str>,
    line: Option<u64>,
    what: &'a str,
    damage: bool,
}

/// What JSON has behind the findings.
#[derive(Serialize)]
struct Totals {
    folder: String,
    spools: u64,
    callers: u64,
    sound: u64,
    waiting: u64,
    dropped_in: u64,
    failed: u64,
    answers: u64,
    damaged: u64,
    set_aside: u64,
}

impl Round {
    fn host(&mut self, config: &Config, delayed: &Delayed<'_>, host: &HostId) -> Result<(), Failure> {
        let folder = config.spool_path(host);
        if folder.exists() {
            self.spools += 1;
            let mut failed = Ok(());
            // A command that does nothing else: it waits out a write of a running link child.
            let checked = spool::check(&mut RealDisk, &folder, &mut || thread::sleep(PAUSE), &mut |told| {
                if let Told::Finding(finding) = told
                    && failed.is_ok()
                {
                    failed = self.hold(finding);
                }
            });
            failed?;
            self.add(checked.map_err(unread)?);
        }
        let still = delayed.files.get(host).into_iter().flatten().map(|name| config.spool_dir.join(name));
        for path in still.chain(spool::moved_in(&folder).map_err(unread)?) {
            let mut found = None;
            let whole = spool::check_dropped(&mut RealDisk, &path, Timestamp::now(), &mut |finding| {
                found = Some(finding);
            });
            self.total.dropped_in += u64::from(whole);
            found.map_or(Ok(()), |finding| self.note(finding))?;
        }
        self.record(config, host)
    }

    /// What this host remembers of its answers to `caller`.
    fn record(&mut self, config: &Config, caller: &HostId) -> Result<(), Failure> {
        let folder = record::folder(&config.spool_dir, caller);
        if !folder.exists() {
            return Ok(());
        }
        self.records += 1;
        let mut found = Vec::new();
        let tally =
            record::check(&mut RealDisk, &folder, &mut |finding| found.push(finding)).map_err(unread)?;
        self.answers += tally.sound;
        self.total.set_aside += tally.set_aside;
        found.into_iter().try_for_each(|finding| self.note(finding))
    }

    fn add(&mut self, tally: Tally) {
        self.total.sound += tally.sound;
        self.total.waiting += tally.waiting;
        self.total.damaged += tally.damaged;
        self.total.set_aside += tally.set_aside;
        self.total.failed += tally.failed;
    }

    /// Takes a finding that no [`Tally`] counts.
    fn note(&mut self, finding: Finding) -> Result<(), Failure> {
        self.total.damaged += u64::from(finding.damage);
        self.hold(finding)
    }

    fn hold(&mut self, finding: Finding) -> Result<(), Failure> {
        self.held.push(finding);
        if self.held.len() >= HELD_MOST { self.show() } else { Ok(()) }
    }

    fn show(&mut self) -> Result<(), Failure> {
        let mut text = String::new();
        for finding in self.held.drain(..) {
            if self.as_json {
                let Finding { path, line, what, damage } = &finding;
                let said = Said { file: path.to_string_lossy(), line: *line, what, damage: *damage };
                let comma = if std::mem::replace(&mut self.printed, true) { "," } else { "" };
                text.push_str(&format!("{comma}{}", json(&said)));
                continue;
            }
            let mark = if finding.damage { "" } else { "warning: " };
            text.push_str(&format!("{mark}{finding}\n"));
        }
        print(text.as_bytes())
    }

    /// The end of the JSON: `"findings"` stands before it already, since there may be any number of
    /// them.
    fn totals(&self, config: &Config) -> String {
        let Tally { sound, waiting, damaged, set_aside, failed, dropped_in } = self.total;
        let totals = Totals {
            folder: config.spool_dir.display().to_string(),
            spools: self.spools,
            callers: self.records,
            sound,
            waiting,
            dropped_in,
            failed,
            answers: self.answers,
            damaged,
            set_aside,
        };
        format!("],{}\n", json(&totals).strip_prefix('{').unwrap_or_default())
    }

    fn summary(&self, config: &Config) -> String {
        let Tally { sound, waiting, damaged, set_aside, failed, dropped_in } = self.total;
        let Round { spools, records, answers, .. } = self;
        format!(
            "{}: looked at the spools of {spools} hosts and what {records} callers were answered\n\
             messages: {sound} sound, {waiting} of them wait; {dropped_in} dropped in; {failed} failed; answers: \
             {answers} sound; damaged: {damaged}; set aside before: {set_aside}\n",
            config.spool_dir.display()
        )
    }
}

fn unread(error: StepError) -> Failure {
    Failure::did(error.verb, error.path.display(), &error.cause)
}
