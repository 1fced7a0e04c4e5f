//! The file system of one mount: each request becomes one call to the realm, and its answer the reply.
//!
//! No rule lives here. Who may do what, which files there are and what a write means is the realm's; what the kernel
//! decides before it asks (permissions of cached attributes, names, kinds) is the kernel's (`default_permissions`).
//! What is here: inode numbers, snapshots of what is being read, how long the kernel may remember, and the errnos of
//! operations that no cgroup file system has.

use std::ffi::{CStr, OsStr};
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{Attr, CreateIn, OpenOptions, SetattrValid, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, FsOptions, GetxattrReply, ListxattrReply, ZeroCopyReader,
    ZeroCopyWriter,
};
use fuse_backend_rs::api::server::MAX_BUFFER_SIZE;
use pinfold_files::FileId;
use pinfold_model::{Errno, Gid, GroupId, HostPid, Uid};
use pinfold_realm::{AttributeChange, Caller, FrontEnd, LookupError, Node, Realm, RenameError, XattrMode};

use crate::listings::{Listing, Listings, Shown, from_cookie};
use crate::numbering::Numbering;
use crate::polls::{self, Polls, Waiter};
use crate::stat;
use crate::texts::Texts;

/// How long the kernel may remember names and attributes. It is told of every change that does not come through it.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The name of the longest component that can be looked up (statfs(2) only; the realm checks names).
const NAME_MAX: u64 = 255;

/// What this file system can do.
const CAPABILITIES: FsOptions = FsOptions::from_bits_truncate(
    FsOptions::ASYNC_READ.bits()
        // O_TRUNC comes with the open: `echo >` costs no SETATTR.
        | FsOptions::ATOMIC_O_TRUNC.bits()
        // A write of more than a page arrives whole, so that the realm can refuse it with E2BIG.
        | FsOptions::BIG_WRITES.bits()
        | FsOptions::MAX_PAGES.bits()
        | FsOptions::PARALLEL_DIROPS.bits()
        // No GETXATTR of security.capability before a write.
        | FsOptions::HANDLE_KILLPRIV_V2.bits()
        | FsOptions::DO_READDIRPLUS.bits()
        | FsOptions::READDIRPLUS_AUTO.bits()
        | FsOptions::INIT_EXT.bits(),
);

/// One mount's view of a hierarchy.
pub(crate) struct GroupFs {
    realm: Arc<Realm>,
    numbering: Numbering,
    via: FrontEnd,
    texts: Texts,
    listings: Listings,
    /// Who waits for a file; nobody before the kernel can be told.
    polls: Option<Polls>,
}

impl GroupFs {
    /// Shows the hierarchy below `root`. Changes that come through here are marked `via`.
    pub(crate) fn new(realm: Arc<Realm>, root: GroupId, via: FrontEnd) -> Self {
        Self {
            realm,
            numbering: Numbering::new(root),
            via,
            texts: Texts::default(),
            listings: Listings::default(),
            polls: None,
        }
    }

    /// Tells whoever waits for a file through this device.
    pub(crate) fn on(self, device: Arc<File>) -> Self {
        Self { polls: Some(Polls::new(Arc::clone(&self.realm), device)), ..self }
    }

    /// How changes that come through here are marked.
    pub(crate) fn via(&self) -> FrontEnd {
        self.via
    }

    /// Its inode numbers.
    pub(crate) fn numbering(&self) -> Numbering {
        self.numbering
    }

    fn caller(&self, context: &Context) -> Caller {
        Caller {
            uid: Uid(context.uid),
            gid: Gid(context.gid),
            // 0: in a pid namespace that the daemon's does not contain.
            task: u32::try_from(context.pid).ok().and_then(HostPid::new),
            via: self.via,
        }
    }

    fn node(&self, number: u64) -> io::Result<Node> {
        self.numbering.node(number).ok_or_else(|| refusal(Errno::ENOENT))
    }

    fn group(&self, number: u64) -> io::Result<GroupId> {
        match self.node(number)? {
            Node::Group(group) => Ok(group),
            Node::File(..) => Err(refusal(Errno::ENOTDIR)),
        }
    }

    fn file(&self, number: u64) -> io::Result<(GroupId, FileId)> {
        match self.node(number)? {
            Node::File(group, file) => Ok((group, file)),
            Node::Group(_) => Err(refusal(Errno::EISDIR)),
        }
    }

    fn attributes(&self, node: Node) -> Result<Attr, LookupError> {
        let attributes = self.realm.attributes(node)?;
        Ok(stat::attributes(self.numbering.number(node), node, &attributes))
    }

    fn entry(&self, node: Node) -> Result<Entry, LookupError> {
        let attributes = self.attributes(node)?;
        Ok(Entry { inode: attributes.ino, attr: attributes.into(), ..remembered() })
    }

    fn listing(&self, inode: u64, handle: u64, offset: u64) -> io::Result<Listing> {
        let group = self.group(inode)?;
        self.listings
            .at(handle, offset, || self.realm.list(group))
            .map_err(|error| refused("listing", error.errno(), &error))
    }

    fn dir_entry<'a>(&self, inode: u64, offset: u64, shown: Shown<'a>) -> DirEntry<'a> {
        let (ino, type_, name) = match shown {
            // Nobody trusts the number of `..`: the root's would be wrong as well.
            Shown::Dots(name) => (inode, libc::DT_DIR, name.as_bytes()),
            Shown::Named(name, node) => (self.numbering.number(node), kind(node), name.as_bytes()),
        };
        DirEntry { ino, offset, type_: type_.into(), name }
    }
}

fn kind(node: Node) -> u8 {
    match node {
        Node::Group(_) => libc::DT_DIR,
        Node::File(..) => libc::DT_REG,
    }
}

/// An entry that names nothing, to be remembered. As it stands: "there is no such name".
fn remembered() -> Entry {
    Entry { attr_timeout: REMEMBERED, entry_timeout: REMEMBERED, ..Entry::default() }
}

fn refusal(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.code())
}

/// The caller gets a number; the reason is in the log. EIO says nothing at all, and should not happen.
fn refused(what: impl Display, errno: Errno, error: &dyn std::error::Error) -> io::Error {
    match errno {
        Errno::EIO => tracing::warn!("{what}: {errno:?}: {}", pinfold_realm::chain(error)),
        _ => tracing::debug!("{what}: {errno:?}: {}", pinfold_realm::chain(error)),
    }
    refusal(errno)
}

fn of_file(request: &str, group: GroupId, file: FileId) -> String {
    format!("{request} of {} in group {group}", pinfold_files::full_name(file, false))
}

fn name(from: &CStr) -> &OsStr {
    OsStr::from_bytes(from.to_bytes())
}

impl FileSystem for GroupFs {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, _capable: FsOptions) -> io::Result<FsOptions> {
        Ok(CAPABILITIES)
    }

    fn lookup(&self, _: &Context, parent: u64, of: &CStr) -> io::Result<Entry> {
        let found = self.realm.lookup(self.group(parent)?, name(of)).and_then(|node| self.entry(node));
        match found {
            Ok(entry) => Ok(entry),
            Err(LookupError::NotFound(_)) => Ok(remembered()),
            // The path walk below a removed directory finds nothing.
            Err(LookupError::Gone(_)) => Err(refusal(Errno::ENOENT)),
        }
    }

    fn getattr(&self, _: &Context, inode: u64, _: Option<u64>) -> io::Result<(stat64, Duration)> {
        let attributes =
            self.attributes(self.node(inode)?).map_err(|error| refused("getattr", error.errno(), &error))?;
        Ok((attributes.into(), REMEMBERED))
    }

    /// chmod and chown. Truncation and times are accepted and change nothing, as the size of a control file is 0.
    fn setattr(
        &self,
        context: &Context,
        inode: u64,
        attr: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        let change = AttributeChange {
            mode: valid.contains(SetattrValid::MODE).then_some((attr.st_mode & 0o7777) as u16),
            uid: valid.contains(SetattrValid::UID).then_some(Uid(attr.st_uid)),
            gid: valid.contains(SetattrValid::GID).then_some(Gid(attr.st_gid)),
        };
        if change == AttributeChange::default() {
            return self.getattr(context, inode, handle);
        }
        let node = self.node(inode)?;
        match self.realm.set_attributes(&self.caller(context), node, change) {
            Ok(now) => Ok((stat::attributes(inode, node, &now).into(), REMEMBERED)),
            Err(error) => Err(refused("setattr", error.errno(), &error)),
        }
    }

    fn mkdir(&self, context: &Context, parent: u64, of: &CStr, mode: u32, _umask: u32) -> io::Result<Entry> {
        let mode = (mode & 0o7777) as u16;
        let made = self.realm.make(&self.caller(context), self.group(parent)?, name(of), mode);
        let group = made.map_err(|error| refused("mkdir", error.errno(), &error))?;
        self.entry(Node::Group(group)).map_err(|error| refused("mkdir", error.errno(), &error))
    }

    fn rmdir(&self, context: &Context, parent: u64, of: &CStr) -> io::Result<()> {
        let removed = self.realm.remove(&self.caller(context), self.group(parent)?, name(of));
        removed.map_err(|error| refused("rmdir", error.errno(), &error))
    }

    /// Source: cgroup1_rename(), kernfs_iop_rename(), which takes no flags.
    fn rename(
        &self,
        context: &Context,
        parent: u64,
        from: &CStr,
        new_parent: u64,
        to: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        if flags != 0 {
            return Err(refusal(Errno::EINVAL));
        }
        let (parent, new_parent) = (self.group(parent)?, self.group(new_parent)?);
        let renamed = self.realm.rename(&self.caller(context), parent, name(from), new_parent, name(to));
        renamed.map_err(|error| match error {
            // EIO as v1 has it, for whoever asks: no matter for the log.
            RenameError::OtherParent => refusal(error.errno()),
            error => refused("rename", error.errno(), &error),
        })
    }

    /// Source: lookup_open(), which says so of directories without a create operation.
    fn create(
        &self,
        _: &Context,
        _: u64,
        _: &CStr,
        _: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        Err(refusal(Errno::EACCES))
    }

    /// Source: vfs_mknod(), and likewise for the next three.
    /// kernfs has neither create() nor mknod(): vfs_create() and vfs_mknod() answer for it, each in its own way.
    fn mknod(&self, _: &Context, _: u64, _: &CStr, mode: u32, _: u32, _: u32) -> io::Result<Entry> {
        let regular = matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG);
        Err(refusal(if regular { Errno::EACCES } else { Errno::EPERM }))
    }

    fn symlink(&self, _: &Context, _: &CStr, _: u64, _: &CStr) -> io::Result<Entry> {
        Err(refusal(Errno::EPERM))
    }

    fn link(&self, _: &Context, _: u64, _: u64, _: &CStr) -> io::Result<Entry> {
        Err(refusal(Errno::EPERM))
    }

    fn unlink(&self, _: &Context, _: u64, _: &CStr) -> io::Result<()> {
        Err(refusal(Errno::EPERM))
    }

    /// Nothing is refused: a file that is gone says so when it is read or written, as the kernel's do.
    fn open(
        &self,
        context: &Context,
        inode: u64,
        flags: u32,
        _: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        let (_, file) = self.file(inode)?;
        let writes = flags.cast_signed() & libc::O_ACCMODE != libc::O_RDONLY;
        let opener = self.realm.opener(&self.caller(context), file, writes);
        Ok((Some(self.texts.open(opener)), OpenOptions::DIRECT_IO, None))
    }

    fn read(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        to: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        let (group, file) = self.file(inode)?;
        let make = || self.realm.read(&self.caller(context), group, file);
        let copy = |piece: &[u8]| to.write_all(piece).map(|()| piece.len());
        let copied = self.texts.read(handle, offset, size as usize, make, copy);
        copied.map_err(|error| refused(of_file("read", group, file), error.errno(), &error))?
    }

    /// One write is one change, wherever in the file it is meant to go: kernfs_fop_write_iter().
    fn write(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        from: &mut dyn ZeroCopyReader,
        size: u32,
        _: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        let (group, file) = self.file(inode)?;
        if size > MAX_BUFFER_SIZE {
            return Err(refusal(Errno::EINVAL));
        }
        let mut text = vec![0; size as usize];
        from.read_exact(&mut text)?;
        // The task is the writer's (`0` means it), the rights are the opener's.
        let written = self.realm.write(&self.caller(context), Texts::opener(handle), group, file, &text);
        written
            .map(|()| text.len())
            .map_err(|error| refused(of_file("write", group, file), error.errno(), &error))
    }

    fn release(
        &self,
        _: &Context,
        _: u64,
        _: u32,
        handle: u64,
        _: bool,
        _: bool,
        _: Option<u64>,
    ) -> io::Result<()> {
        self.texts.close(handle);
        if let Some(polls) = &self.polls {
            polls.forget(handle);
        }
        Ok(())
    }

    /// Source: kernfs_generic_poll().
    fn poll(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        kernel: u64,
        flags: u32,
        _: u32,
    ) -> io::Result<u32> {
        /// FUSE_POLL_SCHEDULE_NOTIFY: somebody waits.
        const WAITS: u32 = 1;
        let (group, file) = self.file(inode)?;
        let Some(seen) = self.texts.shown(handle) else { return Ok(polls::answer(true)) };
        if !pinfold_files::file(file).1.is_told() {
            return Ok(polls::answer(false));
        }
        let is_changed = self.realm.read(&self.caller(context), group, file).map_or(true, |now| now != seen);
        if let Some(polls) = self.polls.as_ref().filter(|_| !is_changed && flags & WAITS != 0) {
            polls.wait(handle, Waiter { kernel, group, file, seen });
        }
        Ok(polls::answer(is_changed))
    }

    /// Source: simple_statfs().
    fn statfs(&self, context: &Context, inode: u64) -> io::Result<statvfs64> {
        let mut empty = Defaults.statfs(context, inode)?;
        empty.f_bsize = stat::BLOCK_SIZE.into();
        empty.f_namemax = NAME_MAX;
        Ok(empty)
    }

    fn opendir(&self, _: &Context, _: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        Ok((Some(self.listings.open()), OpenOptions::empty()))
    }

    fn readdir(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        _: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        for (next, shown) in from_cookie(&self.listing(inode, handle, offset)?, offset) {
            if add(self.dir_entry(inode, next, shown))? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn readdirplus(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        _: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        for (next, shown) in from_cookie(&self.listing(inode, handle, offset)?, offset) {
            let entry = match shown {
                Shown::Dots(_) => Entry::default(),
                // A group that went since is listed all the same; without an inode number the kernel looks it up.
                Shown::Named(_, node) => self.entry(node).unwrap_or_default(),
            };
            if add(self.dir_entry(inode, next, shown), entry)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&self, _: &Context, _: u64, _: u32, handle: u64) -> io::Result<()> {
        self.listings.close(handle);
        Ok(())
    }

    fn setxattr(&self, context: &Context, inode: u64, of: &CStr, value: &[u8], flags: u32) -> io::Result<()> {
        let mode = match i32::try_from(flags) {
            Ok(libc::XATTR_CREATE) => XattrMode::Create,
            Ok(libc::XATTR_REPLACE) => XattrMode::Replace,
            _ => XattrMode::Set,
        };
        let set = self.realm.set_xattr(&self.caller(context), self.node(inode)?, name(of), value, mode);
        set.map_err(|error| refused("setxattr", error.errno(), &error))
    }

    fn getxattr(&self, _: &Context, inode: u64, of: &CStr, size: u32) -> io::Result<GetxattrReply> {
        let value = self
            .realm
            .xattr(self.node(inode)?, name(of))
            .map_err(|error| refused("getxattr", error.errno(), &error))?;
        Ok(match fitting(value, size)? {
            Fitting::Length(length) => GetxattrReply::Count(length),
            Fitting::Whole(value) => GetxattrReply::Value(value),
        })
    }

    fn listxattr(&self, context: &Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        let names = self
            .realm
            .xattr_names(&self.caller(context), self.node(inode)?)
            .map_err(|error| refused("listxattr", error.errno(), &error))?;
        let names = names.iter().flat_map(|name| [name.as_bytes(), &[0]].concat()).collect();
        Ok(match fitting(names, size)? {
            Fitting::Length(length) => ListxattrReply::Count(length),
            Fitting::Whole(names) => ListxattrReply::Names(names),
        })
    }

    fn removexattr(&self, context: &Context, inode: u64, of: &CStr) -> io::Result<()> {
        let removed = self.realm.remove_xattr(&self.caller(context), self.node(inode)?, name(of));
        removed.map_err(|error| refused("removexattr", error.errno(), &error))
    }
}

/// A file system of which nothing is said: where the first, empty `statvfs64` comes from.
struct Defaults;

impl FileSystem for Defaults {
    type Inode = u64;
    type Handle = u64;
}

/// What a caller with a buffer of some size gets.
enum Fitting {
    Length(u32),
    Whole(Vec<u8>),
}

/// getxattr(2): a buffer of size 0 asks for the length, one that is too small is ERANGE.
fn fitting(value: Vec<u8>, size: u32) -> io::Result<Fitting> {
    let length = u32::try_from(value.len()).map_err(|_| refusal(Errno::ERANGE))?;
    match size {
        0 => Ok(Fitting::Length(length)),
        size if size < length => Err(refusal(Errno::ERANGE)),
        _ => Ok(Fitting::Whole(value)),
    }
}
