//! The way from `main` to a supervisor's loop, the same for `lonc` and `lond`.
//!
//! In order: arguments, configuration, user and folders, lock, log, background. Whatever is wrong
//! is told to who started the program, as `lonc: verb object: cause`, with exit code 1 (2 for wrong
//! arguments), also when it turns up only once the program is in the background. After an `exec` at
//! HUP the process is a daemon already and has its lock: then only configuration and log are begun
//! again, and what the trial before it has seen to ([`super::trial`]) is no reason to end any more,
//! where there is another way.

use super::background::{self, BackgroundError, Ready};
use super::exec_state::{self, Descriptors, ExecStateError};
use super::files::{log_file, pid_file};
use super::image::{ImageError, Program};
use super::inheritance::{Common, Inherited};
use super::lock::{LockError, running_pid};
use super::places::Places;
use super::reload::{Ground, Load};
use super::restart::{self, Restarts};
use super::signals;
use super::title;
use super::trial::Trial;
use base::json_path::JsonPath;
use base::logging::{self, LogError};
use base::memory;
use clap::{CommandFactory, FromArgMatches, Parser};
use config::{self, Config, ConfigErrors};
use owner::{self, Acting, Owner, confine};
use std::fmt::Display;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Where the configuration is looked for when neither an argument nor the environment names it.
pub const DEFAULT_CONFIG: &str = "/etc/lonnet/lonnet.toml";

/// Times that a configuration is read after `exec` before its errors count.
const LOAD_ATTEMPTS: u32 = 50;
/// Between two of them.
const LOAD_PAUSE: Duration = Duration::from_millis(100);

/// The arguments of `lonc` and of `lond`.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", env = "LONNET_CONFIG", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Stay in the foreground; log to standard error as well
    #[arg(long)]
    pub foreground: bool,
    /// If it runs already, exit 0 without a word (for cron)
    #[arg(long)]
    pub if_not_running: bool,
}

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong: each problem is a line.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The path of the configuration cannot be made absolute.
    #[error("find {}: {cause}", path.display())]
    Path {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process runs, or the pid file cannot be used.
    #[error("start: {0}")]
    Lock(#[from] LockError),
    /// The user, a folder, or the way to the background.
    #[error("start: {0}")]
    Background(#[from] BackgroundError),
    /// The user's rights over its files were not to be had.
    #[error("start: act as the user: {0}")]
    Act(#[from] io::Error),
    /// The log cannot be written.
    #[error("start: {0}")]
    Log(#[from] LogError),
    /// What crosses `exec` at HUP could not be handed over.
    #[error("start: {0}")]
    ExecState(#[from] ExecStateError),
    /// It is not known what to start at HUP.
    #[error("start: {0}")]
    Image(#[from] ImageError),
    /// The supervisor cannot serve.
    #[error("start: {0}")]
    Serve(String),
}

/// What a supervisor begins with.
#[derive(Debug)]
pub struct Start<L> {
    /// `lonc` or `lond`.
    pub program: &'static str,
    /// The configuration. Each child goes on with the same one: a clone of a table of 5,000 hosts
    /// for each of 5,000 children would cost gigabytes, while a child's copy of its parent's memory
    /// is there already, and shared until one of them writes to it.
    pub config: Arc<Config>,
    /// Reads a configuration.
    pub load: Load,
    /// The locks, with this process's number, and the folders.
    pub places: Places,
    /// Who waits for the program to serve.
    pub ready: Ready,
    /// How to start again at HUP.
    pub image: Program,
    /// How HUP is answered.
    pub restarts: Restarts,
    /// Held by a program that keeps root: it has the rights of the configuration's user over files.
    pub acting: Option<Acting>,
    /// What the program before this one left.
    pub inheritance: Option<(L, Descriptors)>,
}

impl<L> Start<L> {
    /// The socket that `lon status` asks on.
    pub fn admin_path(&self) -> PathBuf {
        self.config.run_dir.join(format!("{}.sock", self.program))
    }

    /// What is left to the next program, whatever the role. `key`: this host's key is there.
    pub fn common(&self, key: bool) -> Common {
        let (lock, _) = self.places.descriptors();
        let spool_lock = self.places.spool_lock();
        Common {
            lock: lock.as_raw_fd(),
            spool_lock: spool_lock.map(|(fd, path)| (fd.as_raw_fd(), JsonPath(path.to_owned()))),
            log: JsonPath(log_file(self.program, &self.config)),
            program: Some(JsonPath(self.image.path().to_owned())),
            ground: Some(Ground::of(&self.config)),
            key,
            restart: self.restarts.wanted(),
        }
    }
}

/// What becomes of root where that has started the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// The program becomes the configuration's user, for good.
    GivenUp,
    /// It keeps root, to start programs of several users, and acts as the configuration's user with
    /// files.
    Kept,
}

/// The `main` of a supervisor that gives root up: [`main_with`].
pub fn main<L: Inherited, E: Display>(
    program: &'static str,
    serve: impl FnOnce(&mut Start<L>) -> Result<(), E>,
) -> ExitCode {
    main_with(program, Rights::GivenUp, serve)
}

/// The `main` of a supervisor: starts as the arguments say and calls `serve`, which returns when it
/// was told to stop, or an error when it cannot serve.
pub fn main_with<L: Inherited, E: Display>(
    program: &'static str,
    rights: Rights,
    serve: impl FnOnce(&mut Start<L>) -> Result<(), E>,
) -> ExitCode {
    memory::part_long_buffers();
    let matches = Arguments::command().name(program).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    title::init(program);
    signals::ignore_file_limit();
    if arguments.foreground {
        // Before it is another user's.
        logging::console::prepare();
    }
    if let Err(error) = confine::confine() {
        say(program, &BackgroundError::SetUp(error).into());
        return ExitCode::FAILURE;
    }
    if let Some(trial) = Trial::of_this_process() {
        let fit = trial.run::<L>(program, &arguments.config, Config::load, arguments.foreground);
        return if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut start = match begin(program, rights, &arguments, Config::load) {
        Ok(start) => start,
        Err(StartError::Lock(LockError::Running { .. })) if arguments.if_not_running => {
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(program, &error);
            return ExitCode::FAILURE;
        }
    };
    finish(&mut start, serve)
}

/// Runs `serve`; tells whoever waits how it went.
pub fn finish<L, E: Display>(
    start: &mut Start<L>,
    serve: impl FnOnce(&mut Start<L>) -> Result<(), E>,
) -> ExitCode {
    let Err(cause) = serve(start) else { return ExitCode::SUCCESS };
    let error = StartError::Serve(cause.to_string());
    log::error!("{error}");
    start.places.release();
    if !start.ready.fail(&error.to_string()) {
        say(start.program, &error);
    }
    ExitCode::FAILURE
}

/// A line each on standard error, the problems of a configuration one by one.
fn say(program: &str, error: &StartError) {
    match error {
        StartError::Config(ConfigErrors(problems)) => {
            problems.iter().for_each(|problem| logging::console::say(program, problem));
        }
        other => logging::console::say(program, other),
    }
}

/// All steps before a supervisor's loop but [`title::init`], which comes first. `load` reads the
/// configuration.
///
/// # Errors
/// The first step that failed. The pid file is left as it is then.
pub fn begin<L: Inherited>(
    program: &'static str,
    rights: Rights,
    arguments: &Arguments,
    load: Load,
) -> Result<Start<L>, StartError> {
    let inheritance = exec_state::receive::<L>()?;
    let kept = inheritance.as_ref().map(|(_, descriptors)| descriptors.numbers()).unwrap_or_default();
    confine::close_all_but(kept).map_err(BackgroundError::SetUp)?;
    let file = config::settled(&arguments.config)
        .map_err(|cause| StartError::Path { path: arguments.config.clone(), cause })?;
    let path = inheritance
        .as_ref()
        .and_then(|(inheritance, _)| inheritance.common().program.clone())
        .map(|left| left.0);
    let image = Program::new(path, arguments_anew(arguments, &file))?;
    let asked = Asked { program, rights, arguments, load, file: &file };
    match inheritance {
        Some(left) => go_on(asked, image, left),
        None => start_first(asked, image),
    }
}

/// What a start is asked for.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    /// The name of the program.
    program: &'static str,
    /// What it keeps of root's rights.
    rights: Rights,
    /// The arguments that it was given.
    arguments: &'a Arguments,
    /// Reads the configuration.
    load: Load,
    /// The file of the configuration, by a path that holds wherever the process is.
    file: &'a Path,
}

fn start_first<L>(asked: Asked<'_>, image: Program) -> Result<Start<L>, StartError> {
    let Asked { program, rights, arguments, load, file } = asked;
    let config = load(file)?;
    let owner = background::user_to_become(&config)?;
    background::can_read_again(&config, owner.as_ref())?;
    // Whoever starts a second one is told at once, and changes nothing.
    owner::acting_as(owner.as_ref(), || refuse_second(program, &config))?;
    background::make_lock_folders(&config, owner.as_ref())?;
    // Taken before the fork, which copies them.
    let places = || Places::take(program, &config).map_err(StartError::from);
    let mut places = owner::acting_as(owner.as_ref(), places)?;
    background::make_folders(&config, owner.as_ref())?;
    let acting = match rights {
        Rights::GivenUp => {
            background::become_user(owner.as_ref())?;
            None
        }
        Rights::Kept => owner.as_ref().map(Owner::act).transpose()?,
    };
    logging::init(program, &log_file(program, &config), config.log_level, arguments.foreground)?;
    warn(&config);
    let mut ready = if arguments.foreground { Ready::nobody() } else { background::detach(program)? };
    // From here on others find this process and may signal it; its handlers will stand a little
    // later.
    let told = signals::block().map_err(|cause| LockError::File { path: pid_file(program, &config), cause });
    if let Err(error) = told.and_then(|_| places.write_pid()) {
        let error = StartError::Lock(error);
        // Let go of first: who is told may start it again at once.
        drop(places);
        if ready.fail(&error.to_string()) {
            std::process::exit(1);
        }
        return Err(error);
    }
    let (config, restarts) = (Arc::new(config), Restarts::new(restart::life(), false));
    Ok(Start { program, config, load, places, ready, image, restarts, acting, inheritance: None })
}

fn refuse_second(program: &str, config: &Config) -> Result<(), StartError> {
    let path = pid_file(program, config);
    match running_pid(&path) {
        Some(pid) => Err(LockError::Running { pid: Some(pid), path }.into()),
        None => Ok(()),
    }
}

/// After `exec`: the process is what it was, with a program and a configuration that may be new.
fn go_on<L: Inherited>(
    asked: Asked<'_>,
    image: Program,
    (inheritance, mut descriptors): (L, Descriptors),
) -> Result<Start<L>, StartError> {
    let Asked { program, rights, arguments, load, file } = asked;
    let (config, stumbles) = match load_anew(load, file) {
        Ok(loaded) => loaded,
        Err(errors) => {
            logging::init(
                program,
                inheritance.common().log.path(),
                log::LevelFilter::Info,
                arguments.foreground,
            )?;
            errors.0.iter().for_each(|problem| log::error!("restart: {problem}; the links end"));
            return Err(errors.into());
        }
    };
    // `exec` has given back what this process had as root, if it keeps that.
    let owner = Owner::beside_root(&config).map_err(BackgroundError::from)?;
    let acting = owner.filter(|_| rights == Rights::Kept).map(|owner| owner.act()).transpose()?;
    let folders = background::make_folders(&config, None);
    let log = log_file(program, &config);
    logging::init(program, &log, config.log_level, arguments.foreground).or_else(|_| {
        logging::init(program, inheritance.common().log.path(), config.log_level, arguments.foreground)
    })?;
    stumbles.iter().for_each(|problem| log::warn!("restart: {problem}; read again"));
    if let Err(error) = folders {
        log::error!("restart: {error}");
    }
    warn(&config);
    let common = inheritance.common();
    let (lock, spool_lock) = (common.lock, common.spool_lock.clone());
    let mut take = |number| descriptors.take(number);
    let lock = take(lock);
    let spool_lock = spool_lock.and_then(|(number, path)| Some((take(number)?, path.0)));
    let mut places = Places::adopt(program, &config, lock, spool_lock)?;
    if let Err(error) = places.write_pid() {
        // The number in the file is this one already.
        log::error!("restart: {error}");
    }
    let (config, ready) = (Arc::new(config), Ready::nobody());
    let restarts = Restarts::new(restart::life(), inheritance.common().restart);
    let inheritance = Some((inheritance, descriptors));
    Ok(Start { program, config, load, places, ready, image, restarts, acting, inheritance })
}

/// The trial has read these files a moment ago. Who writes one just now is given a moment: the
/// children go on meanwhile, and without a configuration all of them would have to end. Gives what
/// was wrong at first, too.
fn load_anew(load: Load, file: &Path) -> Result<(Config, Vec<String>), ConfigErrors> {
    let mut stumbles = Vec::new();
    for _ in 1..LOAD_ATTEMPTS {
        match load(file) {
            Ok(config) => return Ok((config, stumbles)),
            Err(ConfigErrors(problems)) => stumbles = problems.iter().map(ToString::to_string).collect(),
        }
        // There is no loop yet that could wait: the children serve on, and what comes for this
        // process stays queued.
        std::thread::sleep(LOAD_PAUSE);
    }
    load(file).map(|config| (config, stumbles))
}

/// What `lon check` would say stands in the log too.
fn warn(config: &Config) {
    config.warnings.iter().for_each(|problem| log::warn!("{problem}"));
}

/// The same arguments, none of which depends on the working directory or the environment.
fn arguments_anew(arguments: &Arguments, file: &Path) -> Vec<std::ffi::OsString> {
    let mut anew = vec!["--config".into(), file.into()];
    if arguments.foreground {
        anew.push("--foreground".into());
    }
    anew
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::PidLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_second_start_is_refused_while_the_first_runs() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hosts.tab"), "me:d:library:localhost:127.0.0.1\n").unwrap();
        let file = folder.path().join("lonnet.toml");
        std::fs::write(&file, "id = \"me\"\n").unwrap();
        let config = Config::load(&file).unwrap();
        std::fs::create_dir(&config.run_dir).unwrap();
        refuse_second("lonc", &config).unwrap();
        let mut lock = PidLock::take(&pid_file("lonc", &config)).unwrap();
        lock.write_pid().unwrap();
        let error = refuse_second("lonc", &config).unwrap_err().to_string();
        assert!(error.starts_with(&format!("start: already running with pid {} (", std::process::id())));
        refuse_second("lond", &config).unwrap();
    }

    #[test]
    fn a_file_that_somebody_writes_just_when_a_program_takes_over_is_read_again() {
        static HALF_WRITTEN: AtomicU32 = AtomicU32::new(3);
        fn load(file: &Path) -> Result<Config, ConfigErrors> {
            if HALF_WRITTEN
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
            {
                std::fs::write(file, "id = \"me\nhosts").unwrap();
            } else {
                std::fs::write(file, "id = \"me\"\n").unwrap();
            }
            Config::load(file)
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hosts.tab"), "me:d:library:localhost:127.0.0.1\n").unwrap();
        let (config, stumbles) = load_anew(load, &folder.path().join("lonnet.toml")).unwrap();
        assert!(!stumbles.is_empty(), "what was wrong the last time is told");
        assert_eq!(config.id.as_str(), "me");
        assert_eq!(HALF_WRITTEN.load(Ordering::SeqCst), 0);
    }
}
