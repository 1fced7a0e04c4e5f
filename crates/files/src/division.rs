//! How a limit is divided over the directories that carry a group together: what each uses of it, what tells that it meets its part, and
//! the text that a part has.

use std::time::Duration;

use pinfold_model::{LimitKind, Period, Pressure, Settings};

/// How a limit is divided.
pub struct Division {
    /// What the group may have; empty: there is no limit.
    pub amounts: fn(&Settings) -> Vec<Amount>,
    /// The text for a directory that has these parts of it, in the order of `amounts`; none: no limit. Rounds down, but not
    /// below the least that v2 takes.
    pub text: fn(&Settings, &[Amount]) -> String,
    /// What a directory uses of it.
    pub used: Used,
    /// What tells that a directory meets its part, if v2 does.
    pub pressed: Option<Pressed>,
    /// A v2 file whose value, a little below the part, has the kernel slow down who comes near it, and tell so, before it
    /// kills. `max` lifts it.
    pub guard: Option<&'static str>,
    /// The least that the kernel takes of an amount: no part is less.
    pub least: u64,
    /// Of a rate that is handed out in periods, those.
    pub periods: Option<fn(&Settings) -> Periods>,
}

/// The periods in which a rate is handed out.
#[derive(Clone, Copy)]
pub struct Periods {
    /// How long a group's are, in microseconds.
    pub of_group: u64,
    /// Those of a part, which may be too little for a period of the group's.
    pub of_part: fn(of_group: u64, part: u64) -> Period,
}

impl Periods {
    /// Those of a part.
    pub fn of(self, part: u64) -> Period {
        (self.of_part)(self.of_group, part)
    }
}

/// One amount that a limit names: a limit may name several, of several devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Amount {
    /// Of what, in the words of the v2 file; empty if the file has one amount only.
    pub of: String,
    /// At most this much of it.
    pub most: u64,
}

impl Amount {
    /// The one amount of a limit; none without a limit.
    pub fn only(most: Option<u64>) -> Vec<Self> {
        most.map(|most| Self { of: String::new(), most }).into_iter().collect()
    }

    /// The one amount's part, for the text.
    pub fn one(amounts: &[Self]) -> Option<u64> {
        amounts.first().map(|amount| amount.most)
    }
}

/// A number in a v2 file.
#[derive(Clone, Copy)]
pub struct Figure {
    /// The file.
    pub file: &'static str,
    /// The number that says it for an amount, by the amount's name.
    pub value: fn(text: &str, of: &str) -> Option<u64>,
}

/// What tells that a directory meets its part of a divided limit.
#[derive(Clone, Copy)]
pub enum Pressed {
    /// This figure counts how often it did.
    Met(Figure),
    /// This figure counts how often it did, but without this v2 file the kernel counts in the leaf of whoever met it, and nowhere above.
    MetInLeaf(Figure, &'static str),
    /// This figure counts at the ends of how many periods it had, and another how many there were, in the same file.
    MetInPeriods(Figure, Figure),
    /// How long somebody there has waited for what is limited, or for something like it.
    Stalled {
        /// It, in microseconds.
        figure: Figure,
        /// What the file of what is used says of everything, limited or not: it grows with what somebody waits for.
        all: fn(text: &str) -> u64,
    },
}

impl Pressed {
    /// The figure behind it.
    pub const fn figure(&self) -> Figure {
        match self {
            Self::Met(figure)
            | Self::MetInLeaf(figure, _)
            | Self::MetInPeriods(figure, _)
            | Self::Stalled { figure, .. } => *figure,
        }
    }

    /// What the figure's file says of an amount, in the directories whose texts these are. `None`: it does not.
    pub fn read(&self, texts: &[String], of: &str) -> Option<Pressure> {
        let sum = |figure: Figure| {
            let numbers = texts.iter().filter_map(|text| (figure.value)(text, of));
            numbers.reduce(u64::saturating_add)
        };
        let number = sum(self.figure())?;
        Some(match self {
            Self::Met(_) | Self::MetInLeaf(..) => Pressure::Met { times: number, periods: None },
            Self::MetInPeriods(_, periods) => Pressure::Met { times: number, periods: sum(*periods) },
            Self::Stalled { .. } => Pressure::Stalled(Duration::from_micros(number)),
        })
    }

    /// What a text of the file of what is used says of everything, where that matters.
    pub fn all(&self, used: &str) -> u64 {
        match self {
            Self::Met(_) | Self::MetInLeaf(..) | Self::MetInPeriods(..) => 0,
            Self::Stalled { all, .. } => all(used),
        }
    }
}

/// What a directory uses of a divided limit.
#[derive(Clone, Copy)]
pub enum Used {
    /// As much as this figure says.
    Now(Figure),
    /// As much as this figure says, and what processes leave behind when they end is in it.
    Charged(Figure),
    /// As much as this figure grows in a second.
    PerSecond(Figure),
}

impl Used {
    /// The figure behind it.
    pub const fn figure(&self) -> Figure {
        match self {
            Self::Now(figure) | Self::Charged(figure) | Self::PerSecond(figure) => *figure,
        }
    }

    /// What is limited so.
    pub const fn kind(&self) -> LimitKind {
        match self {
            Self::Now(_) | Self::Charged(_) => LimitKind::Amount,
            Self::PerSecond(_) => LimitKind::Rate,
        }
    }
}
