//! Whether the tree is as rustfmt would write it.

use crate::workspace::{cargo, run};
use anyhow::Result;

/// Fails, and shows where, if rustfmt would change a file.
pub fn check() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}
