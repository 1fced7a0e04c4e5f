//! Compares two transcripts step by step, but for a reviewed list of differences.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::Path;

/// The reviewed list: where pinfold answers otherwise than the kernel's v1, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    #[serde(default, rename = "difference")]
    entries: Vec<Difference>,
}

/// One entry of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// The script's name, without `.script`.
    script: String,
    /// The title of the section.
    section: String,
    /// The step's line; every such step of the section that differs must differ like this.
    step: String,
    /// What pinfold answers, line by line.
    pinfold: Vec<String>,
    /// Why that is right, or why it cannot be otherwise.
    reason: String,
    #[serde(skip)]
    used: bool,
}

/// One step of a transcript.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Step<'a> {
    section: &'a str,
    operation: &'a str,
    results: Vec<&'a str>,
}

impl Differences {
    /// Reads the list.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let list: Self = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        for entry in &list.entries {
            ensure!(!entry.reason.trim().is_empty(), "{}: {} has no reason", path.display(), entry.step);
        }
        Ok(list)
    }

    /// The list with no entry, for comparing the kernel with itself.
    pub fn none() -> Self {
        Self { entries: Vec::new() }
    }

    /// What differs between the transcripts of `script` and is not listed: a few lines each.
    pub fn compare(&mut self, script: &str, expected: &str, actual: &str) -> Vec<String> {
        let (expected, actual) = (steps(expected), steps(actual));
        let mut complaints = Vec::new();
        for (at, (wanted, got)) in expected.iter().zip(&actual).enumerate() {
            if (wanted.section, wanted.operation) != (got.section, got.operation) {
                let what =
                    format!("step {}: expected `{}`, found `{}`", at + 1, wanted.operation, got.operation);
                complaints.push(format!("{script}: {what}: was the script changed without --record?"));
                return complaints;
            }
            if wanted.results != got.results && !self.allows(script, got) {
                complaints.push(described(script, wanted, got));
            }
        }
        if expected.len() != actual.len() {
            let (wanted, got) = (expected.len(), actual.len());
            complaints
                .push(format!("{script}: expected {wanted} steps, found {got}: was the script changed?"));
        }
        complaints
    }

    /// Entries for the scripts in `played` that allowed nothing: they are to be removed.
    pub fn unused(&self, played: &[String]) -> Vec<String> {
        let unused = self.entries.iter().filter(|entry| !entry.used && played.contains(&entry.script));
        unused
            .map(|entry| {
                format!("{}: `{}` ({}) differs no longer as listed", entry.script, entry.step, entry.section)
            })
            .collect()
    }

    fn allows(&mut self, script: &str, step: &Step) -> bool {
        let mut allowing = self.entries.iter_mut().filter(|entry| {
            (&*entry.script, &*entry.section, &*entry.step) == (script, step.section, step.operation)
                && entry.pinfold == step.results
        });
        allowing.next().map(|entry| entry.used = true).is_some()
    }
}

fn steps(transcript: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut section = "";
    for line in transcript.lines().filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix("==") {
            section = title.trim();
        } else if let Some(result) = line.strip_prefix("    ") {
            if let Some(step) = steps.last_mut() {
                step.results.push(result);
            }
        } else {
            steps.push(Step { section, operation: line, results: Vec::new() });
        }
    }
    steps
}

fn described(script: &str, wanted: &Step, got: &Step) -> String {
    let lines =
        |mark: char, results: &[&str]| results.iter().map(|r| format!("\n  {mark} {r}")).collect::<String>();
    let (kernel, pinfold) = (lines('-', &wanted.results), lines('+', &got.results));
    format!("{script} [{}] {}{kernel}{pinfold}", wanted.section, wanted.operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "mount pids p\n    ok\n\n== A\n\nread x\n    \"1\\n\"\nread y\n    ENOENT\n";
    const OURS: &str = "mount pids p\n    ok\n\n== A\n\nread x\n    \"2\\n\"\nread y\n    ENOENT\n";

    fn list(section: &str) -> Differences {
        toml::from_str(&format!(
            "[[difference]]\nscript = 's'\nsection = '{section}'\nstep = 'read x'\npinfold = ['\"2\\n\"']\nreason = 'r'\n"
        ))
        .unwrap()
    }

    #[test]
    fn equal_transcripts_have_no_difference() {
        assert!(Differences::none().compare("s", KERNEL, KERNEL).is_empty());
    }

    #[test]
    fn a_difference_is_told_with_both_answers() {
        let found = Differences::none().compare("s", KERNEL, OURS);
        assert_eq!(found, ["s [A] read x\n  - \"1\\n\"\n  + \"2\\n\""]);
    }

    #[test]
    fn a_listed_difference_is_allowed_and_an_unused_entry_is_told() {
        let played = ["s".to_owned()];
        let mut fits = list("A");
        assert!(fits.compare("s", KERNEL, OURS).is_empty());
        assert!(fits.unused(&played).is_empty());
        let mut elsewhere = list("B");
        assert_eq!(elsewhere.compare("s", KERNEL, OURS).len(), 1);
        assert_eq!(elsewhere.unused(&played).len(), 1);
    }

    #[test]
    fn another_script_is_not_compared_line_by_line() {
        let found = Differences::none().compare("s", KERNEL, "mount all p\n    ok\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("--record"), "{found:?}");
    }
}
