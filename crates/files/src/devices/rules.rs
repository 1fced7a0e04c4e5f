//! The rules of a group: what it may do with devices, and how that changes. Rule by rule as the kernel's
//! security/device_cgroup.c, whose quirks are part of the interface.

use std::fmt;

use crate::number::is_space;
use crate::write::WriteError;

/// What happens to a device that no exception speaks of: `enum devcg_behavior`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behavior {
    Allow,
    Deny,
}

/// The rules of one group: struct dev_cgroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rules {
    pub(crate) behavior: Behavior,
    /// No two of the same devices; in the order in which they came.
    pub(crate) exceptions: Vec<Exception>,
}

/// Devices, and what is allowed or denied with them: struct dev_exception_item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exception {
    pub(crate) kind: Kind,
    pub(crate) major: Number,
    pub(crate) minor: Number,
    pub(crate) access: Access,
}

/// `DEVCG_DEV_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Block,
    Char,
}

/// A major or minor number; `None` is any. (The kernel's ~0: written as a number, that is any too.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Number(pub(crate) Option<u32>);

/// A set of `DEVCG_ACC_*`. It may be empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access(pub(crate) u8);

impl Access {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const MKNOD: Self = Self(1);
    pub(crate) const READ: Self = Self(2);
    pub(crate) const WRITE: Self = Self(4);

    const LETTERS: [(Self, char); 3] = [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')];

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl Exception {
    /// Whether both name exactly the same devices.
    fn names_the_same(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Whether the devices of `other` are all among its own, with all of its access: one step of match_exception().
    fn covers(&self, other: &Self) -> bool {
        let holds = |own: Number, other: Number| own.0.is_none() || own == other;
        self.kind == other.kind
            && holds(self.major, other.major)
            && holds(self.minor, other.minor)
            && other.access.without(self.access) == Access::NONE
    }

    /// Whether there is a device and an access that both name: one step of match_exception_partial().
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |own: Number, other: Number| own.0.is_none() || other.0.is_none() || own == other;
        self.kind == other.kind
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
            && self.access.meets(other.access)
    }
}

impl Rules {
    /// What a root starts with.
    pub(crate) const ALL: Self = Self { behavior: Behavior::Allow, exceptions: Vec::new() };
    /// Nothing at all.
    pub(crate) const NOTHING: Self = Self { behavior: Behavior::Deny, exceptions: Vec::new() };

    /// dev_exception_add().
    fn add(&mut self, new: Exception) {
        match self.exceptions.iter_mut().find(|known| known.names_the_same(&new)) {
            Some(known) => known.access = known.access.and(new.access),
            None => self.exceptions.push(new),
        }
    }

    /// dev_exception_rm(): what is not named exactly stays.
    fn remove(&mut self, gone: &Exception) {
        for known in self.exceptions.iter_mut().filter(|known| known.names_the_same(gone)) {
            known.access = known.access.without(gone.access);
        }
        self.exceptions.retain(|known| !known.names_the_same(gone) || known.access != Access::NONE);
    }

    fn any_covers(&self, wanted: &Exception) -> bool {
        self.exceptions.iter().any(|known| known.covers(wanted))
    }

    fn any_overlaps(&self, wanted: &Exception) -> bool {
        self.exceptions.iter().any(|known| known.overlaps(wanted))
    }

    /// Whether a child of this behavior may have this exception: verify_new_ex().
    fn grants(&self, exception: &Exception, child: Behavior) -> bool {
        match (self.behavior, child) {
            // It takes something away.
            (Behavior::Allow, Behavior::Allow) => true,
            (Behavior::Allow, Behavior::Deny) => !self.any_overlaps(exception),
            (Behavior::Deny, _) => self.any_covers(exception),
        }
    }

    /// `a` to `devices.allow`.
    pub(crate) fn allow_all(&mut self, parent: Option<&Self>) -> Result<(), WriteError> {
        match parent {
            None => *self = Self::ALL,
            Some(parent) if parent.behavior == Behavior::Allow => *self = parent.clone(),
            Some(_) => return Err(WriteError::BeyondParent),
        }
        Ok(())
    }

    /// A rule to `devices.allow`.
    pub(crate) fn allow(&mut self, rule: Exception, parent: Option<&Self>) -> Result<(), WriteError> {
        match self.behavior {
            Behavior::Allow => {
                // parent_allows_removal()
                if parent.is_some_and(|parent| parent.any_overlaps(&rule)) {
                    return Err(WriteError::BeyondParent);
                }
                self.remove(&rule);
            }
            Behavior::Deny => {
                // parent_has_perm()
                if parent.is_some_and(|parent| !parent.grants(&rule, self.behavior)) {
                    return Err(WriteError::BeyondParent);
                }
                self.add(rule);
            }
        }
        Ok(())
    }

    /// A rule to `devices.deny`.
    pub(crate) fn deny(&mut self, rule: Exception) {
        match self.behavior {
            Behavior::Allow => self.add(rule),
            Behavior::Deny => self.remove(&rule),
        }
    }

    /// What a rule does here that was denied in a group above, `denied_in`; `parent` has it already: one step of
    /// propagate_exception(), with revalidate_active_exceptions().
    pub(crate) fn lose(&mut self, rule: Exception, denied_in: Behavior, parent: &Self) {
        match (denied_in, self.behavior) {
            (Behavior::Allow, Behavior::Allow) => self.add(rule),
            _ => self.remove(&rule),
        }
        let own = self.behavior;
        self.exceptions.retain(|exception| parent.grants(exception, own));
    }

    /// The text of `devices.list`: devcgroup_seq_show(). With everything allowed, exceptions are not shown.
    pub(crate) fn list(&self) -> String {
        match self.behavior {
            Behavior::Allow => "a *:* rwm\n".to_owned(),
            Behavior::Deny => self.exceptions.iter().map(|exception| format!("{exception}\n")).collect(),
        }
    }

    /// The value that a group keeps: `allow` or `deny`, then each exception after a comma; nothing if all is allowed.
    pub(crate) fn print(&self) -> Vec<u8> {
        if *self == Self::ALL {
            return Vec::new();
        }
        let mut text = match self.behavior {
            Behavior::Allow => "allow".to_owned(),
            Behavior::Deny => "deny".to_owned(),
        };
        self.exceptions.iter().for_each(|exception| text += &format!(",{exception}"));
        text.into_bytes()
    }

    /// Reads such a value. Whatever else somebody put in its place allows nothing.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut parts = text.split(|byte| *byte == b',');
        let mut rules = match parts.next() {
            Some(b"" | b"allow") => Self::ALL,
            Some(b"deny") => Self::NOTHING,
            _ => return Self::NOTHING,
        };
        for part in parts {
            match Exception::parse(part) {
                Ok(exception) => rules.add(exception),
                Err(_) => return Self::NOTHING,
            }
        }
        rules
    }
}

impl Exception {
    /// The grammar of a rule, which is the loop in devcgroup_update_access(): one white space between its three parts, and
    /// nothing after the third letter of the last is looked at.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, WriteError> {
        let wrong = || WriteError::syntax(text, "a, or b or c MAJOR:MINOR and letters of r, w and m");
        let (kind, rest) = match text {
            [b'b', rest @ ..] => (Kind::Block, rest),
            [b'c', rest @ ..] => (Kind::Char, rest),
            _ => return Err(wrong()),
        };
        let (major, rest) = after_space(rest).and_then(number).ok_or_else(wrong)?;
        let (minor, rest) = rest.strip_prefix(b":").and_then(number).ok_or_else(wrong)?;
        let mut access = Access::NONE;
        for letter in after_space(rest).ok_or_else(wrong)?.iter().take(3) {
            access = access.and(match letter {
                b'r' => Access::READ,
                b'w' => Access::WRITE,
                b'm' => Access::MKNOD,
                b'\n' => break,
                _ => return Err(wrong()),
            });
        }
        Ok(Self { kind, major, minor, access })
    }
}

fn after_space(text: &[u8]) -> Option<&[u8]> {
    let (first, rest) = text.split_first()?;
    is_space(*first).then_some(rest)
}

/// A number of at most 11 digits that 32 bits hold, or `*`.
fn number(text: &[u8]) -> Option<(Number, &[u8])> {
    if let [b'*', rest @ ..] = text {
        return Some((Number(None), rest));
    }
    /// What the kernel copies of a number before it reads it; a digit too many is then not what should follow.
    const MOST: usize = 11;
    let length = text.iter().take(MOST).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    let value: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((Number((value != u32::MAX).then_some(value)), rest))
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        write!(f, "{kind} {}:{} {}", self.major, self.minor, self.access)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("*"),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::LETTERS
            .iter()
            .filter(|(access, _)| self.meets(*access))
            .try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}
