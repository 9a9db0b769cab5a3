//! What a link child can still do: whoever takes one over finds its own link and its own folder,
//! and nothing else. Asked of the children that run, by system calls that they are made to do.

#![cfg(target_arch = "x86_64")]

use crate::common::inject::{self, Argument, Stopped};
use crate::common::network::{Host, Network};
use crate::common::pair::{CALLED, CALLER};
use crate::common::program::Program;
use crate::common::secure_pair::TwoHosts;
use crate::common::{preload, process, skipped, wait};
use crate::dials::{FURTHER, by_name, looking_up};
use Argument::{Bytes, Number};
use nix::sys::signal::Signal;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Numbers above all that a kernel has.
const NO_CALL: i64 = 1000;

/// What confines children here; nothing where that cannot be tried.
fn in_force() -> Option<String> {
    let there = lonnet::supervise::sandbox::InForce::in_this_kernel();
    let all = there.landlock.is_some_and(|version| version >= 6) && there.seccomp;
    if !all || !inject::possible() {
        skipped("needs root, Landlock 6 and seccomp");
        return None;
    }
    Some(there.to_string())
}

fn c_string(path: impl AsRef<Path>) -> Vec<u8> {
    [path.as_ref().as_os_str().as_bytes(), b"\0"].concat()
}

fn open(child: &Stopped, path: impl AsRef<Path>, flags: i32) -> i64 {
    let path = c_string(path);
    let at = i64::from(libc::AT_FDCWD);
    child.call(libc::SYS_openat, &[Number(at), Bytes(&path), Number(flags.into()), Number(0o600)])
}

fn assert_refused(what: &str, answer: i64) {
    let refused = [libc::EPERM, libc::EACCES].map(|errno| -i64::from(errno));
    assert!(refused.contains(&answer), "{what}: {answer}");
}

/// Nothing of what a program could do is left to this process but what its link needs.
fn assert_confined(child: &Stopped, host: &Host, pid: u32) {
    let etc = ["/etc/passwd", "/etc", "/", "/proc/self/maps", "/dev/null"];
    let own = ["keys/host.key", "lonnet.toml", "run", "delayed", "status", "log/lond.log"];
    // Without a key there is no key.
    let own = own.map(|name| host.dir.join(name)).into_iter().filter(|path| path.exists());
    for path in etc.map(Into::into).into_iter().chain(own) {
        assert_refused(&path.display().to_string(), open(child, &path, libc::O_RDONLY));
    }
    for path in [host.dir.join("new"), "/tmp/lonnet-new".into(), host.dir.join("delayed/new")] {
        assert_refused(&path.display().to_string(), open(child, &path, libc::O_WRONLY | libc::O_CREAT));
        assert!(!path.exists());
    }
    let parent = i64::from(nix::unistd::getpgid(None).map_or(1, nix::unistd::Pid::as_raw));
    let shell = c_string("/bin/sh");
    let calls: &[(&str, i64, &[Argument<'_>])] = &[
        ("fork", libc::SYS_fork, &[]),
        ("vfork", libc::SYS_vfork, &[]),
        ("clone", libc::SYS_clone, &[Number(libc::SIGCHLD.into())]),
        ("clone of a thread", libc::SYS_clone, &[Number((libc::CLONE_THREAD | libc::CLONE_VM).into())]),
        ("clone3", libc::SYS_clone3, &[Bytes(&[0; 88]), Number(88)]),
        ("execve", libc::SYS_execve, &[Bytes(&shell), Number(0), Number(0)]),
        ("kill", libc::SYS_kill, &[Number(parent), Number(0)]),
        ("tgkill of another", libc::SYS_tgkill, &[Number(parent), Number(parent), Number(0)]),
        ("ptrace", libc::SYS_ptrace, &[Number(16), Number(parent)]),
        ("process_vm_readv", libc::SYS_process_vm_readv, &[Number(parent)]),
        ("pidfd_open", libc::SYS_pidfd_open, &[Number(parent)]),
        ("socket of TCP", libc::SYS_socket, &[Number(2), Number(1)]),
        ("socket of UDP", libc::SYS_socket, &[Number(10), Number(2)]),
        ("socket of datagrams", libc::SYS_socket, &[Number(1), Number(2)]),
        ("socketpair", libc::SYS_socketpair, &[Number(1), Number(1)]),
        ("listen", libc::SYS_listen, &[Number(3), Number(1)]),
        ("setuid", libc::SYS_setuid, &[Number(0)]),
        ("mount", libc::SYS_mount, &[]),
        ("unshare", libc::SYS_unshare, &[Number(libc::CLONE_NEWUSER.into())]),
        ("bpf", libc::SYS_bpf, &[]),
        ("keyctl", libc::SYS_keyctl, &[]),
        ("io_uring_setup", libc::SYS_io_uring_setup, &[Number(8), Bytes(&[0; 128])]),
        ("userfaultfd", libc::SYS_userfaultfd, &[]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, &[]),
        ("prctl of dumps", libc::SYS_prctl, &[Number(4), Number(1)]),
        (
            "setsockopt of room",
            libc::SYS_setsockopt,
            &[Number(3), Number(1), Number(7), Bytes(&[1; 4]), Number(4)],
        ),
        ("fallocate that cuts out", libc::SYS_fallocate, &[Number(3), Number(3), Number(0), Number(4096)]),
        ("fchmod for others", libc::SYS_fchmod, &[Number(3), Number(0o644)]),
        ("ioctl of a terminal", libc::SYS_ioctl, &[Number(0), Number(0x5412)]),
        (
            "memory to execute",
            libc::SYS_mmap,
            &[Number(0), Number(4096), Number(7), Number(0x22), Number(-1)],
        ),
    ];
    for (what, number, arguments) in calls {
        assert_refused(what, child.call(*number, arguments));
    }
    assert_eq!(child.call(NO_CALL, &[]), -i64::from(libc::ENOSYS), "a call that no kernel has");
    assert_reaches_no_port(child, pid);
    assert_spoils_nothing_shared(child, host, pid);
}

/// What others have open too stays as it is: logs are not emptied, nobody comes to wait.
fn assert_spoils_nothing_shared(child: &Stopped, host: &Host, pid: u32) {
    let mut logs = 0;
    for fd in child.descriptors() {
        let file = fs::read_link(format!("/proc/{pid}/fd/{fd}")).expect("what it is");
        assert_refused("FIONBIO", child.call(libc::SYS_ioctl, &[Number(fd), Number(0x5421), Bytes(&[0; 4])]));
        if fd <= 2 || file.starts_with(host.dir.join("log")) {
            assert_refused(
                "ftruncate of what is shared",
                child.call(libc::SYS_ftruncate, &[Number(fd), Number(0)]),
            );
            logs += usize::from(fd > 2);
        }
        if fd <= 2 {
            for (number, more) in
                [(libc::SYS_dup, 0), (libc::SYS_dup3, 100), (libc::SYS_dup2, 100), (libc::SYS_shutdown, 2)]
            {
                assert_refused(
                    "a copy, or an end",
                    child.call(number, &[Number(fd), Number(more), Number(0)]),
                );
            }
            let copy = [Number(fd), Number(libc::F_DUPFD.into()), Number(10)];
            assert_refused("another copy", child.call(libc::SYS_fcntl, &copy));
        }
    }
    assert_eq!(logs, 1, "its log");
    let log = fs::metadata(host.dir.join("log").join(if host.dir.ends_with(CALLER) {
        "lonc.log"
    } else {
        "lond.log"
    }));
    assert!(log.expect("the log").len() > 0);
}

/// None of its sockets can be made to lead elsewhere.
fn assert_reaches_no_port(child: &Stopped, pid: u32) {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = elsewhere.local_addr().expect("an address").port().to_be_bytes();
    let mut address = [0_u8; 16];
    address[..8].copy_from_slice(&[2, 0, port[0], port[1], 127, 0, 0, 1]);
    let mut tried = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten() {
        let Ok(number) = entry.file_name().to_string_lossy().parse::<i64>() else { continue };
        let arguments = [Number(number), Bytes(&address), Number(16)];
        let answer = child.call(libc::SYS_connect, &arguments);
        let made = [0, -i64::from(libc::EINPROGRESS)].contains(&answer);
        assert!(!made, "descriptor {number} was connected: {answer}");
        tried += 1;
    }
    assert!(tried > 3, "it has a link, a control socket, a poll");
}

/// What the kernel says of the process.
fn assert_without_rights(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let said = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line of that name");
        line.split_once('\t').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    assert_eq!((said("NoNewPrivs"), said("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(said(set), "0000000000000000", "{set}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert!(cores.contains(" 0 "), "{cores}");
}

fn of_lonc(host: &Host) -> serde_json::Value {
    let status = host.status(CALLED).expect("lonc answers");
    status["sandbox"].clone()
}

fn of_lond(host: &Host) -> serde_json::Value {
    let status = host.lond_status().expect("lond answers");
    status["links"][0]["sandbox"].clone()
}

#[test]
fn a_link_child_of_lond_reaches_its_link_its_record_and_its_handlers_and_nothing_else() {
    let Some(sandbox) = in_force() else { return };
    let hosts = TwoHosts::new();
    // What another caller has is another's.
    let others = hosts.other.dir.join("delayed/.received/msux9");
    fs::create_dir_all(&others).expect("make a folder");
    fs::write(others.join("answers"), "").expect("write a file");
    let (lonc, lond) = hosts.start();
    assert_eq!(hosts.one.ask(CALLED, "critical:do:before"), "ok");
    let pid = lond.only_child();
    let record = hosts.other.dir.join("delayed/.received").join(CALLER).join("answers");
    {
        let child = Stopped::at(pid);
        assert_confined(&child, &hosts.other, pid);
        for number in [libc::SYS_sendmsg, libc::SYS_recvmsg] {
            assert_refused("descriptors", child.call(number, &[Number(3), Bytes(&[0; 56])]));
        }
        assert_refused("another's record", open(&child, others.join("answers"), libc::O_RDONLY));
        assert_refused("all records", open(&child, others.parent().expect("a folder"), libc::O_RDONLY));
        let number = open(&child, &record, libc::O_RDONLY);
        assert!(number > 2, "its own record: {number}");
        assert_eq!(child.call(libc::SYS_close, &[Number(number)]), 0);
    }
    assert_without_rights(pid);
    assert_eq!(of_lond(&hosts.other), sandbox);
    assert_goes_on(&hosts, &lonc, &lond, pid);
}

/// All that a link does is done as before, by the same child; then by the next one.
fn assert_goes_on(hosts: &TwoHosts, lonc: &Program, lond: &Program, pid: u32) {
    assert_eq!(hosts.one.ask(CALLED, "ping"), CALLED);
    assert_eq!(hosts.one.ask(CALLED, "critical:do:after"), "ok");
    assert!(hosts.one.ask(CALLED, "load").parse::<u32>().is_ok());
    assert_eq!(hosts.one.ask(CALLED, "log:to the log"), "ok");
    let log = hosts.other.dir.join("log/lond.log");
    fs::rename(&log, hosts.other.dir.join("log/old.log")).expect("rename the log");
    lond.signal(Signal::SIGUSR1);
    wait::until_true("the child to have opened the log anew", || process::has_open(pid, &log));
    assert_eq!(hosts.one.ask(CALLED, "log:to the new log"), "ok");
    wait::until_true("the line", || hosts.other.log("lond.log").contains("to the new log"));
    assert_eq!(lond.only_child(), pid, "it is the same");
    lond.signal(Signal::SIGHUP);
    wait::until_true("another child", || lond.children().iter().any(|child| *child != pid));
    lonc.signal(Signal::SIGUSR1);
    hosts.one.wait_link(CALLED, "up");
    assert_eq!(hosts.one.ask(CALLED, "critical:do:by the next"), "ok");
    assert_eq!(hosts.counter.done(), ["do:before", "do:after", "do:by the next"]);
}

#[test]
fn a_link_child_of_lond_whose_records_folder_is_removed_ends_at_once_and_the_next_one_has_another() {
    if in_force().is_none() {
        return;
    }
    let mut hosts = TwoHosts::new();
    // It would wait for the folder for longer than this.
    hosts.other.set("lond", "drain_timeout", "\"300s\"");
    let (_lonc, lond) = hosts.start();
    assert_eq!(hosts.one.ask(CALLED, "critical:do:before"), "ok");
    let pid = lond.only_child();
    fs::remove_dir_all(hosts.other.dir.join("delayed/.received").join(CALLER)).expect("remove the record");
    assert!(["ok", "con_delayed"].contains(&&*hosts.one.ask(CALLED, "critical:do:after")));
    hosts.one.wait_delivered(CALLED);
    wait::until_true("both to be done", || hosts.counter.done() == ["do:before", "do:after"]);
    assert_ne!(lond.only_child(), pid);
    let log = hosts.other.log("lond.log");
    let said = "its folder was removed, and this process can have no other: the link ends";
    assert!(log.contains(said), "{log}");
    assert_eq!(hosts.one.ask(CALLED, "critical:do:again"), "ok");
}

#[test]
fn a_link_child_of_lonc_reaches_its_sockets_and_its_peers_folder_and_nothing_else() {
    let Some(sandbox) = in_force() else { return };
    let hosts = TwoHosts::new();
    // What waits for another peer is another's.
    let others = hosts.one.dir.join("delayed/msux9");
    fs::create_dir_all(&others).expect("make a folder");
    fs::write(others.join("spool"), "").expect("write a file");
    let (lonc, lond) = hosts.start();
    assert_eq!(hosts.one.ask(CALLED, "critical:do:before"), "ok");
    let pid = lonc.only_child();
    let own = hosts.one.dir.join("delayed").join(CALLED);
    {
        let child = Stopped::at(pid);
        assert_confined(&child, &hosts.one, pid);
        assert_refused("another's spool", open(&child, others.join("spool"), libc::O_RDONLY));
        let stream = [Number(libc::AF_UNIX.into()), Number(libc::SOCK_STREAM.into())];
        assert_refused("a socket of its own", child.call(libc::SYS_socket, &stream));
        let number = open(&child, &own, libc::O_RDONLY);
        assert!(number > 2, "its own folder: {number}");
        assert_eq!(child.call(libc::SYS_close, &[Number(number)]), 0);
    }
    assert_without_rights(pid);
    assert_eq!(of_lonc(&hosts.one), sandbox);
    assert_serves_on(&hosts, &lonc, lond, pid);
}

/// What is asked of the child of `lonc` is done as before: what waits is kept and delivered, the
/// log opened anew, the link dialled again; then by the next child.
fn assert_serves_on(hosts: &TwoHosts, lonc: &Program, lond: Program, pid: u32) {
    drop(lond);
    wait::until_true("the link to be down", || hosts.one.ask(CALLED, "ping") == "con_lost");
    assert_eq!(hosts.one.ask(CALLED, "critical:do:kept"), "con_delayed");
    let dropped = hosts.one.dir.join("delayed").join(format!("1.{CALLED}"));
    fs::write(&dropped, "do:dropped\n").expect("drop a file");
    wait::until_true("the file to be taken", || !dropped.exists());
    let log = hosts.one.dir.join("log/lonc.log");
    fs::rename(&log, hosts.one.dir.join("log/old.log")).expect("rename the log");
    let _lond = hosts.other.lond();
    lonc.signal(Signal::SIGUSR1);
    hosts.one.wait_link(CALLED, "up");
    wait::until_true("the child to have opened the log anew", || process::has_open(pid, &log));
    wait::until_true("all three", || hosts.counter.done().len() == 3);
    hosts.one.wait_delivered(CALLED);
    assert_eq!(hosts.one.ask(CALLED, "critical:do:after"), "ok");
    assert_eq!(lonc.only_child(), pid, "it is the same");
    let delivered = fs::read_to_string(hosts.one.dir.join("log/lonnet.perm.log")).expect("the permanent log");
    assert!(delivered.contains("do:kept"), "{delivered}");
    lonc.signal(Signal::SIGHUP);
    wait::until_true("another child", || lonc.children().iter().any(|child| *child != pid));
    hosts.one.wait_link(CALLED, "up");
    assert_eq!(hosts.one.ask(CALLED, "critical:do:by the next"), "ok");
    let done = ["do:before", "do:kept", "do:dropped", "do:after", "do:by the next"];
    assert_eq!(hosts.counter.done(), done);
}

#[test]
fn a_process_that_looks_a_name_up_changes_no_file_and_reaches_no_process() {
    if in_force().is_none() {
        return;
    }
    let network = Network::new(&[CALLER, FURTHER]);
    let mut one = network.host(CALLER);
    by_name(&network, &mut one, FURTHER, 5663);
    let Some(library) = preload::library("netns/slow_names.c", &one.dir) else { return };
    let mut command = one.command("lonc");
    // Longer than the test may take.
    command.env("LD_PRELOAD", library).env("LONNET_TEST_LOOKUP_TAKES", "3600000");
    let lonc = one.start(command, "lonc");
    let pid = wait::until("the name to be looked up", || looking_up(&lonc).first().copied());
    let in_its_threads = || fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1);
    wait::until_true("its threads", in_its_threads);
    {
        let process = Stopped::at(pid);
        let number = open(&process, "/etc/hosts", libc::O_RDONLY);
        assert!(number > 2, "what names are looked up in: {number}");
        let new = one.dir.join("new");
        assert_refused("a new file", open(&process, &new, libc::O_WRONLY | libc::O_CREAT));
        assert_refused("a file", open(&process, one.dir.join("lonnet.toml"), libc::O_WRONLY));
        let parent = Number(i64::from(lonc.pid()));
        let shell = c_string("/bin/sh");
        let path = c_string(one.config());
        for (what, number, arguments) in [
            ("execve", libc::SYS_execve, &[Bytes(&shell), Number(0), Number(0)][..]),
            ("kill", libc::SYS_kill, &[parent, Number(0)]),
            ("ptrace", libc::SYS_ptrace, &[Number(16), Number(lonc.pid().into())]),
            ("unlink", libc::SYS_unlink, &[Bytes(&path)]),
        ] {
            assert_refused(what, process.call(number, arguments));
        }
    }
    assert_without_rights(pid);
}

#[test]
fn a_link_child_of_lond_on_the_classic_wire_has_no_files_at_all() {
    let Some(sandbox) = in_force() else { return };
    let network = Network::new(&[CALLER, CALLED]);
    let (one, other) = (network.host(CALLER), network.host(CALLED));
    let records = other.dir.join("delayed/.received");
    fs::create_dir_all(&records).expect("make a folder");
    let (lond, _lonc) = (other.lond(), one.lonc());
    one.wait_link(CALLED, "up");
    let pid = lond.only_child();
    {
        let child = Stopped::at(pid);
        assert_confined(&child, &other, pid);
        assert_refused("the records", open(&child, &records, libc::O_RDONLY));
    }
    assert_without_rights(pid);
    assert_eq!(of_lond(&other), sandbox);
    assert_eq!(one.ask(CALLED, "encrypt:log:goes on"), "ok");
    assert_eq!(lond.only_child(), pid);
}

#[test]
fn where_a_sandbox_is_required_a_link_that_cannot_be_left_its_own_record_alone_is_not_served() {
    if in_force().is_none() {
        return;
    }
    let mut hosts = TwoHosts::new();
    hosts.other.set("", "sandbox", "\"required\"");
    let own = hosts.other.dir.join("delayed/.received").join(CALLER);
    fs::create_dir_all(own.parent().expect("a folder")).expect("make a folder");
    fs::write(&own, "in the way").expect("write a file");
    let (_lond, lonc) = (hosts.other.lond(), hosts.one.lonc());
    let said = format!(
        "sandbox is \"required\", and a link would reach the records of others: make {}",
        own.display()
    );
    wait::until_true("the cause in the log", || hosts.other.log("lond.log").contains(&said));
    assert_eq!(hosts.one.ask(CALLED, "ping"), "con_lost");
    fs::remove_file(&own).expect("clear the way");
    lonc.signal(Signal::SIGUSR1);
    hosts.one.wait_link(CALLED, "up");
    assert_eq!(hosts.one.ask(CALLED, "critical:do:it"), "ok");
}

/// A command whose process, and all that come of it, are told that these calls are not there.
fn without(mut command: std::process::Command, calls: &'static [i64]) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let nothing = move || {
        let instruction =
            |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut filter = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
        for call in calls {
            let number = u32::try_from(*call).expect("a number");
            filter.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number));
            let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
            filter.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, absent));
        }
        filter.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
        let length = u16::try_from(filter.len()).expect("a short filter");
        let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
        // SAFETY: numbers, and a program that lives through the calls.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: it asks for memory and for two system calls, in a child of a program that waits for
    // it.
    unsafe { command.pre_exec(nothing) };
    command
}

const LANDLOCK: &[i64] =
    &[libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
const BOTH: &[i64] = &[libc::SYS_landlock_create_ruleset, libc::SYS_seccomp];

#[test]
fn where_the_kernel_lacks_what_is_required_no_program_starts_and_auto_says_what_is_missing() {
    if in_force().is_none() {
        return;
    }
    let network = Network::secure(&[CALLER, CALLED]);
    let (mut one, mut other) = (network.host(CALLER), network.host(CALLED));
    for (calls, missing) in [(LANDLOCK, "Landlock"), (BOTH, "Landlock and seccomp")] {
        for host in [&mut one, &mut other] {
            host.set("", "sandbox", "\"required\"");
        }
        for (host, program) in [(&one, "lonc"), (&other, "lond")] {
            let refused = without(host.command(program), calls).output().expect("run it");
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{said}");
            let expected = format!(
                "{program}: start: confine link children: sandbox is \"required\", and this kernel has no {missing}"
            );
            assert!(said.contains(&expected), "{said}");
        }
        let lon = |arguments: &[&str]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lon"));
            command.arg("--config").arg(other.config()).args(arguments);
            let output = without(command, calls).output().expect("run lon");
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let left = if calls == LANDLOCK { "seccomp" } else { "nothing" };
        assert_eq!(lon(&["check", "--sandbox"]), (Some(1), format!("{left}\n")));
        let (code, said) = lon(&["check"]);
        let expected = format!("sandbox: is \"required\", and this kernel has no {missing}\n");
        assert!(code == Some(1) && said.contains(&expected), "{said}");
        one.unset("", "sandbox");
        other.unset("", "sandbox");
        let lond = other.start(without(other.command("lond"), calls), "lond");
        let _lonc = one.start(without(one.command("lonc"), calls), "lonc");
        one.wait_link(CALLED, "up");
        assert_eq!(one.ask(CALLED, "ping"), CALLED);
        assert!(other.log("lond.log").contains(&format!("this kernel has no {missing}")));
        assert_eq!((of_lonc(&one), of_lond(&other)), (left.into(), left.into()));
        drop(lond);
    }
}
