//! The rules as a table: which one fits, and what its path is for a process. Pure.

use std::collections::HashMap;

use pinfold_kernel::process::Namespace;

/// The rules of a file, in its order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) names: Names,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    /// Where it begins in its file.
    pub(crate) line: usize,
    /// What must hold, all of it.
    pub(crate) when: Vec<Condition>,
    /// Where the process goes.
    pub(crate) groups: Vec<Template>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    Uid(Vec<u32>),
    Gid(Vec<u32>),
    Exe(Vec<Pattern>),
    Comm(Vec<Pattern>),
    NewNamespace(Namespace),
}

/// What a text must look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pattern(pub(crate) String);

/// A group's name with what is to be filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Template {
    /// Names of controllers or `name=`s; empty: every hierarchy.
    pub(crate) hierarchies: Vec<String>,
    /// The components of the path, none of them empty.
    pub(crate) path: Vec<Vec<Piece>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    Text(String),
    UserName,
    UserNumber,
    GroupName,
    GroupNumber,
    ProcessName,
    ProcessNumber,
}

/// The names of users and groups of users, by number.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Names {
    /// Users.
    pub users: HashMap<u32, String>,
    /// Groups of users.
    pub groups: HashMap<u32, String>,
}

impl Names {
    /// From the texts of passwd(5) and group(5).
    pub fn parse(passwd: &str, group: &str) -> Self {
        let numbers = |text: &str| {
            let line = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((fields.nth(1)?.parse().ok()?, name))
            };
            // Of several names for a number the first one counts, as for getpwuid(3).
            text.lines().rev().filter_map(line).collect()
        };
        Self { users: numbers(passwd), groups: numbers(group) }
    }
}

/// What is known of a process when rules are asked about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// Its number, the daemon's.
    pub process: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group of users.
    pub gid: u32,
    /// Its name.
    pub comm: &'a [u8],
    /// The path of its program; empty if the daemon finds another program there.
    pub exe: &'a [u8],
    /// The kinds of namespaces of which it is the first process in one.
    pub new_namespaces: &'a [Namespace],
    /// Where the other processes of its namespaces went.
    pub homes: &'a [Home],
}

/// Where the processes of a namespace go, as a rule has decided for the first of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Home {
    /// The line of the rule.
    pub line: usize,
    /// The paths of its groups.
    pub paths: Vec<Vec<Vec<u8>>>,
}

/// A group that a process belongs to, by a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// The line of the rule.
    pub line: usize,
    /// Names of controllers or `name=`s; empty: every hierarchy.
    pub hierarchies: &'a [String],
    /// The names from the root down.
    pub path: Vec<Vec<u8>>,
    /// From which name on groups have something in their names of which a process can have very much: its number, its name, or a
    /// user or group of users that has no name, as those of a container have none, and all that /etc/subuid gives somebody. Those that a
    /// rule made go when they are empty: otherwise whoever calls himself this and that could have any number made.
    pub own_from: Option<usize>,
}

impl Rules {
    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The kinds of namespaces that any rule asks about.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let mut kinds = Vec::new();
        for kind in self.rules.iter().flat_map(Rule::kinds) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// Whether a program of this path fits what any rule says of programs.
    pub fn name_program(&self, exe: &[u8]) -> bool {
        let mut conditions = self.rules.iter().flat_map(|rule| &rule.when);
        conditions.any(
            |condition| matches!(condition, Condition::Exe(patterns) if Pattern::any_fits(patterns, exe)),
        )
    }

    /// The groups that a process belongs to: those of the first rule that fits. None: it stays where it is.
    ///
    /// A rule about new namespaces fits the first process of one by all its conditions, and afterwards every other, which goes where
    /// the first went.
    ///
    /// With `only_new`, a rule without `new_namespace` moves nobody; it still keeps later ones from doing so.
    pub fn decide(&self, subject: &Subject<'_>, only_new: bool) -> Vec<Target<'_>> {
        let found = self.rules.iter().find_map(|rule| {
            let home = || subject.homes.iter().find(|home| home.line == rule.line);
            if rule.fits(subject) { Some((rule, None)) } else { home().map(|home| (rule, Some(home))) }
        });
        let Some((rule, home)) = found.filter(|(rule, _)| !only_new || rule.kinds().next().is_some()) else {
            return Vec::new();
        };
        let targets = rule.groups.iter().enumerate().map(|(index, Template { hierarchies, path })| Target {
            line: rule.line,
            hierarchies,
            path: home
                .and_then(|home| home.paths.get(index).cloned())
                .unwrap_or_else(|| path.iter().map(|pieces| fill(pieces, subject, &self.names)).collect()),
            own_from: path.iter().position(|pieces| {
                pieces.iter().any(|piece| match piece {
                    Piece::Text(_) => false,
                    Piece::ProcessNumber | Piece::ProcessName => true,
                    // Whose the name is that the first of a namespace had is not known any more.
                    _ if home.is_some() => true,
                    Piece::UserName | Piece::UserNumber => !self.names.users.contains_key(&subject.uid),
                    Piece::GroupName | Piece::GroupNumber => !self.names.groups.contains_key(&subject.gid),
                })
            }),
        });
        targets.collect()
    }

    /// The kinds of namespaces that the rule at a line asks about.
    pub(crate) fn kinds_at(&self, line: usize) -> Vec<Namespace> {
        let rule = self.rules.iter().find(|rule| rule.line == line);
        rule.into_iter().flat_map(Rule::kinds).collect()
    }
}

impl Rule {
    /// The kinds of namespaces that it asks about.
    fn kinds(&self) -> impl Iterator<Item = Namespace> {
        self.when.iter().filter_map(|condition| match condition {
            Condition::NewNamespace(kind) => Some(*kind),
            _ => None,
        })
    }

    fn fits(&self, subject: &Subject<'_>) -> bool {
        self.when.iter().all(|condition| match condition {
            Condition::Uid(ids) => ids.contains(&subject.uid),
            Condition::Gid(ids) => ids.contains(&subject.gid),
            Condition::Exe(patterns) => Pattern::any_fits(patterns, subject.exe),
            Condition::Comm(patterns) => Pattern::any_fits(patterns, subject.comm),
            Condition::NewNamespace(kind) => subject.new_namespaces.contains(kind),
        })
    }
}

impl Pattern {
    fn any_fits(patterns: &[Self], text: &[u8]) -> bool {
        patterns.iter().any(|pattern| pattern.fits(text))
    }

    /// `*` is any number of any bytes, all else is itself.
    fn fits(&self, text: &[u8]) -> bool {
        let mut parts = self.0.as_bytes().split(|byte| *byte == b'*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let mut parts: Vec<&[u8]> = parts.collect();
        // Without a star the first part is all there is.
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            let at =
                if part.is_empty() { Some(0) } else { rest.windows(part.len()).position(|at| at == part) };
            let Some(at) = at else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// A component of a path. What a process or a user calls itself must not lead elsewhere, nor name what is no group: a
/// slash, a newline or a null byte becomes `_`, and so does a name that is nothing but dots, or empty.
fn fill(pieces: &[Piece], subject: &Subject<'_>, names: &Names) -> Vec<u8> {
    let mut name = Vec::new();
    for piece in pieces {
        let of =
            |names: &HashMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        match piece {
            Piece::Text(text) => name.extend(text.as_bytes()),
            Piece::UserName => name.extend(of(&names.users, subject.uid).as_bytes()),
            Piece::UserNumber => name.extend(subject.uid.to_string().as_bytes()),
            Piece::GroupName => name.extend(of(&names.groups, subject.gid).as_bytes()),
            Piece::GroupNumber => name.extend(subject.gid.to_string().as_bytes()),
            Piece::ProcessName => name.extend(subject.comm),
            Piece::ProcessNumber => name.extend(subject.process.to_string().as_bytes()),
        }
    }
    for byte in &mut name {
        if matches!(*byte, b'/' | b'\n' | b'\0') {
            *byte = b'_';
        }
    }
    if name.iter().all(|byte| *byte == b'.') {
        name = vec![b'_'; name.len().max(1)];
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_number_of_any_bytes() {
        for (pattern, text, fits) in [
            ("/bin/sh", "/bin/sh", true),
            ("/bin/sh", "/bin/sh2", false),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("/usr/*/cc*", "/usr/lib/gcc/cc1", true),
            ("/usr/*/cc*", "/usr/cc1", false),
            ("*.so", "a.so.so", true),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("*b*", "abc", true),
        ] {
            assert_eq!(Pattern(pattern.into()).fits(text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn no_name_leads_out_of_its_place() {
        let names = Names::default();
        for (comm, name) in [("../../etc", ".._.._etc"), ("..", "__"), (".", "_"), ("", "_"), ("a\nb", "a_b")]
        {
            let subject = Subject {
                process: 7,
                comm: comm.as_bytes(),
                uid: 0,
                gid: 0,
                exe: b"",
                new_namespaces: &[],
                homes: &[],
            };
            assert_eq!(fill(&[Piece::ProcessName], &subject, &names), name.as_bytes(), "{comm:?}");
        }
    }
}
