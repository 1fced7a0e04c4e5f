//! A realm on the machine's own v2 tree, with real processes: what every front end relies on.

mod asking;
mod everyday;
mod full_disk;
mod keeping;
mod ruling;
mod shifting;
mod support;
mod unaided;
