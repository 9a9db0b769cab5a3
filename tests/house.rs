//! What the source is to be like: which room may use which, how long lines of comment, functions
//! and files may be, and that each file says at its head what it is for.
//!
//! What is not so yet stands in `tests/house/exceptions.txt`, a line each with the bound that holds
//! for it. The list may only shrink: where a file has got better than its line says, the test fails
//! too, until the line is lowered or gone. `HOUSE=shrink cargo test --test house` lowers what can
//! be lowered; nothing raises a bound but a person.

#[path = "house/source.rs"]
mod source;

#[path = "house/exceptions.rs"]
mod exceptions;

use exceptions::{Exceptions, Finding};
use source::{Source, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Columns of a line of comment.
const COLUMNS: usize = 100;
/// Lines of a function, from its name to its last brace.
const FUNCTION_LINES: usize = 70;
/// Lines of a file.
const FILE_LINES: usize = 500;

/// Who may use whom. A room that is not named here may not be there; what a room may use, it may
/// use without asking.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("spool", &["base"]),
    ("config", &["base", "wire", "spool"]),
    ("status", &["base", "wire", "spool", "config"]),
    ("net", &["base", "wire"]),
    ("owner", &["base", "config"]),
    ("handler", &["base"]),
    ("supervise", &["base", "wire", "spool", "config", "status", "net", "owner"]),
    ("lonc", &["base", "wire", "spool", "config", "status", "net", "owner", "supervise"]),
    ("lond", &["base", "wire", "spool", "config", "status", "net", "owner", "supervise", "handler"]),
    ("lonsvc", &["base", "config", "status", "net", "owner", "supervise"]),
    ("client", &["base", "wire", "spool", "config", "owner"]),
    ("cli", &["base", "wire", "spool", "config", "status", "net", "owner", "client"]),
];

/// What one room alone may ask the system with, by the crate's name.
const ALONE: &[(&str, &str)] = &[("mio", "net")];

/// Checks what was measured against the exceptions for `rule`.
fn check(rule: &str, found: BTreeMap<String, usize>, step: usize) {
    let problems = Exceptions::of(rule, step).check(&found);
    assert!(problems.is_empty(), "{rule}:\n{}", problems.iter().map(Finding::to_string).collect::<String>());
}

fn room_of(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("src/")?;
    let room = inner.split('/').next()?;
    Some(room.strip_suffix(".rs").unwrap_or(room)).filter(|room| *room != "lib")
}

#[test]
fn a_room_uses_only_rooms_that_it_may_use() {
    let mut found = BTreeMap::new();
    let mut rooms = BTreeSet::new();
    for source in sources(&["src"]) {
        let Some(room) = room_of(&source.path) else { continue };
        rooms.insert(room.to_owned());
        let (_, allowed) = MAY_USE.iter().find(|(name, _)| *name == room).unwrap_or_else(|| {
            panic!("{}: a room that MAY_USE does not name", source.path);
        });
        if source.is_test() {
            continue;
        }
        for used in source.rooms_used() {
            if used != room && !allowed.contains(&used.as_str()) {
                found.insert(format!("{} -> {used}", source.path), 1);
            }
        }
    }
    assert_eq!(rooms, MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect(), "rooms that are there");
    check("uses", found, 1);
}

#[test]
fn what_the_rooms_may_use_has_no_circle() {
    let mut below: BTreeSet<&str> = BTreeSet::new();
    for (room, allowed) in MAY_USE {
        for used in *allowed {
            assert!(
                below.contains(used),
                "{room} may use {used}, which stands behind it: the table runs upwards"
            );
        }
        below.insert(room);
    }
}

#[test]
fn each_way_to_the_system_is_one_room_s() {
    let mut found = BTreeMap::new();
    for source in sources(&["src"]) {
        for (name, owner) in ALONE {
            if room_of(&source.path) != Some(owner) && !source.is_test() && source.names_crate(name) {
                found.insert(format!("{} -> {name}", source.path), 1);
            }
        }
    }
    check("alone", found, 1);
}

#[test]
fn a_line_of_comment_fits_in_a_hundred_columns() {
    let mut found = BTreeMap::new();
    for source in sources(Source::EVERYWHERE) {
        let long = source.comments().filter(|line| line.chars().count() > COLUMNS).count();
        if long > 0 {
            found.insert(source.path.clone(), long);
        }
    }
    check("columns", found, 5);
}

#[test]
fn a_function_is_no_longer_than_seventy_lines() {
    let mut found = BTreeMap::new();
    for source in sources(Source::EVERYWHERE) {
        for (name, lines) in source.functions().into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES) {
            found.insert(format!("{} {name}", source.path), lines);
        }
    }
    check("function", found, 10);
}

#[test]
fn a_file_is_no_longer_than_five_hundred_lines() {
    let long = |source: &Source| source.text.lines().count();
    let files = sources(Source::EVERYWHERE).into_iter();
    let found = files.map(|source| (source.path.clone(), long(&source)));
    check("file", found.filter(|(_, lines)| *lines > FILE_LINES).collect(), 50);
}

#[test]
fn each_file_says_at_its_head_what_it_is_for() {
    let without = sources(Source::EVERYWHERE).into_iter().filter(|source| !source.has_head());
    check("head", without.map(|source| (source.path, 1)).collect(), 1);
}

#[test]
fn each_link_of_a_page_leads_to_a_file() {
    let mut seen = 0;
    for (path, text) in pages() {
        let folder = path.parent().expect("a page lies in a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains(':') {
                assert!(folder.join(file).exists(), "{}: {target} leads nowhere", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen} links");
}

#[test]
fn decisions_are_numbered_dated_and_listed() {
    let (mut numbers, mut listed) = (BTreeSet::new(), String::new());
    for (path, text) in pages() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !path.parent().is_some_and(|folder| folder.ends_with("docs/adr")) {
            continue;
        }
        if name == "README.md" {
            listed = text;
            continue;
        }
        let number: u32 = name.get(..4).and_then(|digits| digits.parse().ok()).expect("NNNN-title.md");
        assert!(numbers.insert(number), "{number} is there twice");
        let mut lines = text.lines();
        let title = lines.next().and_then(|line| line.strip_prefix(&format!("# {number}. ")));
        let title = title.unwrap_or_else(|| panic!("{name}: begins with # {number}. and its title"));
        let date = lines.nth(1).and_then(|line| line.strip_prefix("Date: ")?.get(..10)).unwrap_or_default();
        let row = format!("| {number:04} | {date} | [{title}]({name}) |");
        assert!(page("docs/adr/README.md").contains(&row), "docs/adr/README.md: want {row}");
    }
    assert_eq!(numbers.len() as u32, numbers.last().copied().unwrap_or(0), "numbers without a gap");
    assert_eq!(listed.lines().filter(|line| line.starts_with("| 0")).count(), numbers.len(), "rows");
}

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("the page can be read")
}

/// All pages of the repository: those at its root, and in `docs`.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["", "docs", "docs/adr"].into_iter().flat_map(|folder| {
        std::fs::read_dir(root.join(folder))
            .expect("the folder can be read")
            .flatten()
            .map(|entry| entry.path())
    });
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).expect("a page can be read"))).collect()
}

#[test]
fn the_rules_notice_what_they_are_for() {
    let text = "//! Head.\nuse crate::{a::{b, c}, d};\nfn f() {\n    log::info!(\"{}\", crate::e::F);\n}\n\
                #[cfg(test)]\nmod tests { use crate::g; }\n// crate::h\n";
    let source = Source::of("src/x.rs", text);
    assert_eq!(source.rooms_used(), ["a", "d", "e"].map(str::to_owned).into());
    assert_eq!(source.functions(), [("f".to_owned(), 3)]);
    assert_eq!(source.comments().collect::<Vec<_>>(), ["//! Head.", "// crate::h"]);
    assert!(source.has_head() && !Source::of("src/y.rs", "fn f() {}").has_head());
    assert!(Source::of("src/x.rs", "use mio::Poll;").names_crate("mio"));
    assert!(!Source::of("src/x.rs", "use crate::net::mio;").names_crate("mio"));
}
