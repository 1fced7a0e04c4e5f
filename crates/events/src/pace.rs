//! Pauses between scans of /proc: where events are lost again and again, all the time would go into reading what there is.

use std::time::{Duration, Instant};

/// The pause after a scan. It doubles when another is wanted at once, up to the longest.
const FIRST: Duration = Duration::from_millis(100);
/// How long it may take until /proc is read again after something was lost, if nobody waits for it.
pub const LONGEST_GAP: Duration = Duration::from_millis(1600);

/// When the next scan may begin.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Option<Instant>,
    pause: Duration,
}

impl Pace {
    /// The first may begin at once.
    pub(crate) const fn new() -> Self {
        Self { next: None, pause: FIRST }
    }

    /// How long the next scan has to wait.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// A scan has been made, or has failed.
    pub(crate) fn scanned(&mut self, now: Instant) {
        let is_soon = self.next.is_some_and(|next| now < next + self.pause);
        self.pause = if is_soon { LONGEST_GAP.min(self.pause * 2) } else { FIRST };
        self.next = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many milliseconds each, a scan is wanted again: how long it waits.
    #[track_caller]
    fn check(wanted: &[u64], waits: &[u128]) {
        let mut now = Instant::now();
        let mut pace = Pace::new();
        let waited = wanted.iter().map(|after| {
            now += Duration::from_millis(*after);
            let wait = pace.wait(now);
            now += wait;
            pace.scanned(now);
            wait.as_millis()
        });
        assert_eq!(waited.collect::<Vec<_>>(), waits, "{wanted:?}");
    }

    #[test]
    fn scans_that_are_wanted_again_and_again_come_ever_more_seldom() {
        check(&[0, 0, 0, 0, 0, 0, 0], &[0, 100, 200, 400, 800, 1600, 1600]);
    }

    #[test]
    fn one_that_is_wanted_after_a_while_comes_at_once() {
        check(&[0, 100, 250, 5000, 0], &[0, 0, 0, 0, 100]);
        check(&[0, 0, 0, 1000, 0], &[0, 100, 200, 0, 100]);
    }
}
