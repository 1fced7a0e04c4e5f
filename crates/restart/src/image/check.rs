//! What the form of a capture file cannot say by itself. After this, every index and every list of numbers can be used as it is.

use super::{Captured, Credentials, Image, ImageError, Living, Nursery, users};
use crate::limits::LIMITS;
use crate::pids::MOST_LEVELS;

/// The kinds of namespaces beside pid.
pub(crate) const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "user", "uts"];

/// The one of these that owns the others.
pub(crate) const USER: &str = "user";

/// The largest number that a process can have. Source: linux/pid.h; pid_t is an int.
const MOST: u32 = i32::MAX.unsigned_abs();

type Checked = Result<(), ImageError>;

/// Refuses an image that cannot be used as it is.
pub(super) fn check(image: &Image) -> Checked {
    let levels = levels(&image.pid_namespaces)?;
    check_users(image)?;
    for (place, process) in image.processes.iter().enumerate() {
        check_process(image, &levels, process)
            .and_then(|()| process.living.as_ref().map_or(Ok(()), |living| check_living(image, living)))
            .map_err(|what| ImageError::Content { what: format!("processes[{place}]: {what}") })?;
    }
    for group in &image.groups {
        if [group.owner.0, group.owner.1].contains(&NOBODY) {
            let what = format!("group {}: {NOBODY} is no user's and no group's number", group.name);
            return Err(ImageError::Content { what });
        }
        if let Some(index) = group.processes.iter().find(|&&index| index >= image.processes.len()) {
            let what = format!("group {}: no process has the index {index}", group.name);
            return Err(ImageError::Content { what });
        }
    }
    Ok(())
}

/// How many namespaces a process of each is in.
fn levels(namespaces: &[Option<usize>]) -> Result<Vec<usize>, ImageError> {
    let refuse = |what: &str| Err(ImageError::Content { what: format!("pid_namespaces: {what}") });
    let mut levels: Vec<usize> = Vec::with_capacity(namespaces.len());
    for (place, &parent) in namespaces.iter().enumerate() {
        let level = match parent {
            None if place == 0 => 1,
            Some(parent) if parent < place => levels[parent] + 1,
            None | Some(_) => return refuse("the first is in none, and each other is in one before it"),
        };
        if level > MOST_LEVELS {
            return refuse("nested deeper than the kernel nests them");
        }
        levels.push(level);
    }
    if levels.is_empty() { refuse("there is always one") } else { Ok(levels) }
}

fn check_users(image: &Image) -> Checked {
    let refuse = |what: String| Err(ImageError::Content { what });
    for (place, namespace) in image.user_namespaces.iter().enumerate() {
        // Its own number is place + 1.
        if namespace.parent > place {
            return refuse(format!("user_namespaces[{place}]: it is in none that comes before it"));
        }
        if namespace.maker == NOBODY {
            return refuse(format!("user_namespaces[{place}]: {NOBODY} is no user's number"));
        }
        if let Err(what) = users::check_one(namespace) {
            return refuse(format!("user_namespaces[{place}]: {what}"));
        }
    }
    for (kind, owners) in &image.owners {
        if kind == USER || !NAMESPACES.contains(&kind.as_str()) {
            return refuse(format!("owners: no kind of owned namespace is called {kind}"));
        }
        if let Some(owner) = owners.iter().find(|&&owner| owner > image.user_namespaces.len()) {
            return refuse(format!("owners: no user namespace has the number {owner}"));
        }
    }
    Ok(())
}

fn check_process(image: &Image, levels: &[usize], process: &Captured) -> Result<(), String> {
    let level = *levels.get(process.pid_namespace).ok_or("no such pid namespace")?;
    if process.pids.len() != level {
        return Err("not one number for each pid namespace that it is in".to_owned());
    }
    for numbers in [&process.pids, &process.session, &process.group] {
        if let Some(number) = numbers.iter().find(|&&number| number == 0 || number > MOST) {
            return Err(format!("{number} is not a pid"));
        }
        if numbers.len() > level {
            return Err("more numbers for its session or its group than it can see".to_owned());
        }
    }
    if process.parent.is_some_and(|parent| parent >= image.processes.len()) {
        return Err("its parent is not in the file".to_owned());
    }
    match process.children_in {
        Nursery::Namespace(namespace) if namespace >= levels.len() => {
            Err("its children's pid namespace is not in the file".to_owned())
        }
        Nursery::Namespace(_) | Nursery::Own | Nursery::Fresh => Ok(()),
    }
}

/// What setresuid(2), setresgid(2) and chown(2) take for "as it is".
const NOBODY: u32 = u32::MAX;

fn check_living(image: &Image, living: &Living) -> Result<(), String> {
    let Credentials { uids, gids, groups, .. } = &living.credentials;
    if uids.iter().chain(gids).chain(groups).any(|&id| id == NOBODY) {
        return Err(format!("{NOBODY} is no user's and no group's number"));
    }
    if let Some(name) = living.limits.keys().find(|name| LIMITS.iter().all(|(known, ..)| known != name)) {
        return Err(format!("no limit is called {name}"));
    }
    if let Some(kind) = living.namespaces.keys().find(|kind| !NAMESPACES.contains(&kind.as_str())) {
        return Err(format!("no kind of namespace is called {kind}"));
    }
    if let Some(kind) = NAMESPACES.iter().find(|kind| !living.namespaces.contains_key(**kind)) {
        return Err(format!("its {kind} namespace is missing"));
    }
    for (kind, &number) in &living.namespaces {
        let known = match kind.as_str() {
            USER => Some(image.user_namespaces.len()),
            kind => image.owners.get(kind).map(Vec::len),
        };
        if known.is_some_and(|known| number > known) {
            return Err(format!("no {kind} namespace has the number {number}"));
        }
    }
    if living.umask > 0o777 {
        return Err(format!("{:#o} is not a file mode mask", living.umask));
    }
    if !(-20..=19).contains(&living.nice) {
        return Err(format!("{} is not a nice value", living.nice));
    }
    if !(-1000..=1000).contains(&living.oom_score_adj) {
        return Err(format!("{} is not an oom_score_adj", living.oom_score_adj));
    }
    Ok(())
}
