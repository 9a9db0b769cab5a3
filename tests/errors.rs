//! The catalogue of what can be logged is whole: `docs/errors.toml` has each text of the source
//! with what it means and what to do, and `docs/errors.md` is what `scripts/errors` makes of it.

#[path = "../examples/errors/catalogue.rs"]
mod catalogue;

#[path = "../examples/errors/extract.rs"]
mod extract;

use lonnet::cli::explain::Catalogue;
use std::path::Path;
use std::process::Command;

const MEND: &str = "run scripts/errors, and fill in docs/errors.toml what it names";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("the file can be read")
}

#[test]
fn each_line_that_can_be_logged_has_a_code_and_says_what_to_do() {
    let source = extract::texts(root());
    let mut kept = Catalogue::parse(&read("docs/errors.toml")).expect("docs/errors.toml can be read");
    assert_eq!(catalogue::take_up(&mut kept, &source), Vec::<String>::new(), "{MEND}");
    assert_eq!(catalogue::unfinished(&kept), Vec::<&str>::new(), "{MEND}");
    assert!(catalogue::as_table(&kept) == read("docs/errors.toml"), "docs/errors.toml: {MEND}");
    assert!(catalogue::as_page(&kept, &source) == read("docs/errors.md"), "docs/errors.md: {MEND}");
}

#[test]
fn texts_are_found_where_they_are_written() {
    let source = r#"
        fn f() { log::error!("read {}: {error}; left alone", path.display()); log::debug!("{only}"); }
        #[error("open {0}: {cause}")] struct E;
        fn g() { let line = format!("look {name} up: {{x}}"); if let Some(line) = quota(line) { log::warn!("{line}"); } }
        fn h() { let other = format!("not to be logged {x}"); }
        #[cfg(test)] mod tests { fn f() { log::error!("of a test {x}"); } }
    "#;
    let found = extract::texts_of("src/x.rs", source);
    let texts: Vec<(&str, Vec<&str>)> =
        found.iter().map(|(text, found)| (text.as_str(), found.kinds.iter().copied().collect())).collect();
    assert_eq!(texts, [("look {} up: {x}", vec!["warn"]), ("read {}: {}; left alone", vec!["error"])]);
}

/// A line whose text comes from elsewhere would have no code, and nobody would notice.
#[test]
fn a_function_that_logs_what_it_is_given_is_known_and_the_texts_that_it_is_given_are_found() {
    let source = r#"
        fn pool_failed(text: &str) { if let Some(line) = quota(text) { log::error!("{line}"); } }
        fn f() { self.pool_failed(&format!("start anew {name}: {error}"), now); other("not to be logged", now); }
        fn g() { let _ = logging::always(format_args!("refused {caller} the thing")); }
        fn h(error: Error) { log::warn!("{error}"); }
    "#;
    assert_eq!(extract::wholes_of("src/x.rs", source), ["src/x.rs: pool_failed"]);
    let found = extract::texts_of("src/x.rs", source);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["refused {} the thing", "start anew {}: {}"]);
    assert!(extract::texts_of("src/cli/x.rs", source).is_empty(), "what lon says is no line of the log");
}

#[test]
fn lon_explains_a_code_and_a_line() {
    let lon = |line: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_lon")).arg("explain").args(line).output().expect("lon runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("it says text"))
    };
    let entries = Catalogue::built_in().expect("it can be read").entries;
    let (code, entry) =
        entries.iter().find(|(_, entry)| entry.text.starts_with("listen on")).expect("that one");
    for asked in [code.as_str(), "2026-11-20T09:12:14 lond[1] ERROR listen on [::]:5663: address in use"] {
        let (exit, said) = lon(&[asked]);
        assert_eq!(exit, Some(0));
        assert!(
            said.starts_with(code.as_str()) && said.contains(&entry.means) && said.contains(&entry.todo),
            "{said}"
        );
    }
    assert_eq!(lon(&["no line is like that one"]), (Some(1), String::new()));
    assert_eq!(lon(&[]).1.matches("\n  Do: ").count(), entries.len());
}
