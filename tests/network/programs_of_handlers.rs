//! Programs that `lond` runs for its handlers, asked by another host: what becomes of messages, and
//! the worked examples.

use crate::common::local::Local;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::{process, skip, wait};
use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Two whole hosts with a link.
pub struct Linked {
    _lonc: Program,
    pub lond: Program,
    pub one: Host,
    pub other: Host,
    _network: Network,
}

/// `prepare` gets the host that is called before its `lond` is started.
pub fn linked(prepare: impl FnOnce(&mut Host)) -> Linked {
    let network = Network::secure(&[CALLER, CALLED]);
    let (one, mut other) = (network.host(CALLER), network.host(CALLED));
    prepare(&mut other);
    let lond = other.lond();
    let lonc = one.lonc();
    one.wait_link(CALLED, "up");
    Linked { _lonc: lonc, lond, one, other, _network: network }
}

/// The handler `pay`: a shell script that is run for each request, in the host's folder.
pub fn pay(host: &mut Host, script: &str) {
    let file = self::script(host, &format!("read -r line\n{script}"));
    host.set("handler.pay", "exec", &format!("[{:?}]", file.to_string_lossy()));
    host.set("handler.pay", "allow", "[\"*\"]");
}

/// A shell script in the host's folder, and for it.
fn script(host: &Host, lines: &str) -> PathBuf {
    let file = host.dir.join("pay.sh");
    fs::write(&file, format!("#!/bin/sh\ncd {}\n{lines}\n", host.dir.display()))
        .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o755)))
        .expect("write a program");
    file
}

impl Linked {
    pub fn ask(&self, request: &str) -> String {
        self.one.ask(CALLED, request)
    }

    fn done(&self) -> Vec<String> {
        let text = fs::read_to_string(self.other.dir.join("done")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn failed(&self) -> Vec<String> {
        let files = fs::read_dir(self.one.spool(CALLED).join("failed")).into_iter().flatten().flatten();
        // One that is still being written has a hidden name.
        let whole = files.filter(|file| !file.file_name().as_encoded_bytes().starts_with(b"."));
        whole.map(|file| fs::read_to_string(file.path()).expect("a failed message")).collect()
    }

    fn open_gate(&self, text: &str) {
        fs::write(self.other.dir.join("gate"), text).expect("open the gate");
    }
}

#[test]
fn a_message_that_its_program_puts_off_stays_with_its_sender_and_comes_again_in_its_order() {
    let linked = linked(|host| pay(host, "[ -e gate ] || exit 75\necho \"$line\" >> done\necho ok"));
    for number in 1..=3 {
        assert_eq!(linked.ask(&format!("critical:pay:{number}")), "con_delayed");
    }
    let answer = linked.ask("pay:plain");
    assert!(answer.starts_with("error:pay: "), "{answer}");
    assert_eq!((linked.done(), linked.failed()), (Vec::<String>::new(), Vec::new()));
    linked.open_gate("");
    linked.one.wait_delivered(CALLED);
    assert_eq!(
        (linked.done(), linked.failed()),
        (["pay:1", "pay:2", "pay:3"].map(str::to_owned).into(), vec![])
    );
    assert_eq!(linked.ask("pay:plain"), "ok");
}

#[test]
fn a_message_that_its_program_took_and_broke_off_goes_to_failed_with_how_that_ended() {
    let linked = linked(|host| pay(host, "[ -e gate ] || exit 75\nexit 3"));
    assert_eq!(linked.ask("critical:pay:1"), "con_delayed");
    linked.open_gate("");
    wait::until_true("the message to be set aside", || linked.failed().len() == 1);
    assert!(linked.failed()[0].contains("error:pay: exit 3"), "{:?}", linked.failed());
    assert_eq!(linked.ask("critical:pay:2"), "error:pay: exit 3");
    assert_eq!(linked.ask("pay:3"), "error:pay: exit 3");
}

#[test]
fn messages_survive_hup_and_the_death_of_the_process_that_runs_their_program() {
    let linked = linked(|host| {
        host.set("handler.pay", "running", "4");
        pay(host, "[ -e gate ] || exit 75\necho \"$line\" >> done\necho ok");
    });
    assert_eq!(linked.ask("critical:pay:1"), "con_delayed");
    for (round, number) in (2..=30).enumerate() {
        // While it has nothing in hand: what it had begun would be nobody's to send again.
        match round {
            5 | 15 => process::signal(linked.lond.pid(), Signal::SIGHUP),
            10 | 20 => {
                let is_one = |pid: &u32| process::title(*pid).starts_with("lond: handler pay");
                let pool = linked.lond.children().into_iter().find(is_one);
                pool.into_iter().for_each(|pid| process::signal(pid, Signal::SIGKILL));
            }
            _ => {}
        }
        assert_eq!(linked.ask(&format!("critical:pay:{number}")), "con_delayed");
    }
    linked.open_gate("");
    linked.one.wait_delivered(CALLED);
    // What a process that was killed had just begun again is nobody's to send again: it has failed.
    wait::until_true("all to be done", || linked.done().len() + linked.failed().len() >= 30);
    let (done, failed) = (linked.done(), linked.failed());
    assert!(failed.len() <= 2, "no more than the processes that were killed: {failed:?}");
    let all: Vec<String> = (1..=30).map(|number| format!("pay:{number}")).collect();
    let mut rest = all.iter();
    assert!(done.iter().all(|one| rest.any(|other| other == one)), "each once, in order: {done:?}");
    assert_eq!(done.len() + failed.len(), 30);
}

/// What a program that works on until the gate is open does with a line.
const UNTIL_OPEN: &str = "echo \"$line\" >> begun\nwhile [ ! -e gate ]; do sleep 0.05; done\n\
    echo \"$line\" >> done\necho \"did $line\"";

/// One request at a time is worked on, and one waits: what comes then.
fn is_at_its_limits(linked: &Linked) {
    let mut first = linked.one.connect(CALLED);
    first.send(b"pay:first\n");
    wait::until_true("the first to be begun", || linked.other.dir.join("begun").exists());
    let mut second = linked.one.connect(CALLED);
    second.send(b"pay:second\n");
    wait::until_true("the second to wait", || {
        let status = linked.other.lond_status().unwrap_or_default();
        status["handlers"][0]["program"]["waiting"] == 1
    });
    for round in 0..3 {
        assert_eq!(linked.ask("pay:third"), "error:pay: busy", "round {round}");
    }
    let messages = ["critical:pay:1", "critical;key=K:pay:2", "critical:pay:3"];
    assert_eq!(messages.map(|message| linked.ask(message)), ["con_delayed"; 3]);
    assert_eq!(linked.ask("ping"), CALLED, "what others do goes on");
    assert_eq!((linked.done(), linked.failed()), (Vec::<String>::new(), Vec::new()));
    linked.open_gate("");
    assert_eq!((first.answer(), second.answer()), ("did pay:first".to_owned(), "did pay:second".to_owned()));
    linked.one.wait_delivered(CALLED);
    let all = ["first", "second", "1", "2", "3"].map(|what| format!("pay:{what}"));
    assert_eq!((linked.done(), linked.failed()), (all.into(), vec![]), "each once, in order");
    assert_eq!(linked.ask("pay:fourth"), "did pay:fourth");
}

#[test]
fn a_program_run_for_each_request_that_is_at_its_limits_is_busy_and_messages_wait_for_it() {
    is_at_its_limits(&linked(|host| {
        host.set("handler.pay", "running", "1").set("handler.pay", "waiting", "1");
        pay(host, UNTIL_OPEN);
    }));
}

#[test]
fn a_worker_at_its_limits_is_busy_and_messages_wait_for_it() {
    is_at_its_limits(&linked(|host| {
        host.set("handler.pay", "waiting", "1").set("handler.pay", "allow", "[\"*\"]");
        let lines = format!("while read -r line; do\n{UNTIL_OPEN}\ndone");
        let file = script(host, &lines);
        host.set("handler.pay", "worker", &format!("[{:?}]", file.to_string_lossy()));
    }));
}

/// Asks again for each answer that it gets, with so many more requests ahead than may wait.
fn flood(socket: &Path, stop: &AtomicBool) -> usize {
    let mut client = Local::connect(socket);
    let ask = |number: usize| format!("{number} greedy - - pay:flood\n");
    client.send((0..20).map(ask).collect::<String>().as_bytes());
    let mut busy = 0;
    for number in 20.. {
        busy += usize::from(client.answer().ends_with("!busy"));
        if stop.load(Ordering::Relaxed) {
            return busy;
        }
        client.send(ask(number).as_bytes());
    }
    busy
}

#[test]
fn a_host_that_floods_a_handler_shuts_no_other_out_and_holds_no_message_up() {
    let linked = linked(|host| {
        host.set("handler.pay", "waiting", "3").set("handler.pay", "running", "1");
        pay(host, "sleep 0.05; [ \"$line\" = pay:flood ] || echo \"$line\" >> done\necho \"did $line\"");
    });
    let stop = AtomicBool::new(false);
    let socket = linked.other.dir.join("run/handler/pay");
    std::thread::scope(|scope| {
        let floods = scope.spawn(|| flood(&socket, &stop));
        wait::until_true("the flood to wait for itself", || {
            let status = linked.other.lond_status().unwrap_or_default();
            status["handlers"][0]["program"]["waiting"] == 3
        });
        for number in 0..10 {
            assert_eq!(linked.ask(&format!("pay:{number}")), format!("did pay:{number}"));
            assert_eq!(linked.ask(&format!("critical:pay:c{number}")), format!("did pay:c{number}"));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(floods.join().expect("a flood") > 0, "it was more than may wait");
    });
    assert_eq!((linked.done().len(), linked.failed()), (20, vec![]));
}

#[test]
fn messages_for_a_program_that_cannot_be_run_are_kept_and_come_in_order_when_it_can() {
    let linked = linked(|host| {
        host.set("handler.pay", "allow", "[\"*\"]");
        host.set("handler.pay", "worker", &format!("[{:?}]", host.dir.join("pay.sh").to_string_lossy()));
    });
    for number in 1..=3 {
        assert_eq!(linked.ask(&format!("critical:pay:{number}")), "con_delayed");
    }
    let answer = linked.ask("pay:plain");
    assert!(answer.starts_with("error:pay: start ") && answer.ends_with("; nothing was done"), "{answer}");
    let why = || linked.one.status(CALLED).unwrap_or_default()["away"][0]["why"].to_string();
    wait::until_true("why it is away at the caller", || why().contains("pay: start "));
    script(&linked.other, "while read -r line; do echo \"$line\" >> done; echo ok; done");
    linked.one.wait_delivered(CALLED);
    assert_eq!(
        (linked.done(), linked.failed()),
        (["pay:1", "pay:2", "pay:3"].map(str::to_owned).into(), vec![])
    );
}

#[test]
fn when_the_process_that_runs_a_program_is_killed_that_is_said_and_not_that_the_program_ended() {
    let linked = linked(|host| pay(host, "touch begun; sleep 600"));
    let mut client = linked.one.connect(CALLED);
    client.send(b"pay:1\n");
    wait::until_true("the request to be begun", || linked.other.dir.join("begun").exists());
    let is_one = |pid: &u32| process::title(*pid).starts_with("lond: handler pay");
    let pool = linked.lond.children().into_iter().find(is_one).expect("the process that runs it");
    process::signal(pool, Signal::SIGKILL);
    let said = "error:pay: the process of lond that runs its program has ended; whether the request was begun is not known";
    assert_eq!(client.answer(), said);
}

/// Its program says so itself, request by request.
#[test]
fn a_tagged_worker_that_says_later_is_asked_again_for_messages_and_for_nothing_else() {
    let linked = linked(|host| {
        host.set("handler.pay", "format", "\"tagged\"").set("handler.pay", "allow", "[\"*\"]");
        let lines = "while read -r tag from id key line; do\n\
            if [ -e gate ]; then echo \"$line\" >> done; echo \"$tag did $line\"; else\n\
            echo \"$line\" >> begun; echo \"$tag!later\"; fi; done";
        let file = script(host, lines);
        host.set("handler.pay", "worker", &format!("[{:?}]", file.to_string_lossy()));
    });
    assert_eq!(linked.ask("pay:plain"), "error:pay: not now");
    let messages = ["critical:pay:1", "critical;key=K:pay:2", "critical:pay:3"];
    assert_eq!(messages.map(|message| linked.ask(message)), ["con_delayed"; 3]);
    let begun = || fs::read_to_string(linked.other.dir.join("begun")).unwrap_or_default();
    wait::until_true("the first message to be tried again", || begun().matches("pay:1").count() >= 2);
    assert_eq!(begun().matches("pay:plain").count(), 1);
    linked.open_gate("");
    linked.one.wait_delivered(CALLED);
    let all = ["1", "2", "3"].map(|what| format!("pay:{what}"));
    assert_eq!((linked.done(), linked.failed()), (all.into(), vec![]), "each once, in order");
    assert_eq!(linked.ask("pay:plain"), "did pay:plain");
}

/// Where the examples are.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/handlers")
}

/// The full path of an interpreter, or nothing where it is missing, which is said.
fn interpreter(name: &str, ask: &[&str]) -> Option<String> {
    let said = Command::new(name).args(ask).output().ok().filter(|said| said.status.success());
    if said.is_none() {
        skip::skipped(&format!("the example for {name}: it is not there"));
    }
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// The example's file of `handlers.d`, with its programs where they are here; `before` is put
/// before the program.
fn install(host: &Host, name: &str, before: Option<&str>) {
    let text = fs::read_to_string(examples().join(format!("handlers.d/{name}.toml"))).expect("the example");
    let before = before.map_or_else(String::new, |before| format!("{before:?}, "));
    let text = text
        .replace("[\"/usr/local/lib/lonnet/", &format!("[{before}\"{}/", examples().display()))
        .replace("/var/lib/notes", &host.dir.join("notes").to_string_lossy());
    let folder = host.dir.join("handlers.d");
    fs::create_dir_all(&folder).expect("make handlers.d");
    fs::write(folder.join(format!("{name}.toml")), text).expect("write the example's file");
}

#[test]
fn the_example_in_sh_keeps_each_note_once_and_puts_off_what_it_cannot_keep() {
    let linked = linked(|host| install(host, "note", None));
    assert_eq!(linked.ask("critical:note:first"), "con_delayed");
    let folder = linked.other.dir.join("notes");
    fs::create_dir(&folder).expect("make the folder of notes");
    linked.one.wait_delivered(CALLED);
    assert_eq!(linked.ask("note:second  one"), "kept");
    assert_eq!(linked.ask("critical:note:third"), "kept");
    let notes = fs::read_to_string(folder.join("notes")).expect("the notes");
    assert_eq!(notes, format!("{CALLER} first\n{CALLER} second  one\n{CALLER} third\n"));
    wait::until_true("what it says in the log", || {
        linked.other.log("lond.log").contains(&format!("handler note: says: a note of {CALLER}"))
    });
}

#[test]
fn the_example_in_python_adds_up() {
    let Some(python) = interpreter("python3", &["-c", "import sys; print(sys.executable)"]) else { return };
    let linked = linked(|host| install(host, "sum", Some(&python)));
    assert_eq!(linked.ask("sum:1 2 3"), "6");
    assert_eq!(linked.ask("critical:sum:40 2"), "42");
    assert_eq!(linked.ask("sum:one"), "error:sum: whole numbers are wanted");
    let mut client = linked.one.connect(CALLED);
    let many: String = (0..200).map(|number| format!("sum:{number} 1\n")).collect();
    client.send(many.as_bytes());
    for number in 0..200 {
        assert_eq!(client.answer(), (number + 1).to_string());
    }
}

#[test]
fn the_example_in_perl_answers_in_capitals() {
    let Some(perl) = interpreter("perl", &["-e", "print $^X"]) else { return };
    let linked = linked(|host| install(host, "upper", Some(&perl)));
    assert_eq!(linked.ask("upper:hello there"), "HELLO THERE");
    assert_eq!(linked.ask("critical:upper:again"), "AGAIN");
}
