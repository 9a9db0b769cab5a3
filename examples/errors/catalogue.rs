//! The table of texts, held against the source, and the page that is made of it.

use super::extract::Found;
use lonnet::cli::explain::{Catalogue, Entry};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Takes up what is new in the source, and marks what is gone; says what it did.
pub fn take_up(catalogue: &mut Catalogue, source: &BTreeMap<String, Found>) -> Vec<String> {
    let mut said = Vec::new();
    for (code, entry) in &mut catalogue.entries {
        let gone = !source.contains_key(&entry.text);
        if gone && !entry.gone {
            said.push(format!(
                "{code}: gone: {:?}. Was it reworded? Then give {code} the new text",
                entry.text
            ));
        }
        entry.gone = gone;
    }
    let known: BTreeSet<String> = catalogue.entries.values().map(|entry| entry.text.clone()).collect();
    let last = catalogue.entries.keys().next_back();
    let mut number: u32 = last.and_then(|code| code.strip_prefix("LN")?.parse().ok()).unwrap_or(0);
    for text in source.keys().filter(|text| !known.contains(*text)) {
        number += 1;
        let code = format!("LN{number:04}");
        said.push(format!("{code}: new: {text:?}"));
        catalogue.entries.insert(code, Entry { text: text.clone(), ..Entry::default() });
    }
    said
}

/// Codes of which something is to be said yet.
pub fn unfinished(catalogue: &Catalogue) -> Vec<&str> {
    let open = |entry: &Entry| !entry.gone && (entry.means.is_empty() || entry.todo.is_empty());
    catalogue.entries.iter().filter(|(_, entry)| open(entry)).map(|(code, _)| code.as_str()).collect()
}

/// `docs/errors.toml`.
pub fn as_table(catalogue: &Catalogue) -> String {
    let mut table = String::from(
        "# What can be logged, and each error: the text as the source has it ({} for what differs), what it means, and\n\
         # what to do. Kept by scripts/errors, which gives codes, and never one twice; means and do are written by hand.\n",
    );
    for (code, Entry { text, means, todo, gone }) in &catalogue.entries {
        let quoted = |text: &str| toml::Value::String(text.to_owned());
        let _ = write!(table, "\n[{code}]\ntext = {}\n", quoted(text));
        let _ = write!(table, "means = {}\ndo = {}\n", quoted(means), quoted(todo));
        if *gone {
            table.push_str("gone = true\n");
        }
    }
    table
}

/// `docs/errors.md`.
pub fn as_page(catalogue: &Catalogue, source: &BTreeMap<String, Found>) -> String {
    let mut page = String::from(
        "# What can be logged\n\n\
         Each line that `lonc` and `lond` can log, each error, and what can be wrong with the configuration, with a code. The code is not\n\
         printed: `lon explain LN0042` says what it stands for, and `lon explain 'A LINE'` finds it by the text. `...` is what differs: an\n\
         id, a path, a cause, which is often the text of another entry or of the system.\n\n\
         Levels: *error*: data is lost or a person is needed. *warn*: it was put right, or will be. *info*: the life of links and\n\
         processes. *debug*: single requests. *error type*: the cause in another line, or in an answer. *configuration*: `lon check`, a\n\
         start and a reload say it as `file:line`.\n\n\
         Made by `scripts/errors` from the source and `docs/errors.toml`; a test keeps it whole.\n\n\
         | code | level | text | what it means | what to do | room |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    let cell = |text: &str| text.replace("{}", "...").replace('|', "\\|").replace('\n', " ");
    for (code, entry) in catalogue.entries.iter().filter(|(_, entry)| !entry.gone) {
        let Some(found) = source.get(&entry.text) else { continue };
        let kinds: Vec<&str> = found.kinds.iter().copied().collect();
        // The room and no more, so that a file that is moved within it changes nothing here.
        let room = |file: &String| file.split(['/', '.']).nth(1).unwrap_or_default().to_owned();
        let rooms: Vec<String> = found.files.iter().map(room).collect::<BTreeSet<_>>().into_iter().collect();
        let _ = writeln!(
            page,
            "| {code} | {} | `{}` | {} | {} | {} |",
            kinds.join(", "),
            cell(&entry.text).replace('`', "'"),
            cell(&entry.means),
            cell(&entry.todo),
            rooms.join(", ")
        );
    }
    let gone: Vec<&str> =
        catalogue.entries.iter().filter(|(_, entry)| entry.gone).map(|(code, _)| code.as_str()).collect();
    if !gone.is_empty() {
        let _ = write!(page, "\nNo longer said: {}.\n", gone.join(", "));
    }
    page
}
