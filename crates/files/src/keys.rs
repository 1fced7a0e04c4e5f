//! Keys: settings and figures by names that say what is meant, for those who need not know v1's files.
//!
//! A key is one row of [`KEYS`]: which files it is made from, and how. Adding one is adding its row, once its file is in a
//! controller's table. A group has a key if it has its first file, or of a key for each size of huge pages any; the names of
//! files are keys as well. Who may set a key is who may write that file.

use crate::lookup::named;
use crate::sight::Facts;
use crate::table::{Read, Write, Writer};

/// A key: what it is called, and how its value comes about.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value looks like, in a word or two.
    pub kind: &'static str,
    /// What its numbers count.
    pub unit: &'static str,
    /// The files it is made from, by their full names. The first is the one that is written; of sizes, the one of the size.
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
    /// How much the first peak is above the second. They need not have been met at once: what was above the second was at least so much. Any
    /// text resets the first.
    PeakAbove,
    /// The first in percent of a share of 1024.
    PercentOfShare,
    /// A quota in its period, as a number of CPUs: `max`, or with up to five decimals.
    Cpus,
    /// A quota in its period, in percent of one CPU.
    PercentOfCpu,
    /// A quota in its period, as a part of all CPUs that a root group has.
    PartOfCpus,
    /// One line for each size of huge pages that there is: the size, and what its file says. One of them is set at a time.
    Sizes,
    /// [`Self::Sizes`] of limits, where none is `max`.
    SizesLimit,
    /// Whether it is in one of two states: 1 or 0.
    Is {
        /// The text in that state.
        yes: &'static str,
        /// The text that ends it.
        no: &'static str,
    },
}

/// Who may set a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setter {
    /// It is read only.
    Nobody,
    /// Who is privileged over the group above, or who may write the file and is not in the group.
    OwnerAbove,
    /// Only who is privileged on the host, and of them those.
    Host,
}

impl Setter {
    /// In a word or two; nothing for nobody.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "",
            Self::OwnerAbove => "owner above",
            Self::Host => "host's root",
        }
    }
}

/// What is written where for a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The file.
    pub file: &'static str,
    /// The text.
    pub text: String,
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
    /// There are no huge pages of that size.
    #[error("{key} has no size {size:?}: there are {known}")]
    Size {
        /// The key.
        key: &'static str,
        /// The size that was named.
        size: String,
        /// The sizes that there are.
        known: String,
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
/// [`UNLIMITED`] in whole huge pages of the largest size: none that is set is as high.
const UNLIMITED_HUGE: u64 = UNLIMITED - UNLIMITED % (16 << 30);

/// A file of each size of huge pages that any machine has; the tests compare with the controller's table.
macro_rules! of_sizes {
    ($file:literal) => {
        &[
            concat!("hugetlb.64KB.", $file),
            concat!("hugetlb.2MB.", $file),
            concat!("hugetlb.32MB.", $file),
            concat!("hugetlb.512MB.", $file),
            concat!("hugetlb.1GB.", $file),
            concat!("hugetlb.16GB.", $file),
        ]
    };
}

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
        key("swap.max_usage",   "a number, which swap may have exceeded; any text resets it", "bytes", &["memory.memsw.max_usage_in_bytes", "memory.max_usage_in_bytes"], PeakAbove),
        key("swap.failcnt",     "a number; any text resets it", "events", &["memory.memsw.failcnt"],                                Same),
        key("cpus_allowed",     "a list as 0-3,5",         "CPUs",        &["cpuset.cpus"],                                         Same),
        key("mems_allowed",     "a list as 0-1",           "nodes",       &["cpuset.mems"],                                         Same),
        key("cpu_share_percent", NUMBER,                   "1/100 of a share of 1024", &["cpu.shares"],                             PercentOfShare),
        key("cpu_quota_percent", LIMIT,                    "1/100 of a CPU", &["cpu.cfs_quota_us", "cpu.cfs_period_us"],            PercentOfCpu),
        key("cpus_number",      "a number with decimals, or `max`", "CPUs", &["cpu.cfs_quota_us", "cpu.cfs_period_us"],             Cpus),
        key("cpus_fraction",    "a number up to 1 with decimals, or `max`", "all CPUs", &["cpu.cfs_quota_us", "cpu.cfs_period_us"],   PartOfCpus),
        key("cpuacct_stat",     "lines of user and system", "ticks",      &["cpuacct.stat"],                                        Same),
        key("cpuacct_usage",    "a number; 0 resets it",   "nanoseconds", &["cpuacct.usage"],                                       Same),
        key("pids.limit",       LIMIT,                     "tasks",       &["pids.max"],                                            Same),
        key("pids.usage",       NUMBER,                    "tasks",       &["pids.current"],                                        Same),
        key("files.limit",      LIMIT,                     "descriptors", &["files.max"],                                            Same),
        key("files.usage",      NUMBER,                    "descriptors", &["files.current"],                                        Same),
        key("devices_whitelist", "a rule as c 1:3 rwm",    "rules",       &["devices.allow"],                                       Same),
        key("devices_blacklist", "a rule as c 1:3 rwm",    "rules",       &["devices.deny"],                                        Same),
        key("devices_list",     "rules, one a line",       "rules",       &["devices.list"],                                        Same),
        key("hugetlb_limit",    "a size and a number or `max`, as 2MB 4194304", "bytes", of_sizes!("limit_in_bytes"),                SizesLimit),
        key("hugetlb_usage",    "lines of a size and a number", "bytes",  of_sizes!("usage_in_bytes"),                              Sizes),
        key("hugetlb_max_usage", "lines of a size and a number; a size and any text resets it", "bytes", of_sizes!("max_usage_in_bytes"), Sizes),
        key("hugetlb_failcnt",  "lines of a size and a number; a size and any text resets it", "events", of_sizes!("failcnt"),       Sizes),
        key("frozen",           "1 when all tasks stand still, else 0; 1 or 0", "a flag", &["freezer.state"],                     Is { yes: "FROZEN", no: "THAWED" }),
        key("thawed",           "1 when no task is to stand still, else 0; 1 or 0", "a flag", &["freezer.state"],                 Is { yes: "THAWED", no: "FROZEN" }),
        key("blkio_weight",     NUMBER,                    "10 to 1000",  &["blkio.weight"],                                        Same),
        key("blkio_weight_device", "a line of MAJ:MIN and a weight, or `default` for none of its own; `default` and a weight for all", "1 to 1000", &["blkio.bfq.weight_device"], Same),
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

    /// The files of which a group has at least one if it has the key.
    pub fn any_of(&self) -> &'static [&'static str] {
        match self.convert {
            Convert::Sizes | Convert::SizesLimit => self.files,
            _ => &self.files[..1],
        }
    }

    /// Who may set it.
    pub fn setter(&self) -> Setter {
        let Some(file) = named(self.files[0]).map(|file| crate::file(file).1) else { return Setter::Nobody };
        match (&file.write, file.writer) {
            (Write::Refused, _) => Setter::Nobody,
            (_, Writer::Permitted | Writer::Anyone) => Setter::OwnerAbove,
            (_, Writer::OpenedByAdmin | Writer::Admin) => Setter::Host,
        }
    }

    /// Whether it can be read.
    pub fn is_read(&self) -> bool {
        named(self.files[0]).is_some_and(|file| !matches!(crate::file(file).1.read, Read::Refused))
    }

    /// The value, from what its files say; a file that is not there says nothing.
    pub fn show(&self, texts: &[String], facts: &Facts) -> String {
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
            Convert::Above | Convert::PeakAbove => (number(0) - number(1)).max(0).to_string(),
            // Rounded to the nearest: what was set reads the same.
            Convert::PercentOfShare => ((number(0) * 100 + 512) / 1024).to_string(),
            Convert::PercentOfCpu => {
                quota(100).map_or_else(|| "max".to_owned(), |percent| percent.to_string())
            }
            Convert::Cpus => quota(100_000).map_or_else(|| "max".to_owned(), decimal),
            Convert::PartOfCpus => {
                let all = facts.cpus.len().max(1) as i128;
                quota(100_000).map_or_else(|| "max".to_owned(), |part| decimal(part / all))
            }
            Convert::Is { yes, .. } => u8::from(text == yes).to_string(),
            Convert::Sizes => self.sizes(texts, str::to_owned),
            Convert::SizesLimit => self.sizes(texts, |text| match text.parse() {
                Ok(UNLIMITED_HUGE..=u64::MAX) => "max".to_owned(),
                _ => text.to_owned(),
            }),
        }
    }

    /// `SIZE VALUE` of every size whose file says something.
    fn sizes(&self, texts: &[String], show: impl Fn(&str) -> String) -> String {
        let lines = self.files.iter().zip(texts).filter(|(_, text)| !text.is_empty());
        let lines: Vec<_> =
            lines.map(|(file, text)| format!("{} {}", size_of(file), show(text.trim()))).collect();
        lines.join("\n")
    }

    /// What is written for a value; `texts`: what the files say now.
    pub fn write(&self, value: &str, texts: &[String], facts: &Facts) -> Result<Written, KeyError> {
        match self.convert {
            Convert::Sizes | Convert::SizesLimit => self.write_size(value, texts),
            _ => Ok(Written { file: self.files[0], text: self.write_first(value, texts, facts)? }),
        }
    }

    fn write_size(&self, value: &str, texts: &[String]) -> Result<Written, KeyError> {
        let refused = || KeyError::Value { key: self.name, value: value.to_owned(), kind: self.kind };
        let (size, text) = value.trim().split_once(' ').ok_or_else(refused)?;
        let mut there = self.files.iter().zip(texts).filter(|(_, text)| !text.is_empty());
        let known = || {
            let all = self.files.iter().zip(texts).filter(|(_, text)| !text.is_empty());
            all.map(|(file, _)| size_of(file)).collect::<Vec<_>>().join(", ")
        };
        let (file, _) = there.find(|(file, _)| size_of(file) == size).ok_or_else(|| KeyError::Size {
            key: self.name,
            size: size.to_owned(),
            known: known(),
        })?;
        let text = match (self.convert, text.trim()) {
            (Convert::SizesLimit, "max") => "-1",
            (_, text) => text,
        };
        Ok(Written { file, text: text.to_owned() })
    }

    fn write_first(&self, value: &str, texts: &[String], facts: &Facts) -> Result<String, KeyError> {
        let refused = || KeyError::Value { key: self.name, value: value.to_owned(), kind: self.kind };
        let other = |at: usize| texts.get(at).and_then(|text| text.trim().parse::<u64>().ok());
        let number = || value.trim().parse::<u64>().map_err(|_| refused());
        let quota = |quota: u128| match quota {
            0 => Err(refused()),
            quota => Ok(quota.to_string()),
        };
        match (self.convert, value.trim()) {
            (Convert::Same | Convert::PeakAbove | Convert::Sizes | Convert::SizesLimit, _) => {
                Ok(value.to_owned())
            }
            (
                Convert::Limit | Convert::Above | Convert::PercentOfCpu | Convert::Cpus | Convert::PartOfCpus,
                "max",
            ) => Ok("-1".to_owned()),
            (Convert::Is { yes, .. }, "1") => Ok(yes.to_owned()),
            (Convert::Is { no, .. }, "0") => Ok(no.to_owned()),
            (Convert::Is { .. }, _) => Err(refused()),
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
            (Convert::PartOfCpus, text) => {
                let period = other(1).ok_or_else(refused)?;
                let part = hundred_thousandths(text).filter(|part| *part <= 100_000).ok_or_else(refused)?;
                let all = facts.cpus.len().max(1) as u128;
                quota(part * all * u128::from(period) / 100_000)
            }
        }
    }
}

/// `2MB` of `hugetlb.2MB.failcnt`.
fn size_of(file: &str) -> &str {
    file.split('.').nth(1).unwrap_or_default()
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
    let mut text = "| key | value | unit | v1 files | get | set by |\n|---|---|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let files = match key.convert {
            Convert::Sizes | Convert::SizesLimit => {
                &[key.files[0].replace(size_of(key.files[0]), "SIZE")][..]
            }
            _ => &key.files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>(),
        };
        let files: Vec<_> = files.iter().map(|file| format!("`{file}`")).collect();
        let (kind, files) = (key.kind, files.join(", "));
        let get = if key.is_read() { "yes" } else { "" };
        let set = key.setter().name();
        text += &format!("| `{}` | {kind} | {} | {files} | {get} | {set} |\n", key.name, key.unit);
    }
    text
}
