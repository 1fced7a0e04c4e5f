//! Control files by name: values, tasks, the freezer.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use pinfold_model::Errno;
use pinfold_realm::{Caller, LookupError, Node, Realm};

use crate::error::{Refusal, chain};
use crate::groups;
use crate::select::Selected;

/// What a control file of a group says; `None` if the group has no such file.
pub(crate) fn read(
    realm: &Realm,
    caller: &Caller,
    selected: &Selected,
    key: &str,
) -> Result<Option<String>, Refusal> {
    let Some(Node::File(group, file)) = node(realm, selected, key)? else { return Ok(None) };
    match realm.read(caller, group, file) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) => Err(about(selected, key, error.errno(), &error)),
    }
}

/// Writes to a control file of a group; `false` if the group has no such file.
pub(crate) fn write(
    realm: &Realm,
    caller: &Caller,
    selected: &Selected,
    key: &str,
    value: &str,
) -> Result<bool, Refusal> {
    let Some(Node::File(group, file)) = node(realm, selected, key)? else { return Ok(false) };
    match realm.write(caller, group, file, value.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) => Err(about(selected, key, error.errno(), &error)),
    }
}

/// The control file of this name, if the group has it.
pub(crate) fn node(realm: &Realm, selected: &Selected, key: &str) -> Result<Option<Node>, Refusal> {
    match realm.lookup(selected.group, OsStr::new(key)) {
        Ok(node @ Node::File(..)) => Ok(Some(node)),
        Ok(Node::Group(_)) | Err(LookupError::NotFound(_)) => Ok(None),
        Err(error) => Err(about(selected, key, error.errno(), &error)),
    }
}

fn about(selected: &Selected, key: &str, errno: Errno, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(errno, format!("{key} of {}: {}", selected.name(), chain(error)))
}

/// The value of a key that exactly one of the groups has, without the final newline.
pub(crate) fn get(realm: &Realm, caller: &Caller, among: &[Selected], key: &str) -> Result<String, Refusal> {
    let mut having = Vec::new();
    for selected in among {
        if node(realm, selected, key)?.is_some() {
            having.push(selected);
        }
    }
    match having.as_slice() {
        [] => Err(no_key(among, key)),
        [only] => {
            let text = read(realm, caller, only, key)?.ok_or_else(|| no_key(among, key))?;
            Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
        }
        several => {
            let names: Vec<_> = several.iter().map(|selected| selected.name()).collect();
            let names = names.join(", ");
            Err(Refusal::new(Errno::EINVAL, format!("{key} is in several hierarchies: name one of {names}")))
        }
    }
}

/// Writes a key in every group that has it.
pub(crate) fn set(
    realm: &Realm,
    caller: &Caller,
    among: &[Selected],
    key: &str,
    value: &str,
) -> Result<(), Refusal> {
    let mut had = false;
    for selected in among {
        had |= write(realm, caller, selected, key, value)?;
    }
    if had { Ok(()) } else { Err(no_key(among, key)) }
}

fn no_key(among: &[Selected], key: &str) -> Refusal {
    let names: Vec<_> = among.iter().map(Selected::name).collect();
    Refusal::new(Errno::ENOENT, format!("{} has no control file {key:?}", names.join(", ")))
}

/// Writes the freezer's state in the groups that have one.
pub(crate) fn set_frozen(
    realm: &Realm,
    caller: &Caller,
    among: &[Selected],
    state: &str,
) -> Result<(), Refusal> {
    set(realm, caller, among, "freezer.state", state).map_err(|refusal| match refusal.errno() {
        "ENOENT" => Refusal::new(
            Errno::EOPNOTSUPP,
            format!("{}: the freezer works below the root of the hierarchy that has it", refusal.message()),
        ),
        _ => refusal,
    })
}

/// The ids that a membership file lists, in the caller's pid namespace, over all these groups.
pub(crate) fn members(
    realm: &Realm,
    caller: &Caller,
    among: Vec<Selected>,
    file: &str,
    recursive: bool,
) -> Result<Vec<u32>, Refusal> {
    let mut ids = BTreeSet::new();
    for top in among {
        ids.extend(listed(&read(realm, caller, &top, file)?.unwrap_or_default()));
        let below = if recursive { groups::below(realm, &top)? } else { Vec::new() };
        for found in below {
            match read(realm, caller, &found.selected(realm, &top), file) {
                // A group that goes while its siblings are read has no tasks any more.
                Err(refusal) if refusal.errno() == "ENODEV" => {}
                text => ids.extend(listed(&text?.unwrap_or_default())),
            }
        }
    }
    Ok(ids.into_iter().collect())
}

/// The numbers in a file of one a line.
fn listed(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|line| line.parse().ok())
}

/// Moves a process into every one of these groups; 0 is the caller.
pub(crate) fn attach(realm: &Realm, caller: &Caller, to: &[Selected], pid: u32) -> Result<(), Refusal> {
    for selected in to {
        write(realm, caller, selected, "cgroup.procs", &pid.to_string())?;
    }
    Ok(())
}
