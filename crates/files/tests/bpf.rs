//! A small interpreter of the programs that settings become.

use pinfold_files::{Carry, setting_by_key};
use pinfold_model::{Instruction, Settings};

use crate::stage::Stage;

/// Where a packet's mark, priority and interface are in its context.
const PACKET: [usize; 3] = [8 / 4, 32 / 4, 40 / 4];

/// The program that a setting asks for; `None`: none.
pub(crate) fn program(key: &str, settings: &Settings) -> Option<Vec<Instruction>> {
    let setting = setting_by_key(key).unwrap();
    let Carry::Program { code, .. } = setting.carry else { panic!("{key} is carried by no program") };
    code(setting.of(settings))
}

/// What a program answers, by the rules of the instruction set; it must read nothing that it was not given or has not set,
/// and jump nowhere but forward. The context is in words of four bytes.
pub(crate) fn run(code: &[Instruction], context: &mut [u32]) -> u32 {
    let mut registers = [None; 11];
    let mut at = 0;
    loop {
        let Instruction { code: operation, to, from, offset, immediate } = code[at];
        at += 1;
        let (to, from) = (usize::from(to), usize::from(from));
        let number = immediate.cast_unsigned();
        let offset = usize::try_from(offset).unwrap();
        let known = |register: usize| registers[register].expect("a register is set before it is used");
        match operation {
            0x61 => {
                assert_eq!(from, 1, "memory other than the context");
                registers[to] = Some(context[offset / 4]);
            }
            0x63 => {
                assert_eq!(to, 1, "memory other than the context");
                context[offset / 4] = known(from);
            }
            0xb4 => registers[to] = Some(number),
            0x54 => registers[to] = Some(known(to) & number),
            0x74 => registers[to] = Some(known(to) >> number),
            0x56 => at += if known(to) == number { 0 } else { offset },
            0x16 => at += if known(to) == number { offset } else { 0 },
            0x95 => return known(0),
            other => panic!("no instruction {other:#x}"),
        }
    }
}

/// Mark and priority of a packet that had `mark` and `priority`, after a group's program for `key` let it out through
/// `interface`.
pub(crate) fn sent(stage: &Stage, path: &str, key: &str, [mark, priority, interface]: [u32; 3]) -> [u32; 2] {
    let group = stage.group(path);
    let mut context = [0; 12];
    (context[PACKET[0]], context[PACKET[1]], context[PACKET[2]]) = (mark, priority, interface);
    if let Some(code) = program(key, stage.forest.group(group).unwrap().settings()) {
        assert_eq!(run(&code, &mut context), 1, "every packet passes");
    }
    [context[PACKET[0]], context[PACKET[1]]]
}
