//! What is fixed while the daemon runs, asked once at the start.

use pinfold_files::Facts;

const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

/// Asks the machine. Where sysfs does not answer, one CPU and one node are assumed: there is always one.
pub(crate) fn facts() -> Facts {
    let online = list(CPUS, "online");
    let nodes = list(NODES, "has_memory");
    let possible = list(CPUS, "possible").into_iter().max().map_or(1, |last| last + 1);
    Facts {
        user_hz: rustix::param::clock_ticks_per_second(),
        possible_cpus: possible,
        online_cpus: if online.is_empty() { vec![0] } else { online },
        page_size: rustix::param::page_size().try_into().unwrap_or(4096),
        nodes: if nodes.is_empty() { vec![0] } else { nodes },
    }
}

fn list(dir: &str, name: &str) -> Vec<usize> {
    let text = std::fs::read_to_string(format!("{dir}/{name}")).unwrap_or_default();
    parse_list(text.trim()).unwrap_or_default()
}

/// Numbers and ranges between commas: `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
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
    use super::parse_list;

    #[test]
    fn a_cpu_list_has_numbers_and_ranges() {
        assert_eq!(parse_list("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-x"), None);
        assert_eq!(parse_list(""), None);
    }
}
