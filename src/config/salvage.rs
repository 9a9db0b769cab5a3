//! What the tools go by while a file has mistakes: what is right in it, and what a running program
//! says it goes by.
//!
//! A broker that runs is not touched by a slip of the pen in `hosts.tab`, and neither are the tools
//! that ask it: they say what is wrong, and go on. Nothing here is for the programs that serve:
//! those start, restart and reload by what is whole.
//!
//! What stands in a line that is wrong is left out, and what is left out has its default. Where
//! that could be mistaken for what was meant, it is told: see [`Salvage::is_sure`]. What a running
//! program says counts before all that.

use super::hosts::Table;
use super::resolve::{Network, assemble, folder, peers, read_pins, size_of_disk};
use super::section::Report;
use super::settings::Settings;
use super::source::{self, attempt, report_syntax};
use super::{Config, value};
use base::HostId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// The keys of the top that the tools go by.
const FOLDERS: [&str; 3] = ["run_dir", "spool_dir", "status_dir"];

/// What a program that runs goes by, as far as the tools of this host need it. It crosses its admin
/// socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// This host.
    pub id: HostId,
    /// Folder of the sockets.
    #[serde(with = "base::json_path::plain")]
    pub run_dir: PathBuf,
    /// The delayed directory.
    #[serde(with = "base::json_path::plain")]
    pub spool_dir: PathBuf,
    /// Folder of the logs.
    #[serde(with = "base::json_path::plain")]
    pub log_dir: PathBuf,
    /// Folder of the status files.
    #[serde(with = "base::json_path::plain")]
    pub status_dir: PathBuf,
    /// User that the programs become.
    pub user: Option<String>,
    /// All other hosts of the table.
    pub peers: Vec<PeerAbout>,
}

/// What of a peer the tools need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAbout {
    /// The host.
    pub id: HostId,
    /// Longest request in bytes.
    pub max_line: usize,
}

/// A configuration that was made of files with mistakes.
#[derive(Debug)]
pub struct Salvage {
    /// What is right in them, and the word of a program that runs.
    pub config: Config,
    /// Keys of the top whose values may not be what was meant.
    doubtful: BTreeSet<&'static str>,
}

impl Salvage {
    /// Whether the value of this key of the top (`run_dir`, `spool_dir`, `status_dir`) is what was
    /// meant: it stands there as it should, or it is not there and no mistake can have hidden it,
    /// or a program that runs says so.
    pub fn is_sure(&self, key: &str) -> bool {
        !self.doubtful.contains(key)
    }
}

impl Config {
    /// What the tools of a running program must know of its configuration.
    pub fn whereabouts(&self) -> Whereabouts {
        let about = |peer: &super::Peer| PeerAbout { id: peer.host.id.clone(), max_line: peer.max_line };
        Whereabouts {
            id: self.id.clone(),
            run_dir: self.run_dir.clone(),
            spool_dir: self.spool_dir.clone(),
            log_dir: self.log_dir.clone(),
            status_dir: self.status_dir.clone(),
            user: self.user.clone(),
            peers: self.peers.iter().map(about).collect(),
        }
    }

    /// What can be made of `file` and the files that it names, whatever is wrong with them, and of
    /// what a program that runs has `told`. What is wrong, [`Config::load`] says.
    pub fn salvage(file: &Path, told: Option<&Whereabouts>) -> Salvage {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let bytes = source::read(&file, &attempt).ok();
        let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default());
        let mut report = Report::new(&file, &text);
        let (document, errors) = DeTable::parse_recoverable(&text);
        let document = document.get_ref();
        let mut broken = report_syntax(&mut report, &errors);
        broken.extend(lines_with(&text, char::REPLACEMENT_CHARACTER));
        let settings = Settings::read(document, &file, &mut report);
        let doubtful = if told.is_some() {
            BTreeSet::new()
        } else {
            let hidden = bytes.is_none() || settings.unknown_key || may_hide(&text, &broken);
            FOLDERS.into_iter().filter(|key| is_doubtful(key, document, &text, &broken, hidden)).collect()
        };

        let table = Table::parse_file(&folder(&file).join(&settings.hosts), &attempt).unwrap_or_default();
        let pins = read_pins(&folder(&file).join(&settings.pins), &attempt, Some(&table)).unwrap_or_default();
        let own = told.map(|told| &told.id).or(settings.id.as_ref().map(|id| &id.value));
        let id = own.cloned().unwrap_or_else(HostId::unknown);
        let mut hosts = table.hosts;
        let damaged: BTreeSet<&HostId> = table.damaged.iter().collect();
        let told_of = told.into_iter().flat_map(|told| &told.peers).map(|peer| &peer.id);
        for host in damaged.into_iter().chain(told_of).chain([&id]) {
            hosts.add_unknown(host);
        }
        let disk = size_of_disk(&folder(&file).join(&settings.spool_dir));
        let peers = peers(&settings, &hosts, &id, disk);
        let mut config = assemble(settings, &file, Network { id, hosts, peers, pins: pins.pins }, Vec::new());
        if let Some(told) = told {
            config.go_by(told);
        }
        Salvage { config, doubtful }
    }

    /// Takes a running program's word for its folders, its user and its peers.
    fn go_by(&mut self, told: &Whereabouts) {
        self.run_dir.clone_from(&told.run_dir);
        self.spool_dir.clone_from(&told.spool_dir);
        self.log_dir.clone_from(&told.log_dir);
        self.status_dir.clone_from(&told.status_dir);
        self.user.clone_from(&told.user);
        let longest: HashMap<&HostId, usize> =
            told.peers.iter().map(|peer| (&peer.id, peer.max_line)).collect();
        for peer in &mut self.peers {
            if let Some(max_line) = longest.get(&peer.host.id) {
                peer.max_line = *max_line;
            }
        }
    }
}

/// Lines, counted from 1, that have this character.
fn lines_with(text: &str, character: char) -> impl Iterator<Item = usize> {
    let lines = text.split('\n').enumerate();
    lines.filter(move |(_, line)| line.contains(character)).map(|(index, _)| index + 1)
}

/// Whether a line that is wrong stands at the top of the file, before every table: what stands
/// behind it may be lost. A string of several lines that does not end hides what follows, wherever
/// the parser says that it went wrong.
fn may_hide(text: &str, broken: &BTreeSet<usize>) -> bool {
    if !broken.is_empty() && (text.contains("\"\"\"") || text.contains("'''")) {
        return true;
    }
    let first_table = text.split('\n').position(|line| line.trim_start().starts_with('['));
    broken.first().is_some_and(|line| first_table.is_none_or(|index| *line <= index))
}

/// Whether the value of a key of the top may not be what was meant. `hidden`: a key that is not
/// there may have been meant.
fn is_doubtful(
    key: &str,
    document: &DeTable<'_>,
    text: &str,
    broken: &BTreeSet<usize>,
    hidden: bool,
) -> bool {
    let named =
        |line: &usize| text.split('\n').nth(line.saturating_sub(1)).is_some_and(|line| line.contains(key));
    if broken.iter().any(named) {
        return true;
    }
    match document.get(key) {
        Some(found) => value::path(found.get_ref()).is_err(),
        None => hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "me:d:r:h:127.0.0.1\nb:d:r:h:127.0.0.2\n";

    fn salvaged(toml: &[u8], hosts: Option<&str>, told: Option<&Whereabouts>) -> Salvage {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lonnet.toml");
        std::fs::write(&file, toml).unwrap();
        if let Some(hosts) = hosts {
            std::fs::write(folder.path().join("hosts.tab"), hosts).unwrap();
        }
        Config::salvage(&file, told)
    }

    fn peers(salvage: &Salvage) -> Vec<&str> {
        let config = &salvage.config;
        assert!(
            config.peers.iter().all(|peer| config.peer(&peer.host.id).is_some()),
            "each is found by its id"
        );
        config.peers.iter().map(|peer| peer.host.id.as_str()).collect()
    }

    #[test]
    fn lines_that_are_right_count_and_a_host_whose_line_is_wrong_is_a_host() {
        let hosts = format!("{HOSTS}c:d:r\n/// what\nd:d:r:h:127.0.0.4\n");
        let found = salvaged(
            b"id = \"me\"\nspool_dir = \"s\"\n[lonc]\nport = 0\nmax_line = 512\n",
            Some(&hosts),
            None,
        );
        assert_eq!(peers(&found), ["b", "d", "c"]);
        assert_eq!(found.config.peers[0].max_line, 512);
        assert!(
            found.config.spool_dir.ends_with("s") && found.is_sure("spool_dir") && found.is_sure("run_dir")
        );
        assert_eq!(found.config.id.as_str(), "me");
        assert!(peers(&salvaged(b"id = \"me\"\n", None, None)).is_empty(), "no table at all");
    }

    #[test]
    fn a_folder_that_a_mistake_may_have_hidden_is_in_doubt_and_no_other() {
        for (toml, sure) in [
            (&b"id = \"me\"\n"[..], true),
            (b"spool_dir = \"s\"\nwhat = 1\n", true),
            (b"spool_dir = \"s\"\n[lonc]\nport = \n", true),
            (b"id = \"me\"\n[lonc]\nport = \nwire = \"classic\"\n", true),
            (b"id = \"me\"\n[handler.x\nsocket = \"s\"\n", false),
            (b"id = \"me\"\nspol_dir = \"s\"\n", false),
            (b"id = \"me\nrun_dir = \"x\"\n", false),
            (b"spool_dir = 7\n", false),
            (b"spool_dir = \"s\nid = \"me\"\n", false),
            (b"spool_dir = \"a\"\nspool_dir = \"b\"\n", false),
            (b"spool_dir = \"caf\xe9\"\n", false),
            (b"id = \"\"\"\nspool_dir = \"s\"\n[lonc]\n", false),
        ] {
            let found = salvaged(toml, Some(HOSTS), None);
            assert_eq!(found.is_sure("spool_dir"), sure, "{}", toml.escape_ascii());
        }
        let missing = Config::salvage(Path::new("/nowhere/lonnet.toml"), None);
        assert!(!missing.is_sure("run_dir") && missing.config.run_dir == Path::new("/nowhere/run"));
    }

    #[test]
    fn the_word_of_a_program_that_runs_counts_before_the_file() {
        let told = Whereabouts {
            id: HostId::new("me").unwrap(),
            run_dir: "/r".into(),
            spool_dir: "/s".into(),
            log_dir: "/l".into(),
            status_dir: "/t".into(),
            user: Some("www".into()),
            peers: vec![PeerAbout { id: HostId::new("z").unwrap(), max_line: 1000 }],
        };
        for toml in [&b"id = \"b\nspool_dir = 7\n"[..], b"\xff", b"spool_dir = \"elsewhere\"\n"] {
            let found = salvaged(toml, Some(HOSTS), Some(&told));
            assert_eq!(peers(&found), ["b", "z"], "{}", toml.escape_ascii());
            let config = &found.config;
            assert_eq!((config.id.as_str(), config.user.as_deref()), ("me", Some("www")));
            assert_eq!(config.peer(&told.peers[0].id).map(|peer| peer.max_line), Some(1000));
            assert!(found.is_sure("spool_dir") && config.spool_dir == Path::new("/s"));
            assert_eq!(config.whereabouts().log_dir, told.log_dir);
        }
    }
}
