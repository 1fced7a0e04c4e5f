//! What a request costs, against the null server.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::measure::{Step, by_turns};
use super::report::{Bound, Row};
use super::servers::{Ground, Sleeper};

/// Steps a round.
const COUNT: u32 = 400;

/// A control file of each kind, and the v2 file it is made from, if it is.
const FILES: &[(&str, &str)] = &[
    ("notify_on_release", "kept by pinfold"),
    ("freezer.state", "from the v2 file cgroup.events of one process's cell"),
    ("cpuacct.usage", "from the v2 file cpu.stat of one process's cell"),
    ("tasks", "from the v2 file cgroup.threads of one process's cell"),
];

/// Every row about requests.
pub(super) fn measure(ground: &Ground, rounds: usize) -> Result<Vec<Row>> {
    fs::create_dir(ground.pinfold("requests"))?;
    let resident = Sleeper::start()?;
    fs::write(ground.pinfold("requests/tasks"), resident.line())?;
    let mut rows = reads(ground, rounds)?;
    rows.push(stat(ground, rounds)?);
    rows.push(make_and_remove(ground, rounds)?);
    drop(resident);
    fs::remove_dir(ground.pinfold("requests"))?;
    Ok(rows)
}

fn reads(ground: &Ground, rounds: usize) -> Result<Vec<Row>> {
    let file = |name: &str| ground.pinfold(&format!("requests/{name}"));
    let mut rows = Vec::new();
    for (how, step) in
        [("open + read + close", open_read_close as fn(PathBuf) -> Result<Step<'static>>), ("pread", pread)]
    {
        for (name, made) in FILES.iter().filter(|(name, _)| file(name).exists()) {
            let mut steps = [step(ground.null("file"))?, step(file(name))?];
            let taken = by_turns(rounds, COUNT, &mut steps)?;
            let what = format!("{how} of `{name}` ({made})");
            rows.push(Row::compared(what, taken[1], "null server", taken[0], Bound::Times(1.5)));
        }
    }
    Ok(rows)
}

fn open_read_close(path: PathBuf) -> Result<Step<'static>> {
    let mut buffer = [0; 4096];
    Ok(Box::new(move || {
        ensure!(File::open(&path)?.read(&mut buffer)? > 0, "{} is empty", path.display());
        Ok(())
    }))
}

fn pread(path: PathBuf) -> Result<Step<'static>> {
    let mut buffer = [0; 4096];
    let file = File::open(&path)?;
    Ok(Box::new(move || {
        ensure!(file.read_at(&mut buffer, 0)? > 0, "{} is empty", path.display());
        Ok(())
    }))
}

fn stat(ground: &Ground, rounds: usize) -> Result<Row> {
    let step = |path: PathBuf| -> Step<'static> { Box::new(move || Ok(fs::metadata(&path).map(drop)?)) };
    let mut steps = [step(ground.null("file")), step(ground.pinfold("requests/tasks"))];
    let taken = by_turns(rounds, COUNT * 10, &mut steps)?;
    Ok(Row::compared(
        "stat of a control file".to_owned(),
        taken[1],
        "null server",
        taken[0],
        Bound::Times(1.5),
    ))
}

fn make_and_remove(ground: &Ground, rounds: usize) -> Result<Row> {
    let step = |path: PathBuf| -> Step<'static> {
        Box::new(move || {
            fs::create_dir(&path)?;
            Ok(fs::remove_dir(&path)?)
        })
    };
    let before = ground.v2_directories()?;
    fs::create_dir(ground.pinfold("made"))?;
    let made = ground.v2_directories()? - before;
    fs::remove_dir(ground.pinfold("made"))?;
    let mut steps = [step(ground.null("made")), step(ground.pinfold("made"))];
    let taken = by_turns(rounds, COUNT, &mut steps)?;
    let what = format!("mkdir + rmdir of a group ({made} v2 directories made)");
    Ok(Row::compared(what, taken[1], "null server", taken[0], Bound::Times(2.0)))
}
