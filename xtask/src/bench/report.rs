//! The table.

use std::fs;

/// One thing measured.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) unit: &'static str,
    /// What it is compared with, and how much that is, in the same unit.
    pub(crate) reference: Option<(String, f64)>,
    pub(crate) bound: Bound,
}

/// What was promised.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// At most so many times the reference.
    Times(f64),
    /// At least so many times the reference.
    AtLeastTimes(f64),
    /// At most this, in the row's unit.
    AtMost(f64),
    /// Nothing: told for what it is.
    Told,
}

impl Row {
    /// A time, in microseconds, against another.
    pub(crate) fn compared(what: String, measured: f64, is: &str, reference: f64, bound: Bound) -> Self {
        Self { what, measured, unit: "us", reference: Some((is.to_owned(), reference)), bound }
    }

    fn times(&self) -> Option<f64> {
        self.reference.as_ref().map(|(_, reference)| self.measured / reference)
    }

    fn holds(&self) -> bool {
        match self.bound {
            Bound::Times(most) => self.times().is_some_and(|times| times <= most),
            Bound::AtLeastTimes(least) => self.times().is_some_and(|times| times >= least),
            Bound::AtMost(most) => self.measured <= most,
            Bound::Told => true,
        }
    }

    fn line(&self) -> String {
        let (reference, times) = match (&self.reference, self.times()) {
            (Some((is, value)), Some(times)) => {
                (format!("{}: {is}", quantity(*value, self.unit)), format!("{times:.2}"))
            }
            _ => (String::new(), String::new()),
        };
        let bound = match self.bound {
            Bound::Times(most) => format!("at most {most} times"),
            Bound::AtLeastTimes(least) => format!("at least {least} times"),
            Bound::AtMost(most) => format!("at most {}", quantity(most, self.unit)),
            Bound::Told => String::new(),
        };
        let kept = match self.bound {
            Bound::Told => "",
            _ if self.holds() => "kept",
            _ => "missed",
        };
        format!(
            "| {} | {} | {reference} | {times} | {bound} | {kept} |",
            self.what,
            quantity(self.measured, self.unit)
        )
    }
}

fn quantity(value: f64, unit: &str) -> String {
    let number =
        if value.fract() == 0.0 || value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    format!("{number} {unit}").trim_end().to_owned()
}

/// All rows.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// The table, as Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table =
            "| what | pinfold | reference | times | promised | |\n|---|---|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            table.push_str(&row.line());
            table.push('\n');
        }
        table
    }

    /// The page for docs/.
    pub(crate) fn page(&self) -> String {
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        format!(
            "# Speed and memory\n\n\
             Made by `cargo xtask {command}`; do not edit. Each row is measured against its reference in the same run, by \
             turns; times are medians of the rounds. Client, daemon and null server share one CPU. The null server \
             (`crates/fuse/examples/null_server.rs`) is a file system that does nothing on the same crate and the same \
             serving threads; the null method (`crates/dbus/examples/null_service.rs`) one of a plain zbus service, peer to \
             peer, and the client writes calls that were made beforehand. The daemon's state directory is in memory, as \
             /run is.\n\n\
             Machine: {}.\n\n{}",
            machine(),
            self.table()
        )
    }
}

/// Processor, memory, kernel.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = rustix::system::uname();
    let virtual_machine = if cpus.contains(" hypervisor") { "a virtual machine, " } else { "" };
    format!(
        "{virtual_machine}{count} CPUs ({}), {} of memory, Linux {}",
        field(&cpus, "model name"),
        field(&memory, "MemTotal"),
        kernel.release().to_string_lossy()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip] // a table
    fn a_bound_is_kept_or_missed() {
        //    bound                      measured  reference  kept
        for (bound,                      measured, reference, kept) in [
            (Bound::Times(1.5),          1.5,      1.0,       true),
            (Bound::Times(1.5),          1.6,      1.0,       false),
            (Bound::AtLeastTimes(0.95),  0.96,     1.0,       true),
            (Bound::AtLeastTimes(0.95),  0.94,     1.0,       false),
            (Bound::AtMost(0.0),         0.0,      9.0,       true),
            (Bound::AtMost(0.0),         1.0,      9.0,       false),
        ] {
            let row = Row::compared("it".to_owned(), measured, "other", reference, bound);
            assert_eq!(row.holds(), kept, "{}", row.line());
        }
    }

    #[test]
    fn a_line_says_how_much_of_what() {
        let row = Row::compared("it".to_owned(), 3.0, "other", 2.0, Bound::Times(1.5));
        assert_eq!(row.line(), "| it | 3 us | 2 us: other | 1.50 | at most 1.5 times | kept |");
    }
}
