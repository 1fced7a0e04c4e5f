//! Extended attributes of groups and control files: `trusted.`, `security.` and `user.`, as kernfs keeps them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use pinfold_model::{Forest, GroupGone, Xattrs};

use crate::attributes::file_attributes;
use crate::realm::{Changes, state_path};
use crate::record::{GroupText, xattr_text};
use crate::write::may_administer;
use crate::{Caller, EffectError, LookupError, Node, Realm, XattrError, XattrMode};

const CLASSES: [&[u8]; 3] = [b"trusted.", b"security.", b"user."];
/// KERNFS_MAX_USER_XATTRS and KERNFS_USER_XATTR_SIZE_LIMIT of include/linux/kernfs.h: values of class `user.`.
const MOST: usize = 128;
const MOST_BYTES: usize = 128 << 10;
/// The kernel has no bound on what root sets; a daemon had better have one.
const MOST_IN_ALL: usize = 1024;
/// What others than the host's root keep, names too, of class `user.` for a group and its files together, as it is written down: what
/// cannot be printed takes four times as much. The kernel has each file hold
/// 128 KiB, and charges it to whoever wrote it; the daemon would pay for it here, and a user may have 10,000 groups.
const MOST_BYTES_OF_OTHERS: usize = 8 << 10;

impl Realm {
    /// The value of an attribute.
    pub fn xattr(&self, node: Node, name: &OsStr) -> Result<Vec<u8>, XattrError> {
        let xattrs = xattrs_of(&self.lock_forest(), node)?;
        xattrs.get(name.as_bytes()).cloned().ok_or_else(|| XattrError::NoAttribute(name.to_owned()))
    }

    /// The names of all attributes; those of class `trusted.` only for who may read them: simple_xattr_list().
    pub fn xattr_names(&self, caller: &Caller, node: Node) -> Result<Vec<OsString>, XattrError> {
        let xattrs = xattrs_of(&self.lock_forest(), node)?;
        let hidden = |name: &Vec<u8>| name.starts_with(b"trusted.") && !may_administer(caller);
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
        let change = self.begin_change()?;
        self.set_xattr_locked(&change, caller, node, name, value, mode)
    }

    pub(crate) fn set_xattr_locked(
        &self,
        change: &Changes,
        caller: &Caller,
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
            xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
            let users = xattrs.iter().filter(|(name, _)| name.starts_with(b"user."));
            let (count, bytes) =
                users.fold((0, 0), |(count, bytes), (_, value)| (count + 1, bytes + value.len()));
            let is_too_much = || {
                !may_administer(caller)
                    && user_bytes(xattrs) + user_bytes_beside(&self.lock_forest(), node)
                        > MOST_BYTES_OF_OTHERS
            };
            if count > MOST || bytes > MOST_BYTES || xattrs.len() > MOST_IN_ALL || is_too_much() {
                return Err(XattrError::NoRoom(name.to_owned()));
            }
            Ok(())
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
        edit(&mut xattrs)?;
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
        self.tell_attributes(caller, node);
        Ok(())
    }
}

/// How much there is of class `user.`.
fn user_bytes(xattrs: &Xattrs) -> usize {
    let users = xattrs.iter().filter(|(name, _)| name.starts_with(b"user."));
    users.map(|(name, value)| xattr_text(name, value).len()).sum()
}

/// The same of a group and its files, but for one of these.
fn user_bytes_beside(forest: &Forest, node: Node) -> usize {
    let Some(group) = forest.group(node.group()) else { return 0 };
    let (of_group, skipped) = match node {
        Node::Group(_) => (0, None),
        Node::File(_, file) => (group.xattrs().map_or(0, user_bytes), Some(file.get())),
    };
    let files = group.files_with_attributes().filter(|(file, _)| Some(*file) != skipped);
    of_group + files.map(|(_, attributes)| user_bytes(&attributes.xattrs)).sum::<usize>()
}

fn xattrs_of(forest: &Forest, node: Node) -> Result<Xattrs, XattrError> {
    let group = node.group();
    let found = forest.group(group).ok_or(LookupError::Gone(GroupGone(group)))?;
    Ok(match node {
        Node::Group(_) => found.xattrs().cloned().unwrap_or_default(),
        Node::File(_, file) => file_attributes(found, file).xattrs,
    })
}
