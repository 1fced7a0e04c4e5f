//! Operations on directories and on what stat(2) and xattr(7) tell.

use super::operations::{Actor, Arguments, Operation};
use super::outcome::{Failure, Outcome, done, wrong};
use super::words::quote;
use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, XattrFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The rows.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "mkdir", arguments: "DIR [MODE]", run: mkdir },
    Operation { name: "rmdir", arguments: "DIR", run: rmdir },
    Operation { name: "rename", arguments: "FROM TO [noreplace|exchange]", run: rename },
    Operation { name: "create", arguments: "FILE", run: create },
    Operation { name: "unlink", arguments: "PATH", run: unlink },
    Operation { name: "symlink", arguments: "TARGET PATH", run: symlink },
    Operation { name: "link", arguments: "FROM TO", run: link },
    Operation { name: "mknod", arguments: "PATH fifo|file|null", run: mknod },
    Operation { name: "ls", arguments: "DIR", run: ls },
    Operation { name: "stat", arguments: "PATH", run: stat },
    Operation { name: "access", arguments: "PATH [r][w][x]", run: access },
    Operation { name: "chmod", arguments: "PATH MODE", run: chmod },
    Operation { name: "chown", arguments: "PATH UID:GID", run: chown },
    Operation { name: "truncate", arguments: "FILE SIZE", run: truncate },
    Operation { name: "setxattr", arguments: "PATH NAME VALUE [create|replace]", run: setxattr },
    Operation { name: "getxattr", arguments: "PATH NAME", run: getxattr },
    Operation { name: "listxattr", arguments: "PATH", run: listxattr },
    Operation { name: "removexattr", arguments: "PATH NAME", run: removexattr },
];

fn mkdir(_: &mut Actor, a: Arguments) -> Outcome {
    let mode = if a.get(1).is_some() { mode(a.text(1)?)? } else { Mode::from_raw_mode(0o755) };
    fs::mkdir(a.at(0), mode)?;
    done()
}

fn rmdir(_: &mut Actor, a: Arguments) -> Outcome {
    fs::rmdir(a.at(0))?;
    done()
}

fn rename(_: &mut Actor, a: Arguments) -> Outcome {
    let flags = match a.get(2).map(OsStr::as_bytes) {
        None => RenameFlags::empty(),
        Some(b"noreplace") => RenameFlags::NOREPLACE,
        Some(b"exchange") => RenameFlags::EXCHANGE,
        Some(_) => return wrong("rename takes noreplace or exchange"),
    };
    fs::renameat_with(CWD, a.at(0), CWD, a.at(1), flags)?;
    done()
}

fn create(_: &mut Actor, a: Arguments) -> Outcome {
    fs::open(a.at(0), OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::from_raw_mode(0o644))?;
    done()
}

fn unlink(_: &mut Actor, a: Arguments) -> Outcome {
    fs::unlink(a.at(0))?;
    done()
}

fn symlink(_: &mut Actor, a: Arguments) -> Outcome {
    fs::symlink(a.at(0), a.at(1))?;
    done()
}

fn link(_: &mut Actor, a: Arguments) -> Outcome {
    fs::link(a.at(0), a.at(1))?;
    done()
}

fn mknod(_: &mut Actor, a: Arguments) -> Outcome {
    let (kind, device) = match a.text(1)? {
        "fifo" => (FileType::Fifo, 0),
        "file" => (FileType::RegularFile, 0),
        "null" => (FileType::CharacterDevice, fs::makedev(1, 3)),
        _ => return wrong("mknod makes a fifo, a file or a null device"),
    };
    fs::mknodat(CWD, a.at(0), kind, Mode::from_raw_mode(0o644), device)?;
    done()
}

fn ls(_: &mut Actor, a: Arguments) -> Outcome {
    let mut names: Vec<_> =
        std::fs::read_dir(a.at(0))?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    names.sort();
    let mut lines = Vec::new();
    for name in names {
        let found = fs::statat(CWD, std::path::Path::new(a.at(0)).join(&name), AtFlags::SYMLINK_NOFOLLOW)?;
        lines.push(format!("{} {}", mode_text(&found), plain(name.as_bytes())));
    }
    if lines.is_empty() {
        lines.push("(empty)".to_owned());
    }
    Ok(lines)
}

fn stat(_: &mut Actor, a: Arguments) -> Outcome {
    let found = fs::statat(CWD, a.at(0), AtFlags::SYMLINK_NOFOLLOW)?;
    let text = mode_text(&found);
    Ok(vec![format!(
        "{text} nlink={} size={} owner={}:{}",
        found.st_nlink, found.st_size, found.st_uid, found.st_gid
    )])
}

fn access(_: &mut Actor, a: Arguments) -> Outcome {
    let mut wanted = fs::Access::EXISTS;
    for letter in a.text(1)?.chars() {
        wanted |= match letter {
            'r' => fs::Access::READ_OK,
            'w' => fs::Access::WRITE_OK,
            'x' => fs::Access::EXEC_OK,
            _ => return wrong("access takes letters of rwx"),
        };
    }
    fs::accessat(CWD, a.at(0), wanted, AtFlags::EACCESS)?;
    done()
}

fn chmod(_: &mut Actor, a: Arguments) -> Outcome {
    fs::chmod(a.at(0), mode(a.text(1)?)?)?;
    done()
}

fn chown(_: &mut Actor, a: Arguments) -> Outcome {
    let ids = a.ids(1)?;
    let [uid, gid] = ids[..] else { return wrong("chown takes UID:GID") };
    fs::chown(a.at(0), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    done()
}

fn truncate(_: &mut Actor, a: Arguments) -> Outcome {
    let file = std::fs::OpenOptions::new().write(true).open(a.at(0)).map_err(as_open)?;
    file.set_len(a.number(1)?)?;
    done()
}

fn setxattr(_: &mut Actor, a: Arguments) -> Outcome {
    let flags = match a.get(3).map(OsStr::as_bytes) {
        None => XattrFlags::empty(),
        Some(b"create") => XattrFlags::CREATE,
        Some(b"replace") => XattrFlags::REPLACE,
        Some(_) => return wrong("setxattr takes create or replace"),
    };
    fs::setxattr(a.at(0), a.at(1), a.at(2).as_bytes(), flags)?;
    done()
}

fn getxattr(_: &mut Actor, a: Arguments) -> Outcome {
    let mut value = vec![0; 65536];
    let length = fs::getxattr(a.at(0), a.at(1), &mut value[..])?;
    Ok(vec![quote(&value[..length])])
}

fn listxattr(_: &mut Actor, a: Arguments) -> Outcome {
    let mut list = vec![0; 65536];
    let length = fs::listxattr(a.at(0), &mut list[..])?;
    let mut names: Vec<String> =
        list[..length].split(|b| *b == 0).filter(|name| !name.is_empty()).map(plain).collect();
    names.sort();
    Ok(if names.is_empty() { vec!["(none)".to_owned()] } else { names })
}

fn removexattr(_: &mut Actor, a: Arguments) -> Outcome {
    fs::removexattr(a.at(0), a.at(1))?;
    done()
}

/// An error of an open that serves another operation.
pub(super) fn as_open(error: std::io::Error) -> Failure {
    match Failure::from(error) {
        Failure::Errno(errno) => Failure::Open(errno),
        other => other,
    }
}

fn mode(octal: &str) -> Result<Mode, Failure> {
    u32::from_str_radix(octal, 8)
        .map(Mode::from_raw_mode)
        .or_else(|_| wrong(format!("{octal} is not a mode in octal")))
}

/// `drwxr-xr-x`, as ls(1) shows it; set-id and sticky bits are shown as octal in front.
fn mode_text(found: &Stat) -> String {
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::RegularFile => '-',
        _ => '?',
    };
    let bits = |shift: u32| {
        let three = found.st_mode >> shift;
        [(4, 'r'), (2, 'w'), (1, 'x')].map(|(bit, letter)| if three & bit != 0 { letter } else { '-' })
    };
    let mut text = String::from(kind);
    text.extend([6, 3, 0].into_iter().flat_map(bits));
    match found.st_mode & 0o7000 {
        0 => text,
        special => format!("{text}+{special:o}"),
    }
}

/// A name as it is if that is plain, else quoted.
fn plain(name: &[u8]) -> String {
    let is_plain = name.iter().all(|b| b.is_ascii_graphic() && !b"\"\\$#".contains(b));
    if is_plain { String::from_utf8_lossy(name).into_owned() } else { quote(name) }
}
