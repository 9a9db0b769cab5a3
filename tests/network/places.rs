//! Folders that several programs share, and what they make there.

use crate::common::fake_lond::FakeLond;
use crate::common::local::Local;
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::pid_in;
use crate::common::{preload, process, wait};
use lonnet::store::spool::SpoolLock;
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Starts of both programs at the same moment.
const STARTS: usize = 200;
/// Of these so many at a time.
const AT_A_TIME: usize = 4;

#[test]
fn lonc_and_lond_that_are_started_at_once_in_a_fresh_folder_both_serve_and_each_socket_leads_to_its_own() {
    let place = tempfile::tempdir().expect("a folder");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let start @ 0..STARTS = next.fetch_add(1, Ordering::Relaxed) {
                    start_both(&place.path().join(start.to_string()));
                }
            });
        }
    });
}

fn empty_run(host: &Host) {
    for entry in fs::read_dir(host.dir.join("run")).expect("list run_dir") {
        fs::remove_file(entry.expect("an entry").path()).expect("remove a file");
    }
}

#[test]
fn links_and_programs_notice_nothing_of_an_emptied_run_dir_and_find_their_sockets_again() {
    let network = Network::secure(&[CALLER, CALLED]);
    let (one, other) = (network.host(CALLER), network.host(CALLED));
    let (lond, lonc) = (other.lond(), one.lonc());
    one.wait_link(CALLED, "up");
    let before = one.status(CALLED).expect("a status");
    let mut program = one.connect(CALLED);
    assert_eq!(program.ask("ping"), CALLED);
    empty_run(&one);
    empty_run(&other);
    let back = Duration::from_secs(5 + 3);
    wait::within(back, || Local::try_connect(&one.socket(CALLED)).ok())
        .expect("the peer's socket to be back");
    assert_eq!(one.ask(CALLED, "ping"), CALLED);
    assert_eq!(one.ask(CALLED, "critical:log:hello"), "ok");
    assert_eq!(program.ask("ping"), CALLED, "it stayed connected");
    let after = wait::within(back, || one.status(CALLED)).expect("the admin socket to be back");
    assert_eq!((&after["pid"], &after["since"]), (&before["pid"], &before["since"]), "the link stayed");
    wait::within(back, || other.lond_status()).expect("lond's socket to be back");
    for (host, program, name) in [(&one, &lonc, "lonc"), (&other, &lond, "lond")] {
        assert_eq!(pid_in(&host.pid_file(name)), Some(program.pid()));
        let log = host.log(&format!("{name}.log"));
        assert_eq!(log.lines().filter(|line| line.contains("made again")).count(), 1, "{log}");
    }
    // Once more, one socket alone; the child has another listener by now.
    fs::remove_file(one.socket(CALLED)).expect("remove a socket");
    wait::within(back, || Local::try_connect(&one.socket(CALLED)).ok()).expect("the socket to be back");
    assert_eq!(one.ask(CALLED, "ping"), CALLED);
    assert!(lonc.stop().success() && lond.stop().success());
    for host in [&one, &other] {
        assert_eq!(fs::read_dir(host.dir.join("run")).expect("list run_dir").count(), 0);
    }
}

#[test]
fn of_two_lonc_with_one_spool_dir_the_second_serves_plain_requests_and_says_who_has_the_spool() {
    const SECOND: &str = "msux2";
    let network = Network::secure(&[CALLER, CALLED, SECOND]);
    let (first, other) = (network.host(CALLER), network.host(CALLED));
    let mut second = network.host(SECOND);
    second.set("", "spool_dir", &format!("{:?}", first.dir.join("delayed")));
    let (_lond, lonc) = (other.lond(), first.lonc());
    first.wait_link(CALLED, "up");
    assert_eq!(first.ask(CALLED, "critical:log:first"), "ok");
    let _second = second.lonc();
    second.wait_link(CALLED, "up");
    assert_eq!(second.ask(CALLED, "ping"), CALLED);
    assert_eq!(second.ask(CALLED, "critical:log:second"), "con_failed");
    let who = [
        format!("locked by lonc, process {} ", lonc.pid()),
        format!("run_dir {}", first.dir.join("run").display()),
    ];
    let says = |text: &str| who.iter().all(|part| text.contains(part));
    let log = second.log("lonc.log");
    assert!(log.lines().any(|line| line.contains("ERROR") && says(line)), "{log}");
    wait::until_true("the status to say who has it", || {
        second
            .status(CALLED)
            .is_some_and(|status| status["state"] == "up" && status["last_error"].as_str().is_some_and(says))
    });
    assert_eq!(first.ask(CALLED, "critical:log:first again"), "ok", "the first is not disturbed");
    assert!(lonc.stop().success());
    wait::until_true("the second to have the spool", || second.ask(CALLED, "critical:log:second") == "ok");
    // Each is refused a second start all the same, by a lock of its own beside the shared spool.
    empty_run(&second);
    let third = second.command("lonc").output().expect("start one more");
    assert_eq!(third.status.code(), Some(1), "{third:?}");
    assert!(String::from_utf8_lossy(&third.stderr).contains("already running with pid"), "{third:?}");
}

#[test]
fn while_another_process_has_the_spool_no_critical_request_passes_it_on_the_classic_wire_either() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let mut fake = FakeLond::away(CALLED, CALLER, network.address(CALLED));
    fake.listen();
    let folder = host.spool(CALLED);
    fs::create_dir_all(&folder).expect("make the spool");
    let lock = SpoolLock::try_acquire(&folder).expect("lock the spool").expect("nobody else has it");
    lock.sign("lonc, process 7 (its child 8), run_dir /elsewhere");
    let _lonc = host.lonc();
    host.wait_link(CALLED, "up");
    assert_eq!(host.ask(CALLED, "echo:plain"), "echo:plain");
    // What waits there is older, and none of ours is to come before it.
    for number in 0..3 {
        assert_eq!(host.ask(CALLED, &format!("critical:echo:{number}")), "con_failed");
    }
    assert_eq!(host.ask(CALLED, "echo:plain again"), "echo:plain again");
    assert_eq!(fake.received("echo:").len(), 2, "nothing but the plain ones");
    drop(lock);
    wait::until_true("the spool to be had", || host.ask(CALLED, "critical:echo:now") == "echo:now");
}

#[test]
fn where_no_watch_can_be_had_dropped_files_are_looked_for_and_a_watch_is_tried_again() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let Some(library) = preload::library("network/no_watch.c", network.dir()) else { return };
    let refused = network.dir().join("no-watch");
    fs::write(&refused, "").expect("have watches refused");
    let mut fake = FakeLond::away(CALLED, CALLER, network.address(CALLED));
    fake.listen();
    let mut command = host.command("lonc");
    command.env("LD_PRELOAD", library).env("LONNET_NO_WATCH", &refused);
    let _lonc = host.start(command, "lonc");
    host.wait_link(CALLED, "up");
    let drop_in = |text: &str| {
        let name = format!("delayed/{text}.{CALLED}");
        fs::write(host.dir.join(name), format!("log:{text}\n")).expect("drop a file in");
    };
    let said = |text: &str| host.log("lonc.log").matches(text).count();
    // Which of two looks finds it is chance: both must be found.
    for text in ["one", "two"] {
        drop_in(text);
        fake.wait_received(&format!("log:{text}"), 1);
    }
    assert_eq!(said("looked into every few seconds instead"), 1, "it is said once");
    assert_eq!(said("it is watched now"), 0);
    fs::remove_file(&refused).expect("have watches granted");
    wait::until_true("a watch", || said("it is watched now") == 1);
    drop_in("three");
    fake.wait_received("log:three", 1);
}

#[test]
fn what_is_stored_after_the_delayed_directory_was_removed_is_kept_and_sent() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let lonc = host.lonc();
    host.wait_link(CALLED, "down");
    let mut program = host.connect(CALLED);
    let mut kept = Vec::new();
    let mut keep = |text: &str| {
        // Refused by the process whose folder was removed; kept by the next, on the same
        // connection.
        wait::until_true("it to be kept", || match program.ask(&format!("critical:log:{text}")).as_str() {
            "con_delayed" => true,
            answer => {
                assert_eq!(answer, "con_failed");
                false
            }
        });
        kept.push(format!("log:{text}"));
    };
    assert_eq!(host.ask(CALLED, "critical:log:lost with the folder"), "con_delayed");
    let child = lonc.only_child();
    fs::remove_dir_all(host.dir.join("delayed")).expect("remove the delayed directory");
    keep("one");
    let next = lonc.only_child();
    assert_ne!(child, next, "another process has the new folder");
    // The lock alone: nobody else gets in by that.
    fs::remove_file(host.spool(CALLED).join("lock")).expect("remove the lock");
    keep("two");
    assert!(host.spool(CALLED).join("lock").exists());
    assert_eq!(lonc.only_child(), next, "it has its folder still");
    // The folder alone, and another in its place.
    fs::rename(host.spool(CALLED), host.dir.join("delayed/.moved")).expect("move the folder away");
    fs::create_dir(host.spool(CALLED)).expect("make another");
    keep("three");
    fs::remove_dir_all(host.spool(CALLED)).expect("remove that");
    fs::rename(host.dir.join("delayed/.moved"), host.spool(CALLED)).expect("move it back");
    keep("four");
    assert!(lonc.stop().success());
    let mut fake = FakeLond::away(CALLED, CALLER, network.address(CALLED));
    fake.listen();
    let _lonc = host.lonc();
    kept.retain(|text| text != "log:three");
    assert_eq!(fake.wait_received("log:", 3), kept);
}

#[test]
fn a_peers_folder_that_is_removed_while_nothing_happens_is_made_again_and_no_message_is_refused_for_it() {
    let network = Network::new(&[CALLER, CALLED]);
    let host = network.host(CALLER);
    let lonc = host.lonc();
    host.wait_link(CALLED, "down");
    let child = lonc.only_child();
    fs::remove_dir_all(host.spool(CALLED)).expect("remove the folder");
    wait::until_true("another process, with another folder", || {
        host.spool(CALLED).join("lock").exists() && matches!(lonc.children()[..], [next] if next != child)
    });
    wait::until_true("its link to be seen after", || host.status(CALLED).is_some());
    assert_eq!(host.ask(CALLED, "critical:log:one"), "con_delayed");
    assert!(host.log("lonc.log").contains("the next process begins a new one"));
}

fn start_both(folder: &Path) {
    fs::create_dir(folder).expect("make a folder");
    let user = if nix::unistd::geteuid().is_root() { "user = \"root\"\n" } else { "" };
    // Nobody listens at the peer's address; and of this host's no other start has the port.
    let port =
        20_000 + folder.file_name().and_then(|name| name.to_str()?.parse::<u16>().ok()).expect("a number");
    let text = format!(
        "id = \"here\"\n{user}[lonc]\nwire = \"classic\"\n[host.there]\naddress = \"127.0.0.9:1\"\n\
         [lond]\nclassic = \"allow\"\nlisten = [\"127.0.0.8:{port}\"]\n"
    );
    fs::write(folder.join("lonnet.toml"), text).expect("write the configuration");
    fs::write(folder.join("hosts.tab"), "here:d:library:a:127.0.0.8\nthere:d:library:b:127.0.0.9\n")
        .expect("write the table");
    let mut programs = [
        Running(spawn(env!("CARGO_BIN_EXE_lonc"), folder)),
        Running(spawn(env!("CARGO_BIN_EXE_lond"), folder)),
    ];
    for (program, name) in programs.iter_mut().zip(["lonc", "lond"]) {
        let socket = folder.join("run").join(format!("{name}.sock"));
        let mut said = String::new();
        wait::until_true(&format!("{name} of {} to say who it is", folder.display()), || {
            program.assert_running(name, folder);
            let asked = Local::try_connect(&socket).and_then(|mut socket| socket.try_ask("status"));
            asked.is_ok_and(|answer| {
                said = answer;
                !said.is_empty()
            })
        });
        let status: serde_json::Value = serde_json::from_str(&said).expect("the status is JSON");
        assert_eq!(
            (status["program"].as_str(), status["pid"].as_u64()),
            (Some(name), Some(program.0.id().into()))
        );
        let pid = fs::read_to_string(folder.join("run").join(format!("{name}.pid"))).expect("a pid file");
        assert_eq!(pid, format!("{}\n", program.0.id()));
    }
    // A socket that led to the other program would be answered `error:...`.
    assert_eq!(Local::connect(&folder.join("run/there")).ask("ping"), "con_lost");
    let mut names: Vec<_> = fs::read_dir(folder.join("run"))
        .expect("list the sockets")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    assert_eq!(names, ["lonc.pid", "lonc.sock", "lond.pid", "lond.sock", "there"]);
}

fn spawn(program: &str, folder: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg("--foreground").arg("--config").arg(folder.join("lonnet.toml")).stdin(Stdio::null());
    let errors = fs::File::create(folder.join(Path::new(program).file_name().expect("a name")));
    command.stdout(Stdio::null()).stderr(errors.expect("make a file"));
    command.spawn().expect("start a program")
}

/// A program that does not outlive its test.
struct Running(Child);

impl Running {
    fn assert_running(&mut self, name: &str, folder: &Path) {
        if let Some(ended) = self.0.try_wait().expect("look at a program") {
            let said = fs::read_to_string(folder.join(name)).unwrap_or_default();
            panic!("{name} of {} ended with {ended}: {said}", folder.display());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        process::signal(self.0.id(), Signal::SIGQUIT);
        // Nobody else has reaped it.
        let _ = self.0.wait();
    }
}
