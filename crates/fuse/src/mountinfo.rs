//! Lines of /proc/self/mountinfo (proc_pid_mountinfo(5)), as far as this crate needs them.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount of this mount namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MountLine {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    pub(crate) device: (u32, u32),
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
    pub(crate) source: String,
}

impl MountLine {
    /// Whether another mount lies on it at the same place, so that its path leads there instead.
    pub(crate) fn is_covered_in(&self, lines: &[Self]) -> bool {
        lines.iter().any(|other| other.parent == self.id && other.point == self.point && other.id != self.id)
    }
}

/// Every mount of this mount namespace.
pub(crate) fn read() -> io::Result<Vec<MountLine>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// A line in another form than proc(5) says is left out: it cannot be one of ours.
fn parse(text: &[u8]) -> Vec<MountLine> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let _root = fields.next()?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let mut after_optional = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8(unescape(after_optional.next()?)).ok()?;
    let source = String::from_utf8_lossy(&unescape(after_optional.next()?)).into_owned();
    Some(MountLine { id, parent, device, point, kind, source })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Space, tab, newline and backslash come as three octal digits (mangle_path()).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
        21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        40 21 0:39 / /tmp/a\\040b\\134\xff rw,nosuid shared:7 master:2 - fuse.cgroup pids rw,user_id=0\n\
        41 40 0:41 / /tmp/a\\040b\\134\xff rw - tmpfs none rw\n\
        not a line\n";

    #[test]
    fn a_line_gives_its_numbers_place_type_and_source() {
        let lines = parse(TEXT);
        assert_eq!(lines.len(), 3);
        let point = PathBuf::from(OsString::from_vec(b"/tmp/a b\\\xff".to_vec()));
        let (kind, source) = ("fuse.cgroup".to_owned(), "pids".to_owned());
        let expected = MountLine { id: 40, parent: 21, device: (0, 39), point, kind, source };
        assert_eq!(lines[1], expected);
    }

    #[test]
    fn a_mount_under_another_at_the_same_place_is_covered() {
        let lines = parse(TEXT);
        assert!(lines[1].is_covered_in(&lines));
        assert!(!lines[2].is_covered_in(&lines));
        assert!(!lines[0].is_covered_in(&lines), "another place, though it is the parent");
    }
}
