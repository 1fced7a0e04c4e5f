//! What a group remembers: sparse, typed values under the names of their interface files.

/// Which setting: the interface file's full name (`pids.max`), or a name below it for what has no file.
///
/// Keys are compile-time constants of the tables in `files`; two keys are equal when their names are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub &'static str);

/// An upper bound: none, or a number in the row's unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Limit {
    /// At most this much.
    At(u64),
    /// No bound (written `max` or -1, by controller).
    Max,
}

/// The value of one setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// On or off.
    Flag(bool),
    /// A plain number in the row's unit.
    Number(u64),
    /// A bound.
    Limit(Limit),
    /// What is added to the sum over live carriers: the counts of directories that went, less those at the
    /// last reset. May be negative.
    Offset(i64),
    /// The largest figure since a reset.
    Peak {
        /// It is at least this.
        floor: u64,
        /// What the live directories said at the reset: only what is above it came after it.
        beyond: u64,
    },
    /// Anything else, in the form its row parses.
    Text(Vec<u8>),
}

/// The settings of one group that differ from the default. Most groups have none: no allocation then.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Settings(Vec<(Key, Value)>);

impl Settings {
    /// Everything at its default.
    pub const NONE: Self = Self(Vec::new());

    /// The kept value; `None` means the row's default.
    pub fn get(&self, key: Key) -> Option<&Value> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Keeps a value, or forgets it (back to the default). Gives what was kept before.
    pub fn replace(&mut self, key: Key, value: Option<Value>) -> Option<Value> {
        let at = self.0.iter().position(|(k, _)| *k == key);
        match (at, value) {
            (Some(at), Some(value)) => Some(std::mem::replace(&mut self.0[at].1, value)),
            (Some(at), None) => Some(self.0.remove(at).1),
            (None, Some(value)) => {
                self.0.push((key, value));
                None
            }
            (None, None) => None,
        }
    }

    /// Every kept value, in the order they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Value)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    /// True when everything is at its default.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
