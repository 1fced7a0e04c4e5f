//! Files and directories below a descriptor: nothing here can leave the tree it was given.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Enough for one page: what kernfs hands out for most files in one read.
const PAGE: usize = 4096;

/// Room for a line of any list of the v2 tree: process numbers.
const LINE: usize = 32;

/// Opens something below `at`, neither through a link nor into another mount.
pub(crate) fn open(at: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Errno> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let path = path.as_ref();
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    rustix::fs::openat2(at, path, flags | OFlags::CLOEXEC, Mode::empty(), inside)
}

/// A file's whole content.
pub(crate) fn read(at: impl AsFd, path: impl AsRef<Path>) -> Result<Vec<u8>, Errno> {
    read_all(&open(at, path, OFlags::RDONLY)?)
}

/// A v2 file's whole content in one read from its start; `None` if there may be more of it.
///
/// A text comes whole if there is room for it, a list comes as many lines at a time as a page holds (seq_read_iter()).
/// So what leaves room for another line is all there is, and no further read has to say so.
pub(crate) fn read_at_once(file: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    let mut page = [MaybeUninit::uninit(); PAGE];
    loop {
        match rustix::io::pread(file, &mut page, 0) {
            Ok((content, _)) => return Ok(comes_at_once(content).then(|| content.to_vec())),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether [`read_at_once`] gets a content of this length.
pub(crate) const fn comes_at_once(content: &[u8]) -> bool {
    content.len() + LINE <= PAGE
}

/// What can still be read from a descriptor.
pub(crate) fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::with_capacity(PAGE);
    loop {
        let spare = content.capacity() - content.len();
        if spare < PAGE / 2 {
            content.reserve(content.capacity());
        }
        let before = content.len();
        match rustix::io::read(file, rustix::buffer::spare_capacity(&mut content)) {
            Ok(_) if content.len() == before => return Ok(content),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Writes a text into a file in one system call, as kernfs wants it.
pub(crate) fn write(at: impl AsFd, path: impl AsRef<Path>, text: &[u8]) -> Result<(), Errno> {
    put(&open(at, path, OFlags::WRONLY)?, text)
}

/// Writes a text in one system call. Where an open file of kernfs stands does not matter.
pub(crate) fn put(file: &OwnedFd, text: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::io::pwrite(file, text, 0) {
            Err(Errno::INTR) => {}
            answer => return answer.map(|_| ()),
        }
    }
}

/// The names of the directories in a directory.
pub(crate) fn subdirectories(at: impl AsFd, path: impl AsRef<Path>) -> Result<Vec<OsString>, Errno> {
    let directory = open(at, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    // Most have none: spare the listing of files.
    if is_flat(&directory)? {
        return Ok(Vec::new());
    }
    entries(directory, |kind| kind == FileType::Directory)
}

/// Whether there is no directory in a directory: kernfs_refresh_inode() counts them in the link count.
pub(crate) fn is_flat(directory: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstat(directory)?.st_nlink == 2)
}

/// The names of the files in a directory.
pub(crate) fn files(at: impl AsFd, path: impl AsRef<Path>) -> Result<Vec<OsString>, Errno> {
    entries(open(at, path, OFlags::RDONLY | OFlags::DIRECTORY)?, |kind| kind == FileType::RegularFile)
}

fn entries(directory: OwnedFd, wanted: impl Fn(FileType) -> bool) -> Result<Vec<OsString>, Errno> {
    let mut entries = rustix::fs::Dir::new(directory)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if wanted(entry.file_type()) && name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}

/// Whether a walk goes on below a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    Enter,
    Skip,
}

/// Visits a directory, then all below it that `visit` lets it enter, a parent before its children. Directories that
/// vanish meanwhile are passed over.
pub(crate) fn walk(
    at: BorrowedFd<'_>,
    start: PathBuf,
    visit: &mut dyn FnMut(&Path) -> Result<Below, Errno>,
) -> Result<(), Errno> {
    let mut waiting = vec![start];
    while let Some(path) = waiting.pop() {
        match visit(&path) {
            Ok(Below::Enter) => {}
            Ok(Below::Skip) => continue,
            Err(errno) if is_gone(errno) => continue,
            Err(errno) => return Err(errno),
        }
        match subdirectories(at, &path) {
            Ok(names) => waiting.extend(names.into_iter().map(|name| path.join(name))),
            Err(errno) if is_gone(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Whether an error says that a directory is not there any more: ENOENT for a path that leads nowhere, ENODEV for an
/// open file of a removed directory (kernfs_get_active()).
pub(crate) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV)
}
