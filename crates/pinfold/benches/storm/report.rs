//! The page of figures.

use std::fmt::Write as _;
use std::fs;

use crate::{Cost, ROUNDS};

/// The medians of the rounds of one way to run a storm; times in microseconds.
pub(crate) struct Row {
    name: &'static str,
    /// Forks a second.
    rate: f64,
    /// The same of each round.
    rates: Vec<f64>,
    /// CPU time of each fork: of the storm itself,
    storm: f64,
    /// of the daemon,
    daemon: f64,
    /// and of who reads.
    reader: f64,
    middle: f64,
    late: f64,
    /// The fewest forks of a round that were received, and the most gaps of one; `None`: nobody reads.
    received: Option<(usize, u64)>,
}

impl Row {
    pub(crate) fn new(name: &'static str, forks: u64, rounds: &[Cost]) -> Self {
        let of = |figure: &dyn Fn(&Cost) -> f64| median(rounds.iter().map(figure).collect());
        let each = |time: u64| time as f64 / forks as f64 / 1000.0;
        let rate = |cost: &Cost| forks as f64 / (cost.took as f64 / 1e9);
        let seen = || rounds.iter().filter_map(|cost| cost.seen.as_ref());
        let fewest = seen().map(|seen| seen.latency.len()).min();
        let gaps = seen().map(|seen| seen.gaps).max();
        Self {
            name,
            rate: of(&rate),
            rates: rounds.iter().map(rate).collect(),
            storm: of(&|cost| each(cost.storm)),
            daemon: of(&|cost| each(cost.daemon)),
            reader: of(&|cost| each(cost.reader)),
            middle: of(&|cost| quantile(cost, 0.5)),
            late: of(&|cost| quantile(cost, 0.99)),
            received: fewest.zip(gaps),
        }
    }

    /// CPU time of each fork, of all.
    fn all(&self) -> f64 {
        self.storm + self.daemon + self.reader
    }

    /// How much slower the storm is than another of the same round: the median, and the least and the most.
    fn slower_than(&self, other: &Self) -> String {
        let mut parts: Vec<f64> =
            self.rates.iter().zip(&other.rates).map(|(this, other)| 100.0 * (1.0 - this / other)).collect();
        parts.sort_by(f64::total_cmp);
        let (least, most) = (parts[0], parts[parts.len() - 1]);
        format!("{:.1} % ({least:.1} to {most:.1})", median(parts))
    }

    fn text(&self) -> String {
        let Self { name, rate, storm, daemon, reader, middle, late, received, rates: _ } = self;
        let of_daemon = if *daemon == 0.0 { String::new() } else { format!("{:.2} us", daemon / 2.0) };
        let heard = received.map_or_else(
            || "| | | | ".to_owned(),
            |(received, gaps)| {
                format!("{:.2} us | {middle:.0} us | {late:.0} us | {received} | {gaps}", reader / 2.0)
            },
        );
        format!("| {name} | {rate:.0} a second | {storm:.0} us | {of_daemon} | {heard} |\n")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn quantile(cost: &Cost, part: f64) -> f64 {
    let mut latency = cost.seen.clone().unwrap_or_default().latency;
    latency.sort_unstable();
    let at = (latency.len() as f64 * part) as usize;
    latency.get(at.min(latency.len().saturating_sub(1))).map_or(f64::NAN, |ns| *ns as f64 / 1000.0)
}

/// The whole page, from the five ways in their order.
pub(crate) fn page(forks: u64, rows: &[Row]) -> String {
    let [alone, bare, one, wide, narrow] = rows else { unreachable!("five ways") };
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split(':').next_back().unwrap_or_default().trim().to_owned()
    };
    let processor = first("/proc/cpuinfo", "model name");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let load = load.split(' ').next().unwrap_or_default();
    let cpus = std::thread::available_parallelism().unwrap();
    let command = format!("PINFOLD_STORM={forks} cargo bench -p pinfold --bench storm -- --write");
    let mut text = format!(
        "# Process events: what they cost\n\nMade by `{command}`; do not edit. A storm is {forks} forks and exits of two shells \
         at a time, two events each. The daemon is `pinfold serve`, its subscribers have their streams by `Subscribe` of \
         `org.pinfold.Manager1`. CPU time is of the daemon with all its threads, and of the one thread that reads, for each \
         event of the storm. Latency is from the kernel's time stamp until the fork was read. A reader checks that each \
         process begins and ends once, and that a gap is followed by as much as its end says. Medians of {ROUNDS} rounds, by turns \
         (slowed: of the two storms of each round; the least and the most of them); the fewest forks received and the most gaps of a round.\n\nMachine: {cpus} CPUs ({processor}), Linux {kernel}, \
         load at the end {load} (of itself: 2 to 3)\n\n\
         | storm | forks | CPU time of a fork | of an event: the daemon | the reader | latency, median | 99 of 100 \
         | forks received | gaps |\n|---|---|---|---|---|---|---|---|---|\n",
        kernel = kernel.trim(),
    );
    rows.iter().for_each(|row| text += &row.text());
    writeln!(text, "\n| figure | measured | promised |\n|---|---|---|").unwrap();
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    for (figure, measured, promised) in [
        (
            "CPU time of the daemon / of the bare reader",
            format!("{:.2}", one.daemon / bare.reader),
            "reported",
        ),
        ("storm slowed by the bare reader, forks a second", bare.slower_than(alone), "reported"),
        ("storm slowed by the daemon beyond that, forks a second", one.slower_than(bare), "at most 5 %"),
        // A storm of two shells keeps two CPUs busy: what listeners take of them, it has not.
        (
            "CPU time that the daemon takes beyond the bare reader's, of all",
            percent((one.daemon - bare.reader) / bare.all()),
            "reported",
        ),
        (
            "the same with the subscriber's own reading",
            percent((one.daemon + one.reader - bare.reader) / bare.all()),
            "reported",
        ),
        (
            "100 narrow subscribers / one, CPU time of the daemon",
            format!("{:.2}", narrow.daemon / wide.daemon),
            "at most 3",
        ),
        (
            "the same with the readers",
            format!("{:.2}", (narrow.daemon + narrow.reader) / (wide.daemon + wide.reader)),
            "at most 3",
        ),
    ] {
        writeln!(text, "| {figure} | {measured} | {promised} |").unwrap();
    }
    text
}
