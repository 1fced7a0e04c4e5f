//! The second pass over the arguments: from what was typed to what is there (sockets, ids).

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use pinfold_dbus::{Client, ClientError, wire};

use crate::args::{Owner, RealmArgs};

/// Where a realm keeps its state.
pub(crate) fn state_dir(realm: &RealmArgs) -> anyhow::Result<PathBuf> {
    if let Some(state) = &realm.state {
        return std::path::absolute(state).with_context(|| format!("--state {}", state.display()));
    }
    let above = if rustix::process::geteuid().is_root() {
        PathBuf::from("/run")
    } else {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        runtime.map(PathBuf::from).ok_or_else(|| {
            anyhow!("XDG_RUNTIME_DIR is not set, so there is no default state directory: give one with --state DIR")
        })?
    };
    Ok(above.join("pinfold").join(realm.realm.as_str()))
}

/// A connection to the realm's daemon.
pub(crate) fn client(realm: &RealmArgs) -> anyhow::Result<Client> {
    let state = state_dir(realm)?;
    let owners = state.join(wire::SOCKET);
    // Anybody may come in at the public door; in a container, it is all that there is of the daemon.
    let mut public = vec![wire::public_dir(&state).join(wire::SOCKET)];
    if realm.state.is_none() {
        let system = PathBuf::from("/run/pinfold").join(realm.realm.as_str());
        public.push(wire::public_dir(&system).join(wire::SOCKET));
    }
    Client::connect(&owners).or_else(|error| {
        let client = public.iter().find_map(|socket| Client::connect(socket).ok());
        client.ok_or_else(|| explain(error, realm))
    })
}

/// What to do when there is no daemon.
fn explain(error: ClientError, realm: &RealmArgs) -> anyhow::Error {
    let ClientError::NoDaemon { socket, source } = &error else { return error.into() };
    let tried = socket.display();
    let chosen = realm.state.as_ref().map_or_else(
        || format!("--realm {}", realm.realm.as_str()),
        |state| format!("--state {}", state.display()),
    );
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            anyhow!(
                "the daemon at {tried} takes calls from its owner and root only (EPERM), and has no public socket"
            )
        }
        _ => anyhow!(
            "no daemon at {tried} ({source})\nstart one with `pinfold serve {chosen}`, or name another with --realm or --state"
        ),
    }
}

/// The ids behind `USER[:GROUP]`.
pub(crate) fn owner(owner: &Owner) -> anyhow::Result<(Option<u32>, Option<u32>)> {
    let uid = owner.user.as_deref().map(|user| id(user, "user", "/etc/passwd")).transpose()?;
    let gid = owner.group.as_deref().map(|group| id(group, "group", "/etc/group")).transpose()?;
    Ok((uid, gid))
}

/// A number, or the number that a file like /etc/passwd gives for a name.
fn id(text: &str, kind: &str, file: &str) -> anyhow::Result<u32> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let listed =
        std::fs::read(file).with_context(|| format!("{file} cannot be read to find {kind} {text:?}"))?;
    let listed = String::from_utf8_lossy(&listed);
    match number_of(text, &listed) {
        Some(id) => Ok(id),
        None => bail!("no {kind} {text:?} in {file}: give the number"),
    }
}

/// The third field of the line whose first is the name: passwd(5), group(5).
fn number_of(name: &str, listed: &str) -> Option<u32> {
    let mut lines = listed.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::number_of;

    #[test]
    fn a_name_gives_the_number_of_its_own_line() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\nbroken\ndaemon:x:1:1::/:/bin/sh\nbad:x:y:1\n";
        assert_eq!(number_of("daemon", passwd), Some(1));
        assert_eq!(number_of("root", passwd), Some(0));
        assert_eq!(number_of("roo", passwd), None);
        assert_eq!(number_of("bad", passwd), None);
        assert_eq!(number_of("broken", passwd), None);
    }
}
