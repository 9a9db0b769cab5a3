//! Two whole hosts that talk to each other, and what befalls them: their programs run in the
//! background and are started again as cron would, are killed, stopped and continued; their disks
//! fill and are freed.
//!
//! Kills and stops are sent to processes that run this build's programs as children of a supervisor
//! of these hosts, and to nobody else. What was stopped is continued, and what was filled is freed,
//! before the field goes away.

use super::mishaps::{Daemon, Disk, Mishap, Place, Who};
use super::traffic::Deeds;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::pid_in;
use crate::common::small_disk::SmallDisk;
use crate::common::{process, wait};
use nix::fcntl::AT_FDCWD;
use nix::sys::signal::Signal;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Bytes of the disk of a delayed directory: what waits here goes a long way beyond one segment and
/// its spare.
const SPOOL_BYTES: u64 = 24 << 20;
/// Bytes of the disk of what `lond` remembers: a record of one caller, twice while it is written
/// anew.
const RECORD_BYTES: u64 = 4 << 20;
/// How often cron starts what does not run.
const CRON: Duration = Duration::from_millis(150);
/// How long all may take to be well again, by itself, once nothing befalls it any more: the longest
/// pause before a child is started (5 s), the longest before a link is dialled (60 s), and time to
/// replay what waits on a busy machine.
const RECOVERY: Duration = Duration::from_secs(120);

/// What a program that was killed had not named yet is removed by a start when it is older than a
/// minute.
const LONG_AGO: Duration = Duration::from_secs(120);

/// Kills, by kind of process.
#[derive(Debug, Default, Clone, Copy)]
pub struct Kills {
    pub lonc: usize,
    pub lonc_children: usize,
    pub lond: usize,
    pub lond_children: usize,
}

impl Kills {
    /// All of them.
    pub fn all(&self) -> usize {
        self.lonc + self.lonc_children + self.lond + self.lond_children
    }
}

/// What befell one host.
#[derive(Debug, Default, Clone, Copy)]
pub struct Befallen {
    pub kills: Kills,
    pub stops: usize,
    pub fills: usize,
    pub signals: usize,
    pub reloads: usize,
}

/// One of the two hosts. Fields are dropped in this order.
pub struct End {
    pub host: Host,
    pub peer: &'static str,
    pub befallen: Befallen,
    pub deeds: Deeds,
    /// The record's lies within the spool's.
    disks: Option<(SmallDisk, SmallDisk)>,
    /// Every process of its programs that was ever seen.
    seen: BTreeSet<u32>,
    reloaded: u64,
}

/// Both hosts. Fields are dropped in this order: nothing is started again by then, and nothing is
/// left stopped.
pub struct Field {
    cron: Cron,
    stopped: Vec<(Instant, u32)>,
    full: Vec<(Instant, Place, Disk)>,
    pub ends: [End; 2],
    _network: Network,
}

impl Field {
    /// Both hosts, their programs running; with small disks where these may be mounted.
    pub fn up(network: Network, may_mount: bool) -> Field {
        let ends =
            [(CALLER, CALLED), (CALLED, CALLER)].map(|(id, peer)| End::new(&network, id, peer, may_mount));
        let cron = Cron::start(&ends);
        let mut field = Field { cron, stopped: Vec::new(), full: Vec::new(), ends, _network: network };
        field.wait_until("both links to be up", |end| end.status("state").is_some_and(|state| state == "up"));
        field
    }

    /// Lets time pass, in which stopped processes are continued and disks stay full or are freed.
    pub fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let now = Instant::now();
            self.stopped.retain(|&(until, pid)| {
                let over = until <= now;
                if over {
                    signal(pid, Signal::SIGCONT);
                }
                !over
            });
            for (until, place, disk) in std::mem::take(&mut self.full) {
                if until <= now {
                    self.ends[place].disk(disk).inspect(|disk| disk.free());
                } else {
                    self.ends[place].disk(disk).inspect(|disk| disk.fill());
                    self.full.push((until, place, disk));
                }
            }
            if now >= end {
                return;
            }
            wait::let_pass((end - now).min(Duration::from_millis(10)));
        }
    }

    /// Has a mishap happen.
    pub fn suffer(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Kill(place, daemon, who) => self.ends[place].kill(daemon, who),
            Mishap::KillHost(place) => {
                Daemon::ALL.iter().for_each(|&daemon| self.ends[place].kill(daemon, Who::All))
            }
            Mishap::Stop(place, daemon, who, time) => {
                let until = Instant::now() + time;
                for pid in self.ends[place].pids(daemon, who) {
                    signal(pid, Signal::SIGSTOP);
                    self.stopped.push((until, pid));
                    self.ends[place].befallen.stops += 1;
                }
            }
            Mishap::Fill(place, disk, time) => {
                if let Some(small) = self.ends[place].disk(disk) {
                    small.fill();
                    self.full.push((Instant::now() + time, place, disk));
                    self.ends[place].befallen.fills += 1;
                }
            }
            Mishap::Restart(place, daemon) => self.ends[place].signal(daemon, Signal::SIGHUP),
            Mishap::Probe(place, daemon) => self.ends[place].signal(daemon, Signal::SIGUSR1),
            Mishap::Reload(place, change) => self.ends[place].reload(change),
        }
    }

    /// Nothing befalls anybody any more.
    pub fn relieve(&mut self) {
        let now = Instant::now();
        self.stopped.iter_mut().for_each(|(until, _)| *until = now);
        self.full.iter_mut().for_each(|(until, _, _)| *until = now);
        self.pass(Duration::ZERO);
    }

    /// Waits until all is well by itself; whether then `all_done` came true.
    pub fn recover(&mut self, all_done: impl Fn(&[End; 2]) -> bool) -> bool {
        self.wait_until("every link to be up", |end| end.status("state").is_some_and(|state| state == "up"));
        self.wait_until("every spool to be empty", |end| {
            end.status("delayed").is_some_and(|count| count == 0)
        });
        wait::patiently(|| all_done(&self.ends).then_some(())).is_some()
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn(&End) -> bool) {
        for end in &self.ends {
            let held = wait::within(RECOVERY, || holds(end).then_some(()));
            assert!(
                held.is_some(),
                "waited {RECOVERY:?} in vain for {what}: {:?}\n{}",
                end.host.status(end.peer),
                end.last_words()
            );
        }
    }

    /// Stops everything with TERM: no process, no socket and no mount may be left, but for what a
    /// program that was killed had not named yet: a later start removes that. Gives what befell
    /// each host.
    pub fn end(mut self) -> [Befallen; 2] {
        self.cron.stop();
        for end in &mut self.ends {
            Daemon::ALL.iter().for_each(|&daemon| drop(end.pids(daemon, Who::All)));
            Daemon::ALL.iter().for_each(|&daemon| end.signal(daemon, Signal::SIGTERM));
        }
        for end in &mut self.ends {
            let gone = wait::patiently(|| end.seen.iter().all(|&pid| !is_ours(pid)).then_some(()));
            assert!(gone.is_some(), "processes are left\n{}", end.last_words());
            end.assert_nothing_is_left();
            if let Some((spool, record)) = end.disks.take() {
                record.unmount();
                spool.unmount();
            }
        }
        self.ends.each_ref().map(|end| end.befallen)
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        self.cron.stop();
        self.stopped.iter().for_each(|&(_, pid)| signal(pid, Signal::SIGCONT));
    }
}

/// Whether a program had made it and not named it yet.
fn is_unnamed(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Makes a file as old as what nobody is at work on any more.
fn age(path: &Path) {
    let old = TimeSpec::from(
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the time") - LONG_AGO,
    );
    utimensat(AT_FDCWD, path, &old, &old, UtimensatFlags::NoFollowSymlink).expect("age a file");
}

fn is_left_over(entry: &fs::DirEntry) -> bool {
    let socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
    socket || entry.path().extension().is_some_and(|extension| extension == "pid")
}

impl End {
    fn new(network: &Network, id: &str, peer: &'static str, may_mount: bool) -> End {
        let mut host = network.host(id);
        let deeds = Deeds::start(&mut host);
        let delayed = host.dir.join("delayed");
        let disks = may_mount.then(|| {
            let spool = SmallDisk::mount(&delayed, SPOOL_BYTES);
            (spool, SmallDisk::mount(&delayed.join(".received"), RECORD_BYTES))
        });
        if id == CALLER {
            // The other has what is the default.
            host.set("lonc", "spool_keep_free", "0");
        }
        let (befallen, seen) = (Befallen::default(), BTreeSet::new());
        End { host, peer, befallen, deeds, disks, seen, reloaded: 0 }
    }

    /// The sockets and pid files in the folder of sockets.
    fn left_over(&self) -> Vec<PathBuf> {
        let run = fs::read_dir(self.host.dir.join("run")).expect("the folder of sockets");
        run.flatten().filter(is_left_over).map(|entry| entry.path()).collect()
    }

    fn assert_nothing_is_left(&self) {
        let unnamed = self.left_over();
        if !unnamed.is_empty() && self.befallen.kills.lonc + self.befallen.kills.lond > 0 {
            assert!(unnamed.iter().all(|path| is_unnamed(path)), "in the folder of sockets: {unnamed:?}");
            unnamed.iter().for_each(|path| age(path));
            self.host.lonc().stop();
        }
        let left = self.left_over();
        assert!(left.is_empty(), "left in the folder of sockets: {left:?}");
    }

    fn disk(&self, which: Disk) -> Option<&SmallDisk> {
        let (spool, record) = self.disks.as_ref()?;
        Some(match which {
            Disk::Spool => spool,
            Disk::Record => record,
        })
    }

    /// The processes of a program that run now.
    fn pids(&mut self, daemon: Daemon, who: Who) -> Vec<u32> {
        let Some(supervisor) = pid_in(&self.host.pid_file(daemon.name())).filter(|&pid| is_ours(pid)) else {
            return Vec::new();
        };
        let mut pids: Vec<u32> =
            process::children(supervisor).into_iter().filter(|&pid| is_ours(pid)).collect();
        self.seen.extend(pids.iter().copied().chain([supervisor]));
        match who {
            Who::Children => {}
            Who::Supervisor => pids = vec![supervisor],
            Who::All => pids.push(supervisor),
        }
        pids
    }

    fn kill(&mut self, daemon: Daemon, who: Who) {
        let supervisor = pid_in(&self.host.pid_file(daemon.name()));
        for pid in self.pids(daemon, who) {
            signal(pid, Signal::SIGKILL);
            let kills = &mut self.befallen.kills;
            *match (daemon, supervisor == Some(pid)) {
                (Daemon::Lonc, true) => &mut kills.lonc,
                (Daemon::Lonc, false) => &mut kills.lonc_children,
                (Daemon::Lond, true) => &mut kills.lond,
                (Daemon::Lond, false) => &mut kills.lond_children,
            } += 1;
        }
    }

    fn signal(&mut self, daemon: Daemon, which: Signal) {
        for pid in self.pids(daemon, Who::Supervisor) {
            signal(pid, which);
            self.befallen.signals += 1;
        }
    }

    /// `lon reload`, which may find nobody; nobody waits for it.
    fn reload(&mut self, change: bool) {
        if change {
            self.reloaded += 1;
            let timeout = format!("\"{}s\"", 200 + self.reloaded % 2);
            self.host.set(&format!("host.{}", self.peer), "request_timeout", &timeout);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_lon"));
        command.arg("--config").arg(self.host.config()).arg("reload");
        let mut started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run lon");
        std::thread::spawn(move || started.wait());
        self.befallen.reloads += 1;
    }

    fn status(&self, key: &str) -> Option<serde_json::Value> {
        Some(self.host.status(self.peer)?[key].clone())
    }

    /// How often the logs of this host say so.
    pub fn said(&self, daemon: Daemon, words: &str) -> usize {
        let log = self.host.log(&format!("{}.log", daemon.name()));
        log.lines().filter(|line| line.contains(words)).count()
    }

    /// The last lines of the logs.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for daemon in Daemon::ALL {
            let log = self.host.log(&format!("{}.log", daemon.name()));
            let lines: Vec<_> = log.lines().collect();
            text.push_str(&lines[lines.len().saturating_sub(40)..].join("\n"));
            text.push('\n');
        }
        text
    }
}

/// Whether a process runs one of the programs of this build.
fn is_ours(pid: u32) -> bool {
    let programs = [env!("CARGO_BIN_EXE_lonc"), env!("CARGO_BIN_EXE_lond")];
    process::alive(pid)
        && fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|path| programs.iter().any(|it| path == Path::new(it)))
}

/// Signals a process that may be gone.
fn signal(pid: u32, which: Signal) {
    if is_ours(pid) {
        process::signal(pid, which);
    }
}

/// Starts each program again and again with `--if-not-running`.
struct Cron {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cron {
    fn start(ends: &[End; 2]) -> Cron {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (end, daemon) in ends.iter().flat_map(|end| Daemon::ALL.map(|daemon| (end, daemon))) {
            let said: PathBuf = end.host.dir.join(format!("{}.cron", daemon.name()));
            let mut command = end.host.command(daemon.name());
            command.arg("--if-not-running");
            let stop = stop.clone();
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let output = command.output().expect("start a program");
                    // It may have been killed before it was ready; then the next one does better.
                    fs::write(&said, output.stderr).expect("keep what a program said");
                    wait::let_pass(CRON);
                }
            }));
        }
        Cron { stop, threads }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "starting programs failed");
        }
    }
}
