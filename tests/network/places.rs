//! Folders that several programs share, and what they make there.

use crate::common::local::Local;
use crate::common::{process, wait};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

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
