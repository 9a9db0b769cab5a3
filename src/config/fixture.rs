//! Settings for tests and simulations, which change what matters to them: `Peer { max_line: 40,
//! ..fixture::peer("b") }`.

use super::{
    Access, Builtin, Config, Form, Handler, Host, Hosts, LocalRules, Lond, Peer, Role, Sandbox, Target,
};
use base::{HostId, Pins, WireKind};
use std::path::Path;
use std::time::Duration;
use store::spool::SpoolLimits;

/// How long what should happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A host of role `library` and domain `msu`; its name is the machine's own, and its address must
/// be looked up.
pub fn host(id: &str) -> Host {
    Host {
        id: HostId::new(id).unwrap_or_else(|_| HostId::unknown()),
        domain: "msu".to_owned(),
        role: Role("library".to_owned()),
        name: "localhost".to_owned(),
        address: None,
        line: 1,
    }
}

/// How `lonc` deals with a host: on the classic wire, at a port where nobody listens.
pub fn peer(id: &str) -> Peer {
    Peer {
        host: host(id),
        target: Target::Lookup { name: "localhost".to_owned(), port: 1 },
        bind: None,
        wire: WireKind::Classic,
        request_timeout: Duration::from_secs(300),
        connect_timeout: PATIENCE,
        opening_timeout: PATIENCE,
        drain_timeout: Duration::from_secs(5),
        busy_poll: Duration::ZERO,
        socket_mode: 0o660,
        max_line: 1 << 20,
        heartbeat: Duration::from_secs(15),
        heartbeat_missed: 3,
        window: 4 << 20,
        spool: SpoolLimits { messages: 1000, bytes: 1 << 30, keep_free: 0 },
    }
}

/// A handler behind a socket where nobody listens.
pub fn handler(name: &str, access: Access) -> Handler {
    Handler {
        name: name.to_owned(),
        socket: "/nowhere".into(),
        program: None,
        form: Form::Line,
        window: 1,
        access,
        timeout: PATIENCE,
    }
}

/// The configuration of the host `id`, which knows no other and has no handlers, with all its files
/// in `dir`.
pub fn config(dir: &Path, id: &str) -> Config {
    Config {
        file: dir.join("lonnet.toml"),
        id: host(id).id,
        hosts: Hosts::default(),
        hosts_file: dir.join("hosts.tab"),
        pins: Pins::default(),
        pins_file: dir.join("hosts.pins"),
        key_dir: dir.join("keys"),
        run_dir: dir.join("run"),
        spool_dir: dir.join("delayed"),
        log_dir: dir.join("log"),
        status_dir: dir.join("status"),
        user: None,
        log_level: log::LevelFilter::Info,
        sandbox: Sandbox::Auto,
        peers: Vec::new(),
        lond: Lond {
            listen: Vec::new(),
            classic: true,
            max_opening: 64,
            opening_timeout: PATIENCE,
            max_line: 1 << 20,
            heartbeat: Duration::from_secs(15),
            heartbeat_missed: 3,
            window: 4 << 20,
            full_load: 2.0,
            log_quota: 4 << 20,
            drain_timeout: PATIENCE,
            busy_poll: Duration::ZERO,
        },
        handlers: Vec::new(),
        handler_files: Vec::new(),
        builtins: Builtin::all(),
        local: LocalRules::default(),
        places: std::collections::BTreeMap::new(),
        services: Vec::new(),
        warnings: Vec::new(),
    }
}
