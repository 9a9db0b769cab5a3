//! The commonest arrangements on the secure wire: a real `lonc` and a scripted lond, or two whole
//! hosts.

pub use super::counter::Counter;
use super::network::{Host, Network};
use super::pair::{CALLED, CALLER};
use super::program::Program;
use super::secure_lond::SecureLond;
use nix::sys::signal::Signal;

/// A broker and the other end of its only link. Fields are dropped in this order.
pub struct SecurePair {
    pub lonc: Program,
    pub fake: SecureLond,
    pub host: Host,
    pub network: Network,
}

impl SecurePair {
    /// Both running, the link up.
    pub fn up() -> SecurePair {
        SecurePair::up_with(|_| {})
    }

    /// Both running with some settings of the caller's, the link up.
    pub fn up_with(configure: impl FnOnce(&mut Host)) -> SecurePair {
        let pair = SecurePair::prepare(configure, |fake| fake.listen());
        pair.host.wait_link(CALLED, "up");
        pair
    }

    /// The broker is started after `script` has had the fake.
    pub fn prepare(configure: impl FnOnce(&mut Host), script: impl FnOnce(&mut SecureLond)) -> SecurePair {
        let network = Network::secure(&[CALLER, CALLED]);
        let mut host = network.host(CALLER);
        configure(&mut host);
        let mut fake = SecureLond::away(CALLED, network.key(CALLED), network.address(CALLED));
        script(&mut fake);
        let lonc = host.lonc();
        SecurePair { lonc, fake, host, network }
    }

    /// One request on a connection of its own.
    pub fn ask(&self, request: &str) -> String {
        self.host.ask(CALLED, request)
    }

    /// Tells the broker to dial now, and waits until the link is up.
    pub fn dial_now(&self) {
        self.lonc.signal(Signal::SIGUSR1);
        self.host.wait_link(CALLED, "up");
    }

    /// Kills the supervisor with `kill -9` and starts it again.
    pub fn kill_and_restart(self) -> SecurePair {
        let SecurePair { lonc, fake, host, network } = self;
        lonc.kill();
        let lonc = host.lonc();
        SecurePair { lonc, fake, host, network }
    }
}

/// Two whole hosts, the first with a `lonc`, the second with a `lond` and a program behind it that
/// counts what it does. The programs are started by the test.
pub struct TwoHosts {
    pub one: Host,
    pub other: Host,
    pub counter: Counter,
    pub network: Network,
}

impl TwoHosts {
    /// Nothing runs yet but the program behind `lond`.
    pub fn new() -> TwoHosts {
        let network = Network::secure(&[CALLER, CALLED]);
        let (one, mut other) = (network.host(CALLER), network.host(CALLED));
        let counter = Counter::start(&mut other);
        TwoHosts { one, other, counter, network }
    }

    /// Starts both, and waits for the link.
    pub fn start(&self) -> (Program, Program) {
        let lond = self.other.lond();
        let lonc = self.one.lonc();
        self.one.wait_link(CALLED, "up");
        (lonc, lond)
    }
}
