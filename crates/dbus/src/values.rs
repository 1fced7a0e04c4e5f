//! Control files by name: values, tasks, the freezer.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use pinfold_files::Ids;
use pinfold_files::keys::Key;
use pinfold_model::Errno;
use pinfold_realm::{LookupError, Named, Node, Realm, RequestError, Requester};

use crate::credentials;
use crate::error::Refusal;
use crate::groups;
use crate::select::Selected;

/// What a control file of a group says; `None` if the group has no such file.
pub(crate) fn read(
    realm: &Realm,
    requester: &Requester,
    selected: &Selected,
    key: &str,
) -> Result<Option<String>, Refusal> {
    let Some(Node::File(group, file)) = node(realm, selected, key)? else { return Ok(None) };
    match realm.read_for(requester, group, file) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) => Err(about(requester, selected, key, error.errno(), &error)),
    }
}

/// Writes to a control file of a group; `false` if the group has no such file.
pub(crate) fn write(
    realm: &Realm,
    requester: &Requester,
    selected: &Selected,
    key: &str,
    value: &str,
) -> Result<bool, Refusal> {
    let Some(Node::File(group, file)) = node(realm, selected, key)? else { return Ok(false) };
    match realm.write_for(requester, group, file, value.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) => Err(about(requester, selected, key, error.errno(), &error)),
    }
}

/// The control file of this name, if the group has it.
pub(crate) fn node(realm: &Realm, selected: &Selected, key: &str) -> Result<Option<Node>, Refusal> {
    match realm.lookup(selected.group, OsStr::new(key)) {
        Ok(node @ Node::File(..)) => Ok(Some(node)),
        Ok(Node::Group(_)) | Err(LookupError::NotFound(_)) => Ok(None),
        Err(error) => Err(Refusal::new(error.errno(), format!("{key} of {}: {error}", selected.name()))),
    }
}

/// The control files of a group that make it have a key: none if it has not.
pub(crate) fn files(realm: &Realm, selected: &Selected, key: &str) -> Result<Vec<Node>, Refusal> {
    let itself = [key];
    let names: &[&str] = match Key::named(key) {
        Some(key) => key.any_of(),
        None => &itself,
    };
    let mut found = Vec::new();
    for name in names {
        found.extend(node(realm, selected, name)?);
    }
    Ok(found)
}

fn about(
    requester: &Requester,
    selected: &Selected,
    key: &str,
    errno: Errno,
    error: &dyn std::error::Error,
) -> Refusal {
    Refusal::because(requester, errno, format_args!("{key} of {}", selected.name()), error)
}

/// The value of a key that exactly one of the groups has, without the final newline.
pub(crate) fn get(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
    key: &str,
) -> Result<String, Refusal> {
    let known = Key::named(key);
    let mut having = Vec::new();
    for selected in among {
        if !files(realm, selected, key)?.is_empty() {
            having.push(selected);
        }
    }
    match (having.as_slice(), known) {
        ([], _) => Err(no_key(among, key)),
        ([only], Some(known)) => Ok(known.show(&texts(realm, requester, only, known)?, realm.facts())),
        ([only], None) => {
            let text = read(realm, requester, only, key)?.ok_or_else(|| no_key(among, key))?;
            Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
        }
        (several, _) => {
            let names: Vec<_> = several.iter().map(|selected| selected.name()).collect();
            let names = names.join(", ");
            Err(Refusal::new(Errno::EINVAL, format!("{key} is in several hierarchies: name one of {names}")))
        }
    }
}

/// What the files of a key say.
fn texts(
    realm: &Realm,
    requester: &Requester,
    selected: &Selected,
    key: &Key,
) -> Result<Vec<String>, Refusal> {
    let text = |file: &&str| Ok(read(realm, requester, selected, file)?.unwrap_or_default());
    key.files.iter().map(text).collect()
}

/// Sets a key in every group that has it.
pub(crate) fn set(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
    key: &str,
    value: &str,
) -> Result<(), Refusal> {
    let mut had = false;
    for selected in among {
        had |= match Key::named(key) {
            None => write(realm, requester, selected, key, value)?,
            Some(_) if files(realm, selected, key)?.is_empty() => false,
            Some(known) => {
                // What it depends on; of a key of one file, nothing.
                let texts = match known.files {
                    [_] => Vec::new(),
                    _ => texts(realm, requester, selected, known)?,
                };
                let written = known.write(value, &texts, realm.facts()).map_err(|error| {
                    Refusal::new(Errno::EINVAL, format!("{key} of {}: {error}", selected.name()))
                })?;
                write(realm, requester, selected, written.file, &written.text)?
            }
        };
    }
    if had { Ok(()) } else { Err(no_key(among, key)) }
}

/// Changes the mode of a control file in every group that has it; of none, if the requester may not change that of each.
pub(crate) fn chmod(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
    key: &str,
    mode: u16,
) -> Result<(), Refusal> {
    let mut found = Vec::new();
    for selected in among {
        for file in files(realm, selected, key)? {
            realm
                .may_chmod(requester, file)
                .map_err(|error| about(requester, selected, key, error.errno(), &error))?;
            found.push((selected, file));
        }
    }
    for (selected, file) in &found {
        realm
            .chmod_for(requester, *file, mode)
            .map_err(|error| about(requester, selected, key, error.errno(), &error))?;
    }
    if found.is_empty() { Err(no_key(among, key)) } else { Ok(()) }
}

fn no_key(among: &[Selected], key: &str) -> Refusal {
    let names: Vec<_> = among.iter().map(Selected::name).collect();
    Refusal::new(Errno::ENOENT, format!("{} has no key or control file {key:?}", names.join(", ")))
}

/// Writes the freezer's state in the groups that have one.
pub(crate) fn set_frozen(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
    state: &str,
) -> Result<(), Refusal> {
    const STATE: &str = "freezer.state";
    let mut has_one = false;
    for selected in among {
        groups::may_look(realm, requester, selected)?;
        has_one |= node(realm, selected, STATE)?.is_some();
    }
    match has_one {
        true => set(realm, requester, among, STATE, state),
        false => Err(Refusal::new(
            Errno::EOPNOTSUPP,
            format!(
                "{}: the freezer works below the root of the hierarchy that has it",
                no_key(among, STATE).message()
            ),
        )),
    }
}

/// The tasks or processes of all these groups, in the caller's pid namespace.
pub(crate) fn members(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
    ids: Ids,
    recursive: bool,
) -> Result<Vec<u32>, Refusal> {
    let mut found = BTreeSet::new();
    for top in among {
        let all = match recursive {
            true => groups::all_in(realm, requester, top)?,
            false => vec![top.group],
        };
        for group in all {
            match realm.members_for(requester, group, ids) {
                // A group that goes while its siblings are read has no tasks any more.
                Err(error) if error.errno() == Errno::ENODEV && group != top.group => {}
                members => {
                    let named = || groups::named(realm, requester, top, group);
                    found.extend(members.map_err(|error| about_group(requester, &named(), &error))?);
                }
            }
        }
    }
    Ok(found.into_iter().map(|pid| pid.get()).collect())
}

pub(crate) fn about_group(requester: &Requester, selected: &Selected, error: &RequestError) -> Refusal {
    Refusal::because(requester, error.errno(), selected.name(), error)
}

/// A process, as a caller names it.
pub(crate) enum Process {
    /// By its number in the caller's pid namespace; 0 is the caller.
    Number(u32),
    /// By a pidfd, or by a socket over which its credentials come.
    Descriptor(OwnedFd),
}

impl Process {
    /// The process that is meant. The caller must see it.
    pub(crate) fn find(self, realm: &Realm, requester: &Requester) -> Result<Named, Refusal> {
        match self {
            Self::Number(pid) => realm.named(requester, pid).map_err(|error| {
                Refusal::because(requester, error.errno(), format_args!("process {pid}"), &error)
            }),
            Self::Descriptor(fd) if credentials::is_socket(&fd) => {
                credentials::process(realm, requester, &fd)
            }
            Self::Descriptor(fd) => {
                realm.held(requester, fd).map_err(|error| Refusal::new(error.errno(), error))
            }
        }
    }
}

/// Moves a process into every one of these groups.
pub(crate) fn attach(
    realm: &Realm,
    requester: &Requester,
    to: &[Selected],
    process: &Named,
) -> Result<(), Refusal> {
    for selected in to {
        realm
            .attach_for(requester, selected.group, process)
            .map_err(|error| about_group(requester, selected, &error))?;
    }
    Ok(())
}
