//! Two whole hosts with a router between them, and what is looked at in every test.
//!
//! ```text
//! msua1  10.77.1.2 ── 10.77.1.1  the middle  10.77.2.1 ── 10.77.2.2  msul1
//! ```
//!
//! Each host runs `lonc` and `lond` and calls the other, with timers so short that a fault is found
//! in seconds.

use crate::common::counter::Counter;
use crate::common::handler;
use crate::common::network::{Host, Network};
use crate::common::process;
use crate::common::program::Program;
use crate::common::tally::Tally;
use crate::common::wait;
use crate::space::{self, Space};
use crate::traffic::{Sent, Traffic};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The two hosts.
pub const ONE: &str = "msua1";
pub const OTHER: &str = "msul1";
/// Their addresses.
pub const ONE_IP: &str = "10.77.1.2";
pub const OTHER_IP: &str = "10.77.2.2";
/// Where every `lond` listens, in a network of its own.
pub const PORT: u16 = 5663;

/// A silence of one of them and three more ends a link on the secure wire; what is in flight then
/// has time left.
const HEARTBEAT: Duration = Duration::from_millis(500);
const SECURE_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A request that waits twice as long on a link on which nothing comes ends it on the classic wire.
const CLASSIC_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a dial may take, TCP and TLS, and then each step of the opening.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const OPENING_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause before another dial, and what each may be at least.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What a busy machine may add to anything.
pub const BUSY: Duration = Duration::from_secs(15);

/// How soon a link is up when the fault that lasted so long is over: the pause that is under way is
/// at most twice as long as all that went before it and the first, and then comes a dial.
pub fn healed_within(outage: Duration) -> Duration {
    (outage * 2 + FIRST_PAUSE).min(LONGEST_PAUSE) + CONNECT_TIMEOUT + OPENING_TIMEOUT + BUSY
}

/// When a fault began.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    mono: Instant,
    wall: Timestamp,
}

impl Fault {
    /// Now, before it is made.
    pub fn begins() -> Fault {
        Fault { mono: Instant::now(), wall: Timestamp::now() }
    }

    /// How long it lasts by now.
    pub fn lasted(self) -> Duration {
        self.mono.elapsed()
    }
}

/// The two hosts. Fields are dropped in this order.
pub struct World {
    pub one: Site,
    pub other: Site,
    /// Both links are used.
    traffic: Option<(Traffic, Traffic)>,
    pub middle: Space,
    network: Network,
    secure: bool,
    /// Messages that a power failure may have done twice.
    repeats: usize,
}

/// One host: its programs, and its place in the network. Fields are dropped in this order.
pub struct Site {
    pub lonc: Option<Program>,
    pub lond: Option<Program>,
    pub host: Host,
    pub counter: Counter,
    _echo: handler::Program,
    pub space: Space,
    /// Whom it calls.
    pub peer: &'static str,
    /// How soon it finds a dead link.
    found_within: Duration,
    /// By the loads that have ended.
    sent: Sent,
    /// What its programs find in their environment.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl World {
    /// Both hosts up and linked both ways, with load on both links; nothing where this machine does
    /// not allow it.
    pub fn up(secure: bool) -> Option<World> {
        World::up_with(secure, |_| {})
    }

    /// The same, with settings of the caller's.
    pub fn up_with(secure: bool, configure: impl FnOnce(&mut World)) -> Option<World> {
        let mut world = World::prepare(secure)?;
        configure(&mut world);
        world.start();
        world.flows();
        Some(world)
    }

    /// Nothing runs yet.
    pub fn prepare(secure: bool) -> Option<World> {
        if !space::can_be_made() {
            return None;
        }
        let place = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), PORT);
        let network = Network::placed(&[(ONE, place(ONE_IP)), (OTHER, place(OTHER_IP))], secure);
        let middle = Space::new();
        middle.must("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], "");
        let one = Site::new(&network, ONE, OTHER, secure, &middle);
        let other = Site::new(&network, OTHER, ONE, secure, &middle);
        Some(World { one, other, traffic: None, middle, network, secure, repeats: 0 })
    }

    /// Starts everything, and the load when both links are up.
    pub fn start(&mut self) {
        for site in [&mut self.one, &mut self.other] {
            site.start_lond();
            site.start_lonc();
        }
        for site in [&self.one, &self.other] {
            site.host.wait_link(site.peer, "up");
        }
        self.load();
    }

    /// Puts load on both links.
    pub fn load(&mut self) {
        self.traffic = Some((self.one.begin_traffic(), self.other.begin_traffic()));
    }

    /// The load on the links of the first host and the other.
    pub fn traffic(&self) -> [&Traffic; 2] {
        let (one, other) = self.traffic.as_ref().expect("a load");
        [one, other]
    }

    /// Waits until everything is answered by the other host again, both ways.
    pub fn flows(&self) {
        self.traffic().iter().for_each(|traffic| traffic.flows(20));
    }

    /// Waits until the link of each host is found dead, in the documented time; says what the
    /// statuses said then.
    pub fn found_dead(&self, fault: Fault) -> [Value; 2] {
        [&self.one, &self.other].map(|site| site.found_dead(fault))
    }

    /// Lets everything pass again, and waits as [`World::healed`] does.
    pub fn heal(&self, fault: Fault) {
        self.middle.faults("");
        self.healed(fault);
    }

    /// Waits until both links are up, which may take as long as documented after a fault that
    /// lasted until now.
    pub fn healed(&self, fault: Fault) {
        let (outage, from) = (fault.lasted(), Instant::now());
        for site in [&self.one, &self.other] {
            site.host.wait_link(site.peer, "up");
        }
        let took = from.elapsed();
        assert!(took < healed_within(outage), "after {outage:?} the links were up in {took:?}");
    }

    /// Ends the load. Then every message that was acknowledged is done, in order, and on the secure
    /// wire once.
    pub fn rest(&mut self) {
        let (one, other) = self.traffic.take().expect("a load");
        let repeats = if self.secure { self.repeats } else { usize::MAX };
        (self.one.sent, self.other.sent) = (one.finish(), other.finish());
        self.one.settle(&self.other.counter, repeats);
        self.other.settle(&self.one.counter, repeats);
    }

    /// The other host loses its power: no packet leaves it any more, its processes are gone, its
    /// network too.
    pub fn power_off_the_other(&mut self) {
        self.traffic.iter().for_each(|(_, of_the_other)| of_the_other.may_break());
        self.middle.faults("drop");
        let programs =
            [self.other.lonc.take(), self.other.lond.take()].map(|program| program.expect("it runs"));
        let children: Vec<u32> = programs.iter().flat_map(Program::children).collect();
        programs.into_iter().for_each(Program::kill);
        children.iter().for_each(|&child| process::signal(child, Signal::SIGKILL));
        wait::until_true("its children to be gone", || !children.iter().any(|&child| process::alive(child)));
        self.middle.ip("link del to2\n");
        self.other.space = Space::new();
        // The one message that was in the handler and not in the record.
        self.repeats += 1;
    }

    /// It has power again: another kernel, the same address.
    pub fn power_on_the_other(&mut self) {
        self.other.plug_in(&self.middle);
        self.middle.faults("");
        self.other.start_lond();
        self.other.start_lonc();
    }

    /// Replaces the text of the `hosts.tab` that both hosts read.
    pub fn write_table(&self, text: &str) {
        self.network.write_table(text);
    }

    /// Ends the load, as [`World::rest`] does. Nothing panicked or is worth a person's look, and
    /// the logs of each host have at most so many lines.
    pub fn finish(mut self, log_lines: usize) {
        self.flows();
        self.rest();
        for site in [&self.one, &self.other] {
            site.quiet_logs(log_lines);
        }
    }
}

impl Site {
    fn new(network: &Network, id: &str, peer: &'static str, secure: bool, middle: &Space) -> Site {
        let mut host = network.host(id);
        let milliseconds = |time: Duration| format!("\"{}ms\"", time.as_millis());
        for section in ["lonc", "lond"] {
            host.set(section, "heartbeat", &milliseconds(HEARTBEAT));
            host.set(section, "heartbeat_missed", "3");
        }
        let request_timeout = if secure { SECURE_REQUEST_TIMEOUT } else { CLASSIC_REQUEST_TIMEOUT };
        host.set("lonc", "request_timeout", &milliseconds(request_timeout));
        host.set("lonc", "connect_timeout", &milliseconds(CONNECT_TIMEOUT));
        host.set("lonc", "opening_timeout", &milliseconds(OPENING_TIMEOUT));
        let counter = Counter::start(&mut host);
        let echo = handler::Program::echo(&host.handler("echo"));
        let space = Space::new();
        let (sent, environment) = (Sent::default(), Vec::new());
        let found_within = if secure { HEARTBEAT * 4 } else { CLASSIC_REQUEST_TIMEOUT * 2 };
        let site = Site {
            lonc: None,
            lond: None,
            host,
            counter,
            _echo: echo,
            space,
            peer,
            found_within,
            sent,
            environment,
        };
        site.plug_in(middle);
        site
    }

    /// Its side of the network: 1 or 2.
    fn side(&self) -> u8 {
        if self.host.address.ip().to_string() == ONE_IP { 1 } else { 2 }
    }

    /// Makes the cable between its interface `net` and the middle, and gives it its address and its
    /// way out.
    pub fn plug_in(&self, middle: &Space) {
        let (side, pid) = (self.side(), self.space.pid());
        middle.ip(&format!(
            "link add name to{side} type veth peer name net netns {pid}\n\
             addr add 10.77.{side}.1/24 dev to{side}\n\
             link set to{side} up\n"
        ));
        self.space.ip(&format!(
            "addr add 10.77.{side}.2/24 dev net\n\
             link set net up\n\
             route add default via 10.77.{side}.1\n"
        ));
    }

    /// Starts `lonc` in its network.
    pub fn start_lonc(&mut self) {
        self.lonc = Some(self.start("lonc", env!("CARGO_BIN_EXE_lonc")));
    }

    /// Starts `lond` in its network, and waits until it listens.
    pub fn start_lond(&mut self) {
        let lond = self.start("lond", env!("CARGO_BIN_EXE_lond"));
        let own = |pid| format!("/proc/{pid}/net/tcp");
        let listens = |line: &str| line.contains(&format!(":{PORT:04X} ")) && line.contains(" 0A ");
        wait::until_true("lond to listen", || {
            ["tcp", "tcp6"].iter().any(|table| {
                let table = own(lond.pid()).replace("tcp", table);
                fs::read_to_string(table).unwrap_or_default().lines().any(listens)
            })
        });
        self.lond = Some(lond);
    }

    fn start(&self, name: &'static str, path: &str) -> Program {
        let mut command = self.space.command(path);
        command.arg("--config").arg(self.host.config()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        self.host.start(command, name)
    }

    fn begin_traffic(&mut self) -> Traffic {
        Traffic::start(&self.host.socket(self.peer), std::mem::take(&mut self.sent))
    }

    /// Tells `lonc` to dial now.
    pub fn dial_now(&self) {
        self.lonc.as_ref().expect("lonc runs").signal(Signal::SIGUSR1);
    }

    /// What the status says of its link.
    pub fn status(&self) -> Value {
        wait::until("a status", || self.host.status(self.peer))
    }

    /// Waits until the last error of its link says this.
    pub fn last_error(&self, what: &str) -> Value {
        wait::until(&format!("the error {what:?}"), || {
            let status = self.status();
            status["last_error"].as_str().is_some_and(|error| error.contains(what)).then_some(status)
        })
    }

    /// Waits until its link is found dead, in the documented time; it may be up again already.
    pub fn found_dead(&self, fault: Fault) -> Value {
        let status = wait::until("a dead link to be found", || {
            let status = self.status();
            (time_of(&status["since"]) > fault.wall).then_some(status)
        });
        let took = fault.lasted();
        assert!(took < self.found_within + BUSY, "{} took {took:?} to find out", self.host.address);
        status
    }

    /// The ports of the connections that it has made to the other host and that stand.
    pub fn dialled_from(&self) -> Vec<u16> {
        let table =
            fs::read_to_string(format!("/proc/{}/net/tcp", self.space.pid())).expect("read connections");
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap_or(""), 16).ok();
        let made = table.lines().skip(1).filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let to_lond = port(words.get(2)?) == Some(PORT) && words.get(3) == Some(&"01");
            to_lond.then(|| port(words[1])).flatten()
        });
        made.collect()
    }

    fn settle(&self, done_there: &Counter, repeats: usize) {
        let acknowledged = &self.sent.acknowledged;
        assert!(!acknowledged.is_empty(), "nothing was acknowledged");
        let count = || Tally::of("do:", acknowledged, &done_there.done());
        wait::until_true("all that was acknowledged to arrive", || count().lost == 0);
        let tally = count();
        let expected = Tally { messages: acknowledged.len(), repeated: tally.repeated, ..Tally::default() };
        assert_eq!(tally, expected, "from {}", self.host.address);
        assert!(tally.repeated <= repeats, "{tally:?} from {}", self.host.address);
        wait::until_true("an empty spool", || self.status()["delayed"] == 0);
    }

    fn quiet_logs(&self, at_most: usize) {
        for name in ["lonc.log", "lond.log"] {
            let log = self.host.log(name);
            let bad = log.lines().find(|line| line.contains(" ERROR ") || line.contains("panicked"));
            assert_eq!(bad, None, "{name} of {}", self.host.address);
            let lines = log.lines().count();
            assert!(lines <= at_most, "{name} of {} has {lines} lines:\n{log}", self.host.address);
        }
    }
}

/// A time in a status.
pub fn time_of(field: &Value) -> Timestamp {
    field.as_str().expect("a time").parse().expect("a time")
}
