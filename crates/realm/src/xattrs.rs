//! Extended attributes of groups and control files: `trusted.`, `security.` and `user.`, as kernfs keeps them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use pinfold_model::{FileAttributes, Forest, Group, GroupGone, Xattrs};

use crate::attributes::file_attributes;
use crate::realm::{Changes, is_trusted, state_path};
use crate::record::{GroupText, xattr_text};
use crate::write::may_administer;
use crate::{Caller, EffectError, LookupError, Node, Realm, XattrError, XattrMode};

/// The class that only the host's root sets.
const TRUSTED: &[u8] = b"trusted.";
const CLASSES: [&[u8]; 3] = [TRUSTED, b"security.", b"user."];
/// KERNFS_MAX_USER_XATTRS and KERNFS_USER_XATTR_SIZE_LIMIT of include/linux/kernfs.h: values of class `user.`.
const MOST: usize = 128;
const MOST_BYTES: usize = 128 << 10;
/// The kernel has no bound on what root sets; a daemon had better have one.
const MOST_IN_ALL: usize = 1024;
/// What others than the host's root keep, names too, for a group and its files together, as it is written down: what
/// cannot be printed takes four times as much. The kernel has each file hold
/// 128 KiB, and charges it to whoever wrote it; the daemon would pay for it here, and a user may have 10,000 groups.
const MOST_BYTES_OF_OTHERS: u64 = 8 << 10;
/// What an attribute takes besides that, about: so much is counted for each where those of all groups are.
const BESIDE: u64 = 64;

impl Realm {
    /// The value of an attribute.
    pub fn xattr(&self, node: Node, name: &OsStr) -> Result<Vec<u8>, XattrError> {
        let xattrs = xattrs_of(&self.lock_forest(), node)?;
        xattrs.get(name.as_bytes()).cloned().ok_or_else(|| XattrError::NoAttribute(name.to_owned()))
    }

    /// The names of all attributes; those of class `trusted.` only for who may read them: simple_xattr_list().
    pub fn xattr_names(&self, caller: &Caller, node: Node) -> Result<Vec<OsString>, XattrError> {
        let xattrs = xattrs_of(&self.lock_forest(), node)?;
        let hidden = |name: &Vec<u8>| name.starts_with(TRUSTED) && !may_administer(caller);
        Ok(xattrs.into_keys().filter(|name| !hidden(name)).map(OsString::from_vec).collect())
    }

    /// Sets an attribute.
    pub fn set_xattr(
        &self,
        caller: &Caller,
        node: Node,
        name: &OsStr,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), XattrError> {
        // Found out before others have to wait.
        let is_the_hosts = self.is_the_hosts(caller);
        let change = self.begin_change()?;
        self.set_xattr_locked(&change, caller, is_the_hosts, node, name, value, mode)
    }

    /// [`Self::set_xattr`], where it is known whether the caller is held to what others than the host's root keep.
    #[expect(clippy::too_many_arguments, reason = "as setxattr(2), and who asks")]
    pub(crate) fn set_xattr_locked(
        &self,
        change: &Changes,
        caller: &Caller,
        is_the_hosts: bool,
        node: Node,
        name: &OsStr,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), XattrError> {
        match CLASSES.iter().find_map(|class| name.as_bytes().strip_prefix(*class)) {
            None => return Err(XattrError::Class(name.to_owned())),
            Some([]) => return Err(XattrError::NoName(name.to_owned())),
            Some(_) => {}
        }
        self.edit_xattrs(change, caller, node, |xattrs| {
            match (mode, xattrs.contains_key(name.as_bytes())) {
                (XattrMode::Create, true) => return Err(XattrError::Exists(name.to_owned())),
                (XattrMode::Replace, false) => return Err(XattrError::NoAttribute(name.to_owned())),
                _ => {}
            }
            let before = (written(xattrs), weight(xattrs));
            xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
            let users = xattrs.iter().filter(|(name, _)| name.starts_with(b"user."));
            let (count, bytes) =
                users.fold((0, 0), |(count, bytes), (_, value)| (count + 1, bytes + value.len()));
            if count > MOST || bytes > MOST_BYTES || xattrs.len() > MOST_IN_ALL {
                return Err(XattrError::NoRoom(name.to_owned()));
            }
            let more = (written(xattrs).saturating_sub(before.0), weight(xattrs).saturating_sub(before.1));
            if is_the_hosts || more == (0, 0) {
                return Ok(());
            }
            let forest = self.lock_forest();
            let found = forest.group(node.group()).ok_or(LookupError::Gone(GroupGone(node.group())))?;
            if of_each(found).map(written).sum::<u64>() + more.0 > MOST_BYTES_OF_OTHERS {
                return Err(XattrError::NoRoom(name.to_owned()));
            }
            Ok(forest.may_keep(node.group(), more.1, is_trusted, &self.config.limits)?)
        })
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, caller: &Caller, node: Node, name: &OsStr) -> Result<(), XattrError> {
        let change = self.begin_change()?;
        self.edit_xattrs(&change, caller, node, |xattrs| {
            xattrs.remove(name.as_bytes()).map(drop).ok_or_else(|| XattrError::NoAttribute(name.to_owned()))
        })
    }

    fn edit_xattrs(
        &self,
        _change: &Changes,
        caller: &Caller,
        node: Node,
        edit: impl FnOnce(&mut Xattrs) -> Result<(), XattrError>,
    ) -> Result<(), XattrError> {
        let mut xattrs = xattrs_of(&self.lock_forest(), node)?;
        let before = weight(&xattrs);
        edit(&mut xattrs)?;
        let now = weight(&xattrs);
        match node {
            Node::File(group, file) => {
                self.edit_file(group, file, |attributes| attributes.xattrs = xattrs)?
            }
            Node::Group(group) => {
                let (path, text) = {
                    let forest = self.lock_forest();
                    let gone = || LookupError::Gone(GroupGone(group));
                    let now = GroupText::of(&forest, group).ok_or_else(gone)?;
                    let text = GroupText { xattrs: Some(&xattrs), ..now }.print();
                    (state_path(&forest, group).ok_or_else(gone)?, text)
                };
                self.state.write_settings(&path, &text).map_err(EffectError::from)?;
                if let Some(found) = self.lock_forest().group_mut(group) {
                    found.set_xattrs(xattrs);
                }
            }
        }
        self.lock_forest().count_attributes(node.group(), before, now);
        self.tell_attributes(caller, node);
        Ok(())
    }
}

/// How much room the attributes of a group and of its files take, that count for somebody.
pub(crate) fn weight_of(group: &Group) -> u64 {
    of_each(group).map(weight).sum()
}

/// Those of a group, and of each of its files.
fn of_each(group: &Group) -> impl Iterator<Item = &Xattrs> {
    let of_files = group.files_with_attributes().map(|(_, FileAttributes { xattrs, .. })| xattrs);
    group.xattrs().into_iter().chain(of_files)
}

fn weight(xattrs: &Xattrs) -> u64 {
    written(xattrs) + counted(xattrs).map(|_| BESIDE).sum::<u64>()
}

/// How many bytes they are written down with.
fn written(xattrs: &Xattrs) -> u64 {
    counted(xattrs).map(|(name, value)| xattr_text(name, value).len() as u64).sum()
}

/// Those that others than the host's root may have set.
fn counted(xattrs: &Xattrs) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
    xattrs.iter().filter(|(name, _)| !name.starts_with(TRUSTED))
}

fn xattrs_of(forest: &Forest, node: Node) -> Result<Xattrs, XattrError> {
    let group = node.group();
    let found = forest.group(group).ok_or(LookupError::Gone(GroupGone(group)))?;
    Ok(match node {
        Node::Group(_) => found.xattrs().cloned().unwrap_or_default(),
        Node::File(_, file) => file_attributes(found, file).xattrs,
    })
}
