//! Rules as a program that the kernel asks before a device is opened or made.

use pinfold_model::Instruction;

use super::rules::{Behavior, Exception, Kind, Rules};
use crate::bpf::{EXIT, R0, R2, if_equal, load, mask, set, shift_right, unless_equal};

/// struct bpf_cgroup_dev_ctx: the access above 16 bits of type, then the device's numbers.
const ACCESS_AND_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

const DENIED: u32 = 0;
const ALLOWED: u32 = 1;

/// The program for these rules; `None` if they allow everything. It answers as devcgroup_legacy_check_permission(): with
/// everything denied, one exception must cover the whole access; with everything allowed, none may meet any of it.
pub(super) fn program(rules: &Rules) -> Option<Vec<Instruction>> {
    let (answer, otherwise) = match rules.behavior {
        Behavior::Allow if rules.exceptions.is_empty() => return None,
        Behavior::Allow => (DENIED, ALLOWED),
        Behavior::Deny => (ALLOWED, DENIED),
    };
    let mut code = Vec::new();
    for exception in &rules.exceptions {
        code.extend(clause(exception, rules.behavior, answer));
    }
    code.extend([set(R0, otherwise), EXIT]);
    Some(code)
}

/// Ends with an answer if the exception speaks of the device; goes on behind otherwise.
///
/// Every clause loads what it looks at anew. So nothing that one has found out is known in the next, and the kernel checks
/// each of them once, instead of once for every way through those before: time in proportion to the number of rules.
fn clause(exception: &Exception, behavior: Behavior, answer: u32) -> Vec<Instruction> {
    // BPF_DEVCG_DEV_*; the bits of access are those of BPF_DEVCG_ACC_*.
    let kind = match exception.kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    let access = u32::from(exception.access.0);
    // Written from its end, so that each test knows how far it is to what comes behind.
    let mut backwards = vec![EXIT, set(R0, answer)];
    let (of_interest, test): (_, fn(_, _, _) -> _) = match behavior {
        // Nothing of it is asked for.
        Behavior::Allow => (access, if_equal),
        // Something else is asked for too.
        Behavior::Deny => (!access, unless_equal),
    };
    backwards.push(test(R2, 0, length(&backwards)));
    backwards.extend([mask(R2, of_interest), shift_right(R2, 16), load(R2, ACCESS_AND_TYPE)]);
    for (place, number) in [(MINOR, exception.minor.0), (MAJOR, exception.major.0)] {
        if let Some(number) = number {
            backwards.extend([unless_equal(R2, number, length(&backwards)), load(R2, place)]);
        }
    }
    backwards.push(unless_equal(R2, kind, length(&backwards)));
    backwards.extend([mask(R2, 0xffff), load(R2, ACCESS_AND_TYPE)]);
    backwards.reverse();
    backwards
}

fn length(code: &[Instruction]) -> i16 {
    code.len().try_into().expect("a clause has thirteen instructions at most")
}
