//! devices: which devices the tasks of a group may open and make.
//!
//! v2 has no file for it but a hook: a program, made from a group's rules, that the kernel asks each time. A group's rules
//! are always within its parent's, so the program of the group itself says all.

mod program;
mod rules;

use std::collections::HashMap;

use pinfold_model::{GroupId, Hook, Key, Slot, Value};

use self::rules::{Behavior, Exception, Rules};
use crate::sight::Sight;
use crate::table::{
    Assignment, AtRoot, Blank, Carry, Change, Controller, File, Inherit, Needs, Place, Read, RoundTrip,
    Setting, Unaided, Unit, Write, Writer,
};
use crate::write::{WriteError, stripped};

/// What the group may do with devices, as [`Rules::print`] has it.
static RULES: Setting = Setting {
    key: Key("devices.list"),
    initial: Value::Text(Vec::new()),
    inherit: Inherit::Parent,
    carry: Carry::Program {
        slot: Slot { hook: Hook::Device, name: "pinfold_devices" },
        code: |value| program::program(&rules_of(value)),
        unlike: "",
    },
};

/// The devices controller.
pub(crate) static DEVICES: Controller = Controller {
    name: "devices",
    about: "Says which devices the tasks of a group may open and make.",
    source: "Documentation/admin-guide/cgroup-v1/devices.rst; security/device_cgroup.c",
    needs: Needs::Program,
    unaided: Unaided::Refused("only a program in a v2 directory is asked about devices"),
    files: &[
        written(
            "allow",
            |sight, data| changed(sight, data, allow_all, allow),
            "Allows the group what its parent may do. Where all is allowed but for exceptions, takes away the \
             exception that is exactly equal; where all is denied, adds one. It reaches no group below.",
            "EINVAL: another form; `a` in a group with child groups. EPERM: its parent may not do it; the writer lacks \
             CAP_SYS_ADMIN.",
        ),
        written(
            "deny",
            |sight, data| changed(sight, data, |_, _| Ok(Rules::NOTHING), deny),
            "Denies the group what it could do, and every group below it too. Where all is allowed, adds an exception; \
             where all is denied but for exceptions, takes away the one that is exactly equal.",
            "EINVAL: another form; `a` in a group with child groups. EPERM: the writer lacks CAP_SYS_ADMIN.",
        ),
        File {
            name: "list",
            place: Place::Everywhere,
            unit: Unit::State,
            read: Read::Shown { from: &[], show: |sight| rules_of(sight.own(&RULES)).list().into_bytes() },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: Some(&RULES),
            function: "devcgroup_seq_show()",
            about: "What is allowed where all is denied but for that, one exception a line. Where all is allowed, \
                    `a *:* rwm`, whatever exceptions there are. A root without rules allows all.",
            takes: "",
            errors: "",
            v2: "Kept by pinfold. A BPF program in the v2 directory of the group's processes answers the kernel.",
            differs: "The rules of the root group bind the groups below it only: pinfold does not touch the \
                      directories that its processes came from.",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
    ],
    counters: &[],
    can_attach: Controller::anybody,
};

/// A file that is only written: a rule.
const fn written(
    name: &'static str,
    parse: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
    errors: &'static str,
) -> File {
    File {
        name,
        place: Place::Everywhere,
        unit: Unit::State,
        read: Read::Refused,
        write: Write::Parsed(parse),
        writer: Writer::Admin,
        longest: File::LONGEST,
        setting: None,
        function: "devcgroup_access_write(), devcgroup_update_access()",
        about,
        takes: "`a` and anything behind it: everything; or `b` (block) or `c` (character), `MAJOR:MINOR` in decimal or `*`, \
                and up to three of `r` (read), `w` (write) and `m` (mknod), with one white space between. A fourth \
                letter is not looked at.",
        errors,
        v2: "A new BPF program takes the place of the old one in every directory that holds processes of the groups \
             that change.",
        differs: "v1 asks the writer alone for CAP_SYS_ADMIN. Here who opened the file had it too: what a program of root's writes to where a \
                  user has led its output is not root's doing.",
        round_trip: RoundTrip::NotApplicable,
        at_root: AtRoot::Alike,
        blank: Blank::Junk,
        instead: None,
    }
}

fn rules_of(value: &Value) -> Rules {
    match value {
        Value::Text(text) => Rules::parse(text),
        // Somebody wrote something else into the state directory: nothing is safe.
        _ => Rules::NOTHING,
    }
}

/// What is written where to give a group these rules: all or nothing, then each exception. `devices.list` shows no
/// exceptions from all.
pub(crate) fn again(value: &Value) -> Vec<(&'static str, String)> {
    const ALLOW: &str = "devices.allow";
    const DENY: &str = "devices.deny";
    let rules = rules_of(value);
    let (all, but) = match rules.behavior {
        Behavior::Allow => (ALLOW, DENY),
        Behavior::Deny => (DENY, ALLOW),
    };
    let exceptions = rules.exceptions.iter().map(|exception| (but, exception.to_string()));
    std::iter::once((all, "a".to_owned())).chain(exceptions).collect()
}

/// The parent's rules; `None` in a root.
fn parents(sight: &Sight<'_>) -> Option<Rules> {
    sight.above(&RULES).next().map(rules_of)
}

/// What a write does: `all` to the group's rules if it begins with `a`, else `one` with the rule that it is.
fn changed(
    sight: &Sight<'_>,
    data: &[u8],
    all: fn(&Sight<'_>, Rules) -> Result<Rules, WriteError>,
    one: fn(&Sight<'_>, Rules, Exception) -> Result<Change, WriteError>,
) -> Result<Change, WriteError> {
    let text = stripped(data);
    let own = rules_of(sight.own(&RULES));
    if text.first() != Some(&b'a') {
        return one(sight, own, Exception::parse(text)?);
    }
    if sight.forest.children(sight.group).next().is_some() {
        return Err(WriteError::HasChildren("all devices are allowed or denied"));
    }
    Ok(keep([(sight.group, all(sight, own)?)]))
}

fn allow_all(sight: &Sight<'_>, mut own: Rules) -> Result<Rules, WriteError> {
    own.allow_all(parents(sight).as_ref())?;
    Ok(own)
}

fn allow(sight: &Sight<'_>, mut own: Rules, rule: Exception) -> Result<Change, WriteError> {
    own.allow(rule, parents(sight).as_ref())?;
    Ok(keep([(sight.group, own)]))
}

/// propagate_exception(): what is denied here is denied in every group below, parents before children.
fn deny(sight: &Sight<'_>, mut own: Rules, rule: Exception) -> Result<Change, WriteError> {
    let denied_in = own.behavior;
    own.deny(rule);
    let mut now = HashMap::from([(sight.group, own)]);
    let mut changed = vec![sight.group];
    for id in sight.forest.subtree(sight.group).skip(1) {
        let before = rules_of(RULES.in_group(sight.forest, id));
        let parent = sight.forest.group(id).and_then(|group| now.get(&group.parent()?));
        let mut rules = before.clone();
        rules.lose(rule, denied_in, parent.expect("parents come before their children"));
        if rules != before {
            changed.push(id);
        }
        now.insert(id, rules);
    }
    Ok(keep(changed.into_iter().filter_map(|id| now.remove(&id).map(|rules| (id, rules)))))
}

fn keep(rules: impl IntoIterator<Item = (GroupId, Rules)>) -> Change {
    let assign = |(group, rules): (GroupId, Rules)| Assignment {
        group,
        setting: &RULES,
        value: Value::Text(rules.print()),
    };
    Change::Keep(rules.into_iter().map(assign).collect())
}
