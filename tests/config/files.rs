//! Both files together: all problems at once, broken syntax, unreadable files, any bytes at all.

use crate::folder::{Folder, HOSTS};
use lonnet::config::Config;
use std::fs;

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
