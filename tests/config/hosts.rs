//! `hosts.tab`.

use crate::folder::{Folder, id};
use lonnet::base::HostId;
use lonnet::config::Hosts;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

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
            b"lond.sock:msu:library:host:10.0.0.1".to_vec(),
            "host id \"lond.sock\" is the name of a file that the programs make for themselves",
        ),
        (
            b"lonc.pid:msu:library:host:10.0.0.1".to_vec(),
            "host id \"lonc.pid\" is the name of a file that the programs make for themselves",
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
fn a_host_whose_line_is_wrong_is_not_also_said_to_be_missing() {
    let folder = Folder::new("id = \"msua1\"\n", "msua1:msu:access:a:nonsense\n");
    assert_eq!(folder.problems(), ["hosts.tab:1: \"nonsense\" is not an IP address"]);
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
    let config = folder.load();
    assert_eq!(config.peers.len(), count - 1);
    for _ in 0..20 {
        for number in 0..count {
            let id = id(&format!("host{number}"));
            let address = IpAddr::from([10, 0, (number / 250) as u8, (number % 250 + 1) as u8]);
            assert_eq!(config.hosts.get(&id).map(|host| host.line), Some(number + 1));
            assert_eq!(config.hosts.by_address(address).map(|host| &host.id), Some(&id));
            assert_eq!(config.peer(&id).is_some(), number != 77);
        }
    }
    // This thread's own time, so that a busy machine is no failure. A walk through the table for
    // each look-up would take many times as long.
    let used = getrusage(UsageWho::RUSAGE_THREAD).unwrap().user_time();
    assert!(used.num_milliseconds() < 2500, "used {used}");
}
