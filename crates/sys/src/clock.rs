//! The machine's clocks, for a process whose time namespace has others.

use std::sync::OnceLock;

/// How far the clocks of this process are ahead of the machine's, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Offsets {
    /// `CLOCK_MONOTONIC`.
    pub monotonic: i64,
    /// `CLOCK_BOOTTIME`, which is also that of start times in `/proc/PID/stat`.
    pub boottime: i64,
}

/// One tick of `/proc/PID/stat`: `USER_HZ` is 100 everywhere but on Alpha.
const TICK: i64 = 10_000_000;

/// The offsets of this process's time namespace; without one, there is none. They are asked for once: they cannot change.
///
/// Source: time_namespaces(7), `/proc/PID/timens_offsets`, Linux 5.6.
pub fn offsets() -> Offsets {
    static OFFSETS: OnceLock<Offsets> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    *OFFSETS.get_or_init(|| Offsets::parse(&read()))
}

/// A start time of `/proc/PID/stat`, in ticks, by the machine's clock.
///
/// Source: proc_pid_stat(5), field 22; do_task_stat(), timens_add_boottime_ns().
pub fn machine_ticks(ticks: u64) -> u64 {
    offsets().machine_ticks(ticks)
}

impl Offsets {
    fn parse(text: &str) -> Self {
        let of = |name: &str| {
            let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
            let (seconds, nanoseconds): (i64, i64) =
                (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
        };
        let [monotonic, boottime] = ["monotonic", "boottime"].map(|name| of(name).unwrap_or_default());
        Self { monotonic, boottime }
    }

    fn machine_ticks(self, ticks: u64) -> u64 {
        match i64::try_from(ticks).ok().and_then(|ticks| ticks.checked_mul(TICK)) {
            Some(start) if self.boottime != 0 => (start.saturating_sub(self.boottime).max(0) / TICK) as u64,
            _ => ticks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_the_kernel_writes_them() {
        let text = "monotonic           0         0\nboottime       -86400 500000000\n";
        let offsets = Offsets::parse(text);
        assert_eq!(offsets, Offsets { monotonic: 0, boottime: -86_399_500_000_000 });
        assert_eq!(Offsets::parse(""), Offsets::default());
        assert_eq!(Offsets::parse("boottime x 0\nmonotonic 1"), Offsets::default());
    }

    #[test]
    fn a_start_time_is_the_machines_wherever_it_is_read() {
        let ahead = |seconds: i64| Offsets { monotonic: 0, boottime: seconds * 1_000_000_000 };
        for (offset, read, ticks) in
            [(0, 777, 777), (100, 10_777, 777), (-5, 277, 777), (100, 777, 0), (100, u64::MAX, u64::MAX)]
        {
            assert_eq!(ahead(offset).machine_ticks(read), ticks, "{offset} {read}");
        }
    }
}
