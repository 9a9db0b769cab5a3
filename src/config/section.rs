//! The keys of one table of `lonnet.toml`, with their lines.
//!
//! A [`Section`] is asked for each key that there may be; what nobody asked for is unknown, so the
//! list of keys stands in one place only. What is wrong goes to a [`Report`], and reading goes on.

use super::problem::{Place, Problem, keep};
use super::value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// What was found wrong so far in one file.
#[derive(Debug)]
pub(super) struct Report {
    file: PathBuf,
    /// Where each line but the first begins.
    line_starts: Vec<usize>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is hardly meant.
    pub warnings: Vec<Problem>,
}

impl Report {
    /// An empty report on `file`, whose text is `text`.
    pub(super) fn new(file: &Path, text: &str) -> Report {
        let line_starts = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1).collect();
        Report { file: file.to_owned(), line_starts, problems: Vec::new(), warnings: Vec::new() }
    }

    /// The file that it is on.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The line in which the byte at `offset` stands.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset) + 1
    }

    /// Adds a problem.
    pub(super) fn problem(&mut self, line: Option<usize>, what: String) {
        keep(&mut self.problems, Problem { file: self.file.clone(), line, what });
    }

    /// Adds a warning.
    pub(super) fn warning(&mut self, line: Option<usize>, what: String) {
        keep(&mut self.warnings, Problem { file: self.file.clone(), line, what });
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed<T> {
    /// Line of its key.
    pub line: usize,
    /// The value.
    pub value: T,
}

/// One table: its keys that nobody has asked for yet.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// What problems name it: empty for the top level, `lonc`, `host.msul1`.
    name: String,
    /// Line of its header; `None` for the top level and for a table that is not there.
    pub line: Option<usize>,
    keys: BTreeMap<&'a str, Placed<&'a DeValue<'a>>>,
}

impl<'a> Section<'a> {
    /// The top level.
    pub(super) fn top(table: &'a DeTable<'a>, report: &Report) -> Section<'a> {
        Section { name: String::new(), line: None, keys: keys(table, report) }
    }

    /// The value of `key` made by `parse`; `None` when it is not there, or is wrong, which is then
    /// reported.
    pub(super) fn take<T>(
        &mut self,
        report: &mut Report,
        key: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        self.take_placed(report, key, parse).map(|placed| placed.value)
    }

    /// The same, with the line.
    pub(super) fn take_placed<T>(
        &mut self,
        report: &mut Report,
        key: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let Placed { line, value } = self.keys.remove(key)?;
        match parse(value) {
            Ok(value) => Some(Placed { line, value }),
            Err(what) => {
                report.problem(Some(line), self.about(key, &what));
                None
            }
        }
    }

    /// The keys that nobody has asked for yet.
    pub(super) fn names(&self) -> Vec<&'a str> {
        self.keys.keys().copied().collect()
    }

    /// Whether `key` is there and not yet taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The table under `key`; an empty one when it is not there or is no table, which is then
    /// reported.
    pub(super) fn table(&mut self, report: &mut Report, key: &str) -> Section<'a> {
        let name = self.full_name(key);
        match self.keys.remove(key) {
            None => Section { name, line: None, keys: BTreeMap::new() },
            Some(Placed { line, value: DeValue::Table(table) }) => {
                Section { name, line: Some(line), keys: keys(table, report) }
            }
            Some(Placed { line, value }) => {
                report.problem(Some(line), self.about(key, &value::wrong_type("a table", value)));
                Section { name, line: Some(line), keys: BTreeMap::new() }
            }
        }
    }

    /// The tables under `key`, which is a list of them; none when it is not there or is no such
    /// list, which is then reported.
    pub(super) fn array(&mut self, report: &mut Report, key: &str) -> Vec<Section<'a>> {
        let name = self.full_name(key);
        let Some(Placed { line, value }) = self.keys.remove(key) else { return Vec::new() };
        let DeValue::Array(array) = value else {
            report.problem(Some(line), self.about(key, &value::wrong_type("a list of tables", value)));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for entry in array {
            match entry.get_ref() {
                DeValue::Table(table) => {
                    let line = Some(report.line_of(entry.span().start));
                    tables.push(Section { name: name.clone(), line, keys: keys(table, report) });
                }
                other => report.problem(Some(line), self.about(key, &value::wrong_type("a table", other))),
            }
        }
        tables
    }

    /// All the tables in this one, by their names, in the order of the file.
    pub(super) fn tables(mut self, report: &mut Report) -> Vec<(&'a str, Section<'a>)> {
        let names: Vec<&'a str> = self.keys.keys().copied().collect();
        let mut tables: Vec<_> = names.into_iter().map(|name| (name, self.table(report, name))).collect();
        tables.sort_by_key(|(_, table)| table.line);
        tables
    }

    /// A sentence about `key`.
    pub(super) fn about(&self, key: &str, what: &str) -> String {
        // A quoted key may hold anything, a newline too.
        let key = key.escape_debug();
        if self.name.is_empty() { format!("{key}: {what}") } else { format!("{}: {key}: {what}", self.name) }
    }

    /// A sentence about the table.
    pub(super) fn about_all(&self, what: &str) -> String {
        format!("{}: {what}", self.name)
    }

    /// What it is about, in words: `handler echo`.
    pub(super) fn spoken(&self) -> String {
        self.name.replacen('.', " ", 1)
    }

    /// Whether there is something that nobody has asked for.
    pub(super) fn has_more(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Reports what nobody asked for.
    pub(super) fn finish(self, report: &mut Report) {
        for (key, placed) in &self.keys {
            report.problem(Some(placed.line), self.about(key, "unknown key"));
        }
    }

    fn full_name(&self, key: &str) -> String {
        let key = key.escape_debug();
        if self.name.is_empty() { key.to_string() } else { format!("{}.{key}", self.name) }
    }
}

/// Where each key of a file stands, by its name with those of the tables around it: `user`,
/// `lond.listen`, `handler.echo`. Tables of which there may be thousands, `host`, and lists of
/// tables are left out.
pub(super) fn places(document: &DeTable<'_>, report: &Report) -> BTreeMap<String, Place> {
    let mut found = BTreeMap::new();
    note_places(document, "", report, &mut found);
    found
}

fn note_places(table: &DeTable<'_>, above: &str, report: &Report, found: &mut BTreeMap<String, Place>) {
    for (key, value) in table.iter() {
        let name = format!("{above}{}", key.get_ref());
        if let DeValue::Table(below) = value.get_ref()
            && name != "host"
        {
            note_places(below, &format!("{name}."), report, found);
        }
        let line = report.line_of(key.span().start);
        found.insert(name, Place { file: report.file().to_owned(), line });
    }
}

fn keys<'a>(table: &'a DeTable<'a>, report: &Report) -> BTreeMap<&'a str, Placed<&'a DeValue<'a>>> {
    table
        .iter()
        .map(|(key, value)| {
            let line = report.line_of(key.span().start);
            (key.get_ref().as_ref(), Placed { line, value: value.get_ref() })
        })
        .collect()
}
