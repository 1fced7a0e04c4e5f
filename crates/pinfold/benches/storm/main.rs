//! What process events cost in a storm of fork and exit: `pinfold serve` with subscribers, beside a bare reader of the netlink
//! socket that only counts. Figures are reported, not judged, but for one: that every event arrived, or a gap says exactly what
//! did not.
//!
//!     PINFOLD_STORM=100000 cargo bench -p pinfold --bench storm [-- --write]
//!
//! `--write` puts the table into docs/events-figures.md; `PINFOLD_STORM` is the number of forks of a storm, 20,000 without it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports and may fail")]

mod daemon;
mod readers;
mod report;
mod shells;

use pinfold_events::connector::Connector;

use daemon::Daemon;
use readers::{Reading, Seen};
use report::Row;
use shells::Storm;

const ROUNDS: usize = 5;

/// What one storm cost.
#[derive(Clone, Default)]
struct Cost {
    /// Nanoseconds that the storm took.
    took: u64,
    /// Nanoseconds of CPU time: of the storm itself,
    storm: u64,
    /// of the daemon with all its threads,
    daemon: u64,
    /// and of the thread that reads.
    reader: u64,
    /// What that has seen; `None`: nobody reads.
    seen: Option<Seen>,
}

/// Nobody listens.
fn alone(forks: u64) -> Cost {
    let mut storm = Storm::new(2, forks);
    let took = storm.rage().as_nanos() as u64;
    Cost { took, storm: storm.cpu_time(), ..Cost::default() }
}

/// One reads what the kernel tells.
fn bare(forks: u64) -> Cost {
    let mut storm = Storm::new(2, forks);
    let reading = Reading::bare(storm.roots(), storm.forks);
    let before = reading.cpu_time();
    let took = storm.rage().as_nanos() as u64;
    reading.finish();
    let reader = reading.cpu_time() - before;
    Cost { took, storm: storm.cpu_time(), daemon: 0, reader, seen: Some(reading.end()) }
}

/// The daemon, with a subscriber to everything, or one to each shell and its descendants.
fn served(daemon: &Daemon, forks: u64, shells: u64, is_narrow: bool) -> Cost {
    let mut storm = Storm::new(shells, forks);
    let sockets = match is_narrow {
        true => storm.roots().into_iter().map(|root| daemon.subscribe_to(root)).collect(),
        false => vec![daemon.subscribe()],
    };
    let reading = Reading::of(sockets, storm.roots(), storm.forks);
    let before = (daemon.cpu_times(), reading.cpu_time());
    let took = storm.rage().as_nanos() as u64;
    reading.finish();
    let reader = reading.cpu_time() - before.1;
    let of_daemon = daemon.cpu_time_since(&before.0);
    Cost { took, storm: storm.cpu_time(), daemon: of_daemon, reader, seen: Some(reading.end()) }
}

fn main() {
    if let Err(error) = Connector::open() {
        println!("skipped: {error}");
        return;
    }
    let forks = std::env::var("PINFOLD_STORM").map_or(20_000, |forks| forks.parse().unwrap());
    let daemon = Daemon::start();
    let ways: [(&str, &dyn Fn() -> Cost); 5] = [
        ("nobody listens", &|| alone(forks)),
        ("a bare reader of the netlink socket", &|| bare(forks)),
        ("the daemon, one subscriber to everything", &|| served(&daemon, forks, 2, false)),
        ("100 shells in turn, one subscriber to everything", &|| served(&daemon, forks, 100, false)),
        ("100 shells in turn, 100 subscribers with a hundredth each", &|| served(&daemon, forks, 100, true)),
    ];
    let mut rounds = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((name, way), costs) in ways.iter().zip(&mut rounds) {
            let cost = way();
            println!("{name}: {:.1} s", cost.took as f64 / 1e9);
            if let Some(seen) = &cost.seen {
                let is_whole = seen.latency.len() as u64 == forks || seen.gaps > 0;
                assert!(is_whole, "{name}: {} of {forks} forks and no gap", seen.latency.len());
            }
            costs.push(cost);
        }
    }
    let rows = ways.iter().zip(&rounds).map(|((name, _), costs)| Row::new(name, forks, costs));
    let text = report::page(forks, &rows.collect::<Vec<_>>());
    println!("\n{text}");
    if std::env::args().any(|argument| argument == "--write") {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events-figures.md");
        std::fs::write(page, text).unwrap();
    }
}
