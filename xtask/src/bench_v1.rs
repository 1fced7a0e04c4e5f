//! `cargo xtask bench-v1`: what has to be measured against the kernel's own v1, or where the v2 tree has controllers.
//!
//! The same program measures in two guests, one with v1 and one in which pinfold serves it, and the ratios go to
//! `docs/benchmarks-v1.md`. Guests have no KVM: only the ratios and the bounds say anything, not the times. What could not
//! be measured is missed in the table and named below it, and the command fails.

mod inside;
mod parts;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::bench::report::{Bound, Report, Row, machine};
use crate::guest::{self, Ended, Guest};
use crate::workspace;
use inside::Side;
use parts::{FEW, MANY, PARTS, Part};

/// How long a guest may take, in seconds: each part that makes many groups may take as long as it has patience for.
const SECONDS: u32 = 1500;

/// The size of the disk that is written to, in MiB.
const DISK: u32 = 16;

/// Figures by name, as a guest writes them: `NAME VALUE` a line.
type Figures = HashMap<String, f64>;

/// `cargo xtask bench-v1`.
#[derive(Args)]
pub struct BenchV1 {
    /// Print the table and leave docs/benchmarks-v1.md as it is
    #[arg(long)]
    print: bool,
    /// Measure one part alone (attach, looks/10), or those of one kind (memory.stat, looks), and print them
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The program to measure, instead of a release build of this tree
    #[arg(long, value_name = "FILE")]
    pinfold: Option<PathBuf>,
    /// Measure, in a guest, and write the figures to FILE
    #[arg(long, hide = true, value_name = "FILE", requires = "side")]
    inside: Option<PathBuf>,
    /// Who serves v1 in this guest
    #[arg(long, hide = true)]
    side: Option<Side>,
}

impl BenchV1 {
    /// Builds, measures in both guests, and writes the table.
    pub fn run(&self) -> Result<()> {
        let parts: Vec<Part> = PARTS.into_iter().filter(|part| self.wants(*part)).collect();
        ensure!(!parts.is_empty(), "no part is called {}", self.only.as_deref().unwrap_or_default());
        if let (Some(file), Some(side)) = (&self.inside, self.side) {
            return inside::measure(side, self.pinfold.as_deref(), &parts, file);
        }
        let pinfold = match &self.pinfold {
            Some(program) => program.canonicalize().with_context(|| program.display().to_string())?,
            None => built()?,
        };
        let load_before = load();
        let sides = [self.in_guest(Side::Kernel, None)?, self.in_guest(Side::Pinfold, Some(&pinfold))?];
        let [(kernel, kernel_ended), (ours, ours_ended)] = sides;
        let table = Report { rows: rows(&parts, &kernel, &ours) }.table();
        let missing = missing(&parts, &kernel, &ours);
        println!("{table}");
        if !self.print && self.only.is_none() {
            let path = workspace::root().join("docs/benchmarks-v1.md");
            let load = format!("load average {load_before} before and {} after", load());
            let missed = if missing.is_empty() {
                String::new()
            } else {
                format!("\nNot measured in this run: {}.\n", missing.join(", "))
            };
            std::fs::write(&path, format!("{PAGE}Machine: {}, {load}.\n\n{table}{missed}", machine()))
                .with_context(|| path.display().to_string())?;
        }
        kernel_ended.and(ours_ended)?;
        ensure!(missing.is_empty(), "not measured: {}", missing.join(", "));
        Ok(())
    }

    fn wants(&self, part: Part) -> bool {
        let of_kind = |rest: &str| rest.is_empty() || rest.starts_with('/');
        self.only.as_deref().is_none_or(|only| part.name().strip_prefix(only).is_some_and(of_kind))
    }

    /// Boots a guest and has this program measure in it. Gives what it measured, also if it did not end well.
    fn in_guest(&self, side: Side, pinfold: Option<&Path>) -> Result<(Figures, Result<()>)> {
        let kept =
            std::env::temp_dir().join(format!("pinfold-bench-v1-{}-{}", side.word(), std::process::id()));
        std::fs::create_dir_all(&kept)?;
        let file = kept.join("figures");
        let own = std::env::current_exe().context("this program's own file")?;
        let mut command: Vec<OsString> =
            vec![own.into(), "bench-v1".into(), "--side".into(), side.word().into()];
        command.extend(["--inside".into(), file.as_os_str().to_owned()]);
        let options =
            [("--pinfold", pinfold.map(Path::as_os_str)), ("--only", self.only.as_ref().map(OsStr::new))];
        for (option, value) in options.into_iter().filter_map(|(option, value)| Some((option, value?))) {
            command.extend([option.into(), value.to_owned()]);
        }
        let guest = Guest {
            suite: "bench-v1".to_owned(),
            name: side.word().to_owned(),
            cgroup: side.cgroup(),
            kernel: "6.1",
            processors: 2,
            seconds: SECONDS,
            silence: 0,
            tries: 1,
            disk: DISK,
            parameters: "",
            kept: vec![kept.clone()],
            command,
        };
        let ran = guest::run_all(vec![guest]);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::remove_dir_all(&kept)?;
        let ended = match ran.into_iter().next().context("the guest ran")?.ended? {
            Ended::Well => Ok(()),
            Ended::Badly(how) => Err(format!("the guest of {}: {how}", side.word())),
            Ended::Died => Err(format!("the guest of {} did not end in time, or died", side.word())),
            Ended::NoGuest => Err("no guest could be started (what vm/run-in-vm says is above)".to_owned()),
        };
        Ok((parse(&text)?, ended.map_err(anyhow::Error::msg)))
    }
}

const PAGE: &str = "\
# Against the kernel's own v1

Made by `cargo xtask bench-v1`; do not edit. Two guests of vm/run-in-vm (2 CPUs without KVM, Debian's Linux 6.1), one after the other: the \
kernel's v1, and pinfold on the v2 tree. Without KVM everything takes ten times as long or more, and a switch between processes, of which a \
request to pinfold needs two, more than that: the ratio to the kernel is an upper bound. Times are medians unless it is said. Groups are \
empty unless it is said that they have processes. Of a divided limit nobody has used any for half a second before it is measured. What pinfold alone does has no reference.

";

/// The release build of this tree.
fn built() -> Result<PathBuf> {
    let built = workspace::executables(&["build", "--release", "-p", "pinfold"])?;
    let pinfold = built.into_iter().find(|built| built.target.name == "pinfold").context("no program")?;
    Ok(pinfold.path)
}

/// How busy the machine was in the last minute, as proc_loadavg(5) has it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// What a guest wrote. A line without its end is one that the guest had no time for.
fn parse(text: &str) -> Result<Figures> {
    let figure = |line: &str| {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("no figure: {line}"))?;
        Ok((name.to_owned(), value.parse().with_context(|| format!("no number: {line}"))?))
    };
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(figure).collect()
}

/// A row for each part of which all figures are there.
fn rows(parts: &[Part], kernel: &Figures, ours: &Figures) -> Vec<Row> {
    parts.iter().flat_map(|part| [row(*part, kernel, ours), growth(*part, ours)]).flatten().collect()
}

fn row(part: Part, kernel: &Figures, ours: &Figures) -> Option<Row> {
    let name = part.name();
    let (reference, bound) = match part {
        Part::Read { .. } | Part::Attach => {
            (Some(("kernel v1".to_owned(), *kernel.get(&name)?)), Bound::Told)
        }
        Part::Rebalance { .. } => (None, Bound::AtMost(100.0)),
        Part::Looks { .. } => (None, Bound::Told),
    };
    Some(Row { what: part.what(), measured: *ours.get(&name)?, unit: part.unit(), reference, bound })
}

/// Of the read with most groups below: pinfold's own against that with the fewest.
fn growth(part: Part, ours: &Figures) -> Option<Row> {
    let Part::Read { hierarchy, file, groups: MANY, inhabited } = part else { return None };
    let few = Part::Read { hierarchy, file, groups: FEW, inhabited };
    let what = format!("read of `{file}`, {MANY} groups below against {FEW} (pinfold in both)");
    let (many, few) = (*ours.get(&part.name())?, *ours.get(&few.name())?);
    Some(Row::compared(what, many, "1 group below", few, Bound::Times(1.5)))
}

/// The names of the parts that have no row.
fn missing(parts: &[Part], kernel: &Figures, ours: &Figures) -> Vec<String> {
    let has_none = |part: &&Part| row(**part, kernel, ours).is_none();
    parts.iter().filter(has_none).map(|part| part.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_has_a_row_and_the_rest_is_named() {
        let ours =
            parse("attach 30\nrebalance/pids.max/2/99 70\nmemory.stat/1 20\nlooks/10 1").expect("figures");
        let kernel = parse("attach 10\n").expect("figures");
        let lines = Report { rows: rows(&PARTS, &kernel, &ours) }.table();
        assert!(lines.contains("| 30 us | 10 us: kernel v1 | 3.00 |"), "{lines}");
        assert!(lines.contains("| 70 ms |  |  | at most 100 ms | kept |"), "{lines}");
        assert_eq!(lines.lines().count(), 2 + 2, "{lines}");
        let missing = missing(&PARTS, &kernel, &ours);
        assert_eq!(
            missing.len(),
            PARTS.len() - 2,
            "the read has no reference, the last line no end: {missing:?}"
        );
    }

    #[test]
    fn many_groups_are_compared_with_few() {
        let ours = parse("memory.stat/1 20\nmemory.stat/10000 40\n").expect("figures");
        let kernel = parse("memory.stat/1 2\nmemory.stat/10000 2\n").expect("figures");
        let lines = Report { rows: rows(&PARTS, &kernel, &ours) }.table();
        assert!(
            lines.contains("| 40 us | 20 us: 1 group below | 2.00 | at most 1.5 times | missed |"),
            "{lines}"
        );
    }
}
