//! Who was where, on disk, for the daemon after one that was killed (I8).
//!
//! ```text
//! numbering=BOOT/NAMESPACE             whose process numbers these are
//! until=NANOSECONDS                    who started later, since the machine was, may have been born to a member and not be known
//! dir=spine.1/cell.2 2 1 0 3 5 1       a directory: CPU time of who left (user, system: ticks), births undone, peak, CPU time as it was told
//! member=2 4711 NANOSECONDS 12 3 free  a member: cell, number, start, what it had used when it came, whether we stopped it
//! left=4711                            is none any more
//! ```
//!
//! What a caller waits for (an attach) is added as a line before it is told that it is done; births and ends follow within a
//! tenth of a second, in a file that replaces this one. A daemon that comes after finds those who were written down,
//! and by their parents, sessions and process groups those who were born since.
//!
//! Beside a v2 tree members are not written down: the tree says who they are.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use pinfold_events::{Started, Time};
use pinfold_kernel::process;
use pinfold_model::{CellId, Dir, HostPid};

use super::accounts::Usage;
use super::table::{Files, Hold, Kept, Life, Listing, Table};

/// The file, in the state directory.
pub(crate) const NAME: &str = "members";

/// How many lines are added before the file is written anew.
const MOST_ADDED: usize = 1024;

/// The record of members.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    new: PathBuf,
    numbering: &'static str,
    /// `None`: everything has to be written anew.
    file: Option<File>,
    length: u64,
    added: usize,
    /// Said once: a full state directory is not told of at every birth.
    complained: bool,
}

impl Ledger {
    /// Opens the record in a state directory, and reads what an earlier daemon left there.
    pub(super) fn open(state: &Path) -> io::Result<(Self, BTreeMap<Dir, Files>, Listing)> {
        let path = state.join(NAME);
        let numbering = process::numbering();
        let (dirs, listing) = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text, numbering),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            Err(error) => return Err(error),
        };
        let new = state.join("tmp").join(NAME);
        Ok((Self { path, new, numbering, file: None, length: 0, added: 0, complained: false }, dirs, listing))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes everything anew.
    pub(super) fn write(&mut self, table: &mut Table) -> io::Result<()> {
        // If it cannot be written for long, those who have ended since are nobody's to write down.
        let Table { fresh, lives, .. } = &mut *table;
        fresh.retain(|process| lives.contains_key(process));
        let text = self.text(table);
        let written = File::create(&self.new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            std::fs::rename(&self.new, &self.path)?;
            Ok(file)
        });
        self.file = Some(written.inspect_err(|error| self.complain(error))?);
        (self.length, self.added, self.complained) = (text.len() as u64, 0, false);
        table.is_dirty = false;
        table.fresh.clear();
        Ok(())
    }

    /// A member came, moved, left or is about to be stopped: written down before anybody is told, or it is stopped.
    pub(super) fn note_moved(&mut self, table: &mut Table, process: HostPid) -> io::Result<()> {
        if table.tree.is_some() {
            return Ok(());
        }
        let cell = table.roster.cell_of(process);
        let mut text = cell.map_or_else(|| format!("left={process}\n"), |cell| dir_line_of(table, cell));
        // After this line says until when births are known, nobody born before may be missing.
        let fresh = table.fresh.iter().filter(|fresh| **fresh != process);
        fresh.chain([&process]).for_each(|process| text += &member_line_of(table, *process));
        writeln!(text, "until={}", table.known_until.0).expect("memory takes it");
        self.add(table, &text)?;
        table.fresh.clear();
        Ok(())
    }

    /// More CPU time is about to be told of a directory.
    pub(super) fn note_told(&mut self, table: &mut Table, dir: &Dir) -> io::Result<()> {
        let line = table.dirs.get(dir).map_or_else(String::new, |files| dir_line(dir, files));
        self.add(table, &line)
    }

    fn add(&mut self, table: &mut Table, text: &str) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|_| self.added < MOST_ADDED) else {
            return self.write(table);
        };
        self.added += 1;
        if let Err(error) = file.write_all(text.as_bytes()) {
            // Some lines may be there, which are not true if this is refused. The next one begins anew.
            let _ = file.set_len(self.length);
            self.file = None;
            self.complain(&error);
            return Err(error);
        }
        self.length += text.len() as u64;
        Ok(())
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::error!("{}: who is in which group is kept in memory only: {error}", self.path.display());
        }
    }

    fn text(&self, table: &Table) -> String {
        let mut text = format!("numbering={}\n", self.numbering);
        table.dirs.iter().for_each(|(dir, files)| text += &dir_line(dir, files));
        let members = table.lives.keys().filter(|_| table.tree.is_none());
        members.for_each(|process| text += &member_line_of(table, *process));
        writeln!(text, "until={}", table.known_until.0).expect("memory takes it");
        text
    }
}

fn dir_line_of(table: &Table, cell: CellId) -> String {
    let leaf = table.leaf(cell).and_then(|leaf| Some((leaf, table.dirs.get(leaf)?)));
    leaf.map_or_else(String::new, |(leaf, files)| dir_line(leaf, files))
}

/// Nothing, of one that is no member.
fn member_line_of(table: &Table, process: HostPid) -> String {
    let member = table.roster.cell_of(process).zip(table.lives.get(&process));
    member.map_or_else(String::new, |(cell, life)| member_line(cell, process, life))
}

fn dir_line(dir: &Dir, files: &Files) -> String {
    let Files { used, told, failed, peak, .. } = files;
    format!("dir={dir} {} {} {failed} {peak} {} {}\n", used.user, used.system, told.user, told.system)
}

fn member_line(cell: CellId, process: HostPid, life: &Life) -> String {
    let (Started(started), Usage { user, system }) = (life.started, life.since);
    format!("member={cell} {process} {started} {user} {system} {}\n", word(life.hold))
}

const HOLDS: [(Hold, &str); 3] = [(Hold::Free, "free"), (Hold::Ours, "ours"), (Hold::Before, "before")];

fn word(hold: Hold) -> &'static str {
    HOLDS.iter().find(|(other, _)| *other == hold).map_or("free", |(_, word)| word)
}

/// Reads a record. What is of another numbering names nobody. A line that was cut is passed over.
fn parse(text: &str, numbering: &str) -> (BTreeMap<Dir, Files>, Listing) {
    let (mut dirs, mut kept, mut until) = (BTreeMap::new(), HashMap::new(), Time(0));
    let mut is_ours = false;
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        match line.split_once('=') {
            Some(("numbering", value)) => is_ours = value == numbering,
            Some(("until", value)) => until = value.parse().map_or(until, Time),
            Some(("dir", value)) => dirs.extend(parse_dir(value)),
            Some(("member", value)) => kept.extend(parse_member(value)),
            Some(("left", value)) => {
                value.parse().ok().and_then(HostPid::new).and_then(|process| kept.remove(&process));
            }
            _ => tracing::warn!("{NAME}: {line:?} is not understood"),
        }
    }
    if !is_ours {
        kept.clear();
    }
    (dirs, Listing::after(kept, until))
}

fn parse_dir(value: &str) -> Option<(Dir, Files)> {
    let mut words = value.split(' ');
    let dir = Dir::parse(words.next()?.as_bytes())?;
    let mut next = || words.next()?.parse::<u64>().ok();
    let used = Usage { user: next()?, system: next()? };
    let (failed, peak) = (next()?, next()?);
    let told = Usage { user: next()?, system: next()? };
    Some((dir, Files { used, failed, peak, told, ..Files::default() }))
}

fn parse_member(value: &str) -> Option<(HostPid, Kept)> {
    let words: Vec<&str> = value.split(' ').collect();
    let [cell, process, started, user, system, hold] = words[..] else { return None };
    let hold = HOLDS.iter().find(|(_, word)| *word == hold)?.0;
    let since = Usage { user: user.parse().ok()?, system: system.parse().ok()? };
    let life = Life { hold, ..Life::new(Started(started.parse().ok()?), None, since) };
    let cell = CellId::new(cell.parse().ok()?)?;
    Some((HostPid::new(process.parse().ok()?)?, Kept { cell, life }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
numbering=boot/1
until=50
dir=. 0 0 0 2 0 0
dir=spine.1/cell.2 7 8 9 10 11 12
member=2 4711 30 1 2 free
member=2 4712 31 0 0 ours
member=3 4713 32 0 0 before
left=4711
until=60
member=2 47";

    #[test]
    fn a_record_says_who_was_where_and_until_when_that_is_known() {
        let (dirs, listing) = parse(TEXT, "boot/1");
        let leaf = Dir::parse(b"spine.1/cell.2").unwrap();
        let used = Usage { user: 7, system: 8 };
        let told = Usage { user: 11, system: 12 };
        assert_eq!(dirs[&leaf], Files { used, failed: 9, peak: 10, told, ..Files::default() });
        assert_eq!(listing.known_until(), Some(Time(60)));
        let mut kept: Vec<_> = listing.kept.iter().map(|(pid, kept)| (pid.get(), kept.life.hold)).collect();
        kept.sort_by_key(|(pid, _)| *pid);
        assert_eq!(kept, [(4712, Hold::Ours), (4713, Hold::Before)], "4711 left, the last line is cut");
    }

    #[test]
    fn numbers_of_another_boot_or_namespace_name_nobody() {
        let (dirs, listing) = parse(TEXT, "boot/2");
        assert_eq!((dirs.len(), listing.kept.len()), (2, 0));
    }

    #[test]
    fn what_is_written_reads_back() {
        let (dirs, listing) = parse(TEXT, "boot/1");
        let lines: String = dirs.iter().map(|(dir, files)| dir_line(dir, files)).collect();
        let members: String =
            listing.kept.iter().map(|(process, kept)| member_line(kept.cell, *process, &kept.life)).collect();
        let again = parse(&format!("numbering=x\nuntil=60\n{lines}{members}"), "x");
        assert_eq!((again.0, again.1.kept), (dirs, listing.kept));
    }
}
