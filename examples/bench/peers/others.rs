//! Programs that do a part of the same, as a host has them installed: a local socket, an encrypted
//! connection over loopback, and the handler behind it. Each shows a certificate of its own and
//! wants that of the other, but for `spiped`, which has a shared key.
//!
//! What is not installed is left out with a word.

use crate::asking::Asked;
use crate::rig::{Program, Result, wait};
use crate::speech::{Speech, serve_nats};
use crate::stream::Address;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where things of one peer lie, and what it is to be connected with.
pub struct Place<'a> {
    /// A folder for this alone.
    pub dir: PathBuf,
    /// The handler's socket.
    pub handler: &'a Path,
    /// Addresses that nobody else has.
    pub addresses: [SocketAddr; 3],
}

/// Who is asked, and what runs for it.
type Started = Result<(Asked, Vec<Program>)>;
type Start = fn(&Place<'_>) -> Started;

/// All that are known, by what is executed.
pub const OTHERS: [(&str, &str, Start); 5] = [
    ("floor", "", floor),
    ("spiped", "spiped", spiped),
    ("stunnel", "stunnel", stunnel),
    ("haproxy", "haproxy", haproxy),
    ("nats", "nats-server", nats),
];

/// Whether a program can be executed.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    program.is_empty() || std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

impl Place<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn start(&self, command: &mut Command) -> Result<Program> {
        let said = fs::File::options().create(true).append(true).open(self.path("said"))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        Ok(Program::from(command.spawn()?))
    }

    /// A key and a certificate for `localhost` that it signs itself; and both in one file.
    fn certify(&self, name: &str) -> Result<[String; 3]> {
        let [cert, key, both] = ["crt", "key", "pem"].map(|end| self.path(&format!("{name}.{end}")));
        // Some look at the name of the far side.
        let names = format!("subjectAltName=DNS:localhost,IP:{}", self.addresses[0].ip());
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=localhost", "-addext", &names, "-out"]).arg(&cert);
        let said =
            openssl.arg("-keyout").arg(&key).output().map_err(|error| format!("run openssl: {error}"))?;
        if !said.status.success() {
            return Err(format!("make a certificate: {}", String::from_utf8_lossy(&said.stderr)).into());
        }
        fs::write(&both, [fs::read(&cert)?, fs::read(&key)?].concat())?;
        Ok([cert, key, both].map(|path| path.display().to_string()))
    }

    /// What is asked at the socket that one of the two makes.
    fn peer(&self, socket: PathBuf, programs: Vec<Program>) -> Started {
        wait("a socket to listen", || std::os::unix::net::UnixStream::connect(&socket).is_ok())?;
        let addresses = vec![Address::Unix(socket)];
        Ok((Asked { addresses, speech: Speech::Line, prefix: "" }, programs))
    }

    fn wait_listening(&self, address: SocketAddr) -> Result<()> {
        wait("an address to listen", || std::net::TcpStream::connect(address).is_ok())
    }
}

fn floor(place: &Place<'_>) -> Started {
    let (program, socket) = (std::env::current_exe()?, place.path("socket"));
    let link = place.addresses[0].to_string();
    let far = place.start(Command::new(&program).args(["floor", "far", &link]).arg(place.handler))?;
    let near = place.start(Command::new(&program).args(["floor", "near"]).arg(&socket).arg(&link))?;
    place.peer(socket, vec![near, far])
}

fn spiped(place: &Place<'_>) -> Started {
    let (key, socket) = (place.path("key"), place.path("socket"));
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&key)?;
    std::io::Write::write_all(&mut file, &[7; 32])?;
    let link = format!("[{}]:{}", place.addresses[0].ip(), place.addresses[0].port());
    let command = |way: &str, from: &str, to: &str| {
        let mut command = Command::new("spiped");
        command.args(["-F", "-n", "1000", "-k"]).arg(&key).args([way, "-s", from, "-t", to]);
        command
    };
    let far = place.start(&mut command("-d", &link, &place.handler.display().to_string()))?;
    place.wait_listening(place.addresses[0])?;
    let near = place.start(&mut command("-e", &socket.display().to_string(), &link))?;
    place.peer(socket, vec![near, far])
}

fn stunnel(place: &Place<'_>) -> Started {
    let (near, far) = (place.certify("near")?, place.certify("far")?);
    let (socket, link, handler) = (place.path("socket"), place.addresses[0], place.handler.display());
    let common = "foreground = yes\nsyslog = no\ndebug = 4\npid =\n";
    let service = |from: &str, to: &str, own: &[String; 3], other: &[String; 3]| {
        format!(
            "accept = {from}\nconnect = {to}\ncert = {}\nkey = {}\nCAfile = {}\nverifyPeer = yes\n\
             sslVersionMin = TLSv1.3\nTIMEOUTclose = 0\n",
            own[0], own[1], other[0]
        )
    };
    let called = service(&link.to_string(), &handler.to_string(), &far, &near);
    let called = format!("{common}[far]\n{called}socket = l:TCP_NODELAY=1\n");
    let calls = service(&socket.display().to_string(), &link.to_string(), &near, &far);
    let calls = format!("{common}[near]\nclient = yes\n{calls}socket = r:TCP_NODELAY=1\n");
    let far = place.start(Command::new("stunnel").arg(place.file("far.conf", &called)?))?;
    place.wait_listening(link)?;
    let near = place.start(Command::new("stunnel").arg(place.file("near.conf", &calls)?))?;
    place.peer(socket, vec![near, far])
}

fn haproxy(place: &Place<'_>) -> Started {
    let ([near_cert, _, near_both], [far_cert, _, far_both]) =
        (place.certify("near")?, place.certify("far")?);
    let (socket, link, handler) = (place.path("socket"), place.addresses[0], place.handler.display());
    let common = "global\n  maxconn 2000\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n  \
                  ssl-default-server-options ssl-min-ver TLSv1.3\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
                  timeout client 60s\n  timeout server 60s\n";
    let called = format!(
        "{common}frontend far\n  bind {link} ssl crt {far_both} ca-file {near_cert} verify required\n  \
         default_backend handler\nbackend handler\n  server handler unix@{handler}\n"
    );
    let calls = format!(
        "{common}frontend near\n  bind unix@{}\n  default_backend link\nbackend link\n  \
         server far {link} ssl crt {near_both} ca-file {far_cert} verify required verifyhost localhost\n",
        socket.display()
    );
    let start = |config: PathBuf| place.start(Command::new("haproxy").args(["-db", "-f"]).arg(config));
    let far = start(place.file("far.cfg", &called)?)?;
    place.wait_listening(link)?;
    let near = start(place.file("near.cfg", &calls)?)?;
    place.peer(socket, vec![near, far])
}

fn nats(place: &Place<'_>) -> Started {
    let ([near_cert, near_key, _], [far_cert, far_key, _]) = (place.certify("near")?, place.certify("far")?);
    let [link, hub, leaf] = place.addresses;
    let called = format!(
        "server_name: far\nlisten: \"{hub}\"\nleafnodes {{ listen: \"{link}\"\n\
         tls {{ cert_file: \"{far_cert}\", key_file: \"{far_key}\", ca_file: \"{near_cert}\", verify: true }} }}\n"
    );
    let calls = format!(
        "server_name: near\nlisten: \"{leaf}\"\nleafnodes {{ remotes: [ {{ url: \"tls://{link}\"\n\
         tls {{ cert_file: \"{near_cert}\", key_file: \"{near_key}\", ca_file: \"{far_cert}\" }} }} ] }}\n"
    );
    let far = place.start(Command::new("nats-server").arg("-c").arg(place.file("far.conf", &called)?))?;
    place.wait_listening(hub)?;
    let near = place.start(Command::new("nats-server").arg("-c").arg(place.file("near.conf", &calls)?))?;
    place.wait_listening(leaf)?;
    serve_nats(Address::Tcp(hub))?;
    let asked = Asked { addresses: vec![Address::Tcp(leaf)], speech: Speech::Nats, prefix: "" };
    Ok((asked, vec![near, far]))
}
