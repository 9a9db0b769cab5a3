//! The configuration as its users meet it: whole files in a folder of their own, and what is said of them.

// The helpers of the tests fail as loudly as the tests themselves.
#![allow(clippy::unwrap_used)]

use lonnet::config::{Allow, Config, HostId, Hosts, Target, Wire};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A folder with a `lonnet.toml` and a `hosts.tab`.
struct Folder(tempfile::TempDir);

const HOSTS: &str = "msul1:msu:library:zaphod:127.0.0.2\nmsua1:msu:access:agrajag:127.0.0.3\n";

impl Folder {
    fn new(toml: &str, hosts: &str) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
        fs::write(folder.toml(), toml).expect("lonnet.toml is written");
        fs::write(folder.0.path().join("hosts.tab"), hosts).expect("hosts.tab is written");
        folder
    }

    fn toml(&self) -> PathBuf {
        self.0.path().join("lonnet.toml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Config {
        Config::load(&self.toml()).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// All problems, without the folder's name.
    fn problems(&self) -> Vec<String> {
        match Config::load(&self.toml()) {
            Ok(config) => panic!("no problem found; warnings: {:?}", config.warnings),
            Err(errors) => errors.0.iter().map(|problem| self.shorten(&problem.to_string())).collect(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.load().warnings.iter().map(|warning| self.shorten(&warning.to_string())).collect()
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn id(text: &str) -> HostId {
    HostId::new(text).expect("an id")
}

#[test]
fn the_least_file_gives_every_default() {
    let folder = Folder::new("id = \"msua1\"\n", HOSTS);
    let config = folder.load();
    assert_eq!(config.file, folder.toml());
    assert_eq!(config.id, id("msua1"));
    for (path, name) in [
        (&config.hosts_file, "hosts.tab"),
        (&config.pins, "hosts.pins"),
        (&config.key_dir, "keys"),
        (&config.run_dir, "run"),
        (&config.spool_dir, "delayed"),
        (&config.log_dir, "log"),
        (&config.status_dir, "status"),
    ] {
        assert_eq!(*path, folder.path(name));
    }
    assert_eq!(config.user, None);
    assert_eq!(config.log_level, log::LevelFilter::Info);
    assert_eq!(config.peers.len(), 1, "this host itself is no peer");
    let peer = config.peer(&id("msul1")).expect("the other host");
    assert_eq!(peer.target, Target::Address("127.0.0.2:5663".parse().unwrap()));
    assert_eq!(peer.bind, None);
    assert_eq!(peer.wire, Wire::Secure);
    assert_eq!(peer.request_timeout, Duration::from_secs(300));
    assert_eq!(peer.connect_timeout, Duration::from_secs(20));
    assert_eq!(peer.opening_timeout, Duration::from_secs(20));
    assert_eq!(peer.drain_timeout, Duration::from_secs(5));
    assert_eq!(peer.socket_mode, 0o660);
    assert_eq!(peer.max_line, 1 << 20);
    assert_eq!((peer.spool.messages, peer.spool.bytes, peer.spool.keep_free), (1_000_000, 1 << 30, 64 << 20));
    assert_eq!(config.lond.listen, ["[::]:5663".parse().unwrap()]);
    assert!(!config.lond.classic);
    assert_eq!(config.lond.max_opening, 64);
    assert_eq!(config.lond.opening_timeout, Duration::from_secs(10));
    assert_eq!(config.lond.max_line, 1 << 20);
    assert!(config.lond.full_load >= 1.0);
    assert_eq!(config.lond.drain_timeout, Duration::from_secs(5));
    assert!(config.handlers.is_empty());
    assert_eq!(config.socket_path(&id("msul1")), folder.path("run/msul1"));
    assert_eq!(config.spool_path(&id("msul1")), folder.path("delayed/msul1"));
}

/// Every key that there is, none with its default.
const EVERY_KEY: &str = r#"
id = "msua1"
hosts = "hosts.tab"
pins = "/etc/pins"
key_dir = "k"
run_dir = "r"
spool_dir = "s"
log_dir = "l"
status_dir = "st"
user = "www"
log_level = "debug"

[lonc]
port = 7663
bind = "127.0.0.3"
wire = "classic"
request_timeout = "5m"
connect_timeout = "500ms"
opening_timeout = "2s"
drain_timeout = "0s"
socket_mode = "0600"
max_line = "64KiB"
spool_messages = 10
spool_bytes = "2 MiB"
spool_keep_free = 0

[lond]
listen = ["127.0.0.3:5663", "[::1]:5664", "127.0.0.4"]
classic = "allow"
max_opening = 5
opening_timeout = "3s"
max_line = 4096
full_load = 2.5
drain_timeout = "1s"

[handler.echo]
socket = "app.sock"
allow = ["*", "msul1", "role:library", "domain:msu"]
timeout = "10s"
"#;

#[test]
fn every_key_is_taken() {
    let folder = Folder::new(EVERY_KEY, HOSTS);
    let config = folder.load();
    assert_eq!(config.pins, Path::new("/etc/pins"));
    assert_eq!(config.key_dir, folder.path("k"));
    assert_eq!(config.run_dir, folder.path("r"));
    assert_eq!(config.spool_dir, folder.path("s"));
    assert_eq!(config.log_dir, folder.path("l"));
    assert_eq!(config.status_dir, folder.path("st"));
    assert_eq!(config.user.as_deref(), Some("www"));
    assert_eq!(config.log_level, log::LevelFilter::Debug);
    let peer = &config.peers[0];
    assert_eq!(peer.target, Target::Address("127.0.0.2:7663".parse().unwrap()));
    assert_eq!(peer.bind, Some("127.0.0.3".parse().unwrap()));
    assert_eq!(peer.wire, Wire::Classic);
    assert_eq!(peer.request_timeout, Duration::from_secs(300));
    assert_eq!(peer.connect_timeout, Duration::from_millis(500));
    assert_eq!(peer.opening_timeout, Duration::from_secs(2));
    assert_eq!(peer.drain_timeout, Duration::ZERO);
    assert_eq!(peer.socket_mode, 0o600);
    assert_eq!(peer.max_line, 65536);
    assert_eq!((peer.spool.messages, peer.spool.bytes, peer.spool.keep_free), (10, 2 << 20, 0));
    let listen: Vec<_> = config.lond.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.3:5663", "[::1]:5664", "127.0.0.4:7663"]);
    assert!(config.lond.classic);
    assert_eq!(config.lond.max_opening, 5);
    assert_eq!(config.lond.opening_timeout, Duration::from_secs(3));
    assert_eq!(config.lond.max_line, 4096);
    assert_eq!(config.lond.full_load, 2.5);
    assert_eq!(config.lond.drain_timeout, Duration::from_secs(1));
    let handler = &config.handlers[0];
    assert_eq!((handler.name.as_str(), &handler.socket), ("echo", &folder.path("app.sock")));
    assert_eq!(handler.timeout, Duration::from_secs(10));
    assert_eq!(
        handler.allow,
        [
            Allow::Everyone,
            Allow::Host(id("msul1")),
            Allow::Role("library".into()),
            Allow::Domain("msu".into())
        ]
    );
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn a_host_section_lies_over_lonc_for_that_host_alone() {
    let toml = r#"
id = "msua1"
[lonc]
wire = "classic"
request_timeout = "10s"
bind = "127.0.0.9"
[host.msul1]
address = "127.0.0.2:7001"
request_timeout = "20s"
bind = "0.0.0.0"
[host.msul2]
address = "127.0.0.4"
port = 99
[host.msul3]
address = "[::1]:7002"
bind = "::1"
[host.msul4]
port = 98
"#;
    let hosts = "msua1:msu:access:a:127.0.0.3\nmsul1:msu:library:b:\nmsul2:msu:library:c:\nmsul3:msu:library:d:\n\
                 msul4:msu:library:e.example:\nmsul5:msu:library:f:[::1]\n";
    let folder = Folder::new(toml, hosts);
    let config = folder.load();
    let of = |text: &str| config.peer(&id(text)).unwrap_or_else(|| panic!("{text} is a peer"));
    assert_eq!(of("msul1").target, Target::Address("127.0.0.2:7001".parse().unwrap()));
    assert_eq!(of("msul1").request_timeout, Duration::from_secs(20));
    assert_eq!(of("msul1").bind, None, "the unspecified address means any");
    assert_eq!(of("msul2").target, Target::Address("127.0.0.4:99".parse().unwrap()));
    assert_eq!(of("msul2").request_timeout, Duration::from_secs(10));
    assert_eq!(of("msul3").target, Target::Address("[::1]:7002".parse().unwrap()));
    assert_eq!(of("msul3").bind, Some("::1".parse().unwrap()));
    assert_eq!(of("msul4").target, Target::Lookup { name: "e.example".into(), port: 98 });
    assert_eq!(of("msul5").target, Target::Address("[::1]:5663".parse().unwrap()));
    assert!(config.peer(&id("msua1")).is_none(), "this host is no peer of itself");
    assert!(config.peer(&id("nobody")).is_none());
}

#[test]
fn each_mistake_is_reported_with_its_line() {
    // What stands after `id = "msua1"`, and what is said of it.
    let cases: &[(&str, &str)] = &[
        ("prot = 1", "2: prot: unknown key"),
        ("hosts = 7", "2: hosts: want text, not an integer"),
        ("run_dir = \"\"", "2: run_dir: is empty"),
        ("run_dir = \"a\\u0000b\"", "2: run_dir: \"a\\0b\" has a control character in it"),
        ("user = true", "2: user: want text, not true or false"),
        (
            "log_level = \"loud\"",
            "2: log_level: want \"error\", \"warn\", \"info\" or \"debug\", not \"loud\"",
        ),
        ("lonc = 1", "2: lonc: want a table, not an integer"),
        ("[[lonc]]", "2: lonc: want a table, not a list"),
        ("[lonc]\nprot = 1", "3: lonc: prot: unknown key"),
        ("[lonc]\naddress = \"127.0.0.1\"", "3: lonc: address: unknown key"),
        ("[lonc]\nport = 0", "3: lonc: port: want a port of 1 to 65535, not 0"),
        ("[lonc]\nport = 65536", "3: lonc: port: want a port of 1 to 65535, not 65536"),
        ("[lonc]\nport = \"5663\"", "3: lonc: port: want a port number, not text"),
        ("[lonc]\nbind = \"eth0\"", "3: lonc: bind: want an IP address, not \"eth0\""),
        ("[lonc]\nwire = \"plain\"", "3: lonc: wire: want \"secure\" or \"classic\", not \"plain\""),
        (
            "[lonc]\n\nrequest_timeout = 300",
            "4: lonc: request_timeout: want a time like \"300s\", not an integer",
        ),
        (
            "[lonc]\nrequest_timeout = \"soon\"",
            "3: lonc: request_timeout: want a time like \"300s\", \"5m\" or \"500ms\", not \"soon\"",
        ),
        ("[lonc]\nrequest_timeout = \"0s\"", "3: lonc: request_timeout: must be longer than no time"),
        ("[lonc]\nconnect_timeout = \"-5s\"", "3: lonc: connect_timeout: \"-5s\" is less than no time"),
        (
            "[lonc]\nopening_timeout = \"9999999h\"",
            "3: lonc: opening_timeout: \"9999999h\" is longer than a year",
        ),
        ("[lonc]\ndrain_timeout = \"-1s\"", "3: lonc: drain_timeout: \"-1s\" is less than no time"),
        ("[lonc]\nsocket_mode = 660", "3: lonc: socket_mode: want octal text like \"0660\", not an integer"),
        (
            "[lonc]\nsocket_mode = \"0680\"",
            "3: lonc: socket_mode: want octal text like \"0660\", not \"0680\"",
        ),
        (
            "[lonc]\nsocket_mode = \"7777\"",
            "3: lonc: socket_mode: want octal text like \"0660\", not \"7777\"",
        ),
        ("[lonc]\nmax_line = 10", "3: lonc: max_line: want 256 bytes to 64 MiB, not 10 bytes"),
        ("[lonc]\nmax_line = \"1GiB\"", "3: lonc: max_line: want 256 bytes to 64 MiB, not 1073741824 bytes"),
        (
            "[lonc]\nmax_line = \"1MB\"",
            "3: lonc: max_line: want a number of bytes, or text like \"64MiB\", not \"1MB\"",
        ),
        ("[lonc]\nspool_messages = 0", "3: lonc: spool_messages: want a number of at least 1, not 0"),
        ("[lonc]\nspool_bytes = 0", "3: lonc: spool_bytes: must be more than nothing"),
        (
            "[lonc]\nspool_keep_free = -1",
            "3: lonc: spool_keep_free: want a number of bytes, or text like \"64MiB\", not -1",
        ),
        (
            "[lonc]\nspool_bytes = \"99999999999TiB\"",
            "3: lonc: spool_bytes: \"99999999999TiB\" is more than can be counted",
        ),
        ("host = []", "2: host: want a table, not a list"),
        ("[host]\nmsul1 = 1", "3: host: msul1: want a table, not an integer"),
        ("[host.nobody]", "2: host.nobody: \"nobody\" has no line in hosts.tab"),
        ("[host.\"../x\"]", "2: host.../x: host id \"../x\" begins with a dot"),
        (
            "[host.msul1]\naddress = \"zaphod\"",
            "3: host.msul1: address: want an address like \"127.0.0.2:7001\" or \"[::1]:7001\", not \"zaphod\"",
        ),
        ("[host.msul1]\naddress = \"127.0.0.2:0\"", "3: host.msul1: address: \"127.0.0.2:0\" has the port 0"),
        (
            "[host.msul1]\naddress = \"0.0.0.0\"",
            "3: host.msul1: address: \"0.0.0.0\" is not the address of one host",
        ),
        ("[host.msul1]\nwires = \"classic\"", "3: host.msul1: wires: unknown key"),
        ("[lond]\nlisten = \"127.0.0.1:1\"", "3: lond: listen: want a list of addresses, not text"),
        ("[lond]\nlisten = []", "3: lond: listen: is empty: lond would listen nowhere"),
        (
            "[lond]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "3: lond: listen: \"127.0.0.1:1\" stands in the list twice",
        ),
        (
            "[lond]\nlisten = [1]",
            "3: lond: listen: want addresses like \"127.0.0.3:5663\" in the list, not an integer",
        ),
        ("[lond]\nclassic = true", "3: lond: classic: want a word, not true or false"),
        ("[lond]\nclassic = \"yes\"", "3: lond: classic: want \"refuse\" or \"allow\", not \"yes\""),
        ("[lond]\nmax_opening = 0", "3: lond: max_opening: want a number of at least 1, not 0"),
        ("[lond]\nmax_opening = 1.5", "3: lond: max_opening: want a number, not a number with a fraction"),
        ("[lond]\nfull_load = 0", "3: lond: full_load: want a number above 0"),
        ("[lond]\nfull_load = nan", "3: lond: full_load: want a number above 0"),
        ("[lond]\nport = 1", "3: lond: port: unknown key"),
        ("[handler.x]", "2: handler.x: none of socket, exec, worker is there"),
        (
            "[handler.x]\nexec = [\"/bin/x\"]",
            "3: handler.x: exec: this version passes requests to sockets only",
        ),
        (
            "[handler.x]\nworker = [\"/bin/x\"]",
            "3: handler.x: worker: this version passes requests to sockets only",
        ),
        ("[handler.x]\nsocket = [\"/x\"]", "3: handler.x: socket: want text, not a list"),
        (
            "[handler.x]\nsocket = \"x\"\nallow = \"*\"",
            "4: handler.x: allow: want a list like [\"*\"], not text",
        ),
        (
            "[handler.x]\nsocket = \"x\"\nallow = [\"rule:x\"]",
            "4: handler.x: allow: want \"*\", a host id, \"role:...\" or \"domain:...\", not \"rule:x\"",
        ),
        (
            "[handler.x]\nsocket = \"x\"\nallow = [\"msul9\"]",
            "4: handler.x: allow: \"msul9\" has no line in hosts.tab",
        ),
        (
            "[handler.x]\nsocket = \"x\"\ntimeout = \"0s\"",
            "4: handler.x: timeout: must be longer than no time",
        ),
        ("[handler.x]\nsocket = \"x\"\ntimout = \"1s\"", "4: handler.x: timout: unknown key"),
        (
            "[handler.ping]\nsocket = \"x\"",
            "2: handler.ping: \"ping\" is built in: no handler can have that name",
        ),
        (
            "[handler.\"a:b\"]\nsocket = \"x\"",
            "2: handler.a:b: the request name \"a:b\" has a colon or control character in it",
        ),
        ("[handler.\"\"]\nsocket = \"x\"", "2: handler.: the request name is empty"),
    ];
    for (toml, said) in cases {
        let folder = Folder::new(&format!("id = \"msua1\"\n{toml}\n"), HOSTS);
        assert_eq!(folder.problems(), [format!("lonnet.toml:{said}")], "for {toml:?}");
    }
}

#[test]
fn every_built_in_name_is_refused_to_handlers() {
    for name in ["ping", "pong", "version", "load", "log", "exit", "init", "sethost", "ekey", "enc"] {
        let folder = Folder::new(&format!("id = \"msua1\"\n[handler.{name}]\nsocket = \"x\"\n"), HOSTS);
        assert_eq!(folder.problems().len(), 1, "{name}");
    }
}

#[test]
fn a_handler_with_two_ways_is_told_to_choose() {
    let toml = "id = \"msua1\"\n[handler.x]\nsocket = \"x\"\nexec = [\"/bin/x\"]\n";
    assert_eq!(
        Folder::new(toml, HOSTS).problems(),
        [
            "lonnet.toml:2: handler.x: socket and exec are there: want one of them",
            "lonnet.toml:4: handler.x: exec: this version passes requests to sockets only"
        ]
    );
}

#[test]
fn the_id_must_be_there_and_have_a_line_in_the_table() {
    assert_eq!(
        Folder::new("", HOSTS).problems(),
        ["lonnet.toml: id: is missing: this host's id in hosts.tab"]
    );
    assert_eq!(Folder::new("\nid = \"x y\"", HOSTS).problems().len(), 1);
    assert_eq!(
        Folder::new("\nid = \"other\"\n", HOSTS).problems(),
        ["lonnet.toml:2: id: \"other\" has no line in hosts.tab"]
    );
}

#[test]
fn all_errors_of_both_files_come_at_once_in_order() {
    let folder = Folder::new(
        "id = \"msua1\"\nwhat = 1\n[lonc]\nport = 0\nbind = \"x\"\n[host.nobody]\nwire = \"classic\"\n",
        "msua1:msu:access:a:127.0.0.3\n.x:msu:access:a:127.0.0.4\nmsul1:msu\nmsul1:msu:library:a:127.0.0.400\n",
    );
    assert_eq!(
        folder.problems(),
        [
            "lonnet.toml:2: what: unknown key",
            "lonnet.toml:4: lonc: port: want a port of 1 to 65535, not 0",
            "lonnet.toml:5: lonc: bind: want an IP address, not \"x\"",
            "lonnet.toml:6: host.nobody: \"nobody\" has no line in hosts.tab",
            "hosts.tab:2: host id \".x\" begins with a dot",
            "hosts.tab:3: 2 of 5 fields: want id:domain:role:hostname:ip",
            "hosts.tab:4: \"127.0.0.400\" is not an IP address",
        ]
    );
}

#[test]
fn a_host_whose_line_is_wrong_is_not_also_said_to_be_missing() {
    let folder = Folder::new("id = \"msua1\"\n", "msua1:msu:access:a:nonsense\n");
    assert_eq!(folder.problems(), ["hosts.tab:1: \"nonsense\" is not an IP address"]);
}

#[test]
fn broken_syntax_is_one_problem_a_line_and_the_table_is_still_read() {
    let folder = Folder::new("id = \"msua1\nhosts = \"hosts.tab\"\n", "msua1\n");
    let problems = folder.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("lonnet.toml:1: "), "{problems:?}");
    assert_eq!(problems[1], "hosts.tab:1: 1 of 5 fields: want id:domain:role:hostname:ip");

    let folder = Folder::new("id = \"a\"\nid = \"b\"\n", HOSTS);
    let problems = folder.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("lonnet.toml:2: duplicate key"), "{problems:?}");

    // Where the table is cannot be told here, so nothing is said of it.
    let folder = Folder::new("id = \"a\"\nhosts = \n", "nonsense\n");
    let problems = folder.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("lonnet.toml:2: "), "{problems:?}");
}

#[test]
fn files_that_cannot_be_read_are_problems_and_not_panics() {
    let folder = Folder::new("id = \"msua1\"\nhosts = \"other.tab\"\nx = 1\n", HOSTS);
    let problems = folder.problems();
    assert_eq!(problems[0], "lonnet.toml:3: x: unknown key");
    assert!(problems[1].starts_with("other.tab: cannot be read: No such file"), "{problems:?}");
    fs::remove_file(folder.toml()).unwrap();
    assert!(folder.problems()[0].starts_with("lonnet.toml: cannot be read: No such file"));
    fs::write(folder.toml(), b"id = \"msua1\"\n# caf\xe9\n").unwrap();
    assert_eq!(folder.problems(), ["lonnet.toml:2: the line is not UTF-8 text"]);
}

#[test]
fn each_wrong_line_of_the_table_is_reported_with_its_line() {
    let long = "x".repeat(65);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"b".to_vec(), "1 of 5 fields: want id:domain:role:hostname:ip"),
        (b"b:msu:library:host".to_vec(), "4 of 5 fields: want id:domain:role:hostname:ip"),
        (b"b:msu:library:host:10.0.0.1:x".to_vec(), "6 fields instead of 5: want id:domain:role:hostname:ip"),
        (b":msu:library:host:10.0.0.1".to_vec(), "the host id is empty"),
        (
            b"a/b:msu:library:host:10.0.0.1".to_vec(),
            "host id \"a/b\" has characters other than A-Z a-z 0-9 . _ -",
        ),
        (b"..:msu:library:host:10.0.0.1".to_vec(), "host id \"..\" begins with a dot"),
        (
            b"lonc.pid:msu:library:host:10.0.0.1".to_vec(),
            "host id \"lonc.pid\" ends like a file that the programs make for themselves",
        ),
        (format!("{long}:msu:library:host:10.0.0.1").into_bytes(), "host id is longer than 64 characters"),
        (b"b::library:host:10.0.0.1".to_vec(), "the domain is empty"),
        (b"b:msu::host:10.0.0.1".to_vec(), "the role is empty"),
        (
            b"b:m su:library:host:10.0.0.1".to_vec(),
            "the domain \"m su\" has a space or control character in it",
        ),
        (
            b"b:msu:library:ho/st:10.0.0.1".to_vec(),
            "the host name \"ho/st\" has characters other than A-Z a-z 0-9 . _ -",
        ),
        (b"b:msu:library:host:10.0.0".to_vec(), "\"10.0.0\" is not an IP address"),
        (b"b:msu:library:host:::1".to_vec(), "an IPv6 address stands in brackets: [::1]"),
        (b"b:msu:library:host:[::1".to_vec(), "\"[::1\" is not an IPv6 address in brackets"),
        (b"b:msu:library:host:[10.0.0.1]".to_vec(), "\"[10.0.0.1]\" is not an IPv6 address in brackets"),
        (b"b:msu:library:host:[::1]:5663".to_vec(), "\"[::1]:5663\" is not an IPv6 address in brackets"),
        (b"b:msu:library:host:0.0.0.0".to_vec(), "0.0.0.0 is not the address of one host"),
        (b"b:msu:library::".to_vec(), "neither host name nor address: nothing says where the host is"),
        (b"msua1:msu:library:host:10.0.0.1".to_vec(), "host id \"msua1\" stands in line 1 already"),
        (b"b:msu:library:caf\xe9:10.0.0.1".to_vec(), "the line is not UTF-8 text"),
        (b"# caf\xe9".to_vec(), "the line is not UTF-8 text"),
    ];
    for (line, said) in cases {
        let mut table = b"msua1:msu:access:a:127.0.0.3\n# comment\n".to_vec();
        table.extend_from_slice(&line);
        table.extend_from_slice(b"\nlast:msu:access:a:127.0.0.9\n");
        let folder = Folder::new("id = \"msua1\"\n", "");
        fs::write(folder.path("hosts.tab"), table).unwrap();
        assert_eq!(
            folder.problems(),
            [format!("hosts.tab:3: {said}")],
            "for {:?}",
            String::from_utf8_lossy(&line)
        );
    }
}

#[test]
fn two_wrong_fields_of_one_line_are_two_problems() {
    let folder = Folder::new("id = \"msua1\"\n", "msua1:msu:access:a:127.0.0.3\n.b::library:c:1\n");
    assert_eq!(
        folder.problems(),
        [
            "hosts.tab:2: host id \".b\" begins with a dot",
            "hosts.tab:2: the domain is empty",
            "hosts.tab:2: \"1\" is not an IP address",
        ]
    );
}

#[test]
fn comments_blank_lines_spaces_and_carriage_returns_do_not_matter() {
    let bytes = b"\xef\xbb\xbf# the network\r\n\r\n  \n a1 : msu : access : host.example : 127.0.0.3 \r\n\
                  b1:msu:library:other: # by name\r\nc1:msu:library::[::1]\r\nd1:msu:library:x:[::ffff:127.0.0.9]";
    let hosts = Hosts::parse(Path::new("hosts.tab"), bytes).unwrap();
    let seen: Vec<_> = hosts
        .iter()
        .map(|host| (host.id.as_str(), host.name.as_str(), host.address.map(|ip| ip.to_string()), host.line))
        .collect();
    assert_eq!(
        seen,
        [
            ("a1", "host.example", Some("127.0.0.3".to_owned()), 4),
            ("b1", "other", None, 5),
            ("c1", "", Some("::1".to_owned()), 6),
            ("d1", "x", Some("127.0.0.9".to_owned()), 7),
        ]
    );
    assert!(hosts.has_unaddressed());
    assert_eq!(hosts.ids().map(HostId::as_str).collect::<Vec<_>>(), ["a1", "b1", "c1", "d1"]);
    let mapped: IpAddr = "::ffff:127.0.0.3".parse().unwrap();
    assert_eq!(hosts.by_address(mapped).map(|host| host.id.as_str()), Some("a1"));
    assert!(hosts.by_address("127.0.0.77".parse().unwrap()).is_none());
}

#[test]
fn of_two_ids_behind_one_address_the_last_is_the_caller_and_a_warning_says_so() {
    let toml = "id = \"msua1\"\n[lonc]\nwire = \"classic\"\n[lond]\nclassic = \"allow\"\n";
    let folder = Folder::new(toml, "msua1:msu:access:a:127.0.0.3\nmsul1:msu:library:a:127.0.0.3\n");
    assert_eq!(
        folder.warnings(),
        [
            "hosts.tab:2: msul1 has the address 127.0.0.3, as has msua1 in line 1: a caller from there is taken for msul1"
        ]
    );
    let config = folder.load();
    let caller = config.hosts.by_address("127.0.0.3".parse().unwrap()).unwrap();
    assert_eq!(caller.id, id("msul1"));
    assert!(!config.hosts.has_unaddressed());
}

#[test]
fn a_wire_that_this_version_does_not_speak_is_one_warning_a_line() {
    let mut hosts = String::from("msua1:msu:access:a:127.0.0.1\n");
    for number in 1..=8 {
        hosts.push_str(&format!("l{number}:msu:library:a:127.0.1.{number}\n"));
    }
    let allow = "[lond]\nclassic = \"allow\"\n";
    let folder = Folder::new(&format!("id = \"msua1\"\n{allow}[host.l8]\nwire = \"secure\"\n"), &hosts);
    assert_eq!(
        folder.warnings(),
        [
            "lonnet.toml: wire \"secure\" is not in this version: requests to l1, l2, l3, l4, l5 and 2 more are \
             answered con_lost; set wire = \"classic\"",
            "lonnet.toml:5: wire \"secure\" is not in this version: requests to l8 are answered con_lost; set wire = \
             \"classic\"",
        ]
    );
    let folder = Folder::new("id = \"msua1\"\n[lonc]\nwire = \"classic\"\n[lond]\nmax_opening = 3\n", HOSTS);
    assert_eq!(
        folder.warnings(),
        [
            "lonnet.toml:4: lond: classic \"refuse\" leaves no wire that this version serves: every caller is turned \
          away; set classic = \"allow\""
        ]
    );
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let start = "id = \"msua1\"\n[lonc]\nwire = \"classic\"\n[lond]\nclassic = \"allow\"\n";
    for (toml, said) in [
        ("listen = [\"127.0.0.1:0\"]", "6: lond: listen: the port 0 is another one at each start"),
        ("[host.msua1]", "6: host.msua1: is this host itself: lonc makes no link to it"),
        ("[handler.x]\nsocket = \"x\"\nallow = []", "8: handler.x: allow: is empty: nobody may use it"),
        (
            "[host.msul1]\nbind = \"::1\"",
            "7: bind is an address of the other family than msul1: no link can be made",
        ),
    ] {
        let folder = Folder::new(&format!("{start}{toml}\n"), HOSTS);
        assert_eq!(folder.warnings(), [format!("lonnet.toml:{said}")], "for {toml:?}");
    }
}

#[test]
fn a_socket_path_that_no_socket_can_have_is_reported() {
    let long = "d".repeat(120);
    let folder = Folder::new(
        &format!("id = \"msua1\"\nrun_dir = \"{long}\"\n[handler.x]\nsocket = \"{long}\"\n"),
        HOSTS,
    );
    let problems = folder.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("lonnet.toml:2: run_dir: "), "{problems:?}");
    assert!(problems[1].starts_with("lonnet.toml:4: handler.x: socket: "), "{problems:?}");
}

#[test]
fn five_thousand_hosts_are_read_and_found_fast() {
    let count = 5000;
    let mut hosts = String::new();
    for number in 0..count {
        hosts.push_str(&format!(
            "host{number}:msu:library:h{number}.example:10.0.{}.{}\n",
            number / 250,
            number % 250 + 1
        ));
    }
    let folder = Folder::new("id = \"host77\"\n[lonc]\nwire = \"classic\"\n", &hosts);
    let begin = Instant::now();
    let config = folder.load();
    assert_eq!(config.peers.len(), count - 1);
    // A walk through the table for each of these would take minutes in an unoptimised build.
    for _ in 0..20 {
        for number in 0..count {
            let id = id(&format!("host{number}"));
            let address = IpAddr::from([10, 0, (number / 250) as u8, (number % 250 + 1) as u8]);
            assert_eq!(config.hosts.get(&id).map(|host| host.line), Some(number + 1));
            assert_eq!(config.hosts.by_address(address).map(|host| &host.id), Some(&id));
            assert_eq!(config.peer(&id).is_some(), number != 77);
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "took {:?}", begin.elapsed());
}

#[test]
fn what_is_read_and_reported_is_bounded() {
    let folder = Folder::new("id = \"msua1\"\n", &"x\n".repeat(20_000));
    let problems = folder.problems();
    assert_eq!(problems.len(), 10_001);
    assert_eq!(problems.last().unwrap(), "lonnet.toml: there are more problems than these");

    let folder = Folder::new("id = \"msua1\"\n", "");
    fs::File::create(folder.path("hosts.tab")).unwrap().set_len(16 * 1024 * 1024 + 1).unwrap();
    assert_eq!(folder.problems(), ["hosts.tab: is longer than 16 MiB: not a file of this kind"]);

    let folder = Folder::new(&format!("id = {}\n", "[".repeat(1_000_000)), HOSTS);
    assert!(!folder.problems().is_empty(), "values in values in values do not overflow the stack");
}

#[test]
fn no_bytes_make_it_panic() {
    let words: &[&[u8]] = &[
        b"id = \"msua1\"\n",
        b"[lonc]\n",
        b"[host.msul1]\n",
        b"[handler.x]\n",
        b"[[lond]]\n",
        b"port = ",
        b"\"",
        b"'''",
        b"socket = ",
        b"allow = [",
        b"]",
        b"{",
        b"}",
        b"=",
        b".",
        b"\n",
        b"\xff",
        b"\x00",
        b"1e999",
        b"0x",
        b"-",
        b"#",
        b":",
        b"[::1]",
        b"msul1:msu:library:a:",
        b"127.0.0.1",
        b"request_timeout = \"1s\"\n",
        b"\\u0000",
        b"\r\n",
        b" ",
    ];
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..3000 {
        let mut make = || {
            let mut bytes = Vec::new();
            for _ in 0..random.usize(..20) {
                match random.u8(..4) {
                    0 => bytes.push(random.u8(..)),
                    _ => bytes.extend_from_slice(random.choice(words).unwrap()),
                }
            }
            bytes
        };
        let folder = Folder::new("", "");
        fs::write(folder.toml(), make()).unwrap();
        fs::write(folder.path("hosts.tab"), make()).unwrap();
        if let Err(errors) = Config::load(&folder.toml()) {
            assert!(!errors.0.is_empty(), "round {round}");
            for problem in &errors.0 {
                assert!(!problem.to_string().contains('\n'), "round {round}: {problem}");
            }
        }
    }
}

/// The sample with every key taken from its comment.
fn uncommented_sample() -> String {
    let sample = fs::read_to_string(sample("lonnet.toml")).unwrap();
    let mut keys = 0;
    let mut text = String::new();
    for line in sample.lines() {
        let line = match line.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with(' ') => {
                keys += 1;
                key
            }
            _ => line,
        };
        text.push_str(line);
        text.push('\n');
    }
    assert!(keys > 30, "only {keys} keys found");
    text
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(name)
}

#[test]
fn the_sample_loads_with_the_thirteen_hosts_and_all_defaults() {
    let config = Config::load(&sample("lonnet.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.hosts.len(), 13);
    assert_eq!(config.peers.len(), 12);
    assert!(!config.hosts.has_unaddressed());
    let ids: Vec<&str> = config.hosts.ids().map(HostId::as_str).collect();
    assert_eq!(
        ids,
        [
            "msul1", "msua1", "msul2", "msua2", "hubl14", "hubl15", "hubl16", "huba20", "huba21", "huba22",
            "huba23", "hubl25", "huba27"
        ]
    );
}

#[test]
fn the_sample_says_of_each_key_what_holds_when_it_is_left_out() {
    let shipped = Config::load(&sample("lonnet.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    let folder = Folder::new(&uncommented_sample(), &fs::read_to_string(sample("hosts.tab")).unwrap());
    let mut spelled = folder.load();
    for (spelled, shipped, name) in [
        (&spelled.hosts_file, &shipped.hosts_file, "hosts"),
        (&spelled.pins, &shipped.pins, "pins"),
        (&spelled.key_dir, &shipped.key_dir, "key_dir"),
        (&spelled.run_dir, &shipped.run_dir, "run_dir"),
        (&spelled.spool_dir, &shipped.spool_dir, "spool_dir"),
        (&spelled.log_dir, &shipped.log_dir, "log_dir"),
        (&spelled.status_dir, &shipped.status_dir, "status_dir"),
    ] {
        assert_eq!(spelled.file_name(), shipped.file_name(), "{name}");
    }
    assert_eq!(spelled.log_level, shipped.log_level);
    assert_eq!(spelled.peers, shipped.peers);
    spelled.lond.full_load = shipped.lond.full_load;
    assert_eq!(spelled.lond, shipped.lond);
    let handler = &spelled.handlers[0];
    let least = format!("id = \"msua1\"\n[handler.{}]\nsocket = {:?}\n", handler.name, handler.socket);
    assert_eq!(*handler, Folder::new(&least, HOSTS).load().handlers[0]);
}

#[test]
fn the_sample_has_every_key_that_there_is() {
    fn keys(toml: &str) -> BTreeSet<String> {
        let table: toml::Table = toml.parse().unwrap();
        let mut keys = BTreeSet::new();
        for (key, value) in &table {
            match value {
                toml::Value::Table(section) if key == "handler" => {
                    let handler = section.values().next().unwrap().as_table().unwrap();
                    keys.extend(handler.keys().map(|inner| format!("handler.*.{inner}")));
                }
                toml::Value::Table(section) if key != "host" => {
                    keys.extend(section.keys().map(|inner| format!("{key}.{inner}")));
                }
                _ => drop(keys.insert(key.clone())),
            }
        }
        keys
    }
    assert_eq!(keys(&uncommented_sample()), &keys(EVERY_KEY) | &BTreeSet::from(["host".to_owned()]));
}
