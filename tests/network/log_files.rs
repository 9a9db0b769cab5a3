//! The log files: nobody who reads them slowly, fills their disk or renames them can stop or end a
//! program.

use crate::common::network::Host;
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::secure_pair::{SecurePair, TwoHosts};
use crate::common::{process, wait};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is said of lines that could not be written, in the next one.
const LEFT_OUT: &str = " before this left out: ";

/// Starts a program whose standard error is `out`, in the foreground.
fn start_to(host: &Host, name: &'static str, out: OwnedFd) -> Program {
    let mut command = host.command(name);
    command.arg("--foreground").stdout(Stdio::null()).stderr(out);
    Program::start_heard(&mut command, name, host.pid_file(name))
}

/// The end of a pipe that nobody has read for long: a write to it waits.
fn full_pipe() -> (std::io::PipeReader, OwnedFd) {
    let (reader, mut writer) = std::io::pipe().expect("make a pipe");
    let size =
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETPIPE_SZ).expect("ask a pipe for its size");
    writer.write_all(&vec![b'x'; usize::try_from(size).expect("a size")]).expect("fill a pipe");
    (reader, writer.into())
}

/// The end of a socket like the journal's that nobody has read for long.
fn full_socket() -> (UnixStream, OwnedFd) {
    let (reader, mut writer) = UnixStream::pair().expect("make two sockets");
    writer.set_nonblocking(true).expect("have a socket not wait");
    while match writer.write(&[b'x'; 1000]) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("fill a socket: {error}"),
    } {}
    writer.set_nonblocking(false).expect("have a socket wait");
    (reader, writer.into())
}

/// Both programs of two hosts serve and end though nobody reads what they say; gives the outputs
/// back.
fn serve_unread(out: impl Fn() -> OwnedFd) {
    let mut both = TwoHosts::new();
    both.one.set("", "log_level", "\"debug\"");
    both.other.set("", "log_level", "\"debug\"");
    let lond = start_to(&both.other, "lond", out());
    let lonc = start_to(&both.one, "lonc", out());
    both.one.wait_link(CALLED, "up");
    for number in 0..64 {
        assert_eq!(both.one.ask(CALLED, &format!("log:{number} {}", "x".repeat(2000))), "ok");
    }
    assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
    // The next program is tried and takes over with the same output.
    [&lonc, &lond].iter().for_each(|program| program.signal(Signal::SIGHUP));
    wait::until_true("both to be started anew", || {
        let anew = |host: &Host, log: &str| host.log(log).contains(" INFO started anew, ");
        anew(&both.one, "lonc.log") && anew(&both.other, "lond.log")
    });
    both.one.wait_link(CALLED, "up");
    wait::until_true("a link that is used", || both.one.ask(CALLED, "ping") == CALLED);
    for program in [lonc, lond] {
        let children = program.children();
        assert!(program.stop().success());
        assert!(!children.iter().any(|child| process::alive(*child)), "no child is held up either");
    }
    let log = both.other.log("lond.log");
    assert_eq!(log.matches(" log from ").count(), 64, "what the file can take is in it: {log}");
}

#[test]
fn a_standard_error_that_nobody_reads_holds_up_neither_supervisor_nor_child_and_term_is_heeded() {
    let pipes: Vec<_> = (0..2).map(|_| full_pipe()).collect();
    let ends = std::cell::RefCell::new(Vec::new());
    let readers: Vec<_> = pipes
        .into_iter()
        .map(|(reader, writer)| {
            ends.borrow_mut().push(writer);
            reader
        })
        .collect();
    serve_unread(|| ends.borrow_mut().pop().expect("a pipe for each program"));
    drop(readers);
    let (reader, writer) = full_socket();
    serve_unread(|| writer.try_clone().expect("one socket for both"));
    drop(reader);
}

#[test]
fn lines_that_a_full_pipe_did_not_take_are_counted_in_the_next_one_whichever_process_had_them() {
    let both = TwoHosts::new();
    let (mut reader, writer) = full_pipe();
    let lond = start_to(&both.other, "lond", writer);
    let lonc = both.one.lonc();
    both.one.wait_link(CALLED, "up");
    let child = lond.only_child();
    (0..20).for_each(|number| assert_eq!(both.one.ask(CALLED, &format!("log:{number}")), "ok"));
    // The child that left them out is gone when somebody reads again.
    drop(lonc);
    wait::until_true("the link to be gone", || !process::alive(child));
    let mut text = vec![0; 1 << 20];
    let unread = reader.read(&mut text).expect("read a pipe");
    assert!(text[..unread].iter().all(|byte| *byte == b'x'));
    lond.signal(Signal::SIGUSR1);
    let said = reader.read(&mut text).expect("read a pipe");
    let said = String::from_utf8_lossy(&text[..said]).into_owned();
    let first = said.lines().next().expect("a line");
    let (_, count) = first.split_once(" (").expect("a count");
    let count: usize =
        count.split_once(&format!(" lines{LEFT_OUT}")).expect("a count").0.parse().expect("a number");
    assert!(count > 20, "{said}");
    assert!(first.starts_with("20"), "a whole line: {first}");
    assert!(!both.other.log("lond.log").contains(LEFT_OUT), "the file has them all");
}

/// Renames a host's log files away, as logrotate does; where they are now.
fn rename_logs(host: &Host, round: usize) -> Vec<PathBuf> {
    let folder = host.dir.join("log");
    let logs = ["lonc.log", "lond.log", "lonnet.perm.log"].map(|name| folder.join(name));
    let there = logs.iter().filter(|log| log.exists());
    there
        .map(|log| {
            let away = PathBuf::from(format!("{}.{round}", log.display()));
            fs::rename(log, &away).expect("rename a log");
            away
        })
        .collect()
}

#[test]
fn renamed_logs_are_opened_anew_at_usr1_reload_and_hup_by_every_process() {
    let both = TwoHosts::new();
    let (lonc, mut lond) = both.start();
    for (round, act) in ["usr1", "reload", "hup"].into_iter().enumerate() {
        let do_it = |host: &Host, program: &Program| match act {
            "usr1" => program.signal(Signal::SIGUSR1),
            "reload" => assert!(host.lon(&["reload"]).status.success()),
            _ => program.signal(Signal::SIGHUP),
        };
        let away = [rename_logs(&both.one, round), rename_logs(&both.other, round)].concat();
        assert!(away.len() >= 2, "{away:?}");
        do_it(&both.one, &lonc);
        do_it(&both.other, &lond);
        wait::until_true(&format!("nobody to have a renamed log open after {act}"), || {
            let supervisors = [lonc.pid(), lond.pid()];
            let children = supervisors.iter().flat_map(|pid| process::children(*pid)).collect::<Vec<_>>();
            let mut all = supervisors.iter().chain(&children);
            !all.any(|pid| away.iter().any(|file| process::has_open(*pid, file)))
        });
        both.one.wait_link(CALLED, "up");
        assert_eq!(both.one.ask(CALLED, &format!("log:after {act}")), "ok");
        let log = both.other.log("lond.log");
        assert_eq!(log.matches(&format!("log from {CALLER}: after {act}")).count(), 1, "{log}");
        // The other child has something to say, and the third log something to hold, when the link
        // was lost.
        let stopped = lond.stop();
        assert!(stopped.success());
        both.one.wait_link(CALLED, "down");
        assert_eq!(both.one.ask(CALLED, &format!("critical:do:{act}")), "con_delayed");
        lond = both.other.lond();
        lonc.signal(Signal::SIGUSR1);
        wait::until_true("the message to be noted", || {
            both.one.log("lonnet.perm.log").contains(&format!(":do:{act}:"))
        });
        assert!(both.one.log("lonc.log").contains(&format!("lonc[{}] {CALLED} ", lonc.only_child())));
    }
}

/// Has a program started so that no file may become longer than this.
fn with_file_limit(command: &mut Command, bytes: u64) {
    // SAFETY: between fork and exec: one system call.
    unsafe { command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?)) };
}

#[test]
fn a_limit_on_the_size_of_files_refuses_messages_and_ends_no_process() {
    let limit = 64 * 1024;
    let SecurePair { lonc, fake, host, network } = SecurePair::prepare(|_| {}, |_| {});
    drop(lonc);
    let log = host.dir.join("log/lonc.log");
    let mut long = fs::OpenOptions::new().append(true).open(&log).expect("open the log");
    long.write_all(format!("{}\n", "x".repeat(limit)).as_bytes()).expect("make the log long");
    let mut command = host.command("lonc");
    with_file_limit(&mut command, limit as u64);
    let lonc = host.start(command, "lonc");
    host.wait_link(CALLED, "down");
    let child = lonc.only_child();
    let ask = |number: usize| host.ask(CALLED, &format!("critical:do:{number} {}", "y".repeat(1000)));
    for number in 0..3 {
        assert_eq!(ask(number), "con_failed", "there is no room for a segment of the spool");
    }
    assert_eq!(host.ask(CALLED, "ping"), "con_lost");
    assert_eq!(lonc.only_child(), child);
    // The log's file is made short, as `copytruncate` does it: then it says how much is missing.
    let before = fs::read(&log).expect("read the log");
    assert!(before.ends_with(b"x\n"), "nothing fits behind what is there");
    fs::File::create(&log).expect("make the log short");
    lonc.signal(Signal::SIGUSR1);
    wait::until_true("the log to say what it could not hold", || {
        let text = host.log("lonc.log");
        text.contains(LEFT_OUT) && text.contains("File too large")
    });
    drop((lonc, fake));
    let mut lon = Command::new(env!("CARGO_BIN_EXE_lon"));
    lon.arg("--config").arg(host.config()).args(["critical", CALLED]).arg("z".repeat(100_000));
    with_file_limit(&mut lon, limit as u64);
    let failed = wait::within(Duration::ZERO, || Some(lon.output().expect("run lon"))).expect("an end");
    assert_eq!(failed.status.code(), Some(5), "{failed:?}");
    drop(network);
}

#[test]
fn a_log_request_that_the_file_cannot_take_is_not_answered_ok_and_a_critical_one_is_written_later() {
    let limit = 1 << 20;
    let both = TwoHosts::new();
    drop(both.other.lond());
    let log = both.other.dir.join("log/lond.log");
    fs::write(&log, vec![b'\n'; limit]).expect("make the log long");
    let mut command = both.other.command("lond");
    with_file_limit(&mut command, limit as u64);
    let _lond = both.other.start(command, "lond");
    let _lonc = both.one.lonc();
    both.one.wait_link(CALLED, "up");
    let refused = both.one.ask(CALLED, "log:not to be lost unseen");
    assert!(refused.starts_with("error:log: append to the log: File too large"), "{refused}");
    assert_eq!(both.one.ask(CALLED, "critical:log:kept"), "con_delayed");
    assert_eq!(both.one.ask(CALLED, "ping"), CALLED);
    fs::File::create(&log).expect("make the log short");
    wait::until_true("what was kept to be written", || {
        let text = both.other.log("lond.log");
        text.contains(&format!("log from {CALLER}: kept")) && text.contains(LEFT_OUT)
    });
    assert_eq!(both.one.ask(CALLED, "log:again"), "ok");
}

#[test]
fn a_delivery_that_the_permanent_log_cannot_note_is_said_and_the_next_is_a_line_of_its_own() {
    let limit = 4 << 20;
    let both = TwoHosts::new();
    drop(both.one.lonc());
    let log = both.one.dir.join("log/lonnet.perm.log");
    fs::write(&log, vec![b'\n'; limit - 10]).expect("make the log long");
    let mut command = both.one.command("lonc");
    with_file_limit(&mut command, limit as u64);
    let lonc = both.one.start(command, "lonc");
    let deliver = |message: &str| {
        both.one.wait_link(CALLED, "down");
        assert_eq!(both.one.ask(CALLED, &format!("critical:do:{message}")), "con_delayed");
        let lond = both.other.lond();
        lonc.signal(Signal::SIGUSR1);
        wait::until_true("the message to be done", || both.counter.done().contains(&format!("do:{message}")));
        lond
    };
    let lond = deliver("first");
    wait::until_true("the log to say so", || {
        let text = both.one.log("lonc.log");
        text.contains(
            "lonnet.perm.log: only a part could be written; the delivery of a message to msul1 is not noted",
        )
    });
    assert!(lond.stop().success());
    fs::File::create(&log).expect("make the log short");
    let _lond = deliver("second");
    wait::until_true("the second to be noted", || both.one.log("lonnet.perm.log").contains(":do:second:"));
    let text = both.one.log("lonnet.perm.log");
    assert!(text.starts_with('\n'), "what was torn before it may still be there: {text:?}");
}

#[test]
fn what_is_said_before_there_is_a_log_is_a_line_whatever_it_is_about() {
    let both = TwoHosts::new();
    let path = both.one.dir.join("no\nlonc: such\x1b[2J.toml");
    let said = Command::new(env!("CARGO_BIN_EXE_lonc")).arg("--config").arg(path).output().expect("run lonc");
    assert_eq!(said.status.code(), Some(1));
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("no\\nlonc: such\\u{1b}[2J.toml"), "{text}");
}

#[test]
fn a_log_folder_that_is_replaced_is_followed_by_children_too_and_programs_stay_connected() {
    let hosts = TwoHosts::new();
    let (lonc, lond) = hosts.start();
    let mut program = hosts.one.connect(CALLED);
    assert_eq!(program.ask("ping"), CALLED);
    let (caller, called) = (lonc.only_child(), lond.only_child());
    for host in [&hosts.one, &hosts.other] {
        fs::rename(host.dir.join("log"), host.dir.join("log.old")).expect("rename a folder");
        fs::create_dir_all(host.dir.join("log")).expect("make a folder");
    }
    wait::until_true("other children", || !process::alive(caller) && !process::alive(called));
    wait::until_true("the link to be up", || program.ask("ping") == CALLED);
    assert_eq!(program.ask("log:in the new folder"), "ok");
    wait::until_true("the line", || hosts.other.log("lond.log").contains("in the new folder"));
    for (host, name) in [(&hosts.one, "lonc.log"), (&hosts.other, "lond.log")] {
        assert!(host.log(name).contains("is another folder now: the log goes on there"));
    }
    assert!(hosts.one.log("lonc.log").contains(" msul1 INFO "), "its child's lines");
}
