//! Extended attributes of groups and control files: `trusted.`, `security.` and `user.`, as kernfs keeps them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use pinfold_model::{Forest, GroupGone, Xattrs};

use crate::attributes::file_attributes;
use crate::realm::state_path;
use crate::record::GroupText;
use crate::{Caller, EffectError, LookupError, Node, Realm, XattrError, XattrMode};

const CLASSES: [&[u8]; 3] = [b"trusted.", b"security.", b"user."];
/// KERNFS_MAX_USER_XATTRS and KERNFS_USER_XATTR_SIZE_LIMIT of include/linux/kernfs.h, here for all classes.
const MOST: usize = 128;
const MOST_BYTES: usize = 128 << 10;

impl Realm {
    /// The value of an attribute.
    pub fn xattr(&self, node: Node, name: &OsStr) -> Result<Vec<u8>, XattrError> {
        let xattrs = xattrs_of(&self.lock_forest(), node)?;
        xattrs.get(name.as_bytes()).cloned().ok_or_else(|| XattrError::NoAttribute(name.to_owned()))
    }

    /// The names of all attributes.
    pub fn xattr_names(&self, node: Node) -> Result<Vec<OsString>, XattrError> {
        let xattrs = xattrs_of(&self.lock_forest(), node)?;
        Ok(xattrs.into_keys().map(OsString::from_vec).collect())
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
        if !CLASSES.iter().any(|class| name.as_bytes().starts_with(class) && name.len() > class.len()) {
            return Err(XattrError::Class(name.to_owned()));
        }
        self.edit_xattrs(caller, node, |xattrs| {
            match (mode, xattrs.contains_key(name.as_bytes())) {
                (XattrMode::Create, true) => return Err(XattrError::Exists(name.to_owned())),
                (XattrMode::Replace, false) => return Err(XattrError::NoAttribute(name.to_owned())),
                _ => {}
            }
            xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
            let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            if xattrs.len() > MOST || bytes > MOST_BYTES {
                return Err(XattrError::NoRoom(name.to_owned()));
            }
            Ok(())
        })
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, caller: &Caller, node: Node, name: &OsStr) -> Result<(), XattrError> {
        self.edit_xattrs(caller, node, |xattrs| {
            xattrs.remove(name.as_bytes()).map(drop).ok_or_else(|| XattrError::NoAttribute(name.to_owned()))
        })
    }

    fn edit_xattrs(
        &self,
        caller: &Caller,
        node: Node,
        edit: impl FnOnce(&mut Xattrs) -> Result<(), XattrError>,
    ) -> Result<(), XattrError> {
        let _change = self.lock_change();
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

fn xattrs_of(forest: &Forest, node: Node) -> Result<Xattrs, XattrError> {
    let group = node.group();
    let found = forest.group(group).ok_or(LookupError::Gone(GroupGone(group)))?;
    Ok(match node {
        Node::Group(_) => found.xattrs().cloned().unwrap_or_default(),
        Node::File(_, file) => file_attributes(found, file).xattrs,
    })
}
