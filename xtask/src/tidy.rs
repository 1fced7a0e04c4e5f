//! `cargo xtask tidy`: the rules of the source tree that neither rustc nor clippy checks.
//!
//! Each rule is a function from the tree to complaints, so that one run shows them all. `xtask/tests/rules.rs`
//! calls the same functions, so that a plain `cargo test` finds what CI would.

use crate::edges;
use crate::workspace::{self, Package};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// How many lines a source file may have; past that it is to be split by concept.
const MOST_LINES: usize = 800;

/// The crates that do no I/O, read no clock, and start no thread.
const PURE: [&str; 2] = ["pinfold-model", "pinfold-files"];

/// The crate that holds every unsafe block.
const UNSAFE: &str = "pinfold-sys";

/// Modules of std that a pure crate must not name.
const IMPURE_MODULES: [&str; 5] = ["std::fs", "std::net", "std::process", "std::thread", "std::env"];

/// Clocks that a pure crate must not read.
const CLOCKS: [&str; 2] = ["std::time::Instant", "std::time::SystemTime"];

/// Runs every rule and fails with all complaints.
pub fn run() -> Result<()> {
    let complaints = check()?;
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("tidy:\n  {}", complaints.join("\n  "))
}

/// Everything that is untidy, one line each.
pub fn check() -> Result<Vec<String>> {
    let packages = workspace::packages()?;
    let sources = sources()?;
    let mut complaints = edges::check(&packages);
    for package in &packages {
        complaints.extend(forbids_unsafe(package)?);
        complaints.extend(is_kept_pure(package)?);
    }
    for source in &sources {
        complaints.extend(check_source(source, &packages));
    }
    Ok(complaints)
}

/// A source file and its text.
struct Source {
    path: PathBuf,
    text: String,
}

fn sources() -> Result<Vec<Source>> {
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let read = |path: PathBuf| {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Source { path, text })
    };
    workspace::files()?.into_iter().filter(is_source).map(read).collect()
}

fn check_source(source: &Source, packages: &[Package]) -> Vec<String> {
    let shown = source.path.strip_prefix(workspace::root()).unwrap_or(&source.path).display();
    let mut complaints = Vec::new();
    let lines = source.text.lines().count();
    if lines > MOST_LINES {
        complaints.push(format!("{shown}: {lines} lines; more than {MOST_LINES} are to be split by concept"));
    }
    let owner = packages.iter().find(|package| source.path.starts_with(directory(package)));
    let name = owner.map_or("", |package| package.name.as_str());
    // Only the library is held to be pure: its tests may read what they compare with.
    let is_pure =
        PURE.contains(&name) && owner.is_some_and(|p| source.path.starts_with(directory(p).join("src")));
    for (number, line) in source.text.lines().enumerate() {
        let complaint = check_line(line, name == UNSAFE, is_pure);
        complaints.extend(complaint.map(|what| format!("{shown}:{}: {what}", number + 1)));
    }
    complaints
}

/// What is wrong with one line of a source file.
fn check_line(line: &str, may_be_unsafe: bool, is_pure: bool) -> Option<String> {
    let code = line.split("//").next().unwrap_or_default();
    if let Some(word) = TO_DO.iter().find(|word| is_unnumbered(line, word)) {
        return Some(format!("a {word} names no issue: write {word}(#n)"));
    }
    if code.contains(IGNORE) {
        return Some("an ignored test: assert today's behaviour and say what is wrong with it".to_owned());
    }
    if code.contains(DEAD) {
        return Some("code that nobody uses: remove it".to_owned());
    }
    if !may_be_unsafe && UNSAFE_CODE.iter().any(|begin| code.contains(begin)) {
        return Some(format!("unsafe code outside {UNSAFE}"));
    }
    if is_pure {
        let named = IMPURE_MODULES.iter().chain(&CLOCKS).find(|path| code.contains(*path));
        return named.map(|path| format!("a pure crate may not name {path}"));
    }
    None
}

// Put together, so that this file does not hold what it looks for.
const TO_DO: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const IGNORE: &str = concat!("#[", "ignore");
const DEAD: &str = concat!("dead", "_code");
const UNSAFE_CODE: [&str; 4] = [
    concat!("unsafe", " {"),
    concat!("unsafe", " fn"),
    concat!("unsafe", " impl"),
    concat!("unsafe", " extern"),
];

/// Whether the line has `word`, as a word, without an issue's number behind it.
fn is_unnumbered(line: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let is_word = !before.ends_with(is_letter) && !after.starts_with(is_letter);
        let number = after.strip_prefix("(#").and_then(|rest| rest.split_once(')'));
        is_word && !number.is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Every crate root but that of `sys` forbids unsafe code.
fn forbids_unsafe(package: &Package) -> Result<Vec<String>> {
    if package.name == UNSAFE {
        return Ok(Vec::new());
    }
    let mut complaints = Vec::new();
    for target in &package.targets {
        let text = std::fs::read_to_string(&target.src_path)
            .with_context(|| format!("cannot read {}", target.src_path.display()))?;
        let is_program = target.kind.iter().any(|kind| kind == "lib" || kind == "bin");
        if is_program && !text.contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{}: no #![forbid(unsafe_code)]", target.src_path.display()));
        }
    }
    Ok(complaints)
}

/// A pure crate has a clippy.toml that refuses what it must not call.
fn is_kept_pure(package: &Package) -> Result<Vec<String>> {
    if !PURE.contains(&package.name.as_str()) {
        return Ok(Vec::new());
    }
    let path = directory(package).join("clippy.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    let lists = ["disallowed-types", "disallowed-methods"];
    let refused: Vec<&str> = lists
        .iter()
        .filter_map(|list| table.get(*list)?.as_array())
        .flatten()
        .filter_map(|entry| entry.as_str().or_else(|| entry.get("path")?.as_str()))
        .collect();
    let wanted = ["std::fs", "std::net", "std::process", "std::thread"].iter().chain(&CLOCKS);
    let missing = wanted.filter(|module| !refused.iter().any(|path| path.starts_with(*module)));
    Ok(missing.map(|module| format!("{}: refuses nothing of {module}", path.display())).collect())
}

fn directory(package: &Package) -> &Path {
    package.manifest_path.parent().expect("a manifest lies in a directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // a table
    fn a_line_is_judged_by_what_it_says_and_where_it_stands() {
        let todo = TO_DO[0];
        //                line                                      unsafe  pure   fine
        let cases: [(String, bool, bool, bool); 12] = [
            (format!("// {todo}(#12): later"),                      false, false, true),
            (format!("let {todo}S = 1;"),                           false, false, true),
            (format!("// {todo}: later"),                           false, false, false),
            (format!("// {todo}(#): later"),                        false, false, false),
            (format!("{IGNORE}]"),                                  false, false, false),
            (format!("#[allow({DEAD})]"),                           false, false, false),
            (format!("// says {} in words", UNSAFE_CODE[0]),        false, false, true),
            (format!("{} y() }};", UNSAFE_CODE[0]),                 true,  false, true),
            (format!("{} y() }};", UNSAFE_CODE[0]),                 false, false, false),
            ("use std::fs;".to_owned(),                             false, false, true),
            ("use std::fs;".to_owned(),                             false, true,  false),
            ("let now = std::time::Instant::now();".to_owned(),     false, true,  false),
        ];
        for (line, may_be_unsafe, is_pure, fine) in cases {
            assert_eq!(check_line(&line, may_be_unsafe, is_pure).is_none(), fine, "{line}");
        }
    }
}
