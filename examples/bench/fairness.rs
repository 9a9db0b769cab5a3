//! What others cost the polite ones at the same peer: `scripts/bench fairness`.
//!
//! Ten programs ask one peer, one request after the other on a connection each. Beside them another
//! user keeps hundreds of requests in flight on many connections: plain ones, critical ones, both;
//! or bodies of 1 MiB cross the same link, to the peer or from it, of that user or of their own; or
//! a million stored messages are replayed to the peer. Each round measures the polite ones alone
//! and then beside that, so that what else the machine does strikes both alike; what is printed are
//! the medians over the rounds, and the median of the rounds' ratios. The last line is none of
//! lonnet's: as many busy processes as there are processors, for what those alone make of that.
//!
//! Two users need root; without, all are one user's programs, and have their turns as such.

use super::isolation::{copy, delay};
use super::load::{Crowd, measure_as};
use super::rig::{NEAR, Program, Result, Rig, serve_with};
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

/// Bytes of a long body, programs that have such, and how many each has in flight.
const BIG: usize = (1 << 20) - 16;
const BIG_PROGRAMS: usize = 2;
const BIG_AHEAD: usize = 4;
/// Messages that are replayed.
const STORED: u64 = 1_000_000;

/// The hosts, and what is measured at which socket.
struct Scene {
    rig: Rig,
    lonc: Option<Program>,
    _lond: Program,
    /// Whose programs; `None`: of this one's user.
    polite: Option<u32>,
    greedy: Option<u32>,
    rounds: usize,
}

/// Measures the programs in `bin`, and prints what came of it.
pub fn run(bin: &Path, rounds: usize) -> Result<()> {
    let rig = Rig::new(bin, &[FAR])?;
    rig.open_to_all()?;
    serve_with(&rig.handler_socket("count"), b"ok".to_vec())?;
    serve_with(&rig.handler_socket("big"), vec![b'x'; BIG])?;
    let lond = rig.start("lond", FAR)?;
    let lonc = rig.start("lonc", NEAR)?;
    rig.wait_up(FAR)?;
    let root = nix::unistd::geteuid().is_root();
    let (polite, greedy) = (root.then_some(POLITE_USER), root.then_some(GREEDY_USER));
    let mut scene = Scene { rig, lonc: Some(lonc), _lond: lond, polite, greedy, rounds };
    println!(
        "latency of {POLITE} polite programs in microseconds, medians of {rounds} rounds, and of their ratios"
    );
    if !root {
        println!("(not root: the greedy programs are of the same user)");
    }
    super::print_heads("beside");
    scene.beside_a_greedy_user()?;
    scene.beside_long_bodies()?;
    scene.beside_a_replay()?;
    scene.compare(
        "(two busy processes)",
        |_| Ok([busy()?, busy()?]),
        |_, both| {
            both.into_iter().try_for_each(|mut process| {
                process.kill()?;
                process.wait()?;
                Ok(())
            })
        },
    )
}

impl Scene {
    fn beside_a_greedy_user(&mut self) -> Result<()> {
        self.press("nobody (noise)", &[])?;
        let greedy = self.greedy;
        let of = |request: &str, programs| (greedy, request.to_owned(), programs, AHEAD);
        self.press("plain requests", &[of("pong", CROWD)])?;
        self.press("critical requests", &[of("critical:pong", CROWD)])?;
        self.press("both", &[of("pong", CROWD / 2), of("critical:pong", CROWD / 2)])
    }

    fn beside_long_bodies(&mut self) -> Result<()> {
        let long = format!("count:{}", "x".repeat(BIG));
        for (user, whose) in [(self.greedy, "another's"), (self.polite, "own")] {
            for (request, what) in [(long.as_str(), "1 MiB requests"), ("big", "1 MiB answers")] {
                let crowd = (user, request.to_owned(), BIG_PROGRAMS, BIG_AHEAD);
                self.press(&format!("{whose} {what}"), &[crowd])?;
            }
        }
        Ok(())
    }

    fn beside_a_replay(&mut self) -> Result<()> {
        let prepared = tempfile::tempdir()?;
        let prepared = prepared.path().join(FAR);
        delay(&prepared, STORED)?;
        let begin = |scene: &mut Scene| {
            scene.lonc = None;
            let spool = scene.rig.spool(FAR);
            std::fs::remove_dir_all(&spool)?;
            copy(&prepared, &spool)?;
            scene.lonc = Some(scene.rig.start("lonc", NEAR)?);
            scene.rig.wait_up(FAR)
        };
        self.compare("a replay of a million", begin, |scene, ()| {
            if scene.rig.status(FAR)?["delayed"].as_u64() == Some(0) {
                return Err("replay: it was over before the polite programs were".into());
            }
            // Nothing of it is left for the next round's first half.
            scene.rig.wait_delayed(FAR, 0)
        })
    }

    /// Compares without and with such crowds.
    fn press(&mut self, name: &str, crowds: &[(Option<u32>, String, usize, usize)]) -> Result<()> {
        let begin = |scene: &mut Scene| {
            let start = |(user, request, programs, ahead): &(Option<u32>, String, usize, usize)| {
                Crowd::start(&scene.rig.socket(FAR), *user, request, *programs, *ahead)
            };
            crowds.iter().map(start).collect::<Result<Vec<_>>>()
        };
        self.compare(name, begin, |_, crowds| {
            drop(crowds);
            Ok(())
        })
    }

    /// Rounds of a half without and a half with something; a line with the medians.
    fn compare<T>(
        &mut self,
        name: &str,
        begin: impl Fn(&mut Scene) -> Result<T>,
        end: impl Fn(&mut Scene, T) -> Result<()>,
    ) -> Result<()> {
        let (mut before, mut with) = (Vec::new(), Vec::new());
        let sockets: Vec<PathBuf> = vec![self.rig.socket(FAR); POLITE];
        for _ in 0..self.rounds {
            before.push(measure_as(&sockets, self.polite, HALF)?);
            let trouble = begin(self)?;
            with.push(measure_as(&sockets, self.polite, HALF)?);
            end(self, trouble)?;
        }
        print_compared(name, &before, &with);
        Ok(())
    }
}
