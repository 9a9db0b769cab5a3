//! What the other peers notice when one is in trouble: `scripts/bench isolation`.
//!
//! One host calls four others on this machine, over the secure wire. Three of the others are asked,
//! one request after the other on a connection each, and the fourth gets into trouble. Each round
//! measures without the trouble and then with it, so that what else the machine does strikes both
//! alike; what is printed are the medians over the rounds, and the median of the rounds' ratios.
//! The last line of troubles is none of lonnet's: as many busy processes as a replay has, for what
//! the processors alone make of that. Then the memory of `lonc` and its children, with ever more
//! messages that wait.

use super::load::{Crowd, Latency, measure};
use super::rig::{NEAR, Program, Result, Rig, serve_slowly, serve_with};
use super::{end_busy, print_compared, print_heads, two_busy};
use lonnet::store::spool::SpoolLimits;
use lonnet::store::spool::{RealDisk, Spool, SpoolLock};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The peers that are asked, and the one that gets into trouble.
const ASKED: [&str; 3] = ["far1", "far2", "far3"];
const TROUBLED: &str = "far4";
/// How long each half of a round is.
const HALF: Duration = Duration::from_millis(1500);
pub const ROUNDS: usize = 15;
/// Programs that ask the peer in trouble, and their requests ahead.
const CROWD: usize = 20;
const AHEAD: usize = 20;
/// What the slow peer takes for each request.
const SLOW: Duration = Duration::from_millis(50);
/// Messages that wait, where that is the trouble.
const MILLION: u64 = 1_000_000;
/// Messages that wait, where memory is measured.
const BACKLOGS: [u64; 4] = [0, 10_000, 100_000, MILLION];
/// Messages of one store, when a spool is prepared.
const BATCH: usize = 1000;

/// Measures the programs in `bin`, and prints what came of it.
pub fn run(bin: &Path, rounds: usize) -> Result<()> {
    latencies(bin, rounds)?;
    memory(bin)
}

/// The hosts, their programs running, all links up.
struct Network {
    rig: Rig,
    lonc: Option<Program>,
    troubled: Option<Program>,
    _asked: Vec<Program>,
}

impl Network {
    fn up(bin: &Path) -> Result<Network> {
        let rig = Rig::new(bin, &[&ASKED[..], &[TROUBLED]].concat())?;
        serve_slowly(&rig.handler_socket("slow"), SLOW)?;
        // What is replayed is for this one.
        serve_with(&rig.handler_socket("count"), b"ok".to_vec())?;
        let asked = ASKED.iter().map(|id| rig.start("lond", id)).collect::<Result<_>>()?;
        let troubled = Some(rig.start("lond", TROUBLED)?);
        let lonc = Some(rig.start("lonc", NEAR)?);
        let network = Network { rig, lonc, troubled, _asked: asked };
        network.wait_asked()?;
        network.rig.wait_up(TROUBLED)?;
        Ok(network)
    }

    fn wait_asked(&self) -> Result<()> {
        ASKED.iter().try_for_each(|id| self.rig.wait_up(id))
    }

    fn measure(&self) -> Result<Latency> {
        let sockets: Vec<PathBuf> = ASKED.iter().map(|id| self.rig.socket(id)).collect();
        measure(&sockets, HALF)
    }

    fn signal_troubled(&self, which: Signal) {
        self.troubled.iter().for_each(|lond| lond.signal_all(which));
    }

    /// Starts `lonc` anew with so many messages for the peer in trouble, which is away.
    fn restart_with(&mut self, count: u64) -> Result<()> {
        (self.lonc, self.troubled) = (None, None);
        let spool = self.rig.spool(TROUBLED);
        if spool.exists() {
            std::fs::remove_dir_all(&spool)?;
        }
        delay(&spool, count)?;
        self.lonc = Some(self.rig.start("lonc", NEAR)?);
        self.wait_asked()?;
        self.rig.wait_delayed(TROUBLED, count)
    }
}

/// Stores so many more messages in a spool that nobody has.
pub fn delay(spool: &Path, count: u64) -> Result<()> {
    let lock = SpoolLock::try_acquire(spool)?.ok_or("the spool is in use")?;
    let limits = SpoolLimits { messages: u64::MAX, bytes: u64::MAX, keep_free: 0 };
    let mut spool = Spool::open(RealDisk, spool, limits);
    let message = b"count:a message of a length that is usual among critical ones, which are short";
    let mut left = count as usize;
    while left > 0 {
        let batch = vec![&message[..]; left.min(BATCH)];
        for stored in spool.store(&batch, jiff::Timestamp::now()) {
            stored?;
        }
        left -= batch.len();
    }
    drop(lock);
    Ok(())
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}

fn latencies(bin: &Path, rounds: usize) -> Result<()> {
    println!("latency of the other peers in microseconds, medians of {rounds} rounds, and of their ratios");
    print_heads("one peer");
    let mut network = Network::up(bin)?;
    let socket = network.rig.socket(TROUBLED);

    compare("nothing (noise)", rounds, &mut network, |_| Ok(()), |_, ()| Ok(()))?;
    compare(
        "hangs, and is asked",
        rounds,
        &mut network,
        |network| {
            network.signal_troubled(Signal::SIGSTOP);
            Crowd::start(&socket, None, "pong", CROWD, AHEAD)
        },
        |network, crowd| {
            drop(crowd);
            network.signal_troubled(Signal::SIGCONT);
            Ok(())
        },
    )?;
    compare(
        "is slow, and is asked",
        rounds,
        &mut network,
        |_| Crowd::start(&socket, None, "slow:x", CROWD, AHEAD),
        |_, crowd| {
            drop(crowd);
            Ok(())
        },
    )?;
    compare(
        "has 1,000,000 delayed",
        rounds.div_ceil(3),
        &mut network,
        |network| network.restart_with(MILLION),
        |network, ()| network.restart_with(0),
    )?;
    replayed(rounds, &mut network)?;
    compare("(two busy processes)", rounds, &mut network, |_| two_busy(), |_, both| end_busy(both))
}

/// The peer is stopped in the first half of each round and takes messages in the second.
fn replayed(rounds: usize, network: &mut Network) -> Result<()> {
    network.restart_with(MILLION)?;
    network.troubled = Some(network.rig.start("lond", TROUBLED)?);
    network.rig.wait_up(TROUBLED)?;
    network.signal_troubled(Signal::SIGSTOP);
    let mut left = MILLION;
    compare(
        "has them replayed",
        rounds,
        network,
        |network| {
            let waiting = network.rig.status(TROUBLED)?["delayed"].as_u64().unwrap_or(0);
            if waiting < MILLION / 4 {
                return Err("replay: too few messages are left for another round".into());
            }
            left = waiting;
            network.signal_troubled(Signal::SIGCONT);
            Ok(())
        },
        |network, ()| {
            network.signal_troubled(Signal::SIGSTOP);
            Ok(())
        },
    )?;
    println!(
        "{:<24} ({:.0} messages a second)",
        "",
        (MILLION - left) as f64 / (rounds as f64 * HALF.as_secs_f64())
    );
    network.signal_troubled(Signal::SIGCONT);
    Ok(())
}

/// Rounds of a half without and a half with the trouble; a line with the medians.
fn compare<T>(
    name: &str,
    rounds: usize,
    network: &mut Network,
    mut begin: impl FnMut(&mut Network) -> Result<T>,
    mut end: impl FnMut(&mut Network, T) -> Result<()>,
) -> Result<()> {
    let (mut before, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        before.push(network.measure()?);
        let trouble = begin(network)?;
        with.push(network.measure()?);
        end(network, trouble)?;
    }
    print_compared(name, &before, &with);
    Ok(())
}

fn memory(bin: &Path) -> Result<()> {
    println!("\nmemory of lonc and its {} children, KiB (Pss)", ASKED.len() + 1);
    println!("{:>10} {:>10} {:>14}", "delayed", "waiting", "most, replayed");
    let mut network = Network::up(bin)?;
    for count in BACKLOGS {
        network.restart_with(count)?;
        let pss = |network: &Network| network.lonc.as_ref().map_or(0, Program::pss);
        let waiting = pss(&network);
        network.troubled = Some(network.rig.start("lond", TROUBLED)?);
        let mut most = 0;
        loop {
            most = most.max(pss(&network));
            let status = network.rig.status(TROUBLED)?;
            if status["state"] == "up" && status["delayed"] == 0 {
                break;
            }
        }
        println!("{count:>10} {waiting:>10} {most:>14}");
    }
    Ok(())
}
