//! A rules file, read: TOML with every error at its line. Pure.

use pinfold_kernel::process::Namespace;
use serde::Deserialize;
use toml::{Spanned, Value};

use super::table::{Condition, Names, Pattern, Piece, Rule, Rules, Template};

/// What is wrong with a rules file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct RulesError {
    /// Where.
    pub line: usize,
    /// What.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    uid: Option<Spanned<Value>>,
    gid: Option<Spanned<Value>>,
    exe: Option<Spanned<Value>>,
    comm: Option<Spanned<Value>>,
    new_namespace: Option<Spanned<Value>>,
    group: Spanned<Value>,
}

/// The kinds of namespaces that a rule may name.
const NAMESPACES: [(&str, Namespace); 8] = [
    ("pid", Namespace::Pid),
    ("user", Namespace::User),
    ("mount", Namespace::Mount),
    ("cgroup", Namespace::Cgroup),
    ("net", Namespace::Net),
    ("uts", Namespace::Uts),
    ("ipc", Namespace::Ipc),
    ("time", Namespace::Time),
];

/// A name of a process has no more bytes: `TASK_COMM_LEN` less the null byte.
const COMM_MOST: usize = 15;

impl Rules {
    /// Reads a rules file; names of users and groups are looked up here, once.
    pub fn parse(text: &str, names: Names) -> Result<Self, RulesError> {
        let at = |position: usize| {
            1 + text.as_bytes()[..position.min(text.len())].iter().filter(|b| **b == b'\n').count()
        };
        let file: RawFile = toml::from_str(text).map_err(|error| RulesError {
            line: error.span().map_or(1, |span| at(span.start)),
            reason: error.message().replace('\n', ", "),
        })?;
        let mut rules = Vec::new();
        for raw in file.rule {
            let line = at(raw.span().start);
            rules.push(rule(raw.into_inner(), line, &at, &names)?);
        }
        Ok(Self { rules, names })
    }
}

fn rule(raw: RawRule, line: usize, at: &impl Fn(usize) -> usize, names: &Names) -> Result<Rule, RulesError> {
    let RawRule { uid, gid, exe, comm, new_namespace, group } = raw;
    let placed = |value: Spanned<Value>| (at(value.span().start), value.into_inner());
    let mut when = Vec::new();
    if let Some((line, value)) = uid.map(placed) {
        when.push(Condition::Uid(ids(value, "user", &names.users, line)?));
    }
    if let Some((line, value)) = gid.map(placed) {
        when.push(Condition::Gid(ids(value, "group of users", &names.groups, line)?));
    }
    if let Some((line, value)) = exe.map(placed) {
        let patterns = texts(value, line)?;
        if let Some(other) = patterns.iter().find(|pattern| !pattern.starts_with(['/', '*'])) {
            return Err(wrong(line, format!("{other:?} never fits: exe is an absolute path")));
        }
        when.push(Condition::Exe(patterns.into_iter().map(Pattern).collect()));
    }
    if let Some((line, value)) = comm.map(placed) {
        let patterns = texts(value, line)?;
        let is_long = |pattern: &&String| !pattern.contains('*') && pattern.len() > COMM_MOST;
        if let Some(long) = patterns.iter().find(is_long) {
            return Err(wrong(line, format!("{long:?} never fits: a name has at most {COMM_MOST} bytes")));
        }
        when.push(Condition::Comm(patterns.into_iter().map(Pattern).collect()));
    }
    if let Some((line, value)) = new_namespace.map(placed) {
        let known = NAMESPACES.iter().find(|(name, _)| value.as_str() == Some(name));
        let unknown = || {
            let kinds = NAMESPACES.map(|(name, _)| name).join(", ");
            wrong(line, format!("{} is no kind of namespace: {kinds}", shown(&value)))
        };
        when.push(Condition::NewNamespace(known.ok_or_else(unknown)?.1));
    }
    let (group_line, value) = placed(group);
    let groups = texts(value, group_line)?;
    let groups = groups.iter().map(|text| template(text).map_err(|reason| wrong(group_line, reason)));
    Ok(Rule { line, when, groups: groups.collect::<Result<_, _>>()? })
}

fn wrong(line: usize, reason: impl Into<String>) -> RulesError {
    RulesError { line, reason: reason.into() }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        other => format!("a value of type {}", other.type_str()),
    }
}

/// One value, or the values of a list that is not empty.
fn each(value: Value, line: usize) -> Result<Vec<Value>, RulesError> {
    match value {
        Value::Array(values) if values.is_empty() => Err(wrong(line, "an empty list fits nothing")),
        Value::Array(values) => Ok(values),
        value => Ok(vec![value]),
    }
}

fn texts(value: Value, line: usize) -> Result<Vec<String>, RulesError> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        other => Err(wrong(line, format!("{} is no string", shown(&other)))),
    };
    each(value, line)?.into_iter().map(text).collect()
}

fn ids(
    value: Value,
    kind: &str,
    names: &std::collections::HashMap<u32, String>,
    line: usize,
) -> Result<Vec<u32>, RulesError> {
    let id = |value: Value| match &value {
        // -1 is no user: setresuid(2) means by it that a user stays.
        Value::Integer(id) => match u32::try_from(*id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(wrong(line, format!("{id} is no {kind}'s number"))),
        },
        Value::String(name) => {
            let found = names.iter().filter(|(_, known)| *known == name).map(|(id, _)| *id).min();
            found.ok_or_else(|| wrong(line, format!("no {kind} is called {name:?}")))
        }
        other => Err(wrong(line, format!("{} is neither a number nor a name of a {kind}", shown(other)))),
    };
    each(value, line)?.into_iter().map(id).collect()
}

/// `CONTROLLERS:PATH` or `PATH`.
fn template(text: &str) -> Result<Template, String> {
    let (hierarchies, path) = match text.find('/') {
        Some(0) => (Vec::new(), text),
        Some(slash) if text[..slash].ends_with(':') => {
            let names: Vec<String> = text[..slash - 1].split(',').map(str::to_owned).collect();
            (names, &text[slash..])
        }
        _ => {
            return Err(format!(
                "{text:?} is no group: write CONTROLLERS:PATH or PATH, PATH beginning with /"
            ));
        }
    };
    if let Some(name) = hierarchies.iter().find(|name| name.is_empty() || name.contains(char::is_whitespace))
    {
        return Err(format!("{name:?} is no controller and no name= of a hierarchy"));
    }
    let components = path.split('/').filter(|component| !component.is_empty());
    let path = components.map(|component| pieces(component).map_err(|reason| format!("{text:?}: {reason}")));
    Ok(Template { hierarchies, path: path.collect::<Result<_, _>>()? })
}

fn pieces(component: &str) -> Result<Vec<Piece>, String> {
    if matches!(component, "." | "..") {
        return Err(format!("{component:?} is no name of a group"));
    }
    if component.contains(['\n', '\0']) {
        return Err("a name of a group has no newline and no null byte in it".to_owned());
    }
    let mut found = Vec::new();
    let mut parts = component.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    while let Some(part) = parts.next() {
        let (piece, rest) = match part.chars().next() {
            Some('u') => (Piece::UserName, &part[1..]),
            Some('U') => (Piece::UserNumber, &part[1..]),
            Some('g') => (Piece::GroupName, &part[1..]),
            Some('G') => (Piece::GroupNumber, &part[1..]),
            Some('p') => (Piece::ProcessName, &part[1..]),
            Some('P') => (Piece::ProcessNumber, &part[1..]),
            // `%%`: nothing between the two; what follows the second is text.
            None if parts.clone().next().is_some() => {
                text.push('%');
                text.push_str(parts.next().unwrap_or_default());
                continue;
            }
            _ => return Err(format!("%{part} stands for nothing: there are %u %U %g %G %p %P and %%")),
        };
        if !text.is_empty() {
            found.push(Piece::Text(std::mem::take(&mut text)));
        }
        found.push(piece);
        text = rest.to_owned();
    }
    if !text.is_empty() {
        found.push(Piece::Text(text));
    }
    Ok(found)
}
