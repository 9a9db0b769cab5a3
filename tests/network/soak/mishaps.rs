//! What happens to a network during a soak, drawn from a seed: pure. The same seed gives the same
//! mishaps with the same pauses between them; what the kernel and the processes make of them is
//! theirs.

use std::time::Duration;

/// Which of the two hosts, by its place.
pub type Place = usize;

/// A supervising program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    Lonc,
    Lond,
}

impl Daemon {
    /// Both.
    pub const ALL: [Daemon; 2] = [Daemon::Lonc, Daemon::Lond];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Daemon::Lonc => "lonc",
            Daemon::Lond => "lond",
        }
    }
}

/// Which processes of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Children,
    Supervisor,
    All,
}

/// Which disk of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// The delayed directory.
    Spool,
    /// What `lond` remembers, below it.
    Record,
}

/// One mishap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// `kill -9`.
    Kill(Place, Daemon, Who),
    /// `kill -9` of every process of a host.
    KillHost(Place),
    /// SIGSTOP, and SIGCONT after this time.
    Stop(Place, Daemon, Who, Duration),
    /// No byte of a disk stays free for this time.
    Fill(Place, Disk, Duration),
    /// HUP.
    Restart(Place, Daemon),
    /// USR1.
    Probe(Place, Daemon),
    /// `lon reload`, with a change that concerns the link (or without one).
    Reload(Place, bool),
}

/// Mishaps without end, each with the pause before it.
#[derive(Debug)]
pub struct Mishaps(fastrand::Rng);

impl Mishaps {
    /// Those of a seed.
    pub fn new(seed: u64) -> Mishaps {
        Mishaps(fastrand::Rng::with_seed(seed))
    }

    /// The next pause and mishap.
    pub fn draw(&mut self) -> (Duration, Mishap) {
        let pause = self.millis(20..350);
        let (place, daemon, who) = (self.0.usize(..2), self.daemon(), self.who());
        let mishap = match self.0.u8(..20) {
            0..=9 => Mishap::Kill(place, daemon, who),
            10 => Mishap::KillHost(place),
            11..=13 => Mishap::Stop(place, daemon, who, self.millis(10..2000)),
            14 => Mishap::Fill(place, Disk::Spool, self.filled()),
            15 => Mishap::Fill(place, Disk::Record, self.filled()),
            16 | 17 => Mishap::Restart(place, daemon),
            18 => Mishap::Probe(place, daemon),
            _ => Mishap::Reload(place, self.0.bool()),
        };
        (pause, mishap)
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.0.u64(range))
    }

    /// Now and then for longer than `lond` is patient with its record.
    fn filled(&mut self) -> Duration {
        if self.0.u8(..4) == 0 { self.millis(6000..9000) } else { self.millis(100..3000) }
    }

    fn daemon(&mut self) -> Daemon {
        if self.0.bool() { Daemon::Lonc } else { Daemon::Lond }
    }

    fn who(&mut self) -> Who {
        match self.0.u8(..4) {
            0 | 1 => Who::Children,
            2 => Who::Supervisor,
            _ => Who::All,
        }
    }
}

#[test]
fn a_seed_gives_the_same_mishaps_again_and_in_time_every_kind() {
    let of = |seed| {
        let mut mishaps = Mishaps::new(seed);
        (0..500).map(|_| mishaps.draw()).collect::<Vec<_>>()
    };
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
    let kinds: std::collections::HashSet<_> =
        of(7).iter().map(|(_, mishap)| std::mem::discriminant(mishap)).collect();
    assert_eq!(kinds.len(), 7);
}
