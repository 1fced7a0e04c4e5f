//! Files with an entry for each device or resource: a key, then figures with names (`254:0 rbytes=4096 rios=1`), or one
//! without (`sev 5`). Read from v2, added up, and kept as they are written there.

use std::collections::BTreeMap;

use pinfold_model::Value;

/// Figures by key and name; the name of a figure without one is empty.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Entries(BTreeMap<String, BTreeMap<String, i64>>);

impl Entries {
    /// Reads a text. What is no number (`max`) has no place among figures that are added.
    pub(crate) fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(key) = words.next() else { continue };
            let figures = all.0.entry(key.to_owned()).or_default();
            for word in words {
                let (name, figure) = word.split_once('=').unwrap_or(("", word));
                if let Ok(figure) = figure.parse() {
                    figures.insert(name.to_owned(), figure);
                }
            }
        }
        all
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (key, figures) in &other.0 {
            let ours = self.0.entry(key.clone()).or_default();
            for (name, figure) in figures {
                let sum = ours.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*figure);
            }
        }
    }

    /// Of each figure the greater; one that is not there is 0.
    pub(crate) fn greatest(mut self, other: &Self) -> Self {
        for (key, figures) in &other.0 {
            let ours = self.0.entry(key.clone()).or_default();
            for (name, figure) in figures {
                let ours = ours.entry(name.clone()).or_default();
                *ours = (*ours).max(*figure);
            }
        }
        for (key, figures) in &mut self.0 {
            let theirs = other.0.get(key);
            for (name, figure) in figures {
                let their = theirs.and_then(|figures| figures.get(name)).copied().unwrap_or(0);
                *figure = (*figure).max(their);
            }
        }
        self
    }

    pub(crate) fn negated(mut self) -> Self {
        self.0
            .values_mut()
            .flat_map(BTreeMap::values_mut)
            .for_each(|figure| *figure = figure.saturating_neg());
        self
    }

    /// The devices or resources that these texts have lines of, in the order of the lines.
    pub(crate) fn names<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let mut names = Vec::new();
        for name in texts.flat_map(str::lines).filter_map(|line| line.split(' ').next()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The devices or resources there are.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A figure; what is not there, or would be negative, is 0.
    pub(crate) fn get(&self, key: &str, name: &str) -> u64 {
        let figure = self.0.get(key).and_then(|figures| figures.get(name));
        figure.and_then(|figure| u64::try_from(*figure).ok()).unwrap_or(0)
    }

    /// The figure that counts what `of` names: `254:0 rbytes`, or `sev`.
    pub(crate) fn figure(text: &str, of: &str) -> Option<u64> {
        let (key, name) = of.split_once(' ').unwrap_or((of, ""));
        Some(Self::parse(text).get(key, name))
    }

    /// Of all figures.
    pub(crate) fn sum(&self) -> u64 {
        let figures = self.0.values().flat_map(BTreeMap::values);
        figures.fold(0, |sum, figure| sum.saturating_add(u64::try_from(*figure).unwrap_or(0)))
    }

    /// As a group keeps it; `None` if there is nothing to keep.
    pub(crate) fn kept(&self) -> Option<Value> {
        let mut text = String::new();
        for (key, figures) in &self.0 {
            let mut figures = figures.iter().filter(|(_, figure)| **figure != 0).peekable();
            if figures.peek().is_some() {
                text += key;
                for (name, figure) in figures {
                    text += &if name.is_empty() { format!(" {figure}") } else { format!(" {name}={figure}") };
                }
                text.push('\n');
            }
        }
        (!text.is_empty()).then(|| Value::Text(text.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::Entries;
    use pinfold_model::Value;

    #[test]
    fn figures_are_added_one_by_one_and_kept_as_they_are_written() {
        let mut all = Entries::parse("254:0 rbytes=4096 rios=1\n8:0 rios=max\nsev 5\n");
        all.add(&Entries::parse("254:0 rbytes=1 dios=7\nsev -7\n"));
        assert_eq!(all.get("254:0", "rbytes"), 4097);
        assert_eq!(all.get("254:0", "dios"), 7);
        assert_eq!(all.get("sev", ""), 0, "no figure is negative");
        assert_eq!(all.keys().collect::<Vec<_>>(), ["254:0", "8:0", "sev"]);
        let kept = Value::Text(b"254:0 dios=7 rbytes=4097 rios=1\nsev -2\n".to_vec());
        assert_eq!(all.kept(), Some(kept));
        let mut none = all.clone().negated();
        none.add(&all);
        assert_eq!(none.kept(), None);
    }
}
