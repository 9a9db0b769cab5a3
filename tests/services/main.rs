//! `lonsvc` as a process, with a service of a few lines.

#![allow(clippy::unwrap_used, reason = "a test program: what fails, fails the test")]

#[path = "../common/wait.rs"]
#[allow(dead_code, reason = "of it this program needs one thing")]
mod wait;
mod world;

use lonnet::owner::Owner;
use lonnet::status::ServiceState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs;
use std::path::Path;
use world::{World, is_alive, status_field};

const ONE: &str = "[service.one]\ncommand = [\"./service\"]\nenv = { OUT = \"$OUT\" }\n";
const TWO: &str = "[service.two]\ncommand = [\"./service\"]\nenv = { OUT = \"$OUT\" }\n";

fn services(more: &str) -> String {
    format!("{ONE}{TWO}{more}")
}

/// The process that the service's program has left in the background.
fn left_by(world: &World, pid: u32) -> u32 {
    let noted = world.noted();
    let line = noted.lines().find(|line| line.starts_with(&format!("start {pid} "))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn services_run_are_seen_and_end_with_what_they_have_started_when_lonsvc_is_told_to() {
    let mut world = World::new(&services(""));
    world.start();
    let pids = ["one", "two"].map(|name| world.process(name));
    let left = pids.map(|pid| left_by(&world, pid));
    assert!(left.iter().all(|pid| is_alive(*pid)));
    let out = String::from_utf8(world.lon(&["status"]).stdout).unwrap();
    // lonc does not run, and has written nothing yet.
    assert_eq!(out, "");
    let second = world.command().stderr(std::process::Stdio::piped()).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("already running with pid {}", world.pid())), "{said}");
    world.wait("the file tells of both", |world| {
        let text = fs::read_to_string(world.path("status/lonsvc.json")).unwrap_or_default();
        text.matches("\"running\"").count() == 2
    });
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
    for pid in pids {
        assert!(world.noted().contains(&format!("term {pid}\n")), "{}", world.noted());
    }
    // What is killed is gone a moment later.
    world.wait("nothing is left", |_| pids.iter().chain(&left).all(|pid| !is_alive(*pid)));
    let text = fs::read_to_string(world.path("status/lonsvc.json")).unwrap();
    assert_eq!(text.matches("\"stopped\"").count(), 3, "{text}");
    for gone in ["run/lonsvc.sock", "run/lonsvc.pid"] {
        assert!(!world.path(gone).exists(), "{gone}");
    }
    assert!(!world.log().contains(" ERROR "), "{}", world.log());
}

#[test]
fn a_program_begins_with_nothing_that_was_its_parents() {
    let script = "#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ > \"$OUT.environ\"\n\
                  pwd > \"$OUT.pwd\"; umask > \"$OUT.umask\"; ulimit -n > \"$OUT.files\"\n\
                  echo said; echo complained >&2\necho \"start $$ 0\" >> \"$OUT\"; exec sleep 1000\n";
    let mut world = World::new("");
    world.script("look", script);
    world.configure(
        "[service.look]\ncommand = [\"./look\", \"an argument\"]\nopen_files = 77\n\
         dir = \".\"\nenv = { OUT = \"$OUT\", PATH = \"/usr/bin:/bin\" }\n",
    );
    // Signals, descriptors and variables as a shell or a service manager may have left them.
    let mut wrapped = std::process::Command::new("sh");
    wrapped.arg("-c").arg("trap '' PIPE QUIT USR2; exec 9</dev/null; exec \"$@\"").arg("sh");
    wrapped.arg(env!("CARGO_BIN_EXE_lonsvc")).arg("--config").arg(world.path("lonnet.toml"));
    wrapped.arg("--foreground").env("LEAKED", "yes").stdin(std::process::Stdio::null());
    wrapped.stderr(std::process::Stdio::null());
    world.start_as(wrapped);
    world.process("look");
    let out = |end: &str| fs::read_to_string(world.path(&format!("out.{end}"))).unwrap();
    let (at, config) = (world.path("out"), world.path("lonnet.toml").canonicalize().unwrap());
    let mut environ: Vec<String> = out("environ").lines().map(str::to_owned).collect();
    environ.sort();
    let expected = [
        format!("LONNET_CONFIG={}", config.display()),
        "LONNET_SERVICE=look".to_owned(),
        format!("OUT={}", at.display()),
        "PATH=/usr/bin:/bin".to_owned(),
    ];
    assert_eq!(environ, expected);
    let log = world.path("log/service.look.log").canonicalize().unwrap();
    let pid = world.process("look");
    // The shell has its script open, and blocks signals at times; whatever it has become, the
    // loader opens libraries, one at a time, before that sleeps.
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    world.wait("it sleeps and has three descriptors open", |_| {
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n" && open() == 3
    });
    for masks in ["SigIgn:", "SigBlk:"] {
        let mask = u64::from_str_radix(&status_field(pid, masks), 16).unwrap();
        assert_eq!(mask, 0, "{masks} {mask:x}");
    }
    let held = |fd: &str| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
    assert_eq!(held("0"), Path::new("/dev/null"));
    assert_eq!((held("1"), held("2")), (log.clone(), log.clone()));
    assert_eq!(out("pwd").trim(), world.path("").canonicalize().unwrap().display().to_string());
    assert_eq!((out("umask").trim(), out("files").trim()), ("0022", "77"));
    assert_eq!(fs::read_to_string(log).unwrap(), "said\ncomplained\n");
    // A session of its own.
    assert_eq!(status_field(pid, "NSsid:"), pid.to_string());
}

#[test]
fn a_program_that_ends_is_started_again_at_once_and_then_with_growing_pauses() {
    let mut world = World::new("[service.short]\ncommand = [\"/bin/false\"]\n");
    world.start();
    world.wait("it has died four times", |world| world.log().matches(" exited with 1; ").count() >= 4);
    let log = world.log();
    let pauses: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("exited with 1; starting anew"))
        .map(|(_, pause)| pause)
        .take(3)
        .collect();
    assert_eq!(pauses[0], "", "{log}");
    assert!(pauses[1].starts_with(" in 500") && pauses[2].starts_with(" in 1.0"), "{log}");
    let status = world.status("short").unwrap();
    assert_eq!(status.last_error.as_deref(), Some("its program exited with 1"));
    assert!(status.starts >= 4);
    // USR1 ends a pause.
    world.wait("it waits", |world| {
        world.status("short").is_some_and(|status| status.state == ServiceState::Waiting)
    });
    let before = world.status("short").unwrap().starts;
    world.signal(Signal::SIGUSR1);
    world.wait("it is started", |world| world.status("short").is_some_and(|status| status.starts > before));
}

#[test]
fn what_is_not_to_be_started_again_stays_ended_until_it_is_another_service() {
    let once = |arguments: &str| {
        format!(
            "[service.never]\ncommand = [\"/bin/sh\", \"-c\", \"{arguments}\"]\nrestart = \"never\"\n\
             [service.failure]\ncommand = [\"/bin/true\"]\nrestart = \"on-failure\"\n\
             [service.crash]\ncommand = [\"/bin/false\"]\nrestart = \"on-failure\"\n"
        )
    };
    let mut world = World::new(&once("exit 3"));
    world.start();
    let state = |world: &World, name: &str| world.status(name).map(|status| status.state);
    world.wait("both have ended", |world| {
        ["never", "failure"].iter().all(|name| state(world, name) == Some(ServiceState::Ended))
    });
    world.wait("the third goes on", |world| world.status("crash").unwrap().starts > 2);
    let [never, failure] = ["never", "failure"].map(|name| world.status(name).unwrap());
    assert_eq!((never.starts, failure.starts), (1, 1));
    assert_eq!(never.last_error.as_deref(), Some("its program exited with 3"));
    assert_eq!(failure.last_error, None);
    for signal in [Signal::SIGUSR1, Signal::SIGHUP] {
        world.signal(signal);
    }
    world.wait("HUP is over", |world| world.log().contains("started anew, 3 services"));
    assert_eq!(world.status("never").unwrap().starts, 1);
    world.configure(&once("exit 4"));
    let answer = world.ask("reload").unwrap();
    assert_eq!(answer.trim(), "reloaded: 1 service replaced, 0 added, 0 removed, 2 kept");
    world.wait("it has run again", |world| {
        let error = world.status("never").and_then(|status| status.last_error);
        error.as_deref() == Some("its program exited with 4")
    });
}

#[test]
fn a_reload_touches_only_what_has_changed_and_nothing_where_the_file_is_wrong() {
    let three = "[service.three]\ncommand = [\"./service\"]\nenv = { OUT = \"$OUT\" }\n";
    let mut world = World::new(&services(three));
    world.start();
    let [one, two, three_pid] = ["one", "two", "three"].map(|name| world.process(name));
    world.configure(&services("[service.bad]\ncommand = \"./service\"\n"));
    let answer = world.ask("reload").unwrap();
    assert!(answer.contains("lonnet.toml:10: service.bad: command: want a list"), "{answer}");
    assert_eq!(world.process("three"), three_pid);
    let four = three.replace("three", "four");
    world.configure(&services(&four).replacen("OUT = ", "MORE = \"1\", OUT = ", 1));
    let said = world.lon(&["reload"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("lonsvc: reloaded: 1 service replaced, 1 added, 1 removed, 1 kept"), "{said}");
    world.process("four");
    world.wait("the others have ended", |_| !is_alive(one) && !is_alive(three_pid));
    assert_ne!(world.process("one"), one);
    assert_eq!(world.process("two"), two, "it has not changed");
    assert!(world.status("three").is_none());
    let noted = world.noted();
    assert!(noted.contains(&format!("term {one}\n")) && noted.contains(&format!("term {three_pid}\n")));
}

#[test]
fn hup_goes_on_under_the_same_pid_replaces_every_program_and_does_nothing_where_the_next_would_not_start() {
    let mut world = World::new(&services(""));
    let supervisor = world.start();
    let mut before = ["one", "two"].map(|name| world.process(name));
    for round in 1..=3 {
        world.signal(Signal::SIGHUP);
        world.wait("every program is another", |world| {
            world.log().matches("started anew").count() == round && before.iter().all(|pid| !is_alive(*pid))
        });
        let after = ["one", "two"].map(|name| world.process(name));
        for pid in before {
            assert!(world.noted().contains(&format!("term {pid}\n")));
        }
        before = after;
    }
    assert_eq!(world.pid(), supervisor);
    assert_eq!(world.status("one").unwrap().starts, 4);
    fs::write(world.path("lonnet.toml"), "id = \"me\nwhat").unwrap();
    world.signal(Signal::SIGHUP);
    world.wait("the status says so", |world| {
        world.snapshot().and_then(|snapshot| snapshot.not_restarted).is_some()
    });
    assert_eq!(["one", "two"].map(|name| world.process(name)), before);
    world.configure(ONE);
    world.signal(Signal::SIGHUP);
    world.wait("the service that is gone has ended", |world| {
        !is_alive(before[1]) && world.snapshot().is_some_and(|snapshot| snapshot.services.len() == 1)
    });
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
}

#[test]
fn one_that_does_not_end_is_killed_when_its_time_is_over_and_at_quit_at_once() {
    let deaf =
        "[service.deaf]\ncommand = [\"./deaf\"]\ndrain_timeout = \"100ms\"\nenv = { OUT = \"$OUT\" }\n";
    for (signal, why) in [(Signal::SIGTERM, "it did not end in time"), (Signal::SIGQUIT, "there is no time")]
    {
        let mut world = World::new(deaf);
        let script = "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho \"start $$ $!\" >> \"$OUT\"\nwait\n";
        world.script("deaf", script);
        world.start();
        let pid = world.process("deaf");
        let left = left_by(&world, pid);
        world.signal(signal);
        assert!(world.ended().success());
        world.wait("nothing is left", |_| !is_alive(pid) && !is_alive(left));
        let said = format!("deaf: killing its program, process {pid}: {why}\n");
        assert!(world.log().contains(&said), "{}", world.log());
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_said_everywhere_and_tried_again() {
    let mut world = World::new("[service.none]\ncommand = [\"./none\"]\nenv = { OUT = \"$OUT\" }\n");
    let checked = world.lon(&["check"]);
    let said = String::from_utf8(checked.stdout).unwrap();
    let path = world.path("none");
    assert!(!checked.status.success() && said.contains("service.none: command: "), "{said}");
    world.start();
    let why = format!("start its program: execute {}: No such file or directory", path.display());
    world.wait("it is said", |world| {
        let error = world.status("none").and_then(|status| status.last_error);
        error.is_some_and(|error| error.starts_with(&why))
    });
    assert!(world.log().contains(&format!("none: {why}")), "{}", world.log());
    world.script("none", "#!/bin/sh\necho \"start $$ 0\" >> \"$OUT\"\nexec sleep 1000\n");
    world.process("none");
}

#[test]
fn what_a_service_cannot_be_is_a_problem_with_its_line() {
    let world = World::new("");
    for (services, said) in [
        ("[service.x]\n", "3: service.x: command: is missing"),
        ("[service.x]\ncommand = []\n", "4: service.x: command: is empty"),
        ("[service.x]\ncommand = [\"sh\"]\n", "4: service.x: command: want the program's path, not \"sh\""),
        ("[service.Xy]\ncommand = [\"/x\"]\n", "3: service.Xy: the name \"Xy\""),
        ("[service.x]\ncommand = [\"/x\"]\nrestart = \"often\"\n", "5: service.x: restart: want \"always\""),
        ("[service.x]\ncommand = [\"/x\"]\nenv = { A = 1 }\n", "5: service.x.env: A: want text"),
        ("[service.x]\ncommand = [\"/x\"]\ndrain = \"1s\"\n", "5: service.x: drain: unknown key"),
        ("[service.x]\ncommand = [\"/bin/sh\"]\nuser = \"no-such-user\"\n", "user: there is no user"),
        ("[service.x]\ncommand = [\"/bin/sh\"]\ndir = \"/no/such\"\n", "service.x: dir: /no/such"),
    ] {
        world.configure_as("", services);
        let found = world.lon(&["check"]);
        let text = String::from_utf8(found.stdout).unwrap();
        assert!(!found.status.success() && text.contains(said), "{services}: {text}");
    }
}

#[test]
fn started_as_root_it_keeps_root_for_services_with_users_of_their_own_and_its_files_are_the_users() {
    let (Ok(daemon), Ok(nobody)) = (Owner::named("daemon"), Owner::named("nobody")) else { return };
    if !geteuid().is_root() {
        return;
    }
    let services = |user: &str| {
        let user = if user.is_empty() { String::new() } else { format!("user = \"{user}\"\n") };
        format!("command = [\"./service\"]\n{user}env = {{ OUT = \"$OUT\" }}\n")
    };
    let all = format!(
        "[service.own]\n{}[service.other]\n{}[service.root]\n{}",
        services(""),
        services("nobody"),
        services("root")
    );
    let mut world = World::new("");
    world.configure_as("user = \"daemon\"", &all);
    fs::write(world.path("out"), "").unwrap();
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(world.path("out"), everyone).unwrap();
    world.start();
    let ids = |world: &World| {
        ["own", "other", "root"].map(|name| {
            let pid = world.process(name);
            [status_field(pid, "Uid:"), status_field(pid, "Gid:")]
                .map(|ids| ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>())
        })
    };
    let four = |owner: &Owner| [vec![owner.uid.as_raw(); 4], vec![owner.gid.as_raw(); 4]];
    let expected = [four(&daemon), four(&nobody), [vec![0; 4], vec![0; 4]]];
    assert_eq!(ids(&world), expected);
    for round in 1..=2 {
        world.signal(Signal::SIGHUP);
        world.wait("HUP is over", |world| world.log().matches("started anew").count() == round);
        world.wait("all are replaced", |world| {
            world.snapshot().is_some_and(|snapshot| {
                snapshot.services.iter().all(|service| service.starts == 1 + round as u64)
            })
        });
        assert_eq!(ids(&world), expected);
    }
    use std::os::unix::fs::MetadataExt;
    for file in
        ["log/lonsvc.log", "log/service.root.log", "run/lonsvc.sock", "status/lonsvc.json", "run/lonsvc.pid"]
    {
        let owner = fs::metadata(world.path(file)).unwrap().uid();
        assert_eq!(owner, daemon.uid.as_raw(), "{file}");
    }
    // What the user may not do, the next program could not do either.
    let log = world.path("log");
    let mode = |mode| fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o500);
    world.signal(Signal::SIGHUP);
    world.wait("HUP is refused", |world| {
        let why = world.snapshot().and_then(|snapshot| snapshot.not_restarted);
        why.is_some_and(|why| why.starts_with("write to folder "))
    });
    mode(0o750);
    let noted = world.process("other");
    world.signal(Signal::SIGTERM);
    assert!(world.ended().success());
    assert!(!is_alive(noted) && world.noted().contains(&format!("term {noted}\n")), "{}", world.log());
}

#[test]
fn lon_shows_the_services_beside_the_links_judges_them_and_stops_all() {
    let mut world = World::new(&services("[service.bad]\ncommand = [\"/bin/false\"]\n"));
    let said = |arguments: &[&str]| {
        let output = world.lon(arguments);
        (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
    };
    let mut lonc = std::process::Command::new(env!("CARGO_BIN_EXE_lonc"));
    lonc.arg("--config").arg(world.path("lonnet.toml"));
    assert!(lonc.status().unwrap().success());
    let (text, code) = said(&["status", "--check"]);
    assert!(text.contains("lonsvc does not run: no service is started"), "{text}");
    assert!(text.contains("bad: lonsvc: does not run") && code == 3, "{text}");
    world.start();
    let pid = world.process("one");
    world.wait("the third has ended twice", |world| world.status("bad").unwrap().starts > 2);
    let said = |arguments: &[&str]| {
        let output = world.lon(arguments);
        (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
    };
    let (text, _) = said(&["status"]);
    let line = text.lines().find(|line| line.starts_with("one ")).unwrap();
    assert!(line.contains("running") && line.contains(&pid.to_string()), "{text}");
    assert!(text.contains("bad: its program exited with 1 ("), "{text}");
    world.wait("it waits", |world| world.status("bad").unwrap().state == ServiceState::Waiting);
    let (json, code) = said(&["status", "--check", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["lonsvc"]["services"][1]["name"], "one");
    assert!(code == 2 || json["lonsvc"]["services"][0]["state"] != "waiting", "{json}");
    let (text, code) = said(&["stop"]);
    assert!(text.contains("lonsvc [") && text.contains("lonc [") && code == 0, "{text}");
    assert!(world.ended().success() && !is_alive(pid));
}

#[test]
fn services_end_with_a_lonsvc_that_is_killed() {
    let mut world = World::new(&services(""));
    // Of what it has started, nothing goes on: there would be nobody to end that.
    let script = "#!/bin/sh\ntrap 'echo \"term $$\" >> \"$OUT\"; exit 0' TERM\n\
                  echo \"start $$ 0\" >> \"$OUT\"\nwhile :; do sleep 0.1 & wait; done\n";
    world.script("service", script);
    world.start();
    let pids = ["one", "two"].map(|name| world.process(name));
    kill(Pid::from_raw(world.pid().try_into().unwrap()), Signal::SIGKILL).unwrap();
    assert!(!world.ended().success());
    world.wait("they have ended", |_| pids.iter().all(|pid| !is_alive(*pid)));
    for pid in pids {
        assert!(world.noted().contains(&format!("term {pid}\n")));
    }
}
