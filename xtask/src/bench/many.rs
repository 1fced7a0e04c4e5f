//! A hundred thousand groups: whether the last is made as fast as the first, and what memory each takes.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::measure::median;
use super::report::{Bound, Row};
use super::servers::Ground;

/// Groups that are timed together. What interrupts one lot does not spoil a row: the median of ten lots counts.
const LOT: u32 = 100;
const LOTS: usize = 10;

/// Both rows about many groups.
pub(super) fn measure(ground: &Ground, groups: u32) -> Result<Vec<Row>> {
    let dir = ground.pinfold("many");
    fs::create_dir(&dir)?;
    let before = ground.memory()?;
    let mut lots = Vec::new();
    for first in (0..groups).step_by(LOT as usize) {
        let start = Instant::now();
        for number in first..first + LOT {
            fs::create_dir(dir.join(format!("group-{number}")))?;
        }
        lots.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(LOT));
    }
    let each = (ground.memory()? - before) / f64::from(groups);
    remove_all(&dir)?;
    let first = median(lots[..LOTS.min(lots.len())].to_vec());
    let last = median(lots[lots.len().saturating_sub(LOTS)..].to_vec());
    let what = format!("mkdir, the last 1,000 of {groups} in one group");
    Ok(vec![
        Row::compared(what, last, "the first 1,000", first, Bound::Times(1.5)),
        Row {
            what: format!("memory of the daemon for each of {groups} groups"),
            measured: each,
            unit: "bytes",
            reference: None,
            bound: Bound::AtMost(1024.0),
        },
    ])
}

fn remove_all(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        }
    }
    Ok(fs::remove_dir(dir)?)
}
