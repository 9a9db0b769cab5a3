//! The commonest arrangement: a real `lonc` of msua1, and a scripted lond that is msul1.

use super::fake_lond::FakeLond;
use super::network::{Host, Network};
use super::program::Program;

/// The host that calls.
pub const CALLER: &str = "msua1";
/// The host that is called.
pub const CALLED: &str = "msul1";

/// A broker and the other end of its only link. Fields are dropped in this order.
pub struct Pair {
    pub lonc: Program,
    pub fake: FakeLond,
    pub host: Host,
    pub network: Network,
}

impl Pair {
    /// Both running, the link up.
    pub fn up() -> Pair {
        Pair::up_with(|_| {})
    }

    /// Both running with some settings of the caller's, the link up.
    pub fn up_with(configure: impl FnOnce(&mut Host)) -> Pair {
        let pair = Pair::prepare(configure, |fake| fake.listen());
        pair.host.wait_link(CALLED, "up");
        pair
    }

    /// The broker runs, the other host is away, and the broker knows it.
    pub fn down() -> Pair {
        Pair::down_with(|_| {})
    }

    /// The broker runs with some settings, the other host is away, and the broker knows it.
    pub fn down_with(configure: impl FnOnce(&mut Host)) -> Pair {
        let pair = Pair::prepare(configure, |_| {});
        pair.host.wait_link(CALLED, "down");
        pair
    }

    /// The broker is started after `script` has had the fake.
    pub fn prepare(configure: impl FnOnce(&mut Host), script: impl FnOnce(&mut FakeLond)) -> Pair {
        let network = Network::new(&[CALLER, CALLED]);
        let mut host = network.host(CALLER);
        configure(&mut host);
        let mut fake = FakeLond::away(CALLED, CALLER, network.address(CALLED));
        script(&mut fake);
        let lonc = host.lonc();
        Pair { lonc, fake, host, network }
    }

    /// One request on a connection of its own.
    pub fn ask(&self, request: &str) -> String {
        self.host.ask(CALLED, request)
    }

    /// The other host comes back, and the broker is told to try at once.
    pub fn come_back(&mut self) {
        self.fake.behave();
        self.fake.listen();
        self.dial_now();
    }

    /// Tells the broker to dial now, and waits until the link is up.
    pub fn dial_now(&self) {
        self.lonc.signal(nix::sys::signal::Signal::SIGUSR1);
        self.host.wait_link(CALLED, "up");
    }

    /// Starts the broker again after it was killed or stopped.
    pub fn restart(self) -> Pair {
        let Pair { lonc, fake, host, network } = self;
        drop(lonc);
        let lonc = host.lonc();
        Pair { lonc, fake, host, network }
    }

    /// Kills the supervisor with `kill -9` and starts it again.
    pub fn kill_and_restart(self) -> Pair {
        let Pair { lonc, fake, host, network } = self;
        lonc.kill();
        let lonc = host.lonc();
        Pair { lonc, fake, host, network }
    }
}
