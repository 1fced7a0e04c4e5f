//! One look at a process or a thread: the file `stat` of each in /proc.

use std::fs;

/// What /proc/PID/stat says at a glance.
pub(crate) struct Look {
    /// The process's number, or the thread's.
    pub id: u32,
    state: u8,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    pub terminal: i64,
    /// The foreground group of that terminal; below 1: none that is seen from here.
    pub foreground: i64,
    pub nice: i32,
    pub started: u64,
}

impl Look {
    /// `None`: there is no such process.
    pub(crate) fn at(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Each thread of a process; none: there is no such process.
    pub(crate) fn at_threads(pid: u32) -> Vec<Self> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let texts = threads.filter_map(|thread| fs::read(thread.path().join("stat")).ok());
        texts.filter_map(|text| Self::parse(&text)).collect()
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The name is in parentheses, and may contain anything, parentheses too.
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = String::from_utf8_lossy(text.get(end + 1..)?).into_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Fields are numbered in proc(5): the state is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            id: std::str::from_utf8(text.get(..text.iter().position(|&byte| byte == b' ')?)?)
                .ok()?
                .parse()
                .ok()?,
            state: *field(3)?.as_bytes().first()?,
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            terminal: field(7)?.parse().ok()?,
            foreground: field(8)?.parse().ok()?,
            nice: field(19)?.parse().ok()?,
            started: field(22)?.parse().ok()?,
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Whether it stands still: by a signal, or for its tracer.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Whether it has a CPU, or waits for one.
    pub(crate) fn runs(&self) -> bool {
        self.state == b'R'
    }

    /// Whether a signal has stopped it.
    pub(crate) fn is_stopped_by_signal(&self) -> bool {
        self.state == b'T'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_taken_for_what_follows_it() {
        let rest = "S 7 8 9 34816 8 4194304 1 2 3 4 5 6 7 8 20 -5 1 0 4711 0";
        for name in ["sleep", ") Z 1 1 1", "a) (b", "x\n1 (y) Z", "((", "))"] {
            let look = Look::parse(format!("42 ({name}) {rest}\n").as_bytes()).expect(name);
            assert!(!look.has_ended() && !look.is_stopped(), "{name}");
            assert_eq!((look.id, look.parent, look.group, look.session), (42, 7, 8, 9), "{name}");
            assert_eq!((look.nice, look.started), (-5, 4711), "{name}");
        }
    }
}
