//! Programs that the kernel below runs on behalf of a directory's processes, as values.
//!
//! Where cgroup v2 has no control file, it has hooks: a BPF program that is attached to a directory is asked whenever a
//! process in it, or below it, does something. What such a program says is made from what a group keeps.

/// What the kernel asks a program about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hook {
    /// A device is opened or made: may it be? `BPF_CGROUP_DEVICE`.
    Device,
    /// A packet leaves a socket: may it, and with which marks? `BPF_CGROUP_INET_EGRESS`.
    Egress,
}

/// A place for one program of a directory. The name tells it from programs that others attached to the same hook, also
/// after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    /// What it is asked about.
    pub hook: Hook,
    /// The name it has in the kernel: at most 15 letters, digits, `_` and `.` (BPF_OBJ_NAME_LEN).
    pub name: &'static str,
}

/// One instruction: `struct bpf_insn`, with its registers apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Instruction {
    /// What to do: linux/bpf_common.h, linux/bpf.h.
    pub code: u8,
    /// The register that changes, or is compared.
    pub to: u8,
    /// The other register.
    pub from: u8,
    /// How far to jump from the next instruction, or where in memory.
    pub offset: i16,
    /// A number.
    pub immediate: i32,
}
