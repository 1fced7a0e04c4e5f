//! The files of a directory of the table: named, and their texts made, as those of the v2 tree that they stand for.

use std::path::PathBuf;

use pinfold_kernel::process::{self, Vitals};
use pinfold_kernel::{Events, ReadError, Where};
use pinfold_model::{Dir, HostPid};

use super::accounts::Usage;
use super::ledger::Ledger;
use super::table::{Files, Table};

/// The file whose figures nobody knows who did not count in time.
pub(crate) const COUNTED: &str = "cpu.stat";

/// What every directory has.
pub(super) const FILES: [&str; 9] = [
    "cgroup.events",
    "cgroup.freeze",
    COUNTED,
    "cpuset.cpus",
    "cpuset.mems",
    "pids.current",
    "pids.events",
    "pids.max",
    "pids.peak",
];

impl Table {
    /// The text of a file.
    pub(super) fn text(
        &mut self,
        at: Where<'_>,
        file: &'static str,
        ledger: &mut Ledger,
    ) -> Result<String, ReadError> {
        let no_file = |dir: String| ReadError::NoFile { path: PathBuf::from(dir).join(file) };
        let dir = match at {
            Where::Base => return base_text(file).ok_or_else(|| no_file("/proc".to_owned())),
            Where::Dir(dir) => dir,
        };
        if file == "pids.peak" {
            // Nobody has looked since whoever is there came, or it has more threads than processes were counted.
            let now = self.tasks(dir)?;
            let files = self.dirs.get_mut(dir).filter(|files| files.peak < now);
            self.is_dirty |= files.is_some();
            files.into_iter().for_each(|files| files.peak = now);
        }
        if matches!(file, "pids.events" | "pids.peak") && self.is_dirty {
            // What is told is not taken back by the next daemon. If it cannot be written, the log says so.
            let _ = ledger.note_told(self, dir);
        }
        let files = self.files(dir)?.clone();
        Ok(match file {
            "cgroup.events" => {
                let Events { populated, frozen } = self.events(dir, ledger)?;
                format!("populated {}\nfrozen {}\n", u8::from(populated), u8::from(frozen))
            }
            "cgroup.freeze" => format!("{}\n", u8::from(files.freeze)),
            COUNTED => cpu_stat(self.used(dir, ledger)),
            "cpuset.cpus" => format!("{}\n", list(&files.cpus)),
            "cpuset.mems" => format!("{}\n", files.mems),
            "pids.current" => format!("{}\n", self.tasks(dir)?),
            "pids.events" => format!("max {}\n", files.failed),
            "pids.max" => files.most.map_or_else(|| "max\n".to_owned(), |most| format!("{most}\n")),
            "pids.peak" => format!("{}\n", files.peak),
            _ => return Err(no_file(dir.to_string())),
        })
    }

    /// The tasks in a directory and all below it.
    fn tasks(&self, dir: &Dir) -> Result<u64, ReadError> {
        match &self.tree {
            Some(tree) => Ok(tree.threads(dir)?.len() as u64),
            None => Ok(tasks(&self.below(dir))),
        }
    }

    pub(super) fn files(&self, dir: &Dir) -> Result<&Files, ReadError> {
        self.dirs.get(dir).ok_or_else(|| ReadError::Gone { path: dir.to_string().into() })
    }

    /// Whether a directory has processes, and whether all of them stand still because they have to.
    pub(super) fn events(&mut self, dir: &Dir, ledger: &mut Ledger) -> Result<Events, ReadError> {
        let populated = self.files(dir)?.processes > 0;
        let frozen = self.is_frozen(dir)
            && self.below(dir).into_iter().all(|process| self.keep_still(process, ledger).unwrap_or(false));
        Ok(Events { populated, frozen })
    }
}

fn tasks(processes: &[HostPid]) -> u64 {
    processes
        .iter()
        .filter_map(|process| Vitals::of(*process).ok())
        .map(|vitals| u64::from(vitals.tasks))
        .sum()
}

/// What the root of all knows: of the machine, as the root of a v2 tree does.
fn base_text(file: &str) -> Option<String> {
    match file {
        "cpuset.cpus.effective" => Some(format!("{}\n", list(&process::own_affinity()))),
        COUNTED => {
            let stat = std::fs::read_to_string("/proc/stat").ok()?;
            let mut fields = stat.lines().next()?.strip_prefix("cpu")?.split_ascii_whitespace();
            let mut next = || fields.next()?.parse::<u64>().ok();
            let (user, nice, system, _idle, _wait) = (next()?, next()?, next()?, next()?, next()?);
            let interrupts = next().unwrap_or(0).saturating_add(next().unwrap_or(0));
            Some(cpu_stat(Usage { user: user + nice, system: system + interrupts }))
        }
        _ => None,
    }
}

fn cpu_stat(used: Usage) -> String {
    let hz = rustix::param::clock_ticks_per_second().max(1);
    let [user, system] = [used.user, used.system].map(|ticks| ticks.saturating_mul(1_000_000) / hz);
    format!("usage_usec {}\nuser_usec {user}\nsystem_usec {system}\n", user.saturating_add(system))
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Numbers and ranges between commas, as v2 takes them. `None`: something else.
pub(super) fn parse_list(text: &str) -> Option<Vec<usize>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    crate::facts::parse_list(text.trim())
}
