//! `lon explain`: what a line of the log, or an error, means and what to do.
//!
//! Owns the catalogue that `docs/errors.toml` holds and that is built into `lon`: each text by a
//! code that is never given twice. The table is kept by `scripts/errors`; `docs/errors.md` is made
//! of it. A line is known by the pieces of its text that are always the same, the longest that fits
//! first.

use super::{Failure, print};
use std::collections::BTreeMap;

/// Entries that a text is answered with at most: what is a cause of another line often stands in
/// it.
const MOST_SHOWN: usize = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A code (`LN0042`), or a line of the log or a part of it; without: all there are.
    line: Vec<String>,
}

/// What is known of one text.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The text, with `{}` for what differs.
    pub text: String,
    /// What it means.
    pub means: String,
    /// What to do.
    #[serde(rename = "do")]
    pub todo: String,
    /// No line has it any more; older logs may.
    #[serde(default)]
    pub gone: bool,
}

/// All texts, by code.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// Each code with its entry.
    pub entries: BTreeMap<String, Entry>,
}

impl Catalogue {
    /// The catalogue that is built in.
    ///
    /// # Errors
    /// It cannot be read, which a test rules out.
    pub fn built_in() -> Result<Catalogue, String> {
        Catalogue::parse(include_str!("../../docs/errors.toml"))
    }

    /// Reads the text of a table.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Catalogue, String> {
        toml::from_str(text).map(|entries| Catalogue { entries }).map_err(|error| error.to_string())
    }

    /// What a code or a text stands for, the best first.
    pub fn find(&self, asked: &str) -> Vec<(&str, &Entry)> {
        if let Some((code, entry)) = self.entries.get_key_value(&asked.to_ascii_uppercase()) {
            return vec![(code, entry)];
        }
        let mut found: Vec<(usize, &str, &Entry)> = self
            .entries
            .iter()
            .filter_map(|(code, entry)| Some((fit(&entry.text, asked)?, code.as_str(), entry)))
            .collect();
        found.sort_by_key(|(length, ..)| std::cmp::Reverse(*length));
        found.into_iter().take(MOST_SHOWN).map(|(_, code, entry)| (code, entry)).collect()
    }
}

/// How many bytes of a text stand in the line, all pieces of it in their order; or else all that
/// was asked for in one of them.
fn fit(text: &str, line: &str) -> Option<usize> {
    let pieces: Vec<&str> = text.split("{}").filter(|piece| !piece.is_empty()).collect();
    let mut rest = line;
    let in_order = pieces.iter().all(|piece| match rest.split_once(piece) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    });
    if in_order {
        return Some(pieces.iter().map(|piece| piece.len()).sum());
    }
    let part = line.trim();
    (part.len() >= 4 && text.contains(part)).then_some(part.len())
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let catalogue = Catalogue::built_in().map_err(|what| Failure::did("read", "the catalogue", what))?;
    let asked = arguments.line.join(" ");
    let found: Vec<(&str, &Entry)> = if asked.trim().is_empty() {
        catalogue.entries.iter().map(|(code, entry)| (code.as_str(), entry)).collect()
    } else {
        catalogue.find(&asked)
    };
    if found.is_empty() {
        return Err(Failure::did(
            "explain",
            format!("{asked:?}"),
            "no line has that text: docs/errors.md has all",
        ));
    }
    let shown: Vec<String> = found.iter().map(|(code, entry)| show(code, entry)).collect();
    print(shown.join("\n").as_bytes())?;
    Ok(0)
}

fn show(code: &str, entry: &Entry) -> String {
    let gone = if entry.gone { " (no longer said)" } else { "" };
    let text = entry.text.replace("{}", "...");
    format!("{code}{gone}: {text}\n  {}\n  Do: {}\n", entry.means, entry.todo)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        let entry = |text: &str| Entry { text: text.to_owned(), ..Entry::default() };
        let texts = ["sync {}: {}; it may come back", "sync {}: {}", "{}: {}; tried again", "link lost"];
        let entries = (1..).zip(texts).map(|(number, text)| (format!("LN{number:04}"), entry(text)));
        Catalogue { entries: entries.collect() }
    }

    #[test]
    fn a_line_is_known_by_its_longest_text_and_a_code_by_itself() {
        let catalogue = catalogue();
        let codes = |asked: &str| {
            catalogue.find(asked).iter().map(|(code, _)| (*code).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(codes("12:00 lonc[7] WARN sync /x: no space; it may come back"), ["LN0001", "LN0002"]);
        assert_eq!(codes("ln0004"), ["LN0004"]);
        assert_eq!(codes("may come"), ["LN0001"]);
        assert!(codes("nothing of that kind").is_empty());
    }

    #[test]
    fn the_catalogue_that_is_built_in_can_be_read() {
        assert!(Catalogue::built_in().is_ok_and(|catalogue| catalogue.entries.len() > 100));
    }
}
