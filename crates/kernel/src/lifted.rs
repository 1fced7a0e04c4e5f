//! Limits that a directory must not have when it goes: those of RDMA devices.
//!
//! The kernel keeps what it has for such a limit in the device's list when the directory goes, and follows it there when the device does:
//! into memory that is freed by then. Where nothing is limited, it keeps nothing. Source: kernel/cgroup/rdma.c, rdmacg_css_offline(),
//! rdmacg_resource_set_max(), rdmacg_unregister_device(); seen on Linux 6.1 and 6.12.

use std::path::Path;

use rustix::io::Errno;

use crate::Tree;
use crate::beneath;

/// Its controller, and its file: `mlx4_0 hca_handle=2 hca_object=max`, a line for each device.
const CONTROLLER: &str = "rdma";
const FILE: &str = "rdma.max";

/// The limits that a directory had.
#[must_use]
pub(crate) struct Lifted(Vec<String>);

impl Tree {
    /// Lifts the limits of a directory that is about to go. What cannot be lifted is as it was.
    pub(crate) fn lift(&self, below_base: &Path) -> Lifted {
        if !self.available.contains(CONTROLLER) {
            return Lifted(Vec::new());
        }
        let content = beneath::read(&self.base, below_base.join(FILE)).unwrap_or_default();
        let limits = limits(&String::from_utf8_lossy(&content));
        let lifted = |limit: &String| self.put_limit(below_base, &without(limit)).is_ok();
        Lifted(limits.into_iter().filter(lifted).collect())
    }

    /// The directory is still there: so are its limits.
    pub(crate) fn limit_again(&self, below_base: &Path, lifted: &Lifted) -> Result<(), Errno> {
        lifted.0.iter().try_for_each(|limit| match self.put_limit(below_base, limit) {
            // The device, or the directory.
            Err(errno) if beneath::is_gone(errno) => Ok(()),
            answer => answer,
        })
    }

    fn put_limit(&self, below_base: &Path, entry: &str) -> Result<(), Errno> {
        beneath::write(&self.base, below_base.join(FILE), entry.as_bytes())
    }
}

/// The lines that limit something.
fn limits(content: &str) -> Vec<String> {
    let limits = |line: &&str| line.split_ascii_whitespace().skip(1).any(|figure| !figure.ends_with("=max"));
    content.lines().filter(limits).map(|line| line.trim_end().to_owned()).collect()
}

/// The same, without a limit.
fn without(limit: &str) -> String {
    let mut words = limit.split_ascii_whitespace();
    let device = words.next().unwrap_or_default().to_owned();
    let names = words.filter_map(|figure| figure.split('=').next());
    names.fold(device, |text, name| format!("{text} {name}=max"))
}

#[cfg(test)]
mod tests {
    use super::{limits, without};

    #[test]
    fn what_limits_something_is_lifted_device_by_device() {
        let content = "mlx4_0 hca_handle=2 hca_object=max \nmlx5_0 hca_handle=max hca_object=max \nrxe0 hca_handle=max hca_object=0 \n";
        let found = limits(content);
        assert_eq!(found, ["mlx4_0 hca_handle=2 hca_object=max", "rxe0 hca_handle=max hca_object=0"]);
        assert_eq!(without(&found[0]), "mlx4_0 hca_handle=max hca_object=max");
        assert_eq!(limits(""), [""; 0]);
    }
}
