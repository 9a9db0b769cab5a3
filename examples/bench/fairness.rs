//! What others cost the polite ones at the same peer: `scripts/bench fairness`.
//!
//! Ten programs ask one peer, one request after the other on a connection each. Beside them another
//! user keeps hundreds of requests in flight on many connections: plain ones, critical ones, both;
//! or bodies of 1 MiB cross the same link, to the peer or from it, of that user or of their own; or
//! a million stored messages are replayed to the peer. Each round measures the polite ones alone
//! and then beside that, so that what else the machine does strikes both alike; what is printed are
//! the medians over the rounds, and the median of the rounds' ratios. Lines in parentheses say what
//! the processors alone make of that: the same bodies go to another peer, or there are as many busy
//! processes as processors.
//!
//! Two users need root; without, all are one user's programs, and have their turns as such.

use super::isolation::{copy, delay};
use super::load::{Crowd, measure_as};
use super::rig::{NEAR, Program, Result, Rig, serve_with};
use super::{end_busy, print_compared, two_busy};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The host that is called, and one that is called beside it.
const FAR: &str = "far";
const ELSEWHERE: &str = "elsewhere";
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
    _called: Vec<Program>,
    /// Whose programs; `None`: of this one's user.
    polite: Option<u32>,
    greedy: Option<u32>,
    rounds: usize,
    /// Only lines that have this in their names.
    only: String,
}

/// Programs that ask.
struct Press {
    peer: &'static str,
    user: Option<u32>,
    request: String,
    programs: usize,
    ahead: usize,
}

/// Measures the programs in `bin`, and prints what came of it: the lines with `only` in their
/// names.
pub fn run(bin: &Path, rounds: usize, only: &str) -> Result<()> {
    let rig = Rig::new(bin, &[FAR, ELSEWHERE])?;
    rig.open_to_all()?;
    serve_with(&rig.handler_socket("count"), b"ok".to_vec())?;
    serve_with(&rig.handler_socket("big"), vec![b'x'; BIG])?;
    let called = vec![rig.start("lond", FAR)?, rig.start("lond", ELSEWHERE)?];
    let lonc = rig.start("lonc", NEAR)?;
    rig.wait_up(FAR)?;
    rig.wait_up(ELSEWHERE)?;
    let root = nix::unistd::geteuid().is_root();
    let (polite, greedy) = (root.then_some(POLITE_USER), root.then_some(GREEDY_USER));
    let mut scene =
        Scene { rig, lonc: Some(lonc), _called: called, polite, greedy, rounds, only: only.to_owned() };
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
    scene.compare("(two busy processes)", |_| two_busy(), |_, both| end_busy(both))
}

impl Scene {
    fn beside_a_greedy_user(&mut self) -> Result<()> {
        self.press("nobody (noise)", &[])?;
        let greedy = self.greedy;
        let of = |request: &str, programs| Press {
            peer: FAR,
            user: greedy,
            request: request.to_owned(),
            programs,
            ahead: AHEAD,
        };
        self.press("plain requests", &[of("pong", CROWD)])?;
        self.press("critical requests", &[of("critical:pong", CROWD)])?;
        self.press("both", &[of("pong", CROWD / 2), of("critical:pong", CROWD / 2)])
    }

    fn beside_long_bodies(&mut self) -> Result<()> {
        let long = format!("count:{}", "x".repeat(BIG));
        for (request, what) in [(long.as_str(), "requests"), ("big", "answers")] {
            let press = |peer, user| Press {
                peer,
                user,
                request: request.to_owned(),
                programs: BIG_PROGRAMS,
                ahead: BIG_AHEAD,
            };
            let (greedy, polite) = (self.greedy, self.polite);
            self.press(&format!("another's 1 MiB {what}"), &[press(FAR, greedy)])?;
            self.press(&format!("own 1 MiB {what}"), &[press(FAR, polite)])?;
            self.press(&format!("(1 MiB {what} elsewhere)"), &[press(ELSEWHERE, greedy)])?;
        }
        Ok(())
    }

    fn beside_a_replay(&mut self) -> Result<()> {
        let name = "a replay of a million";
        if !name.contains(&self.only) {
            return Ok(());
        }
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
        self.compare(name, begin, |scene, ()| {
            let status = scene.rig.status(FAR)?;
            if status["delayed"].as_u64() == Some(0) {
                return Err("replay: it was over before the polite programs were".into());
            }
            if std::fs::read_dir(scene.rig.spool(FAR).join("failed")).is_ok_and(|it| it.count() > 0) {
                return Err("replay: messages were rejected".into());
            }
            // Nothing of it is left for the next round's first half.
            scene.lonc = None;
            std::fs::remove_dir_all(scene.rig.spool(FAR))?;
            scene.lonc = Some(scene.rig.start("lonc", NEAR)?);
            scene.rig.wait_up(FAR)
        })
    }

    /// Compares without and with such programs.
    fn press(&mut self, name: &str, programs: &[Press]) -> Result<()> {
        let begin = |scene: &mut Scene| {
            let start = |press: &Press| {
                let Press { peer, user, request, programs, ahead } = press;
                Crowd::start(&scene.rig.socket(peer), *user, request, *programs, *ahead)
            };
            programs.iter().map(start).collect::<Result<Vec<_>>>()
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
        if !name.contains(&self.only) {
            return Ok(());
        }
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
