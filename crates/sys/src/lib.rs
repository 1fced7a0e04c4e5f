//! Every unsafe block of pinfold: one function per system call that rustix does not wrap, typed in, typed out.
//!
//! No policy and no pinfold type lives here. What rustix wraps safely is called from where it is needed.

pub mod apart;
pub mod aside;
pub mod bell;
pub mod bpf;
mod child;
pub mod clock;
pub mod clone;
pub mod closing;
pub mod exec;
pub mod filter;
pub mod netlink;
pub mod ns;
pub mod numbers;
pub mod pidfd;
pub mod reader;
pub mod rlimit;
pub mod scout;
pub mod shared;
mod signals;
pub mod socket;
pub mod terminal;
pub mod trace;

/// What the last call of libc failed with.
fn last_errno() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}
