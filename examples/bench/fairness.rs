//! What one greedy user costs the polite ones at the same peer: `scripts/bench fairness`.
//!
//! Ten programs ask one peer, one request after the other on a connection each. Beside them another
//! user keeps hundreds of requests in flight on many connections: plain ones, critical ones, both.
//! Each round measures the polite ones alone and then beside the greedy one, so that what else the
//! machine does strikes both alike; what is printed are the medians over the rounds, and the median
//! of the rounds' ratios. The last line is none of lonnet's: as many busy processes as there are
//! processors, for what those alone make of that.
//!
//! Two users need root; without, all are one user's programs, and have their turns as such.

use super::load::{Crowd, Latency, measure_as};
use super::rig::{NEAR, Result, Rig};
use super::{busy, print_compared};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The host that is called.
const FAR: &str = "far";
/// How long each half of a round is.
const HALF: Duration = Duration::from_millis(1500);
pub const ROUNDS: usize = 9;
/// Programs that ask politely.
const POLITE: usize = 10;
/// Programs of the greedy user, and requests that each has in flight: as many in the sum as a link
/// has room for, nearly.
const CROWD: usize = 20;
const AHEAD: usize = 200;
/// Users that nothing here belongs to.
const POLITE_USER: u32 = 47_110;
const GREEDY_USER: u32 = 47_111;

/// Measures the programs in `bin`, and prints what came of it.
pub fn run(bin: &Path, rounds: usize) -> Result<()> {
    let rig = Rig::new(bin, &[FAR])?;
    rig.open_to_all()?;
    let _lond = rig.start("lond", FAR)?;
    let _lonc = rig.start("lonc", NEAR)?;
    rig.wait_up(FAR)?;
    let root = nix::unistd::geteuid().is_root();
    let (polite, greedy) = (root.then_some(POLITE_USER), root.then_some(GREEDY_USER));
    println!(
        "latency of {POLITE} polite programs in microseconds, medians of {rounds} rounds, and of their ratios"
    );
    if !root {
        println!("(not root: the greedy programs are of the same user)");
    }
    let socket = rig.socket(FAR);
    let press = |request, programs| Crowd::start(&socket, greedy, request, programs, AHEAD);
    let compared = |name: &str, begin: &dyn Fn() -> Result<Vec<Crowd>>| {
        let (mut before, mut with) = (Vec::new(), Vec::new());
        let sockets: Vec<PathBuf> = vec![socket.clone(); POLITE];
        let measure = || -> Result<Latency> { measure_as(&sockets, polite, HALF) };
        for _ in 0..rounds {
            before.push(measure()?);
            let crowds = begin()?;
            with.push(measure()?);
            drop(crowds);
        }
        print_compared(name, &before, &with);
        Result::Ok(())
    };
    super::print_heads("beside a greedy user");
    compared("nobody (noise)", &|| Ok(Vec::new()))?;
    compared("plain requests", &|| Ok(vec![press("pong", CROWD)?]))?;
    compared("critical requests", &|| Ok(vec![press("critical:pong", CROWD)?]))?;
    compared("both", &|| Ok(vec![press("pong", CROWD / 2)?, press("critical:pong", CROWD / 2)?]))?;
    let (mut before, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        before.push(measure_as(&vec![socket.clone(); POLITE], polite, HALF)?);
        let mut both = [busy()?, busy()?];
        with.push(measure_as(&vec![socket.clone(); POLITE], polite, HALF)?);
        for process in &mut both {
            process.kill()?;
            process.wait()?;
        }
    }
    print_compared("(two busy processes)", &before, &with);
    Ok(())
}
