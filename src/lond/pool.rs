//! The process that runs the program of one handler: `lond`'s supervisor keeps one for each handler
//! that has a program.
//!
//! Link children never run programs. They pass their requests to this process, through the
//! handler's socket, in the form [`crate::handler::tag`]; it runs the program, as `exec` or
//! `worker` says, and gives back what came of each. The socket was made by the supervisor, which
//! keeps it: while this process is replaced, who connects waits for the next one.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `alone` | that nobody else runs the program, and nothing is left of an earlier run |
//! | `queue` | what waits, and whose turn it is: pure |
//! | `worker` | the conversation with a process that is kept: pure |
//! | `once` | what comes of a process for one request: pure |
//! | `stderr` | what programs say beside their answers: pure |
//! | `process` | a program is started: its descriptors, its session, its environment |
//! | `one` | one process, and what it is for |
//! | `crew` | all processes of the program |
//! | `pipes` | what is written to a process and read of it |
//! | `clients` | the connections of link children |
//! | `reactor` | the loop |
//!
//! Guarantees: every request is answered once, as long as its connection is there. One that no
//! process has begun is never said to have failed, if its sender keeps it: it is said to be kept. A
//! process that takes longer than `timeout` is killed with all that it has started, and what it has
//! made a daemon of when it ends; so are all before this process ends, also when it does because
//! its supervisor is gone. If it is killed itself, its programs die, what they have started is the
//! supervisor's to kill, and where that is gone, too, the next such process's (`alone`).
//! There are at most `running` or `workers` processes, and `waiting` requests that wait.
//!
//! Fails when the system gives no poll; the supervisor begins another one, with growing pauses.

mod alone;
mod clients;
mod crew;
mod once;
mod one;
mod pipes;
mod process;
mod queue;
mod reactor;
mod stderr;
mod worker;

use config::{Access, Config, Handler};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use supervise::title;

/// What a pool depends on: another one takes its place where this has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The handler, which has a program; without what only links need of it.
    pub handler: Handler,
    /// Longest request or answer line in bytes.
    pub max_line: usize,
    /// How long it may take to end.
    pub drain_timeout: Duration,
}

impl Settings {
    /// Of every handler of `config` that has a program.
    pub fn all(config: &Config) -> Vec<Settings> {
        let with_program = config.handlers.iter().filter(|handler| handler.program.is_some());
        let settings = |handler: &Handler| Settings {
            // Who may ask, and how much, is for links to know.
            handler: Handler { access: Access::everyone(), window: 1, ..handler.clone() },
            max_line: config.lond.max_line,
            drain_timeout: config.lond.drain_timeout,
        };
        with_program.map(settings).collect()
    }
}

/// What a pool is born with.
#[derive(Debug)]
pub struct Seed {
    /// How to serve.
    pub settings: Settings,
    /// Where link children connect; non-blocking.
    pub listener: UnixListener,
    /// The child's end of the control socket: receives `ToServe`, sends `FromServe`.
    pub control: OwnedFd,
}

/// Serves until it is told to stop; exits 0 then.
pub fn run(seed: Seed) -> ! {
    let name = seed.settings.handler.name.clone();
    title::set(&format!("handler {name}"));
    let code = match serve(seed) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("handler {name}: run its program: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn serve(seed: Seed) -> io::Result<()> {
    supervise::strays::take_in()?;
    reactor::Reactor::new(seed)?.run()
}
