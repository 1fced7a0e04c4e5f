//! A file system that does nothing, on the same crate and the same serving threads as pinfold's: what every FUSE request
//! costs by itself. The reference of `cargo xtask bench`.
//!
//! `null_server DIR` mounts at DIR and serves until it is unmounted. It has one file, `file`, and takes any directory.

use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{Attr, OpenOptions, stat64};
use fuse_backend_rs::api::filesystem::{
    Context, Entry, FileSystem, FsOptions, ZeroCopyReader, ZeroCopyWriter,
};
use pinfold_fuse::{Superblock, attach, default_threads, serve::serve};

const REMEMBERED: Duration = Duration::from_secs(3600);
const FILE: u64 = 2;
const TEXT: &[u8] = b"max\n";

struct Null;

fn attributes(inode: u64) -> stat64 {
    let (mode, nlink) = if inode == FILE { (0o100_644, 1) } else { (0o40_755, 2) };
    Attr { ino: inode, mode, nlink, blksize: 4096, ..Attr::default() }.into()
}

fn entry(inode: u64) -> Entry {
    let attr = attributes(inode);
    Entry { inode, attr, attr_timeout: REMEMBERED, entry_timeout: REMEMBERED, ..Entry::default() }
}

impl FileSystem for Null {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, _: FsOptions) -> io::Result<FsOptions> {
        Ok(FsOptions::ASYNC_READ
            | FsOptions::ATOMIC_O_TRUNC
            | FsOptions::BIG_WRITES
            | FsOptions::MAX_PAGES
            | FsOptions::PARALLEL_DIROPS
            | FsOptions::HANDLE_KILLPRIV_V2
            | FsOptions::INIT_EXT)
    }

    fn lookup(&self, _: &Context, _: u64, name: &CStr) -> io::Result<Entry> {
        match name.to_bytes() {
            b"file" => Ok(entry(FILE)),
            _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    fn getattr(&self, _: &Context, inode: u64, _: Option<u64>) -> io::Result<(stat64, Duration)> {
        Ok((attributes(inode), REMEMBERED))
    }

    fn mkdir(&self, _: &Context, _: u64, _: &CStr, _: u32, _: u32) -> io::Result<Entry> {
        Ok(entry(3))
    }

    fn rmdir(&self, _: &Context, _: u64, _: &CStr) -> io::Result<()> {
        Ok(())
    }

    fn open(
        &self,
        _: &Context,
        _: u64,
        _: u32,
        _: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        Ok((None, OpenOptions::DIRECT_IO, None))
    }

    fn read(
        &self,
        _: &Context,
        _: u64,
        _: u64,
        to: &mut dyn ZeroCopyWriter,
        _: u32,
        offset: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        let text = if offset == 0 { TEXT } else { b"" };
        to.write_all(text)?;
        Ok(text.len())
    }

    fn write(
        &self,
        _: &Context,
        _: u64,
        _: u64,
        _: &mut dyn ZeroCopyReader,
        size: u32,
        _: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        Ok(size as usize)
    }

    fn release(
        &self,
        _: &Context,
        _: u64,
        _: u32,
        _: u64,
        _: bool,
        _: bool,
        _: Option<u64>,
    ) -> io::Result<()> {
        Ok(())
    }
}

fn run(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (superblock, mount) = Superblock::detached("null")?;
    let serving = serve(Arc::new(superblock.device), Null, default_threads(), || ())?;
    attach(mount, dir)?;
    serving.join();
    Ok(())
}

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: null_server DIR");
        return ExitCode::from(2);
    };
    match run(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("null_server: {error}");
            ExitCode::FAILURE
        }
    }
}
