//! The resource limits, as the kernel, /proc and a capture file call them.

use rustix::process::Resource;

/// Each limit: the name in a capture file, the name in /proc/PID/limits, the kernel's.
/// Source: fs/proc/base.c `lnames`; setrlimit(2).
pub(crate) const LIMITS: [(&str, &str, Resource); 16] = [
    ("cpu", "Max cpu time", Resource::Cpu),
    ("fsize", "Max file size", Resource::Fsize),
    ("data", "Max data size", Resource::Data),
    ("stack", "Max stack size", Resource::Stack),
    ("core", "Max core file size", Resource::Core),
    ("rss", "Max resident set", Resource::Rss),
    ("nproc", "Max processes", Resource::Nproc),
    ("nofile", "Max open files", Resource::Nofile),
    ("memlock", "Max locked memory", Resource::Memlock),
    ("as", "Max address space", Resource::As),
    ("locks", "Max file locks", Resource::Locks),
    ("sigpending", "Max pending signals", Resource::Sigpending),
    ("msgqueue", "Max msgqueue size", Resource::Msgqueue),
    ("nice", "Max nice priority", Resource::Nice),
    ("rtprio", "Max realtime priority", Resource::Rtprio),
    ("rttime", "Max realtime timeout", Resource::Rttime),
];
