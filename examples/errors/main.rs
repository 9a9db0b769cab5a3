//! `scripts/errors`: keeps the catalogue of what can be logged whole.
//!
//! Reads the source and `docs/errors.toml`. A text that is new gets the next code; one that is no
//! longer in the source is marked as gone, since its code is never given again. Writes
//! `docs/errors.toml` and makes `docs/errors.md` of it. What a person has to do is said: to fill in
//! what a new text means, or to give a text that was only reworded its old code.

mod catalogue;
mod extract;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = extract::texts(root);
    let table = root.join("docs/errors.toml");
    let known = std::fs::read_to_string(&table).unwrap_or_default();
    let mut kept = match lonnet::cli::explain::Catalogue::parse(&known) {
        Ok(kept) => kept,
        Err(what) => {
            eprintln!("scripts/errors: read {}: {what}", table.display());
            return ExitCode::FAILURE;
        }
    };
    let said = catalogue::take_up(&mut kept, &source);
    for (file, text) in [
        (table, catalogue::as_table(&kept)),
        (root.join("docs/errors.md"), catalogue::as_page(&kept, &source)),
    ] {
        if let Err(error) = std::fs::write(&file, text) {
            eprintln!("scripts/errors: write {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    said.iter().for_each(|line| println!("{line}"));
    let missing = catalogue::unfinished(&kept);
    missing.iter().for_each(|code| println!("{code}: say in docs/errors.toml what it means and what to do"));
    if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
