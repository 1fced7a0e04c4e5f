//! Room for a lower limit: by what the kernel below makes it, and how it is told that there is enough.

use pinfold_model::Settings;

/// v1 refuses a limit that usage cannot be brought below, where v2 would kill: so usage is brought below it first.
#[derive(Clone, Copy)]
pub struct Room {
    /// What reclaims.
    pub by: &'static Reclaimer,
    /// The v2 files whose sum must not be above the limit then, or the write is EBUSY.
    pub usage: &'static [&'static str],
    /// Those of them of which nothing can be reclaimed.
    pub beside: &'static [&'static str],
    /// The limit that is about to hold; `None`: no limit.
    pub most: fn(&Settings) -> Option<u64>,
    /// What the throttle is again afterwards.
    pub rest: fn(&Settings) -> String,
}

/// The v2 files by which the kernel reclaims what a directory uses, and kills nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reclaimer {
    /// Takes how many bytes to reclaim: Linux 5.19.
    pub piece: &'static str,
    /// Reclaims, and holds off, what is above its value.
    pub throttle: &'static str,
    /// What it can be reclaimed from.
    pub usage: &'static str,
    /// Limits how much of it can go to swap: it has the value that is about to hold before anything is reclaimed.
    pub swap: &'static str,
}
