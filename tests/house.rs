//! What the source is to be like: which room may use which, how long lines of comment, functions
//! and files may be, and that each file says at its head what it is for.
//!
//! There are no exceptions: whoever needs one splits the function, or says in `docs/adr` why the
//! rule is to be another.

#[path = "house/source.rs"]
mod source;

use source::{Source, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Columns of a line of comment.
const COLUMNS: usize = 100;
/// Lines of a function, from its name to its last brace.
const FUNCTION_LINES: usize = 70;
/// Lines of a file.
const FILE_LINES: usize = 500;

/// Which crate may use which: what its manifest may name. A crate that is not named here may not be
/// there. That no crate uses one that it does not name, and that there is no circle, is what Cargo
/// sees to.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("store", &["base"]),
    ("config", &["base", "wire", "store"]),
    ("status", &["base", "wire", "store", "config"]),
    ("net", &["base", "wire"]),
    ("owner", &["base", "config"]),
    ("supervise", &["base", "wire", "store", "config", "status", "net", "owner"]),
    ("lonc", &["base", "wire", "store", "config", "status", "net", "owner", "supervise"]),
    ("lond", &["base", "wire", "store", "config", "status", "net", "owner", "supervise"]),
    ("lonsvc", &["base", "config", "status", "net", "owner", "supervise"]),
    ("client", &["base", "wire", "store", "config", "owner"]),
    ("cli", &["base", "wire", "store", "config", "status", "net", "owner", "client", "supervise"]),
];

/// What one crate alone may ask the system with.
const ALONE: &[(&str, &str)] = &[("mio", "net"), ("rustls", "wire"), ("simplelog", "base")];

/// The crates below `src/`, each with the names in its `[dependencies]`.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    for entry in
        std::fs::read_dir(src).expect("src can be read").flatten().filter(|entry| entry.path().is_dir())
    {
        let manifest = entry.path().join("Cargo.toml");
        let text =
            std::fs::read_to_string(&manifest).unwrap_or_else(|e| panic!("{}: {e}", manifest.display()));
        let manifest: toml::Table = text.parse().expect("a manifest");
        let uses = manifest["dependencies"].as_table().expect("a table").keys().cloned().collect();
        found.insert(entry.file_name().into_string().expect("a name"), uses);
    }
    found
}

#[test]
fn a_crate_uses_only_crates_that_it_may_use() {
    let crates = crates();
    let named: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    assert!(
        crates.keys().map(String::as_str).eq(named.keys().copied()),
        "MAY_USE names: {:?}",
        crates.keys()
    );
    for (name, uses) in &crates {
        let ours = uses.iter().map(String::as_str).filter(|used| named.contains_key(used));
        let beyond: Vec<&str> = ours.filter(|used| !named[name.as_str()].contains(used)).collect();
        assert!(beyond.is_empty(), "{name} may not use {beyond:?}");
    }
}

#[test]
fn a_crate_names_nothing_that_it_does_not_use() {
    let files = sources(&["src"]);
    let mut in_vain = Vec::new();
    for (name, uses) in crates() {
        let own: Vec<&Source> =
            files.iter().filter(|file| file.path.starts_with(&format!("src/{name}/"))).collect();
        for used in uses {
            let ident = used.replace('-', "_");
            if !own.iter().any(|file| file.names_crate(&ident)) {
                in_vain.push(format!("src/{name}/Cargo.toml: {used}"));
            }
        }
    }
    assert!(in_vain.is_empty(), "named in vain, or for tests alone: {in_vain:#?}");
}

#[test]
fn each_way_to_the_system_is_one_crate_s() {
    for (name, uses) in crates() {
        for (library, owner) in ALONE {
            assert!(!uses.contains(*library) || name == *owner, "{name} uses {library}, which is {owner}'s");
        }
    }
}

#[test]
fn the_modules_of_a_crate_make_no_circle() {
    let mut uses: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for source in sources(&["src"]).iter().filter(|source| !source.is_test()) {
        let Some((of, modules)) = source.module_path() else { continue };
        let Some(own) = modules.first() else { continue };
        let others = source.modules_used(&modules).into_iter().filter(|used| used != own);
        uses.entry((of, own.clone())).or_default().extend(others);
    }
    assert!(uses.len() > 50, "modules were found: {}", uses.len());
    // Whoever is not used by anybody who is left goes; what stays at the end goes round.
    let mut left = uses.clone();
    loop {
        let used: BTreeSet<(String, String)> = left
            .iter()
            .flat_map(|((of, _), others)| others.iter().map(move |other| (of.clone(), other.clone())))
            .collect();
        let before = left.len();
        left.retain(|module, _| used.contains(module));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "circles, and what they use: {left:#?}");
}

#[test]
fn a_line_of_comment_fits_in_a_hundred_columns() {
    let mut long = Vec::new();
    for source in sources(Source::EVERYWHERE) {
        let beyond = source.comments().filter(|line| line.chars().count() > COLUMNS);
        long.extend(beyond.map(|line| format!("{}: {}", source.path, line.trim_start())));
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn a_function_is_no_longer_than_seventy_lines() {
    let mut long = Vec::new();
    for source in sources(Source::EVERYWHERE) {
        let beyond = source.functions().into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES);
        long.extend(beyond.map(|(name, lines)| format!("{} {name}: {lines} lines", source.path)));
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn a_file_is_no_longer_than_five_hundred_lines() {
    let files = sources(Source::EVERYWHERE).into_iter();
    let counted = files.map(|source| (source.text.lines().count(), source.path));
    let long: Vec<_> = counted.filter(|(lines, _)| *lines > FILE_LINES).collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn each_file_says_at_its_head_what_it_is_for() {
    let without = sources(Source::EVERYWHERE).into_iter().filter(|source| !source.has_head());
    let without: Vec<_> = without.map(|source| source.path).collect();
    assert!(without.is_empty(), "{without:#?}");
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
    let text = "//! Head.\nuse crate::{a::{b, c}, d};\nuse super::super::i;\nuse super::j;\nfn f() {\n    log::info!(\"{}\", crate::e::F);\n}\n\
                #[cfg(test)]\nmod tests { use crate::g; }\n// crate::h\n";
    let source = Source::of("src/k/x/y.rs", text);
    let (of, modules) = source.module_path().expect("a module");
    assert_eq!((of.as_str(), &*modules), ("k", &["x".to_owned(), "y".to_owned()][..]));
    assert_eq!(source.modules_used(&modules), ["a", "d", "e", "i"].map(str::to_owned).into());
    assert_eq!(source.functions(), [("f".to_owned(), 3)]);
    assert_eq!(source.comments().collect::<Vec<_>>(), ["//! Head.", "// crate::h"]);
    assert!(source.has_head() && !Source::of("src/y.rs", "fn f() {}").has_head());
    assert!(Source::of("src/x.rs", "use mio::Poll;").names_crate("mio"));
    assert!(!Source::of("src/x.rs", "use crate::net::mio;").names_crate("mio"));
}
