//! A program behind `lond` that counts what it is asked to do.

use super::handler;
use super::network::Host;
use std::sync::{Arc, Mutex};

/// A handler `do:`, which keeps every line that it was given: each is an effect.
pub struct Counter {
    done: Arc<Mutex<Vec<String>>>,
    _program: handler::Program,
}

impl Counter {
    /// Listens as the handler `do` of a host.
    pub fn start(host: &mut Host) -> Counter {
        let socket = host.handler("do");
        let done: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = done.clone();
        let program = handler::Program::start(&socket, move |line| {
            kept.lock().expect("done").push(String::from_utf8_lossy(line).into_owned());
            Some(b"ok".to_vec())
        });
        Counter { done, _program: program }
    }

    /// All that was done, in its order.
    pub fn done(&self) -> Vec<String> {
        self.done.lock().expect("done").clone()
    }
}
