//! A network of a test's own: a network namespace, and a mount namespace so that it may have an
//! `/etc/hosts` of its own.
//!
//! The namespaces live as long as a process is in them. The first is `cat`, which waits for the end
//! of its input: when the test ends, however it does, that is closed and `cat` ends too.

use crate::common::skip::skipped;
use crate::common::wait;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// One network and its mounts.
pub struct Space {
    holder: Child,
}

/// Whether this machine lets us have networks of our own; says so once for each test that it does
/// not.
pub fn can_be_made() -> bool {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let why_not = WHY_NOT.get_or_init(|| tried().err());
    if let Some(why_not) = why_not {
        skipped(&format!("network namespaces: {why_not}"));
    }
    why_not.is_none()
}

fn tried() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("they need root".to_owned());
    }
    let (one, other) = (Space::try_new()?, Space::try_new()?);
    one.attempt(
        "ip",
        &["-batch", "-"],
        &format!("link add name a1 type veth peer name b1 netns {}", other.pid()),
    )?;
    // All that any test asks of the packet filter.
    let rules = "numgen random mod 100 < 30 drop\nmeta length > 1100 drop\ntcp flags & (syn | ack) == syn counter\n\
                 meta l4proto tcp reject with tcp reset\nreject with icmp type host-unreachable";
    one.attempt("nft", &["-f", "-"], &table("faults", 0, rules)).map(drop)
}

impl Space {
    /// An empty one: nothing but a loopback interface.
    pub fn new() -> Space {
        Space::try_new().unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_new() -> Result<Space, String> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "cat"]).stdin(Stdio::piped());
        let holder = unshare.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut space = Space { holder: holder.map_err(|error| format!("unshare: {error}"))? };
        let is_there = wait::until("a process to be in its own namespaces", || {
            let ended = space.holder.try_wait().expect("wait for unshare");
            let name = fs::read_to_string(format!("/proc/{}/comm", space.pid())).unwrap_or_default();
            if ended.is_some() { Some(false) } else { (name == "cat\n").then_some(true) }
        });
        if !is_there {
            return Err("unshare does not get them".to_owned());
        }
        space.attempt("ip", &["link", "set", "lo", "up"], "")?;
        Ok(space)
    }

    /// The process that holds the namespaces.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// The command that runs a program in here, under the pid that it is started with.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.pid().to_string(), "--"]).arg(program);
        command
    }

    /// Lets `ip` do these lines.
    pub fn ip(&self, lines: &str) {
        self.must("ip", &["-batch", "-"], lines);
    }

    /// Runs a program that has to succeed; gives what it printed.
    pub fn must(&self, program: &str, arguments: &[&str], input: &str) -> String {
        self.attempt(program, arguments, input).unwrap_or_else(|error| panic!("{error}"))
    }

    fn attempt(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let Output { status, stdout, stderr } =
            self.run(program, arguments, input).map_err(|error| format!("{program}: {error}"))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        Err(format!("{program} {arguments:?}: {}\n{input}", String::from_utf8_lossy(&stderr).trim_end()))
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> std::io::Result<Output> {
        let mut command = self.command(program);
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        // A program that reads none of it may be gone already.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        child.wait_with_output()
    }

    /// From now on, what passes through here meets these rules of `nft`, instead of those before;
    /// none: all passes.
    pub fn faults(&self, rules: &str) {
        let mut text = "table inet faults\ndelete table inet faults\n".to_owned();
        if !rules.is_empty() {
            text.push_str(&table("faults", 0, rules));
        }
        self.must("nft", &["-f", "-"], &text);
    }

    /// Counts packets that pass through here and match, under a name; see [`Space::counted`].
    pub fn count(&self, name: &str, what: &str) {
        self.must("nft", &["-f", "-"], &table(name, -10, &format!("{what} counter")));
    }

    /// How many packets were counted under this name.
    pub fn counted(&self, name: &str) -> u64 {
        let listed = self.must("nft", &["list", "table", "inet", name], "");
        let (_, after) = listed.split_once("counter packets ").expect("a counter");
        after.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Puts `text` where programs in here find a file of this machine.
    pub fn instead_of(&self, file: &str, text: &str, kept_in: &std::path::Path) {
        let own = kept_in.join(file.replace('/', "_"));
        let known = own.exists();
        // In place: what is mounted is the file itself, not its name.
        fs::write(&own, text).expect("write a file");
        if !known {
            self.must("mount", &["--bind", &own.to_string_lossy(), file], "");
        }
    }
}

/// A table of the packet filter, with rules for what is passed on.
fn table(name: &str, priority: i32, rules: &str) -> String {
    let hook = format!("type filter hook forward priority {priority}; policy accept;");
    format!("table inet {name} {{\n chain way {{\n{hook}\n{rules}\n }}\n}}\n")
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
