//! A file of the source, and what can be told of it: lines, functions, and the names that it uses.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::path::Path;
use syn::visit::{self, Visit};

/// One file.
#[derive(Debug)]
pub struct Source {
    /// Its path below the root.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// All Rust files below these folders of the repository, by path.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    folders.iter().for_each(|folder| collect(root, &root.join(folder), &mut found));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "sources below {folders:?}");
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            let below = path.strip_prefix(root).expect("it lies below the root");
            found.push(Source { path: below.display().to_string(), text });
        }
    }
}

impl Source {
    /// The folders that have Rust in them.
    pub const EVERYWHERE: &[&str] =
        &["src", "bin", "benches", "tests", "examples", "fuzz/src", "fuzz/fuzz_targets"];

    /// A file with this text.
    pub fn of(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// Whether it is part of a test program only.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Lines of prose that are nothing but comment. A row of a table and a line of a drawing or of
    /// code cannot be wrapped: they count as what they are, not as prose.
    pub fn comments(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| {
            let text = line.trim_start();
            let said = text.trim_start_matches(['/', '!']);
            text.starts_with("//") && !said.starts_with(" |") && !said.starts_with("  ")
        })
    }

    /// Whether it begins by saying what it is for.
    pub fn has_head(&self) -> bool {
        self.text.starts_with("//! ")
    }

    /// Its functions with their lines, those of tests too.
    pub fn functions(&self) -> Vec<(String, usize)> {
        let mut functions = Functions::default();
        functions.visit_file(&self.parsed());
        functions.found
    }

    /// The crate that it belongs to, by its folder, and its module there; none of a file that is no
    /// crate's.
    pub fn module_path(&self) -> Option<(String, Vec<String>)> {
        let inner = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let (of, inner) = inner.split_once('/')?;
        let mut modules: Vec<String> = inner.split('/').map(str::to_owned).collect();
        modules.pop_if(|last| last == "lib" || last == "mod");
        Some((of.to_owned(), modules))
    }

    /// The modules at the root of its crate that it uses, the tests in it left out. `own`: its own
    /// module.
    pub fn modules_used(&self, own: &[String]) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        walk(&self.tokens(), &mut |tokens| {
            rooms_at(tokens, 0, &mut used);
            rooms_at(tokens, own.len(), &mut used);
        });
        used
    }

    /// Whether it names another crate, in a path that begins with it.
    pub fn names_crate(&self, name: &str) -> bool {
        let mut found = false;
        walk(&self.tokens(), &mut |tokens| {
            for (place, token) in tokens.iter().enumerate() {
                let behind_colons = place > 1 && (1..=2).all(|back| is_punct(&tokens[place - back], ':'));
                found |= is_ident(token, name) && !behind_colons && is_punct_at(tokens, place + 1, ':');
            }
        });
        found
    }

    fn parsed(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }

    fn tokens(&self) -> TokenStream {
        self.text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }
}

/// Shows each sequence of tokens between two brackets, the modules of tests left out.
fn walk(tokens: &TokenStream, look: &mut impl FnMut(&[TokenTree])) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    look(&tokens);
    for (place, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let a_module = place > 2 && is_ident(&tokens[place - 2], "mod");
        if !(a_module && (3..=4).any(|back| place >= back && is_cfg_test(&tokens[place - back]))) {
            walk(&group.stream(), look);
        }
    }
}

/// `[cfg(test)]`, as what stands behind the `#`.
fn is_cfg_test(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// What stands behind so many `super::` or behind `crate::` (0): `crate::room`, `crate::{room::x,
/// room}`.
fn rooms_at(tokens: &[TokenTree], climbs: usize, rooms: &mut BTreeSet<String>) {
    let (root, steps) = if climbs == 0 { ("crate", 1) } else { ("super", climbs) };
    for place in 0..tokens.len() {
        let begins = is_ident(&tokens[place], root)
            && !(place > 1 && (1..=2).all(|back| is_punct(&tokens[place - back], ':')));
        let goes_on = |step: usize| {
            let at = place + 3 * step;
            tokens.get(at).is_some_and(|token| is_ident(token, root)) && is_punct_at(tokens, at + 1, ':')
        };
        if !(begins && (0..steps).all(goes_on)) {
            continue;
        }
        match tokens.get(place + 3 * steps) {
            Some(TokenTree::Ident(room)) => _ = rooms.insert(room.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let firsts = inner.split(|token| is_punct(token, ','));
                rooms.extend(firsts.filter_map(|item| item.first()).map(ToString::to_string));
            }
            _ => {}
        }
    }
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_punct_at(tokens: &[TokenTree], place: usize, character: char) -> bool {
    tokens.get(place).is_some_and(|token| is_punct(token, character))
}

/// Collects functions while a file is walked through.
#[derive(Default)]
struct Functions {
    /// The type whose methods are being looked at.
    of: String,
    found: Vec<(String, usize)>,
}

impl Functions {
    fn add(&mut self, name: &syn::Ident, block: &syn::Block) {
        let lines = block.brace_token.span.close().end().line + 1 - name.span().start().line;
        let of = if self.of.is_empty() { String::new() } else { format!("{}::", self.of) };
        self.found.push((format!("{of}{name}"), lines));
    }
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.add(&function.sig.ident, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.add(&function.sig.ident, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'a syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig.ident, block);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        let before = std::mem::replace(&mut self.of, name.unwrap_or_default());
        visit::visit_item_impl(self, item);
        self.of = before;
    }
}
