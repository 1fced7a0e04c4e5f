//! Waiting a little while very much happens: who waits for the source itself is woken by the fork that it is told of, and that
//! fork pays. After a lull many events come at once.
//!
//! Nothing waits for what happens now and then: a lull comes only after [`WINDOW`] with so many events that they come faster
//! than they are read.

use std::time::{Duration, Instant};

/// Over how long events are counted.
const WINDOW: Duration = Duration::from_millis(10);
/// More than this in a window is a rush: 3,200 a second.
const MANY: u128 = 32;
/// How long nobody waits for the source then.
const LULL: Duration = Duration::from_millis(1);

/// Whether there is a rush.
#[derive(Debug)]
pub(crate) struct Rush {
    since: Instant,
    events: u128,
    is_on: bool,
}

impl Rush {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, events: 0, is_on: false }
    }

    /// So many events were read. Answers how long not to wait for more.
    pub(crate) fn saw(&mut self, events: usize, now: Instant) -> Option<Duration> {
        self.events += events as u128;
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            self.is_on = self.events * WINDOW.as_micros() > MANY * passed.as_micros();
            (self.since, self.events) = (now, 0);
        }
        self.is_on.then_some(LULL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After each so many milliseconds so many events; `~` where there is a lull.
    fn check(reads: &str, lulls: &str) {
        let mut now = Instant::now();
        let mut rush = Rush::new(now);
        let seen = reads.split(' ').map(|read| {
            let (after, events) = read.split_once(':').expect("MILLISECONDS:EVENTS");
            now += Duration::from_millis(after.parse().expect("a number"));
            if rush.saw(events.parse().expect("a number"), now).is_some() { '~' } else { '.' }
        });
        assert_eq!(seen.collect::<String>(), lulls, "{reads}");
    }

    #[test]
    fn only_a_rush_has_lulls() {
        check("0:3 5:3 5:3 5:3 5:3 100:3", "......");
        check("0:40 5:40 5:40 5:40 5:40", "..~~~");
        check("0:40 5:40 5:40 1:0 3600000:1 1:2", "..~~..");
        check("1000:100 5:100 5:1", "..~");
    }
}
