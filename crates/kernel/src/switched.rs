//! What was switched on in a base for a realm: kept on the realm directory itself, so that a daemon that was killed and
//! started again still undoes it, and the last of several realms undoes it for all.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::fs::{OFlags, XattrFlags};
use rustix::io::Errno;

use crate::tree::words;
use crate::{Tree, beneath};

/// The attribute's name.
const SWITCHED_ON: &str = "user.pinfold.switched_on";

/// The longest list that is read: there are some fifteen controllers with names of up to ten letters.
const LONGEST: usize = 1024;

impl Tree {
    /// What was switched on for the realm whose directory in the base this is.
    pub(crate) fn remembered(&self, realm: &str) -> BTreeSet<String> {
        let mut value = [0; LONGEST];
        let read =
            self.directory(realm).and_then(|dir| rustix::fs::fgetxattr(&dir, SWITCHED_ON, &mut value[..]));
        read.map(|length| words(&value[..length])).unwrap_or_default()
    }

    /// Best effort: where the kernel keeps no user attributes (before 5.7), a killed daemon leaves controllers on.
    pub(crate) fn remember(&self, realm: &str, controllers: &BTreeSet<String>) {
        let value = controllers.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let _ = self
            .directory(realm)
            .and_then(|dir| rustix::fs::fsetxattr(&dir, SWITCHED_ON, value.as_bytes(), XattrFlags::empty()));
    }

    fn directory(&self, realm: &str) -> Result<std::os::fd::OwnedFd, Errno> {
        beneath::open(&self.base, Path::new(realm), OFlags::RDONLY | OFlags::DIRECTORY)
    }
}
