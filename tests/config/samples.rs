//! The samples in `etc/`: what they say must be true.

use crate::folder::{EVERY_KEY, Folder, HOSTS};
use lonnet::base::HostId;
use lonnet::config::{Config, Handler};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
        (&spelled.pins_file, &shipped.pins_file, "pins"),
        (&spelled.key_dir, &shipped.key_dir, "key_dir"),
        (&spelled.run_dir, &shipped.run_dir, "run_dir"),
        (&spelled.spool_dir, &shipped.spool_dir, "spool_dir"),
        (&spelled.log_dir, &shipped.log_dir, "log_dir"),
        (&spelled.status_dir, &shipped.status_dir, "status_dir"),
    ] {
        assert_eq!(spelled.file_name(), shipped.file_name(), "{name}");
    }
    assert_eq!(spelled.log_level, shipped.log_level);
    assert_eq!(spelled.sandbox, shipped.sandbox);
    assert_eq!(spelled.peers, shipped.peers);
    spelled.lond.full_load = shipped.lond.full_load;
    assert_eq!(spelled.lond, shipped.lond);
    let handler = &spelled.handlers[0];
    let least = format!(
        "id = \"msua1\"\n[handler.{}]\nsocket = {:?}\nallow = [\"*\"]\n",
        handler.name, handler.socket
    );
    let least = Folder::new(&least, HOSTS).load().handlers[0].clone();
    assert_eq!(handler.access.without_places(), least.access.without_places());
    assert_eq!(*handler, Handler { access: handler.access.clone(), ..least });
    let programs = [
        (1, "worker = [\"/usr/local/lib/lonnet/upper.pl\"]"),
        (2, "exec = [\"/usr/local/lib/lonnet/note.sh\", \"/var/lib/notes\"]"),
    ];
    for (at, way) in programs {
        let handler = &spelled.handlers[at];
        let least = format!("id = \"msua1\"\n[handler.{}]\n{way}\nallow = [\"*\"]\n", handler.name);
        let least = Folder::new(&least, HOSTS).load().handlers[0].clone();
        assert_eq!(handler.program, least.program, "{way}");
    }
    for (spelled, shipped) in spelled.builtins.iter().zip(&shipped.builtins) {
        assert_eq!(spelled.access.without_places(), shipped.access.without_places(), "{}", shipped.name);
    }
}

#[test]
fn the_sample_has_every_key_that_there_is() {
    fn keys(toml: &str) -> BTreeSet<String> {
        let table: toml::Table = toml.parse().unwrap();
        let mut keys = BTreeSet::new();
        for (key, value) in &table {
            match value {
                toml::Value::Table(section) if matches!(key.as_str(), "handler" | "builtin" | "service") => {
                    let first = section.values().next().unwrap().as_table().unwrap();
                    keys.extend(first.keys().map(|inner| format!("{key}.*.{inner}")));
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

#[test]
fn the_units_start_again_with_pauses_and_are_never_given_up() {
    for unit in ["lonc", "lond", "lonsvc"] {
        let text = fs::read_to_string(sample("systemd").join(format!("{unit}.service"))).unwrap();
        let (about, service) = text.split_once("[Service]").unwrap();
        // Where systemd looks for it: in [Service] it would be ignored.
        assert!(about.lines().any(|line| line == "StartLimitIntervalSec=0"), "{unit}");
        for wanted in ["Restart=on-failure", "RestartSec=5"] {
            assert!(service.lines().any(|line| line == wanted), "{unit}: {wanted}");
        }
    }
}
