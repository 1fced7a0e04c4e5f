//! The few BPF instructions that the generated programs are made of: Documentation/bpf/standardization/instruction-set.rst.
//!
//! All arithmetic is on 32 bits. Jumps go forward, over as many instructions as they say.

use pinfold_model::Instruction;

/// A register. [`R0`] holds the answer at the end, [`CONTEXT`] the address of what the program is asked about at the start.
pub(crate) type Register = u8;

pub(crate) const R0: Register = 0;
pub(crate) const CONTEXT: Register = 1;
pub(crate) const R2: Register = 2;
pub(crate) const R3: Register = 3;

/// Where a packet's mark is in the context: struct __sk_buff.
pub(crate) const PACKET_MARK: i16 = 8;
/// Where its priority is.
pub(crate) const PACKET_PRIORITY: i16 = 32;
/// Where the number of the interface is that it goes out through.
pub(crate) const PACKET_INTERFACE: i16 = 40;
/// The answer that lets a packet pass.
pub(crate) const PACKET_PASSES: u32 = 1;

/// `to = context[offset]`
pub(crate) const fn load(to: Register, offset: i16) -> Instruction {
    Instruction { code: 0x61, to, from: CONTEXT, offset, immediate: 0 } // BPF_LDX | BPF_MEM | BPF_W
}

/// `context[offset] = from`
pub(crate) const fn store(offset: i16, from: Register) -> Instruction {
    Instruction { code: 0x63, to: CONTEXT, from, offset, immediate: 0 } // BPF_STX | BPF_MEM | BPF_W
}

/// `to = number`
pub(crate) const fn set(to: Register, number: u32) -> Instruction {
    with_number(0xb4, to, 0, number) // BPF_ALU | BPF_MOV | BPF_K
}

/// `to &= number`
pub(crate) const fn mask(to: Register, number: u32) -> Instruction {
    with_number(0x54, to, 0, number) // BPF_ALU | BPF_AND | BPF_K
}

/// `to >>= number`
pub(crate) const fn shift_right(to: Register, number: u32) -> Instruction {
    with_number(0x74, to, 0, number) // BPF_ALU | BPF_RSH | BPF_K
}

/// Jumps over `over` instructions if `register != number`.
pub(crate) const fn unless_equal(register: Register, number: u32, over: i16) -> Instruction {
    with_number(0x56, register, over, number) // BPF_JMP32 | BPF_JNE | BPF_K
}

/// Jumps over `over` instructions if `register == number`.
pub(crate) const fn if_equal(register: Register, number: u32, over: i16) -> Instruction {
    with_number(0x16, register, over, number) // BPF_JMP32 | BPF_JEQ | BPF_K
}

/// The end: the kernel gets what R0 holds.
pub(crate) const EXIT: Instruction = with_number(0x95, 0, 0, 0); // BPF_JMP | BPF_EXIT

const fn with_number(code: u8, to: Register, offset: i16, number: u32) -> Instruction {
    Instruction { code, to, from: 0, offset, immediate: number.cast_signed() }
}
