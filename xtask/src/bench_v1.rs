//! `cargo xtask bench-v1`: what has to be measured against the kernel's own v1, and where the v2 tree has controllers.
//!
//! The same program measures in two guests, one with v1 and one in which pinfold serves it, and the ratios go to
//! `docs/benchmarks-v1.md`. Guests have no KVM: only the ratios and the bounds say anything, not the times.

mod inside;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::report::{Bound, Report, Row};
use crate::guest::{self, Ended, Guest};
use crate::workspace;
use inside::{DESCENDANTS, FILES, Side};

/// Figures by name, as a guest writes them: `NAME VALUE` a line.
type Figures = HashMap<String, f64>;

/// `cargo xtask bench-v1`.
#[derive(Args)]
pub struct BenchV1 {
    /// Print the table and leave docs/benchmarks-v1.md as it is
    #[arg(long)]
    print: bool,
    /// Measure, in a guest, and write the figures to FILE
    #[arg(long, hide = true, value_name = "FILE", requires = "side")]
    inside: Option<PathBuf>,
    /// Who serves v1 in this guest
    #[arg(long, hide = true)]
    side: Option<Side>,
    /// The program, where pinfold does
    #[arg(long, hide = true)]
    pinfold: Option<PathBuf>,
}

impl BenchV1 {
    /// Builds, measures in both guests, and writes the table.
    pub fn run(&self) -> Result<()> {
        if let (Some(file), Some(side)) = (&self.inside, self.side) {
            return inside::measure(side, self.pinfold.as_deref(), file);
        }
        let built = workspace::executables(&["build", "--release", "-p", "pinfold"])?;
        let pinfold = built.iter().find(|built| built.target.name == "pinfold").context("no program")?;
        let kernel = in_guest(Side::Kernel, None)?;
        let ours = in_guest(Side::Pinfold, Some(pinfold.path.as_os_str()))?;
        let report = Report { rows: rows(&kernel, &ours)? };
        println!("{}", report.table());
        if !self.print {
            let path = workspace::root().join("docs/benchmarks-v1.md");
            std::fs::write(&path, PAGE.to_owned() + &report.table())
                .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

const PAGE: &str = "\
# Against the kernel's own v1

Made by `cargo xtask bench-v1`; do not edit. Two guests of vm/run-in-vm (2 CPUs without KVM, Debian's Linux 6.1), one after the other: the \
kernel's v1, and pinfold on the v2 tree. Without KVM everything takes ten times as long or more, and a switch between processes, of which a \
request to pinfold needs two, more than that: the ratio to the kernel is an upper bound. Times are medians. Groups are empty unless it is \
said that they have processes.

";

/// Boots a guest and has this program measure in it.
fn in_guest(side: Side, pinfold: Option<&OsStr>) -> Result<Figures> {
    let kept = std::env::temp_dir().join(format!("pinfold-bench-v1-{}", std::process::id()));
    std::fs::create_dir_all(&kept)?;
    let file = kept.join("figures");
    let own = std::env::current_exe().context("this program's own file")?;
    let mut command: Vec<OsString> = vec![own.into(), "bench-v1".into(), "--side".into(), side.word().into()];
    command.extend(["--inside".into(), file.as_os_str().to_owned()]);
    command
        .extend(pinfold.iter().flat_map(|pinfold| [OsStr::new("--pinfold"), pinfold]).map(OsStr::to_owned));
    let guest = Guest {
        suite: "bench-v1".to_owned(),
        name: side.word().to_owned(),
        cgroup: side.cgroup(),
        kernel: "6.1",
        seconds: 900,
        disk: 0,
        kept: vec![kept.clone()],
        command,
    };
    let ran = guest::run_all(vec![guest]);
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::remove_dir_all(&kept)?;
    match ran.into_iter().next().context("the guest ran")?.ended? {
        Ended::Well => parse(&text),
        Ended::Badly(how) => bail!("the guest of {}: {how}", side.word()),
        Ended::NoGuest => bail!("no guest could be started (what vm/run-in-vm says is above)"),
    }
}

fn parse(text: &str) -> Result<Figures> {
    let figure = |line: &str| {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("no figure: {line}"))?;
        Ok((name.to_owned(), value.parse().with_context(|| format!("no number: {line}"))?))
    };
    text.lines().map(figure).collect()
}

fn rows(kernel: &Figures, ours: &Figures) -> Result<Vec<Row>> {
    let of = |figures: &Figures, name: &str| {
        figures.get(name).copied().with_context(|| format!("the guest did not measure {name}"))
    };
    let against_v1 = |name: String, what: String| -> Result<Row> {
        Ok(Row::compared(what, of(ours, &name)?, "kernel v1", of(kernel, &name)?, Bound::Told))
    };
    let mut rows = Vec::new();
    for (_, file) in FILES {
        for (groups, inhabited) in DESCENDANTS {
            let name = inside::name_of_read(file, *groups, *inhabited);
            let with = if *inhabited { ", each with a process" } else { "" };
            rows.push(against_v1(name, format!("read of `{file}`, {groups} groups below{with}"))?);
        }
        let [few, many] = [1, 10_000].map(|groups| of(ours, &inside::name_of_read(file, groups, false)));
        let what = "the same, 10000 groups below against 1 (pinfold in both)".to_owned();
        rows.push(Row::compared(what, many?, "1 group below", few?, Bound::Times(1.5)));
    }
    rows.push(against_v1(
        inside::ATTACH.to_owned(),
        "attach through 12 hierarchies, one after another, to a new group of each".to_owned(),
    )?);
    let measured = |name: &str, what: &str, unit, bound| -> Result<Row> {
        Ok(Row { what: what.to_owned(), measured: of(ours, name)?, unit, reference: None, bound })
    };
    rows.push(measured(
        inside::REBALANCE,
        "a fork refused by a part of `pids.max`, until it succeeds (the slowest of 10)",
        "ms",
        Bound::AtMost(100.0),
    )?);
    for carriers in inside::CARRIERS {
        let what = format!("CPU time for looks at a `pids.max` divided over {carriers} directories");
        rows.push(measured(&inside::name_of_looks(*carriers), &what, "% of a CPU", Bound::Told)?);
    }
    Ok(rows)
}
