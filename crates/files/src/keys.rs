//! Keys: settings and figures by names that say what is meant, for those who need not know v1's files.
//!
//! A key is one row of [`KEYS`]: which files it is made from, and how. Adding one is adding its row, once its file is in a
//! controller's table. A group has a key if it has its first file; the names of files are keys as well. Who may set a key
//! is who may write that file.

use crate::lookup::named;
use crate::table::{Read, Write};

/// A key: what it is called, and how its value comes about.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value looks like, in a word or two.
    pub kind: &'static str,
    /// What its numbers count.
    pub unit: &'static str,
    /// The files it is made from, by their full names. The first is the one that is written.
    pub files: &'static [&'static str],
    /// From the files' values to the key's, and back.
    pub convert: Convert,
}

/// How a key's value and its files' relate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Convert {
    /// They are the same text.
    Same,
    /// No limit is `max`, and not a very large number.
    Limit,
    /// How much the first limit is above the second; `max` if the first is none.
    Above,
    /// The first in percent of a share of 1024.
    PercentOfShare,
    /// A quota in its period, as a number of CPUs: `max`, or with up to five decimals.
    Cpus,
    /// The same in percent of one CPU.
    PercentOfCpu,
}

/// What a key cannot be set to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The value is not of the key's kind.
    #[error("{value:?} is not what {key} takes: {kind}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it takes.
        kind: &'static str,
    },
    /// A value that this one depends on does not allow it.
    #[error("{key} needs a limit in {file} first")]
    Unlimited {
        /// The key.
        key: &'static str,
        /// The file.
        file: &'static str,
    },
}

/// PAGE_COUNTER_MAX pages: what v1 shows for no limit.
const UNLIMITED: u64 = 9_223_372_036_854_771_712;

/// Every key.
pub static KEYS: &[Key] = {
    use Convert::*;
    const fn key(
        name: &'static str,
        kind: &'static str,
        unit: &'static str,
        files: &'static [&'static str],
        convert: Convert,
    ) -> Key {
        Key { name, kind, unit, files, convert }
    }
    const LIMIT: &str = "a number or `max`";
    const NUMBER: &str = "a number";
    #[rustfmt::skip]
    let keys: &[Key] = &[
        //  name                what it takes or gives     unit           files                                                     how
        key("memory.limit",     LIMIT,                     "bytes",       &["memory.limit_in_bytes"],                               Limit),
        key("memory.soft_limit", LIMIT,                    "bytes",       &["memory.soft_limit_in_bytes"],                          Limit),
        key("memory.usage",     NUMBER,                    "bytes",       &["memory.usage_in_bytes"],                               Same),
        key("memory.max_usage", "a number; any text resets it", "bytes",  &["memory.max_usage_in_bytes"],                           Same),
        key("memory.failcnt",   "a number; any text resets it", "events", &["memory.failcnt"],                                      Same),
        key("swap.limit",       LIMIT,                     "bytes",       &["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"], Above),
        key("swap.usage",       NUMBER,                    "bytes",       &["memory.memsw.usage_in_bytes", "memory.usage_in_bytes"], Above),
        key("swap.failcnt",     "a number; any text resets it", "events", &["memory.memsw.failcnt"],                                Same),
        key("cpus_allowed",     "a list as 0-3,5",         "CPUs",        &["cpuset.cpus"],                                         Same),
        key("mems_allowed",     "a list as 0-1",           "nodes",       &["cpuset.mems"],                                         Same),
        key("cpu_share_percent", NUMBER,                   "1/100 of a share of 1024", &["cpu.shares"],                             PercentOfShare),
        key("cpu_quota_percent", LIMIT,                    "1/100 of a CPU", &["cpu.cfs_quota_us", "cpu.cfs_period_us"],            PercentOfCpu),
        key("cpus_number",      "a number with decimals, or `max`", "CPUs", &["cpu.cfs_quota_us", "cpu.cfs_period_us"],             Cpus),
        key("cpuacct_stat",     "lines of user and system", "ticks",      &["cpuacct.stat"],                                        Same),
        key("cpuacct_usage",    "a number; 0 resets it",   "nanoseconds", &["cpuacct.usage"],                                       Same),
        key("pids.limit",       LIMIT,                     "tasks",       &["pids.max"],                                            Same),
        key("pids.usage",       NUMBER,                    "tasks",       &["pids.current"],                                        Same),
        key("devices_whitelist", "a rule as c 1:3 rwm",    "rules",       &["devices.allow"],                                       Same),
        key("devices_blacklist", "a rule as c 1:3 rwm",    "rules",       &["devices.deny"],                                        Same),
        key("devices_list",     "rules, one a line",       "rules",       &["devices.list"],                                        Same),
        key("blkio_weight",     NUMBER,                    "10 to 1000",  &["blkio.weight"],                                        Same),
        key("blkio_throttle_read", "a line of MAJ:MIN and a rate", "bytes a second", &["blkio.throttle.read_bps_device"],           Same),
        key("blkio_throttle_write", "a line of MAJ:MIN and a rate", "bytes a second", &["blkio.throttle.write_bps_device"],         Same),
        key("net_classid",      NUMBER,                    "MAJOR:MINOR as 0xAAAABBBB", &["net_cls.classid"],                        Same),
        key("net_prio_index",   NUMBER,                    "a number",    &["net_prio.prioidx"],                                    Same),
        key("net_prio_interface_map", "lines of an interface and its priority", "priorities", &["net_prio.ifpriomap"],              Same),
    ];
    keys
};

impl Key {
    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Whether it can be set.
    pub fn is_set(&self) -> bool {
        named(self.files[0]).is_some_and(|file| !matches!(crate::file(file).1.write, Write::Refused))
    }

    /// Whether it can be read.
    pub fn is_read(&self) -> bool {
        named(self.files[0]).is_some_and(|file| !matches!(crate::file(file).1.read, Read::Refused))
    }

    /// The value, from what its files say.
    pub fn show(&self, texts: &[String]) -> String {
        let text = texts.first().map_or("", |text| text.trim_end_matches('\n'));
        let number =
            |at: usize| texts.get(at).and_then(|text| text.trim().parse::<i128>().ok()).unwrap_or(-1);
        let quota = |percent: i128| match (number(0), number(1)) {
            (quota, period) if quota < 0 || period <= 0 => None,
            (quota, period) => Some(quota * percent / period),
        };
        match self.convert {
            Convert::Same => text.to_owned(),
            Convert::Limit if number(0) >= i128::from(UNLIMITED) => "max".to_owned(),
            Convert::Limit => text.to_owned(),
            Convert::Above if number(0) >= i128::from(UNLIMITED) => "max".to_owned(),
            Convert::Above => (number(0) - number(1)).max(0).to_string(),
            // Rounded to the nearest: what was set reads the same.
            Convert::PercentOfShare => ((number(0) * 100 + 512) / 1024).to_string(),
            Convert::PercentOfCpu => {
                quota(100).map_or_else(|| "max".to_owned(), |percent| percent.to_string())
            }
            Convert::Cpus => quota(100_000).map_or_else(|| "max".to_owned(), decimal),
        }
    }

    /// What is written to the first file for a value; `texts`: what the files say now.
    pub fn write(&self, value: &str, texts: &[String]) -> Result<String, KeyError> {
        let refused = || KeyError::Value { key: self.name, value: value.to_owned(), kind: self.kind };
        let other = |at: usize| texts.get(at).and_then(|text| text.trim().parse::<u64>().ok());
        let number = || value.trim().parse::<u64>().map_err(|_| refused());
        let quota = |quota: u128| match quota {
            0 => Err(refused()),
            quota => Ok(quota.to_string()),
        };
        match (self.convert, value.trim()) {
            (Convert::Same, _) => Ok(value.to_owned()),
            (Convert::Limit | Convert::Above | Convert::PercentOfCpu | Convert::Cpus, "max") => {
                Ok("-1".to_owned())
            }
            // Whatever the file takes, suffixes too.
            (Convert::Limit, _) => Ok(value.to_owned()),
            (Convert::Above, _) => {
                let below = other(1).filter(|below| *below < UNLIMITED);
                let below = below.ok_or(KeyError::Unlimited { key: self.name, file: self.files[1] })?;
                below.checked_add(number()?).map(|sum| sum.to_string()).ok_or_else(refused)
            }
            (Convert::PercentOfShare, _) => {
                number()?.checked_mul(1024).map(|share| (share / 100).to_string()).ok_or_else(refused)
            }
            (Convert::PercentOfCpu, _) => {
                let period = other(1).ok_or_else(refused)?;
                quota(u128::from(number()?) * u128::from(period) / 100)
            }
            (Convert::Cpus, text) => {
                let period = other(1).ok_or_else(refused)?;
                quota(hundred_thousandths(text).ok_or_else(refused)? * u128::from(period) / 100_000)
            }
        }
    }
}

/// A number of hundred thousandths with as few decimals as it needs.
fn decimal(number: i128) -> String {
    let text = format!("{}.{:05}", number / 100_000, number % 100_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1.5` as a number of hundred thousandths; at most five decimals.
fn hundred_thousandths(text: &str) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 5 {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    format!("{part:0<5}").parse::<u128>().ok().map(|part| u128::from(whole) * 100_000 + part)
}

/// The table of `docs/manager.md`.
pub fn table() -> String {
    let mut text = "| key | value | unit | v1 files | get | set |\n|---|---|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let files: Vec<_> = key.files.iter().map(|file| format!("`{file}`")).collect();
        let yes = |is: bool| if is { "yes" } else { "" };
        let (kind, files) = (key.kind, files.join(", "));
        let (get, set) = (yes(key.is_read()), yes(key.is_set()));
        text += &format!("| `{}` | {kind} | {} | {files} | {get} | {set} |\n", key.name, key.unit);
    }
    text
}
