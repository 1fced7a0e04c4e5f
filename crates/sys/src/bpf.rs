//! BPF programs, of cgroup directories and of the scheduler's events: bpf(2).
//!
//! Why unsafe: one system call with an argument of many shapes, some of which hold addresses. Each function below fills in one
//! shape, from values that are borrowed until the call returns. Layouts: union bpf_attr, include/uapi/linux/bpf.h.

use std::ffi::CStr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::last_errno;

/// How long a program's name can be: BPF_OBJ_NAME_LEN, less the NUL after it.
pub const NAME_MAX: usize = 15;

/// What a program is made for, and where it is attached: `enum bpf_prog_type` with the `enum bpf_attach_type` that goes with
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Asked before a device is opened or made. Linux 4.15.
    Device,
    /// Asked for each packet that leaves a socket. Linux 4.10.
    Egress,
}

impl Kind {
    const fn program_type(self) -> u32 {
        match self {
            Self::Device => 15, // BPF_PROG_TYPE_CGROUP_DEVICE
            Self::Egress => 8,  // BPF_PROG_TYPE_CGROUP_SKB
        }
    }

    const fn attach_type(self) -> u32 {
        match self {
            Self::Device => 6, // BPF_CGROUP_DEVICE
            Self::Egress => 1, // BPF_CGROUP_INET_EGRESS
        }
    }
}

/// `struct bpf_insn`.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const _: () = assert!(size_of::<Instruction>() == 8);

impl Instruction {
    /// The instruction with these fields; registers are numbers below 16.
    pub const fn new(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Self {
        // Two bit fields in one byte, in the order that the machine's C compiler gives them.
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to & 15 } else { to << 4 | from & 15 };
        Self { code, registers, offset, immediate }
    }
}

/// What tells a program from others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// Its number, as long as it is loaded.
    pub id: NonZeroU32,
    /// A hash of its instructions.
    pub tag: [u8; 8],
    /// The name it was loaded with.
    pub name: String,
}

/// Has the kernel check a program and keep it as long as something refers to it.
///
/// Errors: EPERM: no right to (CAP_BPF and CAP_NET_ADMIN in the first user namespace). EACCES: it does not pass the check.
/// E2BIG: too long, or too long to check. EINVAL: a name that is none, or a kernel without CONFIG_CGROUP_BPF. ENOSYS: one
/// without bpf(2). Source: bpf(2), `BPF_PROG_LOAD`; bpf_prog_load().
pub fn load(kind: Kind, name: &str, license: &CStr, code: &[Instruction]) -> Result<OwnedFd> {
    load_as((kind.program_type(), kind.attach_type()), name, license, code)
}

/// [`load`] for a program that is called at a tracepoint of the kernel: see [`trace`].
///
/// Errors: as of [`load`], but it is CAP_BPF and CAP_PERFMON that are asked for, and CONFIG_BPF_EVENTS. Linux 4.17.
pub fn load_tracing(name: &str, license: &CStr, code: &[Instruction]) -> Result<OwnedFd> {
    const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
    load_as((BPF_PROG_TYPE_RAW_TRACEPOINT, 0), name, license, code)
}

/// Has a program called at a tracepoint, as long as the descriptor that is returned is open.
///
/// Errors: ENOENT: the kernel has none of this name. EPERM. Source: `BPF_RAW_TRACEPOINT_OPEN`; bpf_raw_tracepoint_open().
pub fn trace(event: &CStr, program: impl AsFd) -> Result<OwnedFd> {
    #[repr(C)]
    struct RawTracepoint {
        name: u64,
        program: u32,
        rest: u32,
    }
    const BPF_RAW_TRACEPOINT_OPEN: u32 = 17;

    let attr = RawTracepoint { name: address(event.as_ptr()), program: number(program.as_fd())?, rest: 0 };
    // SAFETY: the argument has the layout of this command, and zeros behind it. Its one address is of a NUL-terminated text
    // that is borrowed until the call returns and only read.
    let fd = unsafe { call(BPF_RAW_TRACEPOINT_OPEN, &attr) }?;
    // SAFETY: the call succeeded, so `fd` is a new open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load_as(
    (program_type, attach_type): (u32, u32),
    name: &str,
    license: &CStr,
    code: &[Instruction],
) -> Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; NAME_MAX + 1],
        interface: u32,
        attach_type: u32,
    }
    const _: () = assert!(size_of::<Load>() == 72);
    const BPF_PROG_LOAD: u32 = 5;

    let attr = Load {
        program_type,
        count: code.len().try_into().map_err(|_| Errno::TOOBIG)?,
        instructions: address(code.as_ptr()),
        license: address(license.as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: name_bytes(name)?,
        interface: 0,
        attach_type,
    };
    // SAFETY: `attr` has the layout of this command. Its two addresses are of `count` instructions and of a NUL-terminated
    // text, both borrowed until the call returns and only read; there is no log to write to.
    let fd = unsafe { call(BPF_PROG_LOAD, &attr) }?;
    // SAFETY: the call succeeded, so `fd` is a new open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup directory, beside what others attached there or, with `replaces`, instead of one of
/// them. It stays as long as the directory does, whoever ends.
///
/// Errors: EPERM: no right to, or a program above does not allow others beside it. ENOENT: `replaces` is not attached there.
/// E2BIG: 64 are there. Source: `BPF_PROG_ATTACH` with BPF_F_ALLOW_MULTI, and BPF_F_REPLACE (Linux 5.6); __cgroup_bpf_attach().
pub fn attach(dir: impl AsFd, kind: Kind, program: impl AsFd, replaces: Option<&OwnedFd>) -> Result<()> {
    const BPF_PROG_ATTACH: u32 = 8;
    const ALLOW_MULTI: u32 = 1 << 1;
    const REPLACE: u32 = 1 << 2;

    let attr = Attachment {
        target: number(dir.as_fd())?,
        program: number(program.as_fd())?,
        attach_type: kind.attach_type(),
        flags: ALLOW_MULTI | if replaces.is_some() { REPLACE } else { 0 },
        replaces: replaces.map_or(Ok(0), |old| number(old.as_fd()))?,
    };
    // SAFETY: `attr` has the layout of this command and holds no address; its descriptors are borrowed until it returns.
    unsafe { call(BPF_PROG_ATTACH, &attr) }.map(|_| ())
}

/// Takes a program away from a cgroup directory.
///
/// Errors: EPERM. ENOENT: it is not attached there. Source: `BPF_PROG_DETACH`; __cgroup_bpf_detach().
pub fn detach(dir: impl AsFd, kind: Kind, program: impl AsFd) -> Result<()> {
    const BPF_PROG_DETACH: u32 = 9;

    let attr = Attachment {
        target: number(dir.as_fd())?,
        program: number(program.as_fd())?,
        attach_type: kind.attach_type(),
        flags: 0,
        replaces: 0,
    };
    // SAFETY: `attr` has the layout of this command and holds no address; its descriptors are borrowed until it returns.
    unsafe { call(BPF_PROG_DETACH, &attr) }.map(|_| ())
}

/// The numbers of the programs that are attached to a cgroup directory itself, in the order they were attached.
///
/// Errors: EPERM. EINVAL: a kernel without CONFIG_CGROUP_BPF. Source: `BPF_PROG_QUERY`; __cgroup_bpf_query(), which from
/// Linux 6.17 on, until that was mended, writes a revision at offset 56 whatever the size it is given.
pub fn attached(dir: impl AsFd, kind: Kind) -> Result<Vec<NonZeroU32>> {
    #[repr(C)]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        /// Of this command until 64, of the longest one until 168 (Linux 6.18); and more, which the kernel takes for zeros.
        rest: [u32; 57],
    }
    const _: () = assert!(std::mem::offset_of!(Query, count) == 24 && size_of::<Query>() == 256);
    const BPF_PROG_QUERY: u32 = 16;
    /// BPF_CGROUP_MAX_PROGS.
    const MOST: usize = 64;

    let mut ids = [0_u32; MOST];
    let mut attr = Query {
        target: number(dir.as_fd())?,
        attach_type: kind.attach_type(),
        query_flags: 0,
        attach_flags: 0,
        ids: address(ids.as_mut_ptr()),
        count: 64,
        rest: [0; 57],
    };
    // SAFETY: `attr` has the layout of this command and is longer than the kernel's union bpf_attr, wherever in that the kernel
    // writes back. Its one address is of `count` numbers, which nothing else refers to until the call returns; the others
    // are null, and not written to.
    unsafe { call_mut(BPF_PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.count).map_or(MOST, |count| count.min(MOST));
    Ok(ids[..count].iter().filter_map(|id| NonZeroU32::new(*id)).collect())
}

/// The program with this number.
///
/// Errors: EPERM: no CAP_SYS_ADMIN in the first user namespace. ENOENT: there is none any more.
/// Source: `BPF_PROG_GET_FD_BY_ID`; bpf_prog_get_fd_by_id().
pub fn by_id(id: NonZeroU32) -> Result<OwnedFd> {
    #[repr(C)]
    struct ById {
        id: u32,
        next: u32,
        flags: u32,
    }
    const BPF_PROG_GET_FD_BY_ID: u32 = 13;

    // SAFETY: the argument has the layout of this command and holds no address.
    let fd = unsafe { call(BPF_PROG_GET_FD_BY_ID, &ById { id: id.get(), next: 0, flags: 0 }) }?;
    // SAFETY: the call succeeded, so `fd` is a new open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a program is called.
///
/// Errors: the kernel's. Source: `BPF_OBJ_GET_INFO_BY_FD`; struct bpf_prog_info, of which the beginning is asked for.
pub fn info(program: impl AsFd) -> Result<Info> {
    #[repr(C)]
    #[derive(Default)]
    struct ProgramInfo {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        lengths: [u32; 2],
        texts: [u64; 2],
        load_time: u64,
        created_by: u32,
        map_count: u32,
        maps: u64,
        name: [u8; NAME_MAX + 1],
    }
    const _: () = assert!(size_of::<ProgramInfo>() == 80);
    #[repr(C)]
    struct InfoByFd {
        program: u32,
        length: u32,
        info: u64,
    }
    const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;

    let mut found = ProgramInfo::default();
    let mut attr = InfoByFd { program: number(program.as_fd())?, length: 80, info: address(&raw mut found) };
    // SAFETY: `attr` has the layout of this command, which writes the length back. Its address is of `length` zeroed bytes, which
    // nothing else refers to until the call returns: with lengths of 0 in them, the kernel writes nowhere else.
    unsafe { call_mut(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let name = found.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Info {
        id: NonZeroU32::new(found.id).ok_or(Errno::NOENT)?,
        tag: found.tag,
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

/// A table that a program and we share: a row of 64-bit numbers for each key, which is one, too.
///
/// A program looks a row up (`bpf_map_lookup_elem`); only we add rows and take them away.
#[derive(Debug)]
pub struct Table {
    map: OwnedFd,
    /// How many numbers a row has.
    width: usize,
}

impl Table {
    /// A table without rows, which may have up to `most`. What a row takes is allocated when it comes (BPF_F_NO_PREALLOC,
    /// which the kernel is at ease with in programs of tracepoints from Linux 6.1 on; before, it warns in its log).
    ///
    /// Errors: EPERM: no CAP_BPF. E2BIG: rows that are too long. Source: `BPF_MAP_CREATE`; htab_map_alloc_check().
    pub fn new(name: &str, width: u32, most: u32) -> Result<Self> {
        const HASH: u32 = 1; // BPF_MAP_TYPE_HASH
        const NO_PREALLOC: u32 = 1;
        let row = width.checked_mul(8).ok_or(Errno::TOOBIG)?;
        let map = create_map(HASH, (8, row), most, NO_PREALLOC, name)?;
        Ok(Self { map, width: usize::try_from(width).map_err(|_| Errno::TOOBIG)? })
    }

    /// Adds a row of zeros.
    ///
    /// Errors: EEXIST: it is there. E2BIG: the table is full. ENOMEM. Source: `BPF_MAP_UPDATE_ELEM` with BPF_NOEXIST.
    pub fn add(&self, key: u64) -> Result<()> {
        const BPF_MAP_UPDATE_ELEM: u32 = 2;
        const NOEXIST: u64 = 1;
        let row = vec![0_u64; self.width];
        let attr = Element {
            map: number(self.map.as_fd())?,
            rest: 0,
            key: address(&raw const key),
            value: address(row.as_ptr()),
            flags: NOEXIST,
        };
        // SAFETY: `attr` has the layout of this command. Its addresses are of a key and of a row, as long as this map has them
        // (`new` made it), borrowed until the call returns and only read.
        unsafe { call(BPF_MAP_UPDATE_ELEM, &attr) }.map(|_| ())
    }

    /// A row.
    ///
    /// Errors: ENOENT: there is none. Source: `BPF_MAP_LOOKUP_ELEM`.
    pub fn get(&self, key: u64) -> Result<Vec<u64>> {
        const BPF_MAP_LOOKUP_ELEM: u32 = 1;
        let mut row = vec![0_u64; self.width];
        let attr = Element {
            map: number(self.map.as_fd())?,
            rest: 0,
            key: address(&raw const key),
            value: address(row.as_mut_ptr()),
            flags: 0,
        };
        // SAFETY: as in `add`; the row is written to, and nothing else refers to it until the call returns.
        unsafe { call(BPF_MAP_LOOKUP_ELEM, &attr) }?;
        Ok(row)
    }

    /// Takes a row away.
    ///
    /// Errors: ENOENT: there is none. Source: `BPF_MAP_DELETE_ELEM`.
    pub fn remove(&self, key: u64) -> Result<()> {
        const BPF_MAP_DELETE_ELEM: u32 = 3;
        let attr = Element {
            map: number(self.map.as_fd())?,
            rest: 0,
            key: address(&raw const key),
            value: 0,
            flags: 0,
        };
        // SAFETY: as in `add`; this command takes no row.
        unsafe { call(BPF_MAP_DELETE_ELEM, &attr) }.map(|_| ())
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A map of one 64-bit number for each CPU, with key 0 of 32 bits, that only programs look at. It starts with zeros.
///
/// Errors: EPERM: no CAP_BPF. Source: `BPF_MAP_CREATE`; array_map_alloc().
pub fn number_of_each_cpu(name: &str) -> Result<OwnedFd> {
    const PERCPU_ARRAY: u32 = 6; // BPF_MAP_TYPE_PERCPU_ARRAY
    create_map(PERCPU_ARRAY, (4, 8), 1, 0, name)
}

/// `to = map`: two instructions, which hold the map until the program is loaded with them, and by it from then on.
pub fn map_address(to: u8, map: impl AsFd) -> [Instruction; 2] {
    const LOAD_64: u8 = 0x18; // BPF_LD | BPF_IMM | BPF_DW
    const PSEUDO_MAP_FD: u8 = 1;
    let fd = map.as_fd().as_raw_fd();
    [Instruction::new(LOAD_64, to, PSEUDO_MAP_FD, 0, fd), Instruction::new(0, 0, 0, 0, 0)]
}

fn create_map(
    kind: u32,
    (key_size, value_size): (u32, u32),
    most: u32,
    flags: u32,
    name: &str,
) -> Result<OwnedFd> {
    #[repr(C)]
    struct Map {
        kind: u32,
        key_size: u32,
        value_size: u32,
        most: u32,
        flags: u32,
        inner: u32,
        node: u32,
        name: [u8; NAME_MAX + 1],
    }
    const _: () = assert!(size_of::<Map>() == 44);
    const BPF_MAP_CREATE: u32 = 0;

    let attr = Map { kind, key_size, value_size, most, flags, inner: 0, node: 0, name: name_bytes(name)? };
    // SAFETY: `attr` has the layout of this command and holds no address.
    let fd = unsafe { call(BPF_MAP_CREATE, &attr) }?;
    // SAFETY: the call succeeded, so `fd` is a new open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The argument of the commands for one row of a map.
#[repr(C)]
struct Element {
    map: u32,
    rest: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Element>() == 32);

/// A name as the kernel's structures have it: EINVAL if it is too long.
fn name_bytes(name: &str) -> Result<[u8; NAME_MAX + 1]> {
    let mut bytes = [0; NAME_MAX + 1];
    bytes
        .get_mut(..name.len())
        .filter(|_| name.len() <= NAME_MAX)
        .ok_or(Errno::INVAL)?
        .copy_from_slice(name.as_bytes());
    Ok(bytes)
}

/// The argument of the commands that attach and detach.
#[repr(C)]
struct Attachment {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaces: u32,
}

const _: () = assert!(size_of::<Attachment>() == 20);

/// Calls bpf(2) with a command that does not write into its argument.
///
/// # Safety
/// `attr` has the layout of the command's part of union bpf_attr, and every address in it is good for what the command does.
unsafe fn call<T>(command: u32, attr: &T) -> Result<i32> {
    // SAFETY: `attr` is live and this long; that the command may use it so is the caller's promise.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) })
}

/// Calls bpf(2) with a command that writes into its argument.
///
/// # Safety
/// As of [`call`].
unsafe fn call_mut<T>(command: u32, attr: &mut T) -> Result<i32> {
    // SAFETY: `attr` is live, this long and borrowed alone; that the command may use it so is the caller's promise.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) })
}

fn checked(answer: libc::c_long) -> Result<i32> {
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(last_errno()),
    }
}

/// An address as the kernel's structures have it.
fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

fn number(fd: BorrowedFd<'_>) -> Result<u32> {
    fd.as_raw_fd().try_into().map_err(|_| Errno::BADF)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `r0 = 1; exit`
    const YES: [Instruction; 2] = [Instruction::new(0xb7, 0, 0, 0, 1), Instruction::new(0x95, 0, 0, 0, 0)];

    #[test]
    fn an_instruction_has_its_registers_where_the_kernel_looks() {
        let instruction = Instruction::new(0x61, 2, 1, 4, 0);
        assert_eq!(instruction.registers, if cfg!(target_endian = "little") { 0x12 } else { 0x21 });
    }

    #[test]
    fn a_program_is_found_again_by_its_number_and_knows_its_name() {
        let program = match load(Kind::Device, "pinfold_test", c"", &YES) {
            Err(Errno::PERM | Errno::NOSYS) => return eprintln!("skipped: no right to load BPF programs"),
            program => program.expect("the kernel takes it"),
        };
        let found = info(&program).expect("it is loaded");
        assert_eq!(found.name, "pinfold_test");
        let again = info(by_id(found.id).expect("it is held")).expect("it is loaded");
        assert_eq!(again, found);
    }

    /// Any directory will do, and none is changed.
    #[test]
    fn the_programs_of_a_directory_are_asked_for_with_room_for_what_the_kernel_adds() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc");
        let point = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let Some(point) = point.into_iter().find(|fields| fields[2] == "cgroup2") else {
            return eprintln!("skipped: no v2 tree");
        };
        let dir = std::fs::File::open(point[1]).expect("a mount point");
        match attached(&dir, Kind::Device) {
            Err(Errno::PERM | Errno::NOSYS) => eprintln!("skipped: no right to ask for BPF programs"),
            asked => asked.map(|_| ()).expect("zeros behind what it knows are nothing to the kernel"),
        }
    }

    #[test]
    fn a_row_of_a_table_is_there_from_when_it_is_added_until_it_is_taken_away() {
        let table = match Table::new("pinfold_test", 3, 2) {
            Err(Errno::PERM | Errno::NOSYS) => return eprintln!("skipped: no right to make BPF maps"),
            table => table.expect("the kernel makes it"),
        };
        assert_eq!(table.get(7), Err(Errno::NOENT));
        table.add(7).expect("there is room");
        assert_eq!(table.get(7).as_deref(), Ok(&[0, 0, 0][..]));
        assert_eq!(table.add(7), Err(Errno::EXIST));
        table.add(8).expect("there is room");
        assert_eq!(table.add(9), Err(Errno::TOOBIG), "and none for a third");
        table.remove(7).expect("it is there");
        assert_eq!(table.remove(7), Err(Errno::NOENT));
        table.add(9).expect("there is room again");
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_before_the_kernel_sees_it() {
        assert_eq!(load(Kind::Device, "sixteen_letters_", c"", &YES).unwrap_err(), Errno::INVAL);
    }
}
