//! Link children look again for a while before they sleep where they are told to, and nowhere else.

use crate::common::handler::Program as Handler;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::preload;
use crate::common::program::Program;
use std::fs;
use std::path::Path;

/// With the library that says who gives way, which a process does that looks again.
fn start(host: &Host, name: &'static str, library: &Path) -> Program {
    let mut command = host.command(name);
    command.env("LD_PRELOAD", library);
    host.start(command, name)
}

/// Whether the program's child has given way, by what the library said.
fn gives_way(host: &Host, name: &str, program: &Program) -> bool {
    let said = fs::read_to_string(host.dir.join(format!("{name}.stderr"))).expect("what it said");
    let line = format!("gives way: {}", program.only_child());
    said.lines().any(|said| said == line)
}

#[test]
fn children_look_again_before_they_sleep_where_they_are_told_to_and_nowhere_else() {
    const MANY: usize = 2000;
    for wanted in [false, true] {
        let network = Network::secure(&[CALLER, CALLED]);
        let (mut one, mut other) = (network.host(CALLER), network.host(CALLED));
        let Some(library) = preload::library("network/yields.c", network.dir()) else { return };
        let echo = other.handler("echo");
        if wanted {
            one.set("lonc", "busy_poll", "\"1ms\"");
            other.set("lond", "busy_poll", "\"1ms\"");
        }
        let _handler = Handler::start(&echo, |line| Some(line.to_vec()));
        let (lond, lonc) = (start(&other, "lond", &library), start(&one, "lonc", &library));
        one.wait_link(CALLED, "up");
        let mut program = one.connect(CALLED);
        let both = || gives_way(&one, "lonc", &lonc) && gives_way(&other, "lond", &lond);
        let asked = (0..MANY).take_while(|_| {
            assert_eq!(program.ask("echo:x"), "echo:x");
            !both()
        });
        if wanted {
            assert!(asked.count() < MANY, "they never look again");
        } else {
            assert_eq!(asked.take(200).count(), 200);
            assert!(!gives_way(&one, "lonc", &lonc) && !gives_way(&other, "lond", &lond));
        }
    }
}
