//! Reads the crate's sources: which paths each file names, and what a path leads to.
//!
//! It goes by tokens, not by syntax trees, so that what stands within macros counts too, and what stands in comments and
//! texts does not. Code for tests is left out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module's path below the crate: `["config", "read"]`.
pub(super) type Module = Vec<String>;

/// A path that a file names.
#[derive(Debug)]
pub(super) struct Named {
    /// From the crate's root, without `crate`; or an outer crate's path, which begins with its name.
    pub(super) path: Vec<String>,
    pub(super) is_own: bool,
    /// `pub use`: nothing is used here, a name is passed on.
    pub(super) passed_on: bool,
    pub(super) line: usize,
}

/// One file that is no test.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Relative to `src`.
    pub(super) path: PathBuf,
    pub(super) named: Vec<Named>,
    /// Every word, with its line.
    pub(super) words: Vec<(String, usize)>,
    /// What names mean here by `use`, and whether that is in this crate.
    bindings: HashMap<String, (Vec<String>, bool)>,
    /// `mod` declarations.
    children: Vec<String>,
    /// Those of them that are tests.
    tests: Vec<String>,
}

/// The files of a crate, by module.
#[derive(Debug)]
pub(super) struct Crate(pub(super) BTreeMap<Module, File>);

/// This crate's, read once.
pub(super) static SOURCES: LazyLock<Crate> =
    LazyLock::new(|| Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));

impl Crate {
    /// Follows the `mod` declarations from `lib.rs`.
    fn read(src: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut open = vec![(Vec::new(), PathBuf::from("lib.rs"))];
        while let Some((module, path)) = open.pop() {
            let text = fs::read_to_string(src.join(&path)).unwrap();
            let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut file = File { path, ..File::default() };
            file.declare(tokens.clone());
            Walk { file: &mut file, module: module.clone() }.walk(tokens);
            file.expand();
            let folder: PathBuf = module.iter().collect();
            for child in file.children.iter().filter(|child| !file.tests.contains(child)) {
                let flat = folder.join(format!("{child}.rs"));
                let path = if src.join(&flat).exists() { flat } else { folder.join(child).join("mod.rs") };
                open.push((module.iter().chain([child]).cloned().collect(), path));
            }
            files.insert(module, file);
        }
        Self(files)
    }

    /// The module in which what a path names is defined: `pub use` is followed.
    pub(super) fn home(&self, path: &[String]) -> Module {
        self.follow(path, 0)
    }

    fn follow(&self, path: &[String], depth: usize) -> Module {
        let length = (0..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length])).unwrap_or(0);
        let (module, rest) = path.split_at(length);
        let target = rest.first().and_then(|name| self.0[module].bindings.get(name));
        match target {
            Some((target, true)) if depth < 8 => {
                self.follow(&target.iter().chain(&rest[1..]).cloned().collect::<Vec<_>>(), depth + 1)
            }
            _ => module.to_vec(),
        }
    }
}

impl File {
    /// Writes out what stands behind a name that was imported: `net::TcpStream` becomes `std::net::TcpStream`.
    fn expand(&mut self) {
        for named in self.named.iter_mut().filter(|named| !named.is_own) {
            let first = named.path.first().cloned().unwrap_or_default();
            if let Some((path, is_own)) = self.bindings.get(&first)
                && named.path.len() > 1
            {
                named.path = path.iter().chain(&named.path[1..]).cloned().collect();
                named.is_own = *is_own;
            }
        }
    }

    /// Finds the modules that are declared here, and which are tests.
    fn declare(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(end))) = (tokens.get(at + 1), tokens.get(at + 2))
            else {
                continue;
            };
            if is_ident(token, "mod") && end.as_char() == ';' {
                self.children.push(name.to_string());
            }
        }
    }
}

/// Walks through a module's tokens.
struct Walk<'f> {
    file: &'f mut File,
    module: Module,
}

impl Walk<'_> {
    fn walk(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(&tokens, at);
        }
    }

    /// Reads what stands at `at`, and says where the next begins.
    fn step(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        if let TokenTree::Ident(word) = &tokens[at] {
            self.file.words.push((word.to_string(), word.span().start().line));
        }
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' && is_test(tokens.get(at + 1)) => {
                self.skip_item(tokens, at + 2)
            }
            // Not `+ use<'a>`, which imports nothing.
            token if is_ident(token, "use") && !tokens.get(at + 1).is_some_and(|next| is_punct(next, '<')) => {
                let passed_on = at > 0 && is_public(&tokens[..at]);
                let end = (at..tokens.len()).find(|at| is_punct(&tokens[*at], ';')).unwrap_or(tokens.len());
                self.import(&tokens[at + 1..end], &mut Vec::new(), passed_on);
                end + 1
            }
            token if is_ident(token, "mod") => {
                let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                else {
                    return at + 1;
                };
                let module = self.module.iter().cloned().chain([name.to_string()]).collect();
                Walk { file: self.file, module }.walk(body.stream());
                at + 3
            }
            TokenTree::Ident(_) if at == 0 || !is_punct(&tokens[at - 1], ':') => {
                let mut path = Vec::new();
                let end = segments(tokens, at, &mut path);
                if path.len() > 1 {
                    self.name(&path, false, tokens[at].span().start().line);
                }
                end
            }
            TokenTree::Group(group) => {
                self.walk(group.stream());
                at + 1
            }
            _ => at + 1,
        }
    }

    /// Passes over an item for tests, and remembers it if it is a module in a file of its own.
    fn skip_item(&mut self, tokens: &[TokenTree], from: usize) -> usize {
        let ends = |token: &TokenTree| {
            is_punct(token, ';') || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
        };
        let end = (from..tokens.len()).find(|at| ends(&tokens[*at])).unwrap_or(tokens.len());
        let item = &tokens[from..end];
        if let Some(at) = item.iter().position(|token| is_ident(token, "mod"))
            && let Some(TokenTree::Ident(name)) = item.get(at + 1)
        {
            self.file.tests.push(name.to_string());
        }
        end + 1
    }

    /// Reads a `use` tree behind `prefix`.
    fn import(&mut self, tokens: &[TokenTree], prefix: &mut Vec<String>, passed_on: bool) {
        for tree in tokens.split(|token| is_punct(token, ',')).filter(|tree| !tree.is_empty()) {
            let line = tree[0].span().start().line;
            let length = prefix.len();
            let mut at = segments(tree, 0, prefix);
            while at < tree.len() && is_punct(&tree[at], ':') {
                at += 1;
            }
            match tree.get(at) {
                Some(TokenTree::Group(group)) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.import(&inner, prefix, passed_on);
                }
                rest => {
                    let alias = match (rest, tree.get(at + 1)) {
                        (Some(TokenTree::Ident(_)), Some(TokenTree::Ident(alias))) => Some(alias.to_string()),
                        _ => None,
                    };
                    if rest.is_some_and(|token| is_punct(token, '*')) {
                        prefix.push("*".to_owned());
                    } else if prefix.len() > 1 && prefix.last().is_some_and(|last| last == "self") {
                        prefix.pop();
                    }
                    let (path, is_own) = self.name(prefix, passed_on, line);
                    let name = alias.or_else(|| path.last().cloned()).unwrap_or_default();
                    self.file.bindings.insert(name, (path, is_own));
                }
            }
            prefix.truncate(length);
        }
    }

    /// Writes a path down, made absolute; returns it, and whether it is one of this crate's.
    fn name(&mut self, path: &[String], passed_on: bool, line: usize) -> (Vec<String>, bool) {
        let mut rest = path;
        let mut base = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            Some(child) if self.file.children.iter().any(|known| known == child) => self.module.clone(),
            _ => {
                self.file.named.push(Named { path: path.to_vec(), is_own: false, passed_on, line });
                return (path.to_vec(), false);
            }
        };
        while let Some((first, behind)) = rest.split_first() {
            match &**first {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            rest = behind;
        }
        base.extend_from_slice(rest);
        self.file.named.push(Named { path: base.clone(), is_own: true, passed_on, line });
        (base, true)
    }
}

/// Reads `a::b::c`; says where it ends.
fn segments(tokens: &[TokenTree], mut at: usize, path: &mut Vec<String>) -> usize {
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        path.push(ident.to_string());
        at += 1;
        let colons = tokens.get(at..at + 2).is_some_and(|next| next.iter().all(|token| is_punct(token, ':')));
        if !colons || !matches!(tokens.get(at + 2), Some(TokenTree::Ident(_))) {
            break;
        }
        at += 2;
    }
    at
}

/// Whether these are the brackets of `#[cfg(test)]`.
fn is_test(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else { return false };
    let text = group.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// Whether what comes next is `pub`, or `pub(…)`.
fn is_public(before: &[TokenTree]) -> bool {
    match before {
        [.., keyword, TokenTree::Group(_)] if is_ident(keyword, "pub") => true,
        [.., keyword] => is_ident(keyword, "pub"),
        [] => false,
    }
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

fn is_punct(token: &TokenTree, c: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == c)
}
