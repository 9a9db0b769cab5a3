//! What `/proc` knows of processes, and signals by process id.

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

/// Sends a signal; a process that is gone already is no mistake.
pub fn signal(pid: u32, which: Signal) {
    let _ = signal::kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), which);
}

/// The fields of `/proc/<pid>/stat` from the state on, or nothing when the process is gone.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Whether the process lives (a zombie does not).
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

/// Children of a process that live, oldest pid first.
pub fn children(pid: u32) -> Vec<u32> {
    // Where the kernel lists them, which saves a look at every process.
    if let Ok(listed) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        let listed = listed.split_whitespace().filter_map(|child| child.parse().ok());
        let mut living: Vec<u32> = listed.filter(|&child| alive(child)).collect();
        living.sort_unstable();
        return living;
    }
    children_where(pid, |state| state != "Z")
}

/// Children of a process that ended and were not reaped.
pub fn zombies(pid: u32) -> Vec<u32> {
    children_where(pid, |state| state == "Z")
}

fn children_where(parent: u32, wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let mut found: Vec<u32> = every()
        .into_iter()
        .filter(|&pid| stat(pid).is_some_and(|fields| fields[1] == parent.to_string() && wanted(&fields[0])))
        .collect();
    found.sort_unstable();
    found
}

fn every() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Processor time used by a process, in clock ticks (hundredths of a second).
pub fn ticks(pid: u32) -> u64 {
    let number = |text: &String| text.parse::<u64>().expect("a number of ticks");
    stat(pid).map_or(0, |fields| number(&fields[11]) + number(&fields[12]))
}

/// Whether a process has this file open.
pub fn has_open(pid: u32, file: &Path) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    entries.is_ok_and(|entries| {
        entries.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|open| open == file))
    })
}

/// The limit of open files that a process has while it can open none.
pub struct FilesLimit {
    pid: u32,
    before: libc::rlimit,
}

/// From here on this process can open no file and no socket more than it has.
pub fn open_no_more_files(pid: u32) -> FilesLimit {
    lower_limit(pid, 0)
}

/// From here on this process can open one file or socket more than it has.
pub fn open_one_more_file(pid: u32) -> FilesLimit {
    lower_limit(pid, 1)
}

fn lower_limit(pid: u32, more: u64) -> FilesLimit {
    let free = |number: &u64| !Path::new(&format!("/proc/{pid}/fd/{number}")).exists();
    let lowest = (0..).find(free).expect("a number that is free");
    let before = limit_files(pid, None);
    limit_files(pid, Some(libc::rlimit { rlim_cur: lowest + more, ..before }));
    FilesLimit { pid, before }
}

impl FilesLimit {
    /// It can open files again.
    pub fn lift(self) {
        limit_files(self.pid, Some(self.before));
    }
}

/// What the limit of open files of a process was; sets another if one is given.
fn limit_files(pid: u32, to: Option<libc::rlimit>) -> libc::rlimit {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let to = to.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let pid = libc::pid_t::try_from(pid).expect("a pid");
    // SAFETY: both addresses are of limits that live through the call, or null.
    let done = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, to, &raw mut before) };
    assert_eq!(done, 0, "set the limit of open files: {}", std::io::Error::last_os_error());
    before
}

/// Descriptors that a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The same without the spool's segment, which a child has open if it, or one before it, had
/// something to store.
pub fn descriptors_but_segments(pid: u32) -> usize {
    let is_segment = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|file| file.extension().is_some_and(|end| end == "seg"))
    };
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    entries.map_or(0, |entries| entries.flatten().filter(|entry| !is_segment(entry)).count())
}

/// Most memory that a process ever had resident, in KiB; nothing when it is gone.
pub fn peak_memory(pid: u32) -> Option<u64> {
    kibibytes(pid, "VmHWM:")
}

/// Memory that a process has resident, in KiB; nothing when it is gone.
pub fn memory(pid: u32) -> Option<u64> {
    kibibytes(pid, "VmRSS:")
}

fn kibibytes(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse().expect("a number of KiB"))
}

/// What `ps` shows for a process.
pub fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = bytes.split(|&c| c == 0).filter(|word| !word.is_empty()).collect();
    String::from_utf8_lossy(&words.join(&b' ')).trim_end().to_owned()
}

/// Other processes that have a file below `folder` open.
pub fn with_files_in(folder: &Path) -> Vec<u32> {
    let holds = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors.is_ok_and(|mut entries| {
            entries.any(|entry| {
                entry.is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(folder)))
            })
        })
    };
    every().into_iter().filter(|&pid| pid != std::process::id() && holds(pid)).collect()
}

/// Whether some socket listens on this IPv4 address.
pub fn listens(address: std::net::SocketAddr) -> bool {
    listens_where(std::process::id(), address)
}

/// Whether some socket listens on this IPv4 address in the network that a process has.
pub fn listens_where(pid: u32, address: std::net::SocketAddr) -> bool {
    let std::net::IpAddr::V4(ip) = address.ip() else { panic!("an IPv4 address is asked for: {address}") };
    let wanted = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port());
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&wanted) && words.nth(1) == Some("0A")
    })
}
