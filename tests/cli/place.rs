//! The folder of a network, `lon` in it, and threads that play the broker.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

pub const TOML: &str =
    "id = \"here\"\nuser = \"root\"\n[lonc]\nwire = \"classic\"\n[lond]\nclassic = \"allow\"\n";

pub const HOSTS: &str =
    "here:msu:access:a:127.0.0.1\nthere:msu:library:b:127.0.0.2\nother:msu:library:c:127.0.0.3\n";

/// A network's folder.
pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        for (name, mode) in
            [("keys", 0o700), ("run", 0o755), ("delayed", 0o750), ("log", 0o750), ("status", 0o755)]
        {
            fs::create_dir(place.path(name)).unwrap();
            fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(place.path("lonnet.toml"), TOML).unwrap();
        fs::write(place.path("hosts.tab"), HOSTS).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn lon(&self, arguments: &[&str]) -> Command {
        let mut command = lon(&["--config"]);
        command.arg(self.path("lonnet.toml")).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        Said::of(&self.lon(arguments).stdin(Stdio::null()).output().unwrap())
    }

    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut child = self
            .lon(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = thread::spawn(move || stdin.write_all(&input).unwrap());
        let said = Said::of(&child.wait_with_output().unwrap());
        writer.join().unwrap();
        said
    }

    /// Plays the broker for one connection to `there`.
    pub fn broker(&self, serve: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<()> {
        self.listen("there", serve)
    }

    pub fn listen(&self, name: &str, serve: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<()> {
        let listener = UnixListener::bind(self.path("run").join(name)).unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0))
    }

    pub fn stored(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.path("delayed")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.iter().all(|file| file.extension().unwrap() == "there"), "{files:?}");
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }
}

pub fn lon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lon"));
    command.env_remove("LONNET_CONFIG").args(arguments);
    command
}

/// What a run came to.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: &Output) -> Said {
        Said {
            code: output.status.code().expect("lon ends by itself"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Answers each line by what `answer` makes of it, one at a time.
pub fn answering(
    answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
) -> impl FnOnce(UnixStream) + Send + 'static {
    move |stream| {
        let mut out = stream.try_clone().unwrap();
        for line in BufReader::new(stream).split(b'\n') {
            let mut text = answer(&line.unwrap());
            text.push(b'\n');
            if out.write_all(&text).is_err() {
                return;
            }
        }
    }
}

pub fn echo(stream: UnixStream) {
    answering(<[u8]>::to_owned)(stream);
}
