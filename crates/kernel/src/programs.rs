//! BPF programs of the realm's directories.
//!
//! A program that is attached to a directory stays as long as the directory does, whoever attached it: it outlives the
//! daemon as a value in a control file does. The next daemon knows it by its name, and puts another in its place.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use pinfold_model::{Dir, Hook, Instruction, Slot};
use pinfold_sys::bpf::{self, Kind};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::Tree;

/// How many loaded programs are kept at hand: groups that are made alike need the same.
const MOST: usize = 16;

/// None of them calls a function of the kernel that asks for one.
const LICENSE: &std::ffi::CStr = c"Apache-2.0 OR MIT";

/// The programs that were used last, the last one at the end.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<Vec<Loaded>>);

#[derive(Debug)]
struct Loaded {
    slot: Slot,
    code: Vec<Instruction>,
    program: Arc<OwnedFd>,
}

impl Programs {
    /// A program of this code: one that is at hand, or a new one.
    fn loaded(&self, slot: Slot, code: &[Instruction]) -> Result<Arc<OwnedFd>, Errno> {
        // A panic in another thread leaves a list that is good at every moment.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match kept.iter().position(|known| known.slot == slot && known.code == code) {
            Some(at) => kept.remove(at),
            None => Loaded { slot, code: code.to_vec(), program: Arc::new(load(slot, code)?) },
        };
        let program = Arc::clone(&found.program);
        if kept.len() >= MOST {
            kept.remove(0);
        }
        kept.push(found);
        Ok(program)
    }
}

impl Tree {
    /// Puts a program into its slot of a directory, or takes the one there away. What was there before.
    ///
    /// One program replaces the other in one step: at no moment is there none.
    pub(crate) fn put_program(
        &self,
        dir: &Dir,
        slot: Slot,
        code: Option<&[Instruction]>,
    ) -> Result<Option<OwnedFd>, Errno> {
        let new = code.map(|code| self.programs.loaded(slot, code)).transpose()?;
        self.exchange(dir, slot, new.as_deref())
    }

    /// Puts a loaded program into its slot of a directory, or none. What was there before.
    pub(crate) fn exchange(
        &self,
        dir: &Dir,
        slot: Slot,
        new: Option<&OwnedFd>,
    ) -> Result<Option<OwnedFd>, Errno> {
        let at = self.open_to_attach(dir)?;
        let kind = kind_of(slot.hook);
        let old = in_slot(&at, slot)?;
        match (new, &old) {
            (Some(new), Some(old)) if bpf::info(new)?.id == bpf::info(old)?.id => {}
            (Some(new), old) => bpf::attach(&at, kind, new, old.as_ref())?,
            (None, Some(old)) => bpf::detach(&at, kind, old)?,
            (None, None) => {}
        }
        Ok(old)
    }

    /// bpf(2) wants a descriptor that could be read, which those that are held cannot.
    fn open_to_attach(&self, dir: &Dir) -> Result<OwnedFd, Errno> {
        crate::beneath::open(&self.base, self.below_base(dir), OFlags::RDONLY | OFlags::DIRECTORY)
    }
}

/// Loads a program for each hook, finds it again and lets it go.
pub(crate) fn probe() -> Result<(), Errno> {
    /// `r0 = 1`, and the end.
    const YES: [Instruction; 2] = [
        Instruction { code: 0xb7, to: 0, from: 0, offset: 0, immediate: 1 },
        Instruction { code: 0x95, to: 0, from: 0, offset: 0, immediate: 0 },
    ];
    for hook in [Hook::Device, Hook::Egress] {
        let program = load(Slot { hook, name: "pinfold_probe" }, &YES)?;
        bpf::by_id(bpf::info(&program)?.id)?;
    }
    Ok(())
}

fn load(slot: Slot, code: &[Instruction]) -> Result<OwnedFd, Errno> {
    let code: Vec<_> = code
        .iter()
        .map(|it| bpf::Instruction::new(it.code, it.to, it.from, it.offset, it.immediate))
        .collect();
    bpf::load(kind_of(slot.hook), slot.name, LICENSE, &code)
}

/// The program with the slot's name among those of a directory.
fn in_slot(at: impl AsFd, slot: Slot) -> Result<Option<OwnedFd>, Errno> {
    for id in bpf::attached(at, kind_of(slot.hook))? {
        let program = match bpf::by_id(id) {
            // It was detached since, so it is not one of ours: changes of ours come one at a time.
            Err(Errno::NOENT) => continue,
            program => program?,
        };
        if bpf::info(&program)?.name == slot.name {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

const fn kind_of(hook: Hook) -> Kind {
    match hook {
        Hook::Device => Kind::Device,
        Hook::Egress => Kind::Egress,
    }
}
