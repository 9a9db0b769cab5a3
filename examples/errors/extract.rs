//! The texts of all lines that can be logged, and of all errors, as the source has them.
//!
//! A text is found where it is written: in `log::...!`; in `#[error("...")]`; in what the
//! configuration finds wrong; in what is answered for a handler; and, where a function logs a text
//! as a whole (`log::warn!("{line}")`), in the `format!` of that function. Tests are passed over.
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
    below(root, &root.join("src"), &mut texts);
    assert!(texts.found.len() > 100, "only {} texts were found", texts.found.len());
    texts.found
}

fn below(root: &Path, folder: &Path, texts: &mut Texts) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("it lies below the root").display().to_string();
        if path.is_dir() && !name.ends_with("/tests") {
            below(root, &path, texts);
        } else if name.ends_with(".rs") && !name.ends_with("/tests.rs") {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            texts.file = name;
            texts.look(tokens, false);
        }
    }
}

/// The texts of one source, for tests of this file.
#[cfg(test)]
pub fn texts_of(file: &str, source: &str) -> BTreeMap<String, Found> {
    let mut texts = Texts { file: file.to_owned(), ..Texts::default() };
    texts.look(source.parse().expect("it is Rust"), false);
    texts.found
}

#[derive(Default)]
struct Texts {
    file: String,
    found: BTreeMap<String, Found>,
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
            } else if is(before(1), "say") && punct(before(2), '.') {
                first_text(group.stream()).iter().for_each(|text| self.add("info", text));
            } else if is(before(1), "error") {
                first_text(group.stream()).iter().for_each(|text| self.add("error type", text));
            } else if self.file.starts_with("src/config/") && group.delimiter() == Delimiter::Parenthesis {
                self.configuration(group.stream());
            }
            let a_body = group.delimiter() == Delimiter::Brace;
            self.look(group.stream(), carries || (a_body && logs_a_whole(group.stream())));
        }
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

/// Whether a text is logged as a whole somewhere in this body: `log::warn!("{line}")`.
fn logs_a_whole(tokens: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens.iter().enumerate().any(|(place, token)| {
        let TokenTree::Group(group) = token else { return false };
        let before = |back: usize| place.checked_sub(back).and_then(|place| tokens.get(place));
        let a_log = punct(before(1), '!') && is(before(5), "log");
        let whole = first_text(group.stream()).is_some_and(|text| words(&plain(&text)) < 2);
        // A link says its lines through a method that has a quota.
        let said = punct(before(2), '.') && is(before(1), "say");
        (a_log && whole) || said || logs_a_whole(group.stream())
    })
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
