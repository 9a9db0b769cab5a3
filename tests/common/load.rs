//! A program that sends numbered critical messages, one after the other, whatever happens to the
//! broker.

use super::local::Local;
use super::wait;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running sender.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Vec<u64>>,
}

impl Load {
    /// Sends `critical:log:<name>-<number>` until told to stop.
    pub fn start(socket: &Path, name: &str) -> Load {
        Load::start_as(socket, &format!("critical:log:{name}-"))
    }

    /// Sends `<request><number>` until told to stop.
    pub fn start_as(socket: &Path, request: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (stop, acknowledged, socket) = (stop.clone(), acknowledged.clone(), socket.to_owned());
            let request = request.to_owned();
            move || send(&stop, &acknowledged, &socket, &request)
        });
        Load { stop, acknowledged, thread }
    }

    /// Messages that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until `more` messages were acknowledged from now on: the load is really running.
    pub fn wait_for_more(&self, more: u64) {
        let from = self.acknowledged();
        wait::until_true("the load to go on", || self.acknowledged() >= from + more);
    }

    /// Stops; gives the numbers that were acknowledged, in their order.
    pub fn finish(self) -> Vec<u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the load")
    }
}

fn send(stop: &AtomicBool, acknowledged: &AtomicU64, socket: &Path, request: &str) -> Vec<u64> {
    let mut kept = Vec::new();
    let mut connection: Option<Local> = None;
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Some(open) = connection.as_mut() else {
            connection = Local::try_connect(socket).ok();
            if connection.is_none() {
                // Only while no broker runs at all; its clients would pause, too.
                wait::let_pass(Duration::from_millis(5));
            }
            continue;
        };
        match open.try_ask(&format!("{request}{number}")).as_deref() {
            Ok("ok" | "con_delayed") => {
                kept.push(number);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Ok("con_failed") => {}
            Ok(other) => panic!("a critical message was answered {other:?}"),
            Err(_) => connection = None,
        }
    }
    kept
}

/// Checks that every acknowledged message is among what was received, first occurrences in the
/// order of sending.
pub fn assert_all_arrived(name: &str, acknowledged: &[u64], received: &[String]) {
    let prefix = format!("log:{name}-");
    let mut first_seen = std::collections::HashMap::new();
    for (position, text) in received.iter().enumerate() {
        if let Some(number) = text.strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok()) {
            first_seen.entry(number).or_insert(position);
        }
    }
    let missing: Vec<_> = acknowledged.iter().filter(|number| !first_seen.contains_key(number)).collect();
    assert!(missing.is_empty(), "{} of {} never arrived: {missing:?}", missing.len(), acknowledged.len());
    for pair in acknowledged.windows(2) {
        let (earlier, later) = (first_seen[&pair[0]], first_seen[&pair[1]]);
        assert!(earlier < later, "message {} came before message {}", pair[1], pair[0]);
    }
}

/// Whether every acknowledged message is among what was received.
pub fn all_arrived(name: &str, acknowledged: &[u64], received: &[String]) -> bool {
    let received: std::collections::HashSet<&str> = received.iter().map(String::as_str).collect();
    acknowledged.iter().all(|number| received.contains(format!("log:{name}-{number}").as_str()))
}
