//! Placeholder while the foundation is laid.
#![forbid(unsafe_code)]
