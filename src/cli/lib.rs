//! `lon`: one file a subcommand.
//!
//! Answers and tables go to standard output, errors to standard error as `lon: verb object: cause`.
//! Exit codes: 0 answered (or done); 1 our own error; 2 usage; 3 `con_lost`; 4 `con_delayed`; 5
//! `con_failed`; 6 answered `refused` or `unknown_cmd`; 7 answered `error:...`; of several requests
//! the highest. A standard output that nobody reads any more ends the program with 1 and without a
//! word.

mod admin;
mod bearings;
mod bench;
mod check;
mod critical;
mod exchange;
pub mod explain;
mod init;
mod local;
mod pin;
mod queue;
mod reload;
mod reply;
mod rotate;
mod status;
mod stop;
mod terminal;
mod wait;

use ::base::HostId;
use ::config::{Config, ConfigErrors};
use ::owner::{Owner, confine};
use ::supervise::startup::DEFAULT_CONFIG;
use ::wire::secure::KeyError;
use bearings::Bearings;
use clap::{Parser, Subcommand};
use nix::poll::PollTimeout;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Names the configuration where no argument does.
const CONFIG_VARIABLE: &str = "LONNET_CONFIG";

/// Longest time that an argument may say.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);

/// Asks the hosts of a network, and shows what its links do.
#[derive(Debug, Parser)]
#[command(name = "lon", version, max_term_width = 100)]
struct Arguments {
    /// The configuration of this host, lonnet.toml.
    #[arg(
        long,
        global = true,
        env = CONFIG_VARIABLE,
        default_value = DEFAULT_CONFIG,
        value_name = "FILE"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a folder with a configuration to start from.
    Init(init::Arguments),
    /// Say what is wrong with the configuration; touch nothing.
    Check(check::Arguments),
    /// Print this host's line for hosts.pins; both lines while a new key waits.
    Pin(pin::Arguments),
    /// Change this host's key, in three steps; without an option: where that stands, and what is
    /// next.
    Rotate(rotate::Arguments),
    /// Send requests to a host and print their answers.
    ///
    /// Exit code: 0 answered, 1 an error of lon's own, 2 usage, 3 con_lost (no answer to be had), 6
    /// refused or unknown_cmd, 7 error:... ; of several requests the highest.
    Reply(Asked),
    /// Send requests that arrive once, if not now then later: what cannot be sent now is stored.
    ///
    /// Exit code: 0 answered, 1 an error of lon's own, 2 usage, 4 con_delayed (it is on disk, and
    /// will be sent), 5 con_failed (it could not be kept), 6 refused or unknown_cmd, 7 error:... ;
    /// of several requests the highest.
    Critical(Asked),
    /// Measure how long requests to a host take, and how many there can be. It puts that load on
    /// the link.
    Bench(bench::Arguments),
    /// Say what a line of the log means, and what to do.
    Explain(explain::Arguments),
    /// Have the running programs read their configuration again; links that it does not change
    /// stay.
    Reload,
    /// Show what the links do; with a host: all about its link.
    Status(status::Arguments),
    /// Wait until links are up, or nothing waits for their hosts any more.
    Wait(wait::Arguments),
    /// End lonc, lond and lonsvc in order, and wait until they have ended.
    Stop(stop::Arguments),
    /// Show what waits to be sent.
    #[command(args_conflicts_with_subcommands = true)]
    Queue {
        #[command(subcommand)]
        command: Option<QueueCommand>,
        /// The messages of this host; one with the id `check` stands behind `--`.
        peer: Option<String>,
        /// Show each request whole, not just what fits the line.
        #[arg(long, requires = "peer")]
        full: bool,
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Read all that is stored and say what is damaged; touch nothing.
    Check {
        /// Only what is stored for this host, and what it was answered.
        peer: Option<String>,
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A host, and what to ask it.
#[derive(Debug, clap::Args)]
struct Asked {
    /// Id of a host of hosts.tab.
    peer: String,
    /// One request, `log:text` say; without it, a request a line from standard input.
    request: Option<OsString>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// This host's key is missing or no good, or could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system refused something, or another program did not keep to its part.
    #[error("{verb} {object}: {cause}")]
    Did { verb: &'static str, object: String, cause: String },
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody reads standard output any more.
    #[error("write standard output: {0}")]
    Output(io::Error),
}

impl Failure {
    fn did(verb: &'static str, object: impl ToString, cause: impl ToString) -> Failure {
        Failure::Did { verb, object: object.to_string(), cause: cause.to_string() }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Config(_) | Failure::Key(_) | Failure::Did { .. } | Failure::Output(_) => 1,
        }
    }
}

/// Runs `lon` with the arguments of this process. Wrong arguments end the process here, with 2.
pub fn main() -> ExitCode {
    // What it stores for a broker that is away is stored or fails, like the broker's own.
    ::supervise::signals::ignore_file_limit();
    let arguments = Arguments::parse();
    if let Err(error) = confine::confine() {
        complain(format_args!("set up the process: {error}"));
        return ExitCode::FAILURE;
    }
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            match &failure {
                Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Failure::Config(errors) => errors.0.iter().for_each(complain),
                told => complain(told),
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<u8, Failure> {
    let file = &arguments.config;
    match arguments.command {
        Command::Init(init) => init::run(&init),
        Command::Check(arguments) => check::run(file, &arguments),
        Command::Pin(arguments) => pin::run(&Config::load(file)?, &arguments),
        Command::Rotate(arguments) => rotate::run(&Config::load(file)?, &arguments),
        Command::Reply(asked) => reply::run(&Bearings::take(file)?, &asked),
        Command::Critical(asked) => critical::run(&Bearings::take(file)?, &asked),
        Command::Bench(arguments) => bench::run(&Bearings::take(file)?, &arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Reload => reload::run(&Config::load(file)?),
        Command::Status(arguments) => status::run(file, &arguments),
        Command::Wait(arguments) => wait::run(&Bearings::take(file)?, &arguments),
        Command::Stop(arguments) => stop::run(&Bearings::take(file)?.config, &arguments),
        Command::Queue { command: Some(QueueCommand::Check { peer, json }), .. } => {
            let bearings = Bearings::take(file)?;
            as_service_user(&bearings.config, || queue::check::run(&bearings, peer.as_deref(), json))
        }
        Command::Queue { command: None, peer, full, json } => {
            let bearings = Bearings::take(file)?;
            as_service_user(&bearings.config, || queue::run(&bearings, peer.as_deref(), full, json))
        }
    }
}

/// What root would do with the service's files is done with the rights of the user that they belong
/// to: whoever has these can put links and pipes in their place.
fn as_service_user<T>(config: &Config, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let owner = service_user(config)?;
    let acting = owner.as_ref().map(Owner::act).transpose();
    let _acting =
        acting.map_err(|error| Failure::did("act as", config.user.as_deref().unwrap_or("?"), error))?;
    work()
}

/// The user that the programs become, where this is root and that is another.
fn service_user(config: &Config) -> Result<Option<Owner>, Failure> {
    let user = config.user.as_deref().unwrap_or_default();
    Owner::beside_root(config).map_err(|error| Failure::did("become", user, error))
}

/// `lon COMMAND` as a person has to type it for the configuration in `file`.
fn typed(file: &Path, command: &str) -> String {
    let named = std::env::var_os(CONFIG_VARIABLE);
    let named = named.and_then(|named| std::path::absolute(named).ok());
    let found_anyway = named.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG)) == file;
    if found_anyway {
        return format!("lon {command}");
    }
    let file = file.display().to_string();
    let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte));
    let file = if plain { file } else { format!("'{}'", file.replace('\'', "'\\''")) };
    format!("lon --config {file} {command}")
}

/// A length of time as an argument has it: `30s`, `2m`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "want a time like 30s, 2m or 500ms".to_owned();
    let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(signed).ok().filter(|duration| *duration <= LONGEST_WAIT).ok_or_else(wrong)
}

/// What is left until `deadline`, as `poll` takes it: rounded up, so that it is over then.
fn patience(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// One line to standard error. That it cannot be written has nowhere to be said.
fn complain(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "lon: {what}");
}

/// Writes to standard output, at once.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).map_err(Failure::Output)
}

/// The host that an argument names: one of the table other than this one.
fn known_peer(config: &Config, text: &str) -> Result<HostId, Failure> {
    let id = HostId::new(text).map_err(|what| Failure::did("ask", format!("{text:?}"), what))?;
    match config.peer(&id) {
        Some(peer) => Ok(peer.host.id.clone()),
        None if id == config.id => {
            Err(Failure::did("ask", &id, "is this host itself: there is no link to it"))
        }
        None => Err(Failure::did("ask", &id, format!("has no line in {}", config.hosts_file.display()))),
    }
}
