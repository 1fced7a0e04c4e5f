//! What there is: controllers, hierarchies, groups, control files.

use pinfold_dbus::wire::{Child, Key};
use serde::Serialize;

use crate::args::{GroupArgs, ListArgs, LsArgs, TreeArgs};
use crate::{output, resolve};

/// `pinfold controllers`.
pub(crate) fn controllers(args: &ListArgs) -> anyhow::Result<()> {
    let controllers = resolve::client(&args.realm)?.list_controllers()?;
    if args.output.json {
        return output::json(&controllers);
    }
    let rows: Vec<_> = controllers
        .into_iter()
        .map(|controller| {
            let (hierarchy, groups) = match controller.hierarchy {
                0 => ("-".to_owned(), "-".to_owned()),
                id => (id.to_string(), controller.groups.to_string()),
            };
            let about = match controller.unusable.as_str() {
                "" => controller.about,
                why => format!("not usable here: {why}"),
            };
            [controller.name, hierarchy, groups, about]
        })
        .collect();
    output::table(["CONTROLLER", "HIERARCHY", "GROUPS", "ABOUT"], &rows)
}

/// `pinfold hierarchies`.
pub(crate) fn hierarchies(args: &ListArgs) -> anyhow::Result<()> {
    let hierarchies = resolve::client(&args.realm)?.list_hierarchies()?;
    if args.output.json {
        return output::json(&hierarchies);
    }
    let rows: Vec<_> = hierarchies
        .into_iter()
        .map(|h| [h.id.to_string(), h.groups.to_string(), h.mounts.to_string(), h.label])
        .collect();
    output::table(["ID", "GROUPS", "MOUNTS", "CONTROLLERS"], &rows)
}

/// A group and those in it.
#[derive(Serialize, Debug)]
struct Branch {
    hierarchy: String,
    path: String,
    groups: Vec<Branch>,
}

/// `pinfold tree`.
pub(crate) fn tree(args: &TreeArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    let children = client.list_children(&args.group, true)?;
    // A hierarchy whose group has no children is shown too, so the keys say which hierarchies there are.
    let mut labels: Vec<String> = Vec::new();
    for key in client.list_keys(&args.group)? {
        if labels.last() != Some(&key.hierarchy) {
            labels.push(key.hierarchy);
        }
    }
    let path = args.group.path.to_string();
    let trees: Vec<_> = labels.into_iter().map(|label| branch(label, path.clone(), &children)).collect();
    if args.output.json {
        return output::json(&trees);
    }
    output::text(&trees.iter().map(drawn).collect::<String>())
}

/// The tree at a path, from the flat list, which has parents before their children.
fn branch(hierarchy: String, path: String, children: &[Child]) -> Branch {
    let children = children.iter().filter(|child| child.hierarchy == hierarchy);
    let mut top = Branch { hierarchy: hierarchy.clone(), path, groups: Vec::new() };
    children.for_each(|child| insert(&mut top, child));
    top
}

fn insert(top: &mut Branch, child: &Child) {
    let mut parent = top;
    // The last group listed is the only one that can have this child below it: lists are depth first.
    while parent.groups.last().is_some_and(|last| is_below(&last.path, &child.path)) {
        parent = parent.groups.last_mut().expect("the loop's condition looked at it");
    }
    let (hierarchy, path) = (child.hierarchy.clone(), child.path.clone());
    parent.groups.push(Branch { hierarchy, path, groups: Vec::new() });
}

fn is_below(above: &str, path: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

fn drawn(top: &Branch) -> String {
    let mut out = format!("{}:{}\n", top.hierarchy, top.path);
    draw_below(top, "", &mut out);
    out
}

fn draw_below(parent: &Branch, indent: &str, out: &mut String) {
    let last = parent.groups.len().saturating_sub(1);
    for (position, child) in parent.groups.iter().enumerate() {
        let name = child.path.rsplit('/').next().unwrap_or_default();
        let (tee, bar) = if position == last { ("└── ", "    ") } else { ("├── ", "│   ") };
        out.push_str(&format!("{indent}{tee}{name}\n"));
        draw_below(child, &format!("{indent}{bar}"), out);
    }
}

/// What `ls` lists.
#[derive(Serialize, Debug)]
struct Listing {
    files: Vec<Key>,
    groups: Vec<Child>,
}

/// `pinfold ls`.
pub(crate) fn ls(args: &LsArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    let listing =
        Listing { files: client.list_keys(&args.group)?, groups: client.list_children(&args.group, false)? };
    if args.output.json {
        return output::json(&listing);
    }
    let mut labels: Vec<&str> = listing.files.iter().map(|file| file.hierarchy.as_str()).collect();
    labels.dedup();
    for label in &labels {
        if labels.len() > 1 {
            output::text(&format!("{label}:{}\n", args.group.path))?;
        }
        output::text(&listed(&listing, label, args.long))?;
    }
    Ok(())
}

/// `pinfold keys`.
pub(crate) fn keys(args: &GroupArgs) -> anyhow::Result<()> {
    let keys = resolve::client(&args.realm)?.list_named_keys(&args.group)?;
    if args.output.json {
        return output::json(&keys);
    }
    let rows: Vec<_> = keys
        .into_iter()
        .map(|key| {
            let set_by = if key.set_by.is_empty() { "-".to_owned() } else { key.set_by };
            [key.hierarchy, key.name, set_by, key.unit, key.kind, key.files.join(", ")]
        })
        .collect();
    output::table(["HIERARCHY", "KEY", "SET BY", "UNIT", "VALUE", "FILES"], &rows)
}

/// The files and groups of one hierarchy, a line each.
fn listed(listing: &Listing, label: &str, long: bool) -> String {
    let files = listing.files.iter().filter(|file| file.hierarchy == label);
    let files = files.map(|file| line(long, '-', file.mode, (file.uid, file.gid), &file.name));
    let groups = listing.groups.iter().filter(|group| group.hierarchy == label).map(|group| {
        let name = group.path.rsplit('/').next().unwrap_or_default();
        line(long, 'd', group.mode, (group.uid, group.gid), &format!("{name}/"))
    });
    files.chain(groups).collect()
}

fn line(long: bool, kind: char, mode: u32, (uid, gid): (u32, u32), name: &str) -> String {
    if long { format!("{kind}{} {uid:5} {gid:5} {name}\n", permissions(mode)) } else { format!("{name}\n") }
}

/// `rw-r--r--`.
fn permissions(mode: u32) -> String {
    let bits = (0..9).rev().zip("rwxrwxrwx".chars());
    bits.map(|(bit, letter)| if mode >> bit & 1 == 1 { letter } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Child, branch, drawn, permissions};

    fn child(path: &str) -> Child {
        Child { hierarchy: "pids".to_owned(), path: path.to_owned(), uid: 0, gid: 0, mode: 0o755 }
    }

    #[test]
    fn a_flat_list_is_drawn_as_a_tree() {
        let children: Vec<_> = ["/a", "/a/b", "/a/b/c", "/a/d", "/ab", "/e"].map(child).into();
        let tree = branch("pids".to_owned(), "/".to_owned(), &children);
        let expected = "pids:/\n├── a\n│   ├── b\n│   │   └── c\n│   └── d\n├── ab\n└── e\n";
        assert_eq!(drawn(&tree), expected);
    }

    #[test]
    fn permission_bits_read_as_ls_shows_them() {
        assert_eq!(permissions(0o755), "rwxr-xr-x");
        assert_eq!(permissions(0o200), "-w-------");
        assert_eq!(permissions(0o100_644), "rw-r--r--");
    }
}
