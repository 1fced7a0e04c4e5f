//! Figures of which every open file has its own: a write to `memory.peak` starts it again for that open file, and for no
//! other (Linux 6.12).

use std::os::fd::OwnedFd;

use pinfold_model::Dir;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::{Tree, beneath};

/// An open file with a figure since it was opened.
#[derive(Debug)]
pub struct Since(OwnedFd);

impl Tree {
    /// Starts a figure again, for the file that is returned. A kernel that has one figure for all refuses the write.
    pub fn start_again(&self, dir: &Dir, file: &'static str) -> Result<Since, Errno> {
        let opened = beneath::open(&self.base, self.below_base(dir).join(file), OFlags::RDWR)?;
        beneath::put(&opened, b"reset")?;
        Ok(Since(opened))
    }
}

impl Since {
    /// What the file says. ENODEV: its directory is gone.
    pub fn read(&self) -> Result<String, Errno> {
        let content = beneath::read_at_once(&self.0)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&content).into_owned())
    }
}
