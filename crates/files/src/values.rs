//! Values as rows keep and show them.

use pinfold_model::{Limit, Value};

use crate::sight::Facts;

/// What a usage row says of charges that outlive processes.
pub(crate) const LEFT_BEHIND: &str = "What ended processes leave behind (a file in a tmpfs or in huge pages) counts only as long as the group has a \
     directory: while processes are in it, and then, if it has a limit, until it is removed. Of a group with several \
     directories each that goes takes its charge along, as the last one does when a group of another hierarchy with the \
     same path is removed.";

/// A line of text: the form of nearly every file.
pub(crate) fn line(value: impl std::fmt::Display) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// A kept number; 0 if it is of another kind, which no row's parser makes.
pub(crate) fn number(value: &Value) -> u64 {
    match value {
        Value::Number(number) => *number,
        _ => 0,
    }
}

/// A kept limit; `None`: there is none.
pub(crate) fn bound(value: &Value) -> Option<u64> {
    match value {
        Value::Limit(Limit::At(most)) => Some(*most),
        _ => None,
    }
}

/// A limit as v2 writes it.
pub(crate) fn v2_limit(most: Option<u64>) -> String {
    most.map_or_else(|| "max".to_owned(), |most| most.to_string())
}

/// What v1 shows where there is no limit in bytes: PAGE_COUNTER_MAX pages.
pub(crate) fn no_limit(facts: &Facts) -> u64 {
    let pages = i64::MAX.unsigned_abs() / facts.page_size;
    pages * facts.page_size
}
