//! Programs that `lond` runs for its handlers: seen at the socket of the process that runs them.

use crate::common::local::Local;
use crate::common::network::{Host, Network};
use crate::common::program::Program;
use crate::common::{process, wait};
use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const HOST: &str = "msul1";

/// A network of one host.
pub struct Serving {
    pub host: Host,
    _network: Network,
}

pub fn serving() -> Serving {
    let network = Network::new(&[HOST, "msua1"]);
    Serving { host: network.host(HOST), _network: network }
}

impl Serving {
    /// A handler with a shell script as its program, run as `way` says; other keys as TOML.
    pub fn handler(&mut self, name: &str, way: &str, script: &str, keys: &[(&str, &str)]) {
        let file = self.script(name, script);
        let section = format!("handler.{name}");
        self.host.set(&section, way, &format!("[{:?}]", file.to_string_lossy()));
        self.host.set(&section, "allow", "[\"*\"]");
        for (key, value) in keys {
            self.host.set(&section, key, value);
        }
    }

    fn script(&self, name: &str, script: &str) -> PathBuf {
        let file = self.host.dir.join(format!("{name}.sh"));
        let new = file.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("write a program");
        fs::set_permissions(&new, Permissions::from_mode(0o755)).expect("make it executable");
        fs::rename(&new, &file).expect("put it in its place");
        file
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.host.dir.join("run/handler").join(name)
    }

    pub fn connect(&self, name: &str) -> Local {
        let socket = self.socket(name);
        wait::until("the handler's socket", || Local::try_connect(&socket).ok())
    }

    /// What `lond` says of this handler.
    pub fn status(&self, name: &str) -> serde_json::Value {
        let status = self.host.lond_status().unwrap_or_default();
        let handlers = status["handlers"].as_array().cloned().unwrap_or_default();
        handlers.into_iter().find(|handler| handler["name"] == name).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        self.host.log("lond.log")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.host.dir.join(name)
    }
}

/// Its process that runs a handler's program.
pub fn pool_of(lond: &Program, name: &str) -> u32 {
    let title = format!("lond: handler {name}");
    wait::until("the process that runs the program", || {
        process::children(lond.pid()).into_iter().find(|pid| process::title(*pid).starts_with(&title))
    })
}

pub fn numbers(file: &Path) -> Vec<u32> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_worker_answers_a_line_with_a_line_one_after_the_other_and_is_told_who_handles() {
    let mut serving = serving();
    serving.handler("echo", "worker", "while read -r line; do echo \"$LONNET_HANDLER got $line\"; done", &[]);
    let _lond = serving.host.lond();
    let mut client = serving.connect("echo");
    assert_eq!(client.ask("7 msua1 - - echo:one two "), "7 echo got echo:one two");
    let many: String = (0..500).map(|number| format!("{number} msua1 - - echo:{number}\n")).collect();
    client.send(many.as_bytes());
    for number in 0..500 {
        assert_eq!(client.answer(), format!("{number} echo got echo:{number}"));
    }
    let socket = serving.socket("echo");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().expect("a folder"))), (0o600, 0o700));
    wait::until_true("its process in the status", || {
        serving.status("echo")["program"]["running"] == 1
            && serving.status("echo")["program"]["restarts"] == 0
    });
}

#[test]
fn a_tagged_worker_answers_in_any_order_or_says_later_and_is_told_who_asks() {
    let script = "while read -r tag from id key text; do\n\
        case $text in\n\
        echo:hold) held=$tag ;;\n\
        echo:later) echo \"$tag!later\" ;;\n\
        *) echo \"$tag $from $id $key $text\"; [ -z \"$held\" ] || echo \"$held released\"; held= ;;\n\
        esac; done";
    let mut serving = serving();
    serving.handler("echo", "worker", script, &[("format", "\"tagged\"")]);
    let _lond = serving.host.lond();
    let mut client = serving.connect("echo");
    client.send(b"900 msua1 - - echo:hold\n901 msua1 e/7 k echo:x\n902 msua1 e/8 - echo:later\n");
    let answers = [client.answer(), client.answer(), client.answer()];
    assert_eq!(answers, ["901 msua1 e/7 k echo:x", "900 released", "902!later"]);
}

#[test]
fn a_program_for_each_request_gets_it_and_its_environment_and_nothing_else() {
    let script = "read -r line; read -r more && exit 9\n\
        echo \"$line/$LONNET_FROM/$LONNET_ID/$LONNET_KEY/$LONNET_HANDLER/$LONNET_TIMEOUT/$(pwd)/$HOME$LONNET_HANDOFF\"\n\
        echo a second line\n\
        ls /proc/self/fd | wc -l >&2";
    let mut serving = serving();
    serving.handler("echo", "exec", script, &[("timeout", "\"30s\"")]);
    let _lond = serving.host.lond();
    let mut client = serving.connect("echo");
    assert_eq!(client.ask("1 msua1 - - echo:a  b"), "1 echo:a  b/msua1///echo/30///");
    assert_eq!(client.ask("2 msua1 ab/3 k-1 echo"), "2 echo/msua1/ab/3/k-1/echo/30///");
    // The standard three, and that of the folder that is listed.
    wait::until_true("its standard error in the log", || serving.log().contains("handler echo: says: 4"));
}

#[test]
fn how_a_program_exits_says_whether_it_took_its_request() {
    let script = "read -r line; case $line in\n\
        *:later) exit 75 ;; *:three) echo no; exit 3 ;; *:segv) kill -SEGV $$ ;; *:nothing) exit 0 ;; *:empty) echo ;;\n\
        *:long) head -c 100000 /dev/zero | tr '\\0' x ;; esac";
    let mut serving = serving();
    serving.host.set("lond", "max_line", "65536");
    serving.handler("pay", "exec", script, &[]);
    let _lond = serving.host.lond();
    let mut client = serving.connect("pay");
    for (request, answer) in [
        ("1 msua1 e/1 - pay:later", "1!later"),
        ("2 msua1 e/1 - pay:three", "2!failed error:pay: exit 3"),
        ("3 msua1 - - pay:segv", "3!failed error:pay: killed by SIGSEGV"),
        ("4 msua1 - - pay:nothing", "4!failed error:pay: exit 0 without an answer"),
        ("6 msua1 - - pay:empty", "6 "),
        ("5 msua1 - - pay:long", "5!failed error:pay: answer longer than 65536 bytes"),
    ] {
        assert_eq!(client.ask(request), answer);
    }
    let what = || serving.status("pay")["last_error"].as_str().unwrap_or_default().to_owned();
    wait::until_true("what went wrong last", || what().contains("answer longer than"));
}

#[test]
fn a_program_that_cannot_be_started_is_an_error_at_once_and_keeps_critical_requests_with_their_senders() {
    let mut serving = serving();
    let missing = serving.file("kept.sh");
    let start =
        format!("start {}: No such file or directory (os error 2); nothing was done", missing.display());
    for (name, way) in [("once", "exec"), ("kept", "worker")] {
        serving.host.set(&format!("handler.{name}"), way, &format!("[{:?}]", missing.to_string_lossy()));
    }
    serving.handler("short", "worker", "exit 3", &[]);
    let (_lond, _lonc) = (serving.host.lond(), serving.host.lonc());
    let early = "its program exited with 3 before it read a request";
    for (name, why) in [("once", &*start), ("kept", &*start), ("short", early)] {
        let mut client = serving.connect(name);
        let asked = std::time::Instant::now();
        assert_eq!(client.ask(&format!("1 msua1 - - {name}")), format!("1!failed error:{name}: {why}"));
        assert!(asked.elapsed() < std::time::Duration::from_secs(50), "it has waited for its timeout");
        assert_eq!(client.ask(&format!("2 msua1 e/1 - {name}")), format!("2!away {why}"));
        wait::until_true("that it cannot be run in the status", || {
            serving.status(name)["program"]["unable"] == true
                && serving.status(name)["last_error"].as_str().is_some_and(|said| said.contains(why))
        });
        let said = String::from_utf8_lossy(&serving.host.lon(&["status"]).stdout).into_owned();
        assert!(said.contains(&format!("handler {name}: cannot be run, ")), "{said}");
    }
    serving.script("kept", "while read -r line; do echo \"$line\"; done");
    let mut client = serving.connect("kept");
    wait::until_true("it to be served", || client.ask("3 msua1 - - kept:x") == "3 kept:x");
    wait::until_true("that it can be run in the status", || {
        serving.status("kept")["program"]["unable"] == false
    });
}

#[test]
fn a_time_limit_ends_all_that_a_program_has_started_in_or_beside_its_group() {
    let mut serving = serving();
    let pids = serving.file("pids");
    let script = format!(
        "echo $$ >> {0}\nsleep 600 & echo $! >> {0}\nsetsid sh -c 'echo $$ >> {0}; sleep 600' &\n\
         (setsid sh -c 'echo $$ >> {0}; sleep 600' &)\nwait",
        pids.display()
    );
    serving.handler("hang", "exec", &script, &[("timeout", "\"2s\"")]);
    let lond = serving.host.lond();
    let mut client = serving.connect("hang");
    assert_eq!(client.ask("1 msua1 e/1 - hang"), "1!failed error:hang: no answer within 2s");
    let started = wait::until("its four processes", || Some(numbers(&pids)).filter(|pids| pids.len() == 4));
    wait::until_true("all of them to be gone", || started.iter().all(|pid| !process::alive(*pid)));
    let pool = pool_of(&lond, "hang");
    wait::until_true("all of them to be reaped", || process::children(pool).is_empty());
}

#[test]
fn an_answer_waits_for_the_end_of_its_process_and_for_nobody_who_holds_its_pipes() {
    let mut serving = serving();
    serving.handler("daemon", "exec", "setsid sleep 600 & echo started", &[]);
    let lond = serving.host.lond();
    let mut client = serving.connect("daemon");
    assert_eq!(client.ask("1 msua1 - - daemon"), "1 started");
    let pool = pool_of(&lond, "daemon");
    wait::until_true("what it left behind to be gone", || process::children(pool).is_empty());
}

#[test]
fn a_fork_bomb_ends_with_its_time_and_the_rest_is_served() {
    let mut serving = serving();
    let pids = serving.file("pids");
    let script = format!(
        "i=0; while [ $i -lt 200 ]; do i=$((i+1)); (echo $i >> {}; sleep 600) & done; wait",
        pids.display()
    );
    serving.handler("bomb", "exec", &script, &[("timeout", "\"5s\"")]);
    serving.handler("echo", "worker", "while read -r line; do echo \"$line\"; done", &[]);
    let lond = serving.host.lond();
    let mut bomb = serving.connect("bomb");
    bomb.send(b"1 msua1 - - bomb\n");
    wait::until_true("two hundred processes", || numbers(&pids).len() == 200);
    assert_eq!(serving.connect("echo").ask("1 msua1 - - echo:x"), "1 echo:x");
    assert_eq!(bomb.answer(), "1!failed error:bomb: no answer within 5s");
    let pool = pool_of(&lond, "bomb");
    wait::until_true("all of them to be gone", || process::children(pool).is_empty());
    assert_eq!(bomb.ask("2 msua1 e/1 - bomb").split('!').next(), Some("2"));
}

#[test]
fn no_more_run_or_wait_than_may_and_hosts_take_turns_and_give_way() {
    let mut serving = serving();
    let (gate, begun) = (serving.file("gate"), serving.file("begun"));
    // Each has a gate of its own.
    let script = format!(
        "read -r line; echo $line >> {}; while [ ! -e {}.${{line#*:}} ]; do sleep 0.05; done; echo $line",
        begun.display(),
        gate.display()
    );
    let open = |number: usize| fs::write(gate.with_extension(number.to_string()), "").expect("open a gate");
    serving.handler("slow", "exec", &script, &[("running", "2"), ("waiting", "3")]);
    let _lond = serving.host.lond();
    let mut client = serving.connect("slow");
    for number in 1..=6 {
        client.send(format!("{number} greedy - - slow:{number}\n").as_bytes());
    }
    assert_eq!(client.answer(), "6!busy");
    client.send(b"7 other - - slow:7\n");
    assert_eq!(client.answer(), "5!busy", "who has most gives way");
    client.send(b"8 msua1 e/1 - slow:8\n");
    assert_eq!(client.answer(), "4!busy");
    assert_eq!(client.ask("9 msua1 e/2 - slow:9"), "9!busy", "no more than the others have");
    let has_begun = || -> Vec<String> {
        fs::read_to_string(&begun).unwrap_or_default().lines().map(str::to_owned).collect()
    };
    let wait_begun = |count: usize| {
        wait::until("the next to begin", || Some(has_begun()).filter(|lines| lines.len() == count))
    };
    let mut first = wait_begun(2);
    first.sort();
    assert_eq!(first, ["slow:1", "slow:2"]);
    wait::until_true("three to wait", || serving.status("slow")["program"]["waiting"] == 3);
    // In the order in which they begin: each when one before it ends.
    for (ends, begins) in [(1, "slow:3"), (3, "slow:7"), (2, "slow:8")] {
        let before = has_begun().len();
        open(ends);
        assert_eq!(client.answer(), format!("{ends} slow:{ends}"));
        assert_eq!(wait_begun(before + 1).last().map(String::as_str), Some(begins));
    }
    open(7);
    assert_eq!(client.answer(), "7 slow:7");
    open(8);
    assert_eq!(client.answer(), "8 slow:8");
}

#[test]
fn a_worker_that_dies_costs_what_it_had_begun_and_is_started_again() {
    let script = "echo starts >&2\nwhile read -r line; do\n\
        case $line in *:die) exit 3 ;; *:twice) echo a; echo b ;; *) echo \"$line\" ;; esac; done";
    let mut serving = serving();
    serving.handler("echo", "worker", script, &[]);
    let _lond = serving.host.lond();
    let mut client = serving.connect("echo");
    client.send(b"1 msua1 e/1 - echo:die\n2 msua1 e/2 - echo:next\n");
    assert_eq!(client.answer(), "1!failed error:echo: its program exited with 3 before it answered");
    assert_eq!(client.answer(), "2 echo:next");
    assert_eq!(client.ask("3 msua1 - - echo:twice"), "3 a");
    // Before that its second line would be the answer to whatever is asked next.
    wait::until_true("two restarts", || serving.status("echo")["program"]["restarts"] == 2);
    assert_eq!(client.ask("4 msua1 - - echo:x"), "4 echo:x");
    let starts = || serving.log().matches("handler echo: says: starts").count();
    wait::until_true("three starts in the log", || starts() == 3);
    assert!(serving.log().contains("it says more than it was asked; killed"), "{}", serving.log());
}

#[test]
fn a_pool_that_is_killed_takes_its_programs_along_and_the_next_one_serves() {
    let mut serving = serving();
    let pids = serving.file("pids");
    let script = format!(
        "echo $$ >> {0}; setsid sh -c 'echo $$ >> {0}; sleep 600' &\nwhile read -r line; do echo \"$line\"; done",
        pids.display()
    );
    serving.handler("echo", "worker", &script, &[]);
    let lond = serving.host.lond();
    assert_eq!(serving.connect("echo").ask("1 msua1 - - echo:x"), "1 echo:x");
    let first = wait::until("its two processes", || Some(numbers(&pids)).filter(|pids| pids.len() == 2));
    let pool = pool_of(&lond, "echo");
    process::signal(pool, Signal::SIGKILL);
    wait::until_true("its programs to be gone", || first.iter().all(|pid| !process::alive(*pid)));
    // Who connects before the next one is there waits for it.
    assert_eq!(serving.connect("echo").ask("2 msua1 - - echo:x"), "2 echo:x");
    assert_ne!(pool_of(&lond, "echo"), pool);
    wait::until_true("the new one's processes", || numbers(&pids).len() == 4);
    let left = numbers(&pids);
    drop(lond);
    wait::until_true("none to outlive lond", || left.iter().all(|pid| !process::alive(*pid)));
    assert!(!serving.socket("echo").exists());
}

/// Asks again and again on connections of its own, until it is told to stop; how often.
fn load(socket: PathBuf, stop: &std::sync::atomic::AtomicBool) -> usize {
    let mut asked = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let mut client = Local::connect(&socket);
        for number in 0..5 {
            // A connection that is closed with nothing open is no loss: as a link child does, the
            // request that was not taken goes to the next one.
            match client.try_ask(&format!("{number} msua1 - - echo:{number}")) {
                Ok(answer) => assert_eq!(answer, format!("{number} echo:{number}")),
                Err(error) => {
                    assert!(
                        matches!(
                            error.kind(),
                            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::UnexpectedEof
                        ),
                        "{error}"
                    );
                    break;
                }
            }
            asked += 1;
        }
    }
    asked
}

#[test]
fn hup_and_reload_replace_the_process_and_lose_nothing_while_requests_come() {
    let mut serving = serving();
    serving.handler("echo", "worker", "while read -r line; do echo \"$line\"; done", &[]);
    serving.handler("other", "worker", "while read -r line; do echo \"$line\"; done", &[]);
    let lond = serving.host.lond();
    drop(serving.connect("echo"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let begin = |_| {
            let (socket, stop) = (serving.socket("echo"), &stop);
            scope.spawn(move || load(socket, stop))
        };
        let clients: Vec<_> = (0..3).map(begin).collect();
        for _ in 0..3 {
            let before = pool_of(&lond, "echo");
            process::signal(lond.pid(), Signal::SIGHUP);
            wait::until_true("another process", || pool_of(&lond, "echo") != before);
        }
        let (echo, other) = (pool_of(&lond, "echo"), pool_of(&lond, "other"));
        serving.host.set("handler.echo", "workers", "2");
        let output = serving.host.lon(&["reload"]);
        assert!(output.status.success() || lond.pid() > 0, "{output:?}");
        wait::until_true("another process", || pool_of(&lond, "echo") != echo);
        assert_eq!(pool_of(&lond, "other"), other, "its handler has not changed");
        wait::until_true("two workers", || serving.status("echo")["program"]["running"] == 2);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let asked: usize = clients.into_iter().map(|client| client.join().expect("a client")).sum();
        assert!(asked > 0);
    });
    serving.host.unset("handler.other", "worker");
    let socket = serving.file("elsewhere");
    serving.host.set("handler.other", "socket", &format!("{:?}", socket.to_string_lossy()));
    serving.host.lon(&["reload"]);
    wait::until_true("the socket of a program that is run no more to be gone", || {
        !serving.socket("other").exists()
    });
}

#[test]
fn an_emptied_run_dir_has_the_socket_again() {
    let mut serving = serving();
    serving.handler("echo", "worker", "while read -r line; do echo \"$line\"; done", &[]);
    let _lond = serving.host.lond();
    let mut before = serving.connect("echo");
    assert_eq!(before.ask("1 msua1 - - echo:x"), "1 echo:x");
    fs::remove_dir_all(serving.file("run")).expect("empty run_dir");
    assert_eq!(serving.connect("echo").ask("2 msua1 - - echo:y"), "2 echo:y");
    assert_eq!(before.ask("3 msua1 - - echo:z"), "3 echo:z");
}
