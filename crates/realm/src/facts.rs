//! What is fixed while the daemon runs, asked once at the start.

use std::collections::BTreeSet;

use pinfold_files::Facts;
use pinfold_kernel::Where;
use pinfold_kernel::inspect::Release;

use crate::tracker::Tracker;

const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

/// Asks the machine. Where sysfs does not answer, one CPU and one node are assumed: there is always one.
pub(crate) fn facts(tracker: &Tracker) -> Facts {
    let online = some(list(CPUS, "online"));
    let nodes = some(list(NODES, "has_memory"));
    // A base may have less than the machine. Without the v2 controller nothing asks for it.
    let in_base = |file| {
        tracker
            .read(Where::Base, file)
            .ok()
            .and_then(|text| parse_list(text.trim()))
            .filter(|l| !l.is_empty())
    };
    let possible = list(CPUS, "possible").into_iter().max().map_or(1, |last| last + 1);
    Facts {
        user_hz: rustix::param::clock_ticks_per_second(),
        possible_cpus: possible,
        cpus: in_base("cpuset.cpus.effective").unwrap_or_else(|| online.clone()),
        mems: in_base("cpuset.mems.effective").unwrap_or_else(|| nodes.clone()),
        online_cpus: online,
        page_size: rustix::param::page_size().try_into().unwrap_or(4096),
        linux: Release::of_kernel().map_or((0, 0), |found| (found.major, found.minor)),
        nodes,
        v2_files: told(tracker.files().into_iter().collect(), |option| tracker.has_option(option)),
    }
}

/// Since Linux 6.11 a fork that fails counts where the limit is: `pids.events.local` of that directory says so, and
/// `pids.events` of those that it is in as well. With the mount option pids_localevents both say what failed in a leaf, as
/// `pids.events` alone does before. What one of the two says must not be added to what the other does.
pub(crate) fn told(mut files: BTreeSet<String>, has_option: impl Fn(&str) -> bool) -> BTreeSet<String> {
    if files.contains("pids.events.local") {
        files.remove(if has_option("pids_localevents") { "pids.events.local" } else { "pids.events" });
    }
    files
}

fn some(numbers: Vec<usize>) -> Vec<usize> {
    if numbers.is_empty() { vec![0] } else { numbers }
}

fn list(dir: &str, name: &str) -> Vec<usize> {
    let text = std::fs::read_to_string(format!("{dir}/{name}")).unwrap_or_default();
    parse_list(text.trim()).unwrap_or_default()
}

/// Numbers and ranges between commas: `0-3,8`.
pub(crate) fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => numbers.extend(first.parse().ok()?..=last.parse::<usize>().ok()?),
            None => numbers.push(part.parse().ok()?),
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::{parse_list, told};

    #[test]
    fn a_fork_that_failed_is_told_by_one_of_two_files() {
        let told = |files: &[&str], option: &str| -> Vec<String> {
            let files = files.iter().map(|file| (*file).to_owned()).collect();
            told(files, |word| word == option).into_iter().collect()
        };
        let both = ["pids.events", "pids.events.local"];
        assert_eq!(told(&both, ""), ["pids.events.local"]);
        assert_eq!(told(&both, "pids_localevents"), ["pids.events"]);
        assert_eq!(told(&both[..1], ""), ["pids.events"]);
    }

    #[test]
    fn a_cpu_list_has_numbers_and_ranges() {
        assert_eq!(parse_list("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-x"), None);
        assert_eq!(parse_list(""), None);
    }
}
