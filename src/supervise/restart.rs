//! HUP in the program that serves: first a trial of the next one, then `exec`.
//!
//! ```text
//!        HUP                    said the word, lived its time, exited 0           exec
//!  Idle ------> Trying (a child) --------------------------------------> Proven ------> the next program
//!   ^             | anything else: one error in the log, a word in the status               | failed
//!   +-------------+-------------------------------------------------------------------------+
//! ```
//!
//! The trial is a child like another: the loop goes on serving, a deadline bounds it, and it is
//! reaped with the others. Whatever becomes of it, nothing has changed by then, so the program that
//! serves goes on until another HUP. How many HUPs ever come during a trial, exactly one more
//! restart follows: what they stand for may have been written after the trial had read it. That one
//! is not forgotten by `exec` either.
//!
//! What a start on trial looks at: [`super::trial`].

use super::exec_state::{self, Stayed};
use super::image::Program;
use super::signals::{self, Signals};
use super::spawn::{self, End};
use super::trial::{self, MAX_SAID, PROBLEMS, WORD};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setpgid};
use serde::Serialize;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a program must live before it may take over.
pub const LIFE: Duration = Duration::from_secs(1);
/// How much longer its start may take. Reading a table of thousands of hosts on a busy machine
/// takes a fraction.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Name of an environment variable with another [`LIFE`], in milliseconds, for tests that send HUP
/// by the hundred. A longer one than [`LIFE`] is not taken.
pub const LIFE_VARIABLE: &str = "LONNET_TRIAL_LIFE";

/// What to do with what the log says went wrong.
const ADVICE: &str = "the old program goes on; put that right and send HUP again";
/// Exit code of a trial that could not be executed; why, it has said.
const NOT_EXECUTED: i32 = 127;

/// Why a trial could not even begin.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("describe what is handed over: {0}")]
    Describe(io::Error),
    #[error("make a pipe: {0}")]
    Pipe(io::Error),
    #[error("start a process: {0}")]
    Fork(io::Error),
}

/// What the supervisor is to do now, by [`Restarts::carry_out`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Start the next program on trial.
    Try,
    /// The trial went well: this process becomes that program.
    Exec,
}

/// What is left to the next program.
#[derive(Debug)]
pub struct Left<'a, T> {
    /// What it must know, if that could be found out.
    pub inheritance: io::Result<T>,
    /// What stays open for it.
    pub descriptors: &'a [BorrowedFd<'a>],
}

/// See the head of this file.
#[derive(Debug)]
pub struct Restarts {
    life: Duration,
    stage: Stage,
    /// A HUP came that no trial has answered.
    wanted: bool,
    /// Why the last restart came to nothing.
    failure: Option<String>,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Trying(Trying),
    Proven,
}

#[derive(Debug)]
struct Trying {
    pid: u32,
    begun: Instant,
    pipe: PipeReader,
    end: Option<Killed>,
}

/// Why a trial was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Overdue,
    /// This program stops: nobody wants to know.
    Stopping,
}

/// How long a program must live: [`LIFE`], or less where the environment says so.
pub fn life() -> Duration {
    let told = std::env::var(LIFE_VARIABLE).ok().and_then(|text| text.parse().ok());
    told.map_or(LIFE, |milliseconds| Duration::from_millis(milliseconds).min(LIFE))
}

impl Restarts {
    /// None is under way. `wanted`: a HUP came to the program before this one that it could not
    /// answer.
    pub fn new(life: Duration, wanted: bool) -> Restarts {
        Restarts { life, stage: Stage::Idle, wanted, failure: None }
    }

    /// Somebody wants a restart (HUP): one more, if one is under way.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether the next program must be told of a HUP.
    pub fn wanted(&self) -> bool {
        self.wanted
    }

    /// Why the last restart came to nothing, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The files were read again and taken over, without a restart: why the last one came to
    /// nothing is no news any more.
    pub fn forgive(&mut self) {
        self.failure = None;
    }

    /// This program stops: what is on trial ends, and nothing follows.
    pub fn cancel(&mut self) {
        self.wanted = false;
        match &mut self.stage {
            Stage::Trying(trying) => trying.kill(Killed::Stopping),
            Stage::Proven => self.stage = Stage::Idle,
            Stage::Idle => {}
        }
    }

    /// What to do next, until there is nothing; kills a trial that is overdue.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        match &mut self.stage {
            Stage::Idle => std::mem::take(&mut self.wanted).then_some(Step::Try),
            Stage::Trying(trying) => {
                if trying.end.is_none() && trying.begun + self.life + LIMIT <= now {
                    trying.kill(Killed::Overdue);
                }
                None
            }
            Stage::Proven => Some(Step::Exec),
        }
    }

    /// When [`Restarts::step`] has something to do that no event announces.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Trying(trying) if trying.end.is_none() => Some(trying.begun + self.life + LIMIT),
            Stage::Trying(_) | Stage::Idle | Stage::Proven => None,
        }
    }

    /// Carries out what [`Restarts::step`] told, with what is left to the next program. Comes back
    /// unless the step was an `exec` that succeeded;
    /// gives the signals that came meanwhile and are still to be answered.
    pub fn carry_out<T: Serialize>(
        &mut self,
        step: Step,
        program: &Program,
        left: Left<'_, T>,
        signals: &mut Signals,
        now: Instant,
    ) -> Vec<signals::Signal> {
        let Left { inheritance, descriptors } = left;
        match (step, inheritance) {
            (_, Err(error)) => self.fail(program, &[error.to_string()]),
            (Step::Try, Ok(inheritance)) => self.try_out(program, &inheritance, descriptors, now),
            (Step::Exec, Ok(inheritance)) => {
                // The next program opens the file that is there then; children that go on until it
                // has them end write there, too.
                base::logging::open_anew();
                let Stayed { error, late } = exec_state::exec(program, &inheritance, descriptors, signals);
                match error {
                    Some(error) => self.fail(program, &[error.to_string()]),
                    None => self.stage = Stage::Idle,
                }
                return late;
            }
        }
        Vec::new()
    }

    fn try_out<T: Serialize>(
        &mut self,
        program: &Program,
        inheritance: &T,
        descriptors: &[BorrowedFd<'_>],
        now: Instant,
    ) {
        log::info!("trying {}", program.path().display());
        match begin(program, inheritance, descriptors, self.life) {
            Ok((pid, pipe)) => self.stage = Stage::Trying(Trying { pid, begun: now, pipe, end: None }),
            Err(error) => self.fail(program, &[error.to_string()]),
        }
    }

    /// A process was reaped; whether it was the trial. What follows, [`Restarts::step`] tells.
    pub fn ended(&mut self, program: &Program, pid: u32, end: End, now: Instant) -> bool {
        let Stage::Trying(trying) = &mut self.stage else { return false };
        if trying.pid != pid {
            return false;
        }
        let lived = now.saturating_duration_since(trying.begun);
        let verdict = match trying.end {
            Some(Killed::Stopping) => {
                self.stage = Stage::Idle;
                return true;
            }
            Some(Killed::Overdue) => {
                Err(vec![format!("it did not end its start within {:?}", self.life + LIMIT)])
            }
            None => judge(&trying.said(), end, lived, self.life),
        };
        match verdict {
            Ok(version) => {
                log::info!("starting anew: {}, version {version}", program.path().display());
                self.stage = Stage::Proven;
            }
            Err(problems) => self.fail(program, &problems),
        }
        true
    }

    /// The one place where a restart comes to nothing.
    fn fail(&mut self, program: &Program, problems: &[String]) {
        let path = program.path().display();
        for problem in problems {
            log::error!("restart: {problem} ({path}); {ADVICE}");
        }
        self.failure = Some(problems.join("; "));
        self.stage = Stage::Idle;
    }
}

impl Trying {
    fn kill(&mut self, why: Killed) {
        self.end = Some(why);
        spawn::kill_group_now(self.pid);
    }

    /// What it has said by now; a process that it left behind may go on, and is not waited for.
    fn said(&mut self) -> String {
        let mut said = Vec::new();
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        if nix::fcntl::fcntl(&self.pipe, nix::fcntl::FcntlArg::F_SETFL(flags)).is_ok() {
            // An error is that nothing more is there; what was read before it is kept.
            let _ = (&self.pipe).take(2 * MAX_SAID as u64).read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// The version of a program that can start, or why it cannot.
fn judge(said: &str, end: End, lived: Duration, life: Duration) -> Result<String, Vec<String>> {
    if let Some((_, problems)) = said.split_once(PROBLEMS).filter(|_| end != End::Exited(0)) {
        return Err(problems.lines().map(str::to_owned).collect());
    }
    let word = said.lines().next().and_then(|line| line.strip_prefix(WORD)?.strip_prefix(' '));
    match (word, end) {
        (Some(version), End::Exited(0)) if lived >= life => Ok(version.to_owned()),
        (Some(_), _) => Err(vec![format!("it ended {lived:.1?} after its start ({end})")]),
        (None, _) => Err(vec![format!(
            "it ended {lived:.1?} after its start ({end}) and did not say that it can start"
        )]),
    }
}

fn begin<T: Serialize>(
    program: &Program,
    inheritance: &T,
    descriptors: &[BorrowedFd<'_>],
    life: Duration,
) -> Result<(u32, PipeReader), BeginError> {
    let left = exec_state::describe(inheritance, descriptors).map_err(BeginError::Describe)?;
    let (ours, theirs) = io::pipe().map_err(BeginError::Pipe)?;
    let keep = vec![left.as_raw_fd(), theirs.as_raw_fd()];
    let parent = Pid::this();
    let program = program.clone();
    let pid = spawn::spawn(keep, move || become_trial(&program, parent, &left, theirs, life));
    Ok((pid.map_err(BeginError::Fork)?, ours))
}

/// In the child: executes the program, or says why not.
fn become_trial(
    program: &Program,
    parent: Pid,
    left: &File,
    mut pipe: PipeWriter,
    life: Duration,
) -> Infallible {
    let error = execute(program, parent, left, &pipe, life);
    // Nobody is left to know if that fails.
    let _ = write!(pipe, "{PROBLEMS}exec: {error}");
    std::process::exit(NOT_EXECUTED)
}

fn execute(program: &Program, parent: Pid, left: &File, pipe: &PipeWriter, life: Duration) -> io::Error {
    // A group of its own, so that what a script has started ends with it and a terminal's signals
    // do not reach it; and it is not to outlive the program that wants to know.
    let prepared = setpgid(Pid::from_raw(0), Pid::from_raw(0))
        .and_then(|()| set_pdeathsig(Signal::SIGKILL))
        .and_then(|()| exec_state::set_close_on_exec(left.as_fd(), false))
        .and_then(|()| exec_state::set_close_on_exec(pipe.as_fd(), false));
    if let Err(errno) = prepared {
        return errno.into();
    }
    if getppid() != parent {
        return io::Error::other("the program that started it is gone");
    }
    let value = trial::value(std::process::id(), left.as_fd(), pipe.as_fd(), life);
    match program.call(trial::VARIABLE, &value, &[exec_state::VARIABLE]) {
        Ok(call) => call.exec(),
        Err(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, Stdio};

    /// One with a trial that began at `begun`, a process that does nothing; and its pipe.
    fn trying(begun: Instant) -> (Restarts, Child, PipeWriter) {
        // By itself it ends in time for a test to fail.
        let _still = crate::still::a_program_starts();
        let mut command = Command::new("sleep");
        let child = command.arg("30").stdout(Stdio::null()).process_group(0).spawn().unwrap();
        let (pipe, theirs) = io::pipe().unwrap();
        let stage = Stage::Trying(Trying { pid: child.id(), begun, pipe, end: None });
        (Restarts { life: LIFE, stage, wanted: false, failure: None }, child, theirs)
    }

    fn is_killed(mut child: Child) -> bool {
        child.wait().unwrap().signal() == Some(Signal::SIGKILL as i32)
    }

    fn program() -> Program {
        Program::new(Some("/usr/sbin/lonc".into()), Vec::new()).unwrap()
    }

    const KILLED: End = End::Killed(Signal::SIGKILL);

    #[test]
    fn a_trial_that_takes_too_long_is_killed_and_said_until_a_reload_has_taken_over() {
        let begun = Instant::now();
        let (mut restarts, mut child, _pipe) = trying(begun);
        let late = begun + LIFE + LIMIT;
        assert_eq!(restarts.deadline(), Some(late));
        assert_eq!(restarts.step(late - Duration::from_nanos(1)), None);
        assert!(child.try_wait().unwrap().is_none(), "it still has time");
        assert_eq!(restarts.deadline(), Some(late));
        assert_eq!(restarts.step(late), None);
        assert_eq!(restarts.deadline(), None, "its end is an event");
        let pid = child.id();
        assert!(is_killed(child));
        assert!(!restarts.ended(&program(), pid + 1, KILLED, late), "another's");
        assert!(restarts.ended(&program(), pid, KILLED, late));
        assert_eq!(restarts.failure(), Some("it did not end its start within 11s"));
        assert_eq!((restarts.step(late), restarts.deadline()), (None, None));
        restarts.forgive();
        assert_eq!(restarts.failure(), None);
    }

    #[test]
    fn a_program_that_stops_ends_its_trial_and_nothing_follows() {
        let now = Instant::now();
        let (mut restarts, child, _pipe) = trying(now);
        restarts.want();
        restarts.cancel();
        let pid = child.id();
        assert!(is_killed(child));
        assert!(restarts.ended(&program(), pid, KILLED, now));
        assert_eq!((restarts.step(now), restarts.failure()), (None, None));
        restarts.stage = Stage::Proven;
        restarts.want();
        restarts.cancel();
        assert_eq!(restarts.step(now), None, "nor one that was found fit");
        restarts.want();
        restarts.cancel();
        assert!(!restarts.wanted());
        assert_eq!(restarts.step(now), None, "nor one that was asked for");
    }

    #[test]
    fn what_a_trial_says_is_heard_to_its_last_byte() {
        let (mut restarts, child, mut pipe) = trying(Instant::now());
        let said = format!("{WORD} 2.0\n{PROBLEMS}{}", "x".repeat(MAX_SAID - PROBLEMS.len()));
        pipe.write_all(said.as_bytes()).unwrap();
        restarts.cancel();
        assert!(is_killed(child));
        let Stage::Trying(trying) = &mut restarts.stage else { panic!("{restarts:?}") };
        assert_eq!(trying.said(), said, "while somebody still holds the pipe");
    }

    const LIVED: Duration = Duration::from_millis(1001);

    fn judged(said: &str, end: End) -> Result<String, String> {
        judge(said, end, LIVED, LIFE).map_err(|problems| problems.join("|"))
    }

    #[test]
    fn only_a_program_that_said_the_word_lived_and_exited_0_may_take_over() {
        let word = format!("{WORD} 2.0\n");
        assert_eq!(judged(&word, End::Exited(0)), Ok("2.0".to_owned()));
        assert!(judge(&word, End::Exited(0), LIFE - Duration::from_millis(1), LIFE).is_err());
        let killed = End::Killed(Signal::SIGSEGV);
        for (said, end) in
            [("", End::Exited(0)), ("hello\n", End::Exited(0)), (&word, End::Exited(1)), (&word, killed)]
        {
            let why = judged(said, end).unwrap_err();
            assert!(why.starts_with(&format!("it ended 1.0s after its start ({end})")), "{why}");
        }
    }

    #[test]
    fn what_a_program_says_is_wrong_with_it_is_a_problem_a_line() {
        let said = format!("{WORD} 2.0-rc\n{PROBLEMS}/x/hosts.tab:5: no-such thing\n/x/hosts.tab:6: another");
        assert_eq!(
            judged(&said, End::Exited(1)).unwrap_err(),
            "/x/hosts.tab:5: no-such thing|/x/hosts.tab:6: another"
        );
    }
}
