//! Waiting for a condition, with a deadline; a gate that a test opens.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything that will happen may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// How many of something a test has: few in the usual run, as many as the bounds are about where
/// `LONNET_AT_SCALE` is set.
pub fn figure(usual: usize, at_scale: usize) -> usize {
    if std::env::var_os("LONNET_AT_SCALE").is_some() { at_scale } else { usual }
}

/// Waits until `look` finds something.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    patiently(look).unwrap_or_else(|| panic!("waited {:?} in vain for: {what}", patience()))
}

/// [`PATIENCE`], or more of it where a test has more of everything.
fn patience() -> Duration {
    PATIENCE * u32::try_from(figure(1, 10)).expect("a small number")
}

/// What `look` found, or nothing when patience ended first.
pub fn patiently<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    within(patience(), look)
}

/// What `look` found, or nothing when this time was over first.
pub fn within<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `holds` is true.
pub fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}

/// Lets time itself pass, where that is what a test is about: an idle second, a pause of a
/// caller's.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// Closed at first; whoever waits at it goes on when it is opened.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everyone through from now on.
    pub fn open(&self) {
        *self.0.0.lock().expect("gate") = true;
        self.0.1.notify_all();
    }

    /// Waits until the gate is open.
    pub fn pass(&self) {
        let open = self.0.0.lock().expect("gate");
        let (_open, waited) = self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).expect("gate");
        assert!(!waited.timed_out(), "a gate was not opened within {PATIENCE:?}");
    }
}
