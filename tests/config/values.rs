//! What the keys come to.

use crate::folder::{EVERY_KEY, Folder, HOSTS, id};
use lonnet::base::{Pin, WireKind};
use lonnet::config::{Access, Entries, Restart, Sandbox, Service, Target, Who};
use std::path::Path;
use std::time::Duration;

#[test]
fn the_least_file_gives_every_default() {
    let folder = Folder::new("id = \"msua1\"\n", HOSTS);
    let config = folder.load();
    assert_eq!(config.file, folder.toml());
    assert_eq!(config.id, id("msua1"));
    for (path, name) in [
        (&config.hosts_file, "hosts.tab"),
        (&config.pins_file, "hosts.pins"),
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
    assert_eq!(config.sandbox, Sandbox::Auto);
    assert_eq!(config.peers.len(), 1, "this host itself is no peer");
    let peer = config.peer(&id("msul1")).expect("the other host");
    assert_eq!(peer.target, Target::Address("127.0.0.2:5663".parse().unwrap()));
    assert_eq!(peer.bind, None);
    assert_eq!(peer.wire, WireKind::Secure);
    assert_eq!(peer.request_timeout, Duration::from_secs(300));
    assert_eq!(peer.connect_timeout, Duration::from_secs(20));
    assert_eq!(peer.opening_timeout, Duration::from_secs(20));
    assert_eq!(peer.drain_timeout, Duration::from_secs(5));
    assert_eq!((peer.busy_poll, config.lond.busy_poll), (Duration::ZERO, Duration::ZERO));
    assert_eq!(peer.socket_mode, 0o660);
    assert_eq!(peer.max_line, 1 << 20);
    assert_eq!((peer.heartbeat, peer.heartbeat_missed, peer.window), (Duration::from_secs(15), 3, 4 << 20));
    assert_eq!((peer.spool.messages, peer.spool.bytes, peer.spool.keep_free), (1_000_000, 1 << 30, 64 << 20));
    assert_eq!(config.lond.listen, ["[::]:5663".parse().unwrap()]);
    assert!(!config.lond.classic);
    assert_eq!(config.lond.max_opening, 64);
    assert_eq!(config.lond.opening_timeout, Duration::from_secs(10));
    assert_eq!(config.lond.max_line, 1 << 20);
    let lond = &config.lond;
    assert_eq!((lond.heartbeat, lond.heartbeat_missed, lond.window), (Duration::from_secs(15), 3, 4 << 20));
    assert!(config.pins.is_empty());
    assert!(config.lond.full_load >= 1.0);
    assert_eq!(config.lond.drain_timeout, Duration::from_secs(5));
    assert_eq!(config.lond.log_quota, 4 << 20);
    assert!(config.handlers.is_empty());
    assert_eq!(config.socket_path(&id("msul1")), folder.path("run/msul1"));
    assert_eq!(config.spool_path(&id("msul1")), folder.path("delayed/msul1"));
}

#[test]
fn every_key_is_taken() {
    let folder = Folder::new(EVERY_KEY, HOSTS);
    let config = folder.load();
    assert_eq!(config.pins_file, Path::new("/etc/pins"));
    assert_eq!(config.key_dir, folder.path("k"));
    assert_eq!(config.run_dir, folder.path("r"));
    assert_eq!(config.spool_dir, folder.path("s"));
    assert_eq!(config.log_dir, folder.path("l"));
    assert_eq!(config.status_dir, folder.path("st"));
    assert_eq!(config.user.as_deref(), Some("www"));
    assert_eq!(config.log_level, log::LevelFilter::Debug);
    assert_eq!(config.sandbox, Sandbox::Required);
    let peer = &config.peers[0];
    assert_eq!(peer.target, Target::Address("127.0.0.2:7663".parse().unwrap()));
    assert_eq!(peer.bind, Some("127.0.0.3".parse().unwrap()));
    assert_eq!(peer.wire, WireKind::Classic);
    assert_eq!(peer.request_timeout, Duration::from_secs(300));
    assert_eq!(peer.connect_timeout, Duration::from_millis(500));
    assert_eq!(peer.opening_timeout, Duration::from_secs(2));
    assert_eq!(peer.drain_timeout, Duration::ZERO);
    let polls = (peer.busy_poll, config.lond.busy_poll);
    assert_eq!(polls, (Duration::from_micros(30), Duration::from_millis(1)));
    assert_eq!(peer.socket_mode, 0o600);
    assert_eq!(peer.max_line, 65536);
    assert_eq!((peer.heartbeat, peer.heartbeat_missed, peer.window), (Duration::from_secs(3), 2, 196_608));
    assert_eq!((peer.spool.messages, peer.spool.bytes, peer.spool.keep_free), (10, 2 << 20, 0));
    let listen: Vec<_> = config.lond.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.3:5663", "[::1]:5664", "127.0.0.4:7663"]);
    assert!(config.lond.classic);
    assert_eq!(config.lond.max_opening, 5);
    assert_eq!(config.lond.opening_timeout, Duration::from_secs(3));
    assert_eq!(config.lond.max_line, 4096);
    let lond = &config.lond;
    assert_eq!((lond.heartbeat, lond.heartbeat_missed, lond.window), (Duration::from_secs(4), 5, 100_000));
    assert_eq!(config.lond.full_load, 2.5);
    assert_eq!(config.lond.drain_timeout, Duration::from_secs(1));
    assert_eq!(config.lond.log_quota, 64 * 1024);
    let service = &config.services[0];
    let env = [("PATH", "/bin"), ("TZ", "UTC")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let expected = Service {
        name: "jobs".into(),
        program: folder.path("bin/jobs"),
        arguments: vec!["-v".into()],
        user: Some("nobody".into()),
        dir: folder.path("work"),
        env: env.into(),
        restart: Restart::OnFailure,
        drain_timeout: Duration::from_secs(3),
        open_files: Some(100),
        memory: Some(1 << 30),
    };
    assert_eq!(*service, expected);
    let handler = &config.handlers[0];
    assert_eq!((handler.name.as_str(), &handler.socket), ("echo", &folder.path("app.sock")));
    assert_eq!(handler.timeout, Duration::from_secs(10));
    assert_eq!((handler.form, handler.window), (lonnet::config::Form::Tagged, 3));
    let list = |entries: Vec<Who>| Entries { entries, place: None };
    let allow = vec![Who::Host(id("msul1")), Who::Role("library".into()), Who::Domain("msu".into())];
    let access =
        Access { allow: Some(list(allow)), deny: list(vec![Who::Host(id("msua1"))]), private_only: true };
    assert_eq!(handler.access.without_places(), access);
    let builtin = config.builtins.iter().find(|builtin| builtin.name == "log").unwrap();
    let (allow, deny) = (vec![Who::Host(id("msul1"))], vec![Who::Role("access".into())]);
    let access = Access { allow: Some(list(allow)), deny: list(deny), private_only: false };
    assert_eq!(builtin.access.without_places(), access);
    let others = config.builtins.iter().filter(|builtin| builtin.name != "log");
    assert!(others.clone().all(|builtin| builtin.access == Access::everyone()));
    assert_eq!(others.count(), 5);
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
fn the_default_window_grows_with_the_longest_line() {
    let toml = "id = \"msua1\"\n[lonc]\nmax_line = \"8MiB\"\n[lond]\nmax_line = \"16MiB\"\n";
    let config = Folder::new(toml, HOSTS).load();
    assert_eq!(config.peers[0].window, (16 << 20) + 65536);
    assert_eq!(config.lond.window, (32 << 20) + 65536);
}

#[test]
fn pins_are_read_beside_the_table() {
    let pins = [Pin::of(b"1"), Pin::of(b"2")];
    let text = format!("msul1 {}\nmsul1 {} # the next one\n", pins[0], pins[1]);
    let folder = Folder::new("id = \"msua1\"\n", HOSTS).with_pins(&text);
    let config = folder.load();
    assert_eq!(config.pins.of(&id("msul1")), pins);
    assert_eq!(config.pins.who(&pins[1]), Some(&id("msul1")));
    assert_eq!(config.pins.of(&id("msua1")), []);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}
