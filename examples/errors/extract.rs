//! The texts of all lines that can be logged, and of all errors, as the source has them.
//!
//! A text is found where it is written: in `log::...!`; in `#[error("...")]`; in what the
//! configuration finds wrong; in what is answered for a handler; where a function logs a text as a
//! whole (`log::warn!("{line}")`), in the `format!` of that function; and where it has none, since
//! the text is given to it, in what it is called with, whoever calls it. Tests are passed over.
//! What stands for something else is `{}` in a text; one with fewer than two words beside that is
//! none.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is known of a text.
#[derive(Debug, Default)]
pub struct Found {
    /// `error`, `warn`, `info`, `debug`; `error type`, `configuration`.
    pub kinds: BTreeSet<&'static str>,
    /// The files that it stands in.
    pub files: BTreeSet<String>,
}

/// All texts of the source below `root`, by text.
pub fn texts(root: &Path) -> BTreeMap<String, Found> {
    let mut texts = Texts::default();
    let mut files = Vec::new();
    below(root, &root.join("src"), &mut files);
    for (name, tokens) in files {
        texts.file = name;
        texts.find_wholes(tokens.clone());
        texts.look(tokens, false);
    }
    let known: BTreeSet<String> = WHOLE.map(str::to_owned).into();
    let unknown: Vec<_> = texts.whole.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} log a text and make none: see SAYERS in this file");
    assert!(texts.found.len() > 100, "only {} texts were found", texts.found.len());
    texts.found
}

fn below(root: &Path, folder: &Path, files: &mut Vec<(String, TokenStream)>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("it lies below the root").display().to_string();
        if path.is_dir() && !name.ends_with("/tests") {
            below(root, &path, files);
        } else if name.ends_with(".rs") && !name.ends_with("/tests.rs") {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            files.push((name, tokens));
        }
    }
}

/// The texts of one source, for tests of this file.
#[cfg(test)]
pub fn texts_of(file: &str, source: &str) -> BTreeMap<String, Found> {
    let mut texts = Texts { file: file.to_owned(), ..Texts::default() };
    let tokens: TokenStream = source.parse().expect("it is Rust");
    texts.look(tokens, false);
    texts.found
}

/// Functions that log a text as their caller gives it: the texts that they are called with are
/// found there, in the crates that serve.
const SAYERS: [&str; 7] = ["always", "say", "say_life", "pool_failed", "warn", "fault", "refuse"];

/// Functions that log a text as a whole and make none, so that no code could be found for it here.
/// Who adds one either names it above, or knows that its texts are found elsewhere: they are those
/// of an error type, of the configuration, or made where they are handed on.
const WHOLE: [&str; 29] = [
    "src/lonc/broker/report.rs: not_stored",
    "src/lonc/broker/report.rs: spool_error",
    "src/lonc/link.rs: say",
    "src/lonc/turn.rs: warn",
    "src/lond/handler/socket.rs: enter",
    "src/lond/handler/tagged.rs: enter",
    "src/lond/pool/crew.rs: fault",
    "src/lond/reactor/program.rs: drop_connection",
    "src/lond/supervisor/accept.rs: say_refused",
    "src/lond/supervisor/accept.rs: welcome",
    "src/lond/supervisor/log_quota.rs: say_life",
    "src/lond/supervisor/pools.rs: pool_failed",
    "src/lonsvc/program.rs: run",
    "src/lonsvc/supervisor.rs: begin",
    "src/store/spool/mod.rs: warn",
    "src/supervise/admin.rs: close",
    "src/supervise/admin.rs: listen_anew",
    "src/supervise/daemon.rs: reap",
    "src/supervise/daemon/ending.rs: finish",
    "src/supervise/daemon/ending.rs: stop",
    "src/supervise/daemon/role.rs: broken",
    "src/supervise/lock.rs: remove",
    "src/supervise/places.rs: say",
    "src/supervise/places.rs: write_pid",
    "src/supervise/reload.rs: taken_over",
    "src/supervise/restart.rs: fail",
    "src/supervise/restart.rs: try_out",
    "src/supervise/sockets.rs: remove",
    "src/supervise/startup.rs: go_on",
];

/// Crates whose lines are not the log's but a person's.
const ASKED: [&str; 2] = ["src/cli/", "src/status/"];

/// The functions of one source that log a text and make none, for tests of this file.
#[cfg(test)]
pub fn wholes_of(file: &str, source: &str) -> Vec<String> {
    let mut texts = Texts { file: file.to_owned(), ..Texts::default() };
    texts.find_wholes(source.parse().expect("it is Rust"));
    texts.whole.into_iter().collect()
}

#[derive(Default)]
struct Texts {
    file: String,
    found: BTreeMap<String, Found>,
    /// Functions that log a text and make none: `file: name`.
    whole: BTreeSet<String>,
}

impl Texts {
    fn add(&mut self, kind: &'static str, text: &str) {
        let text = plain(text);
        if words(&text) >= 2 {
            let found = self.found.entry(text).or_default();
            found.kinds.insert(kind);
            found.files.insert(self.file.clone());
        }
    }

    /// Notes which functions log a text that is given to them: they have none of their own.
    fn find_wholes(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (place, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else { continue };
            self.find_wholes(group.stream());
            if group.delimiter() != Delimiter::Brace || !logs_what_it_is_given(group.stream()) {
                continue;
            }
            let before = tokens.get(..place).unwrap_or_default();
            let function = before.iter().rposition(|token| is(Some(token), "fn") || is_brace(token));
            let name =
                function.filter(|place| is(tokens.get(*place), "fn")).and_then(|place| tokens.get(place + 1));
            if let Some(TokenTree::Ident(name)) = name {
                self.whole.insert(format!("{}: {name}", self.file));
            }
        }
    }

    fn is_call_of_sayer(&self, name: Option<&TokenTree>, of: Option<&TokenTree>, group: &Group) -> bool {
        let Some(TokenTree::Ident(name)) = name else { return false };
        group.delimiter() == Delimiter::Parenthesis
            && !is(of, "fn")
            && SAYERS.contains(&name.to_string().as_str())
            && !ASKED.iter().any(|folder| self.file.starts_with(folder))
    }

    /// Looks through a sequence of tokens; `carries` where a function around it logs texts as a
    /// whole.
    fn look(&mut self, tokens: TokenStream, carries: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (place, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else { continue };
            let before = |back: usize| place.checked_sub(back).and_then(|place| tokens.get(place));
            if is(before(2), "mod") && (3..=4).any(|back| is_cfg_test(before(back))) {
                continue;
            }
            if punct(before(1), '!') {
                self.macro_call(before(2), before(5), group, carries);
            } else if self.is_call_of_sayer(before(1), before(2), group) {
                given_texts(group.stream()).iter().for_each(|text| self.add("info", text));
            } else if is(before(1), "error") {
                first_text(group.stream()).iter().for_each(|text| self.add("error type", text));
            } else if self.file.starts_with("src/config/") && group.delimiter() == Delimiter::Parenthesis {
                self.configuration(group.stream());
            }
            let a_body = group.delimiter() == Delimiter::Brace;
            self.look(group.stream(), carries || (a_body && self.logs_a_whole(group.stream())));
        }
    }

    /// Whether a text is logged as a whole somewhere in this body: `log::warn!("{line}")`, or by a
    /// function that does that with what it is given.
    fn logs_a_whole(&self, tokens: TokenStream) -> bool {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        tokens.iter().enumerate().any(|(place, token)| {
            let TokenTree::Group(group) = token else { return false };
            let before = |back: usize| place.checked_sub(back).and_then(|place| tokens.get(place));
            let a_log = punct(before(1), '!') && is(before(5), "log");
            let whole = first_text(group.stream()).is_some_and(|text| words(&plain(&text)) < 2);
            let said =
                self.is_call_of_sayer(before(1), before(2), group) && given_texts(group.stream()).is_empty();
            (a_log && whole) || said || self.logs_a_whole(group.stream())
        })
    }

    fn macro_call(&mut self, name: Option<&TokenTree>, of: Option<&TokenTree>, group: &Group, carries: bool) {
        let text = first_text(group.stream());
        let (Some(TokenTree::Ident(name)), Some(text)) = (name, text) else { return };
        let kind = match name.to_string().as_str() {
            "error" if is(of, "log") => "error",
            "warn" if is(of, "log") => "warn",
            "info" if is(of, "log") => "info",
            "debug" if is(of, "log") => "debug",
            "log" if is(of, "log") => "info",
            "format" | "format_args" if self.file.starts_with("src/config/") => "configuration",
            // What is answered for a handler stands in the log as well.
            "format" if self.file.starts_with("src/lond/handler/") => "warn",
            "format" | "format_args" if carries => "warn",
            _ => return,
        };
        self.add(kind, &text);
    }

    /// Literals that are made the text of a problem: `Err("...".into())`.
    fn configuration(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for window in tokens.windows(3) {
            if let [TokenTree::Literal(literal), dot, method] = window
                && punct(Some(dot), '.')
                && ["into", "to_owned", "to_string"].iter().any(|name| is(Some(method), name))
                && let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string())
                && words(&plain(&text.value())) >= 3
            {
                self.add("configuration", &text.value());
            }
        }
    }
}

/// Whether a text of another's is logged as a whole in this body, and no text of its own made.
fn logs_what_it_is_given(tokens: TokenStream) -> bool {
    let mut logs = false;
    let made = macros(tokens, &mut |name, of, group| {
        let text = first_text(group.stream()).unwrap_or_default();
        let is_whole = words(&plain(&text)) < 2;
        // What goes wrong has a type, whose texts are found there.
        let is_error = ["{error}", "{problem}", "{warning}"].contains(&text.as_str());
        logs |= is_whole && !is_error && of.is_some_and(|of| of == "log");
        !is_whole && (name == "format" || name == "format_args")
    });
    logs && !made
}

/// Whether `holds` for one of the macros in these tokens, which are all looked at: name, and what
/// stands before `::`.
fn macros(tokens: TokenStream, holds: &mut dyn FnMut(&str, Option<&str>, &Group) -> bool) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let ident = |place: Option<usize>| match place.and_then(|place| tokens.get(place)) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        Some(TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_)) | None => None,
    };
    let mut found = false;
    for (place, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let before = |back: usize| place.checked_sub(back);
        if punct(before(1).and_then(|place| tokens.get(place)), '!')
            && let Some(name) = ident(before(2))
        {
            found |= holds(&name, ident(before(5)).as_deref(), group);
        }
        found |= macros(group.stream(), holds);
    }
    found
}

/// The texts that a call is given: literals, and what is formatted for it.
fn given_texts(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut texts = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        let before = |back: usize| place.checked_sub(back).and_then(|place| tokens.get(place));
        match token {
            TokenTree::Literal(literal) => {
                texts.extend(syn::parse_str::<syn::LitStr>(&literal.to_string()).map(|text| text.value()));
            }
            TokenTree::Group(group) if punct(before(1), '!') && is_format(before(2)) => {
                texts.extend(first_text(group.stream()));
            }
            TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
    texts.retain(|text| words(&plain(text)) >= 2);
    texts
}

fn is_format(token: Option<&TokenTree>) -> bool {
    is(token, "format") || is(token, "format_args")
}

fn is_brace(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

/// The first string among the arguments.
fn first_text(tokens: TokenStream) -> Option<String> {
    let literal = tokens.into_iter().find_map(|token| match token {
        TokenTree::Literal(literal) => Some(literal.to_string()),
        TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Punct(_) => None,
    })?;
    syn::parse_str::<syn::LitStr>(&literal).ok().map(|text| text.value())
}

/// The text with `{}` for whatever stands between braces.
fn plain(text: &str) -> String {
    let (mut plain, mut depth) = (String::new(), 0);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '{' if depth == 0 && characters.peek() == Some(&'{') => plain.extend(characters.next()),
            '}' if depth == 0 && characters.peek() == Some(&'}') => plain.extend(characters.next()),
            '{' => {
                depth += 1;
                plain.push_str("{}");
            }
            '}' => depth -= 1,
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    plain
}

/// Words of two letters or more.
fn words(text: &str) -> usize {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() > 1).count()
}

fn is(token: Option<&TokenTree>, name: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if *ident == name)
}

fn punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn is_cfg_test(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.stream().to_string().replace(' ', "") == "cfg(test)")
}
