//! How people and programs name groups: `CONTROLLERS:PATH`, as libcgroup's tools do.

use std::fmt;
use std::str::FromStr;

/// A group, or the groups at one path in several hierarchies, as a user names them.
///
/// `pids,freezer:/jobs/7` is the group `/jobs/7` of the hierarchy or hierarchies with these controllers, `name=x:/jobs`
/// one of the named hierarchy, and `/jobs/7` (or `*:/jobs/7`) those of every hierarchy. Without the first slash a path
/// begins at the group that the caller is in.
///
/// ```
/// use pinfold_dbus::GroupName;
/// let name: GroupName = "pids,freezer:/jobs//7/".parse()?;
/// assert_eq!(name.to_string(), "pids,freezer:/jobs/7");
/// assert!(!"jobs/7".parse::<GroupName>()?.path.is_absolute());
/// assert_eq!("pids:/a/../b".parse::<GroupName>().unwrap_err().to_string(), "`..` in \"/a/../b\": a group's path has no such step");
/// # Ok::<(), pinfold_dbus::GroupNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupName {
    /// In which hierarchies.
    pub hierarchies: Hierarchies,
    /// Where in them.
    pub path: GroupPath,
}

/// Which hierarchies a name means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hierarchies {
    /// All there are: a path alone, or `*`.
    Every,
    /// Those with these controllers, or with this `name=`. Never empty.
    With(Vec<String>),
}

/// The path of a group: from its hierarchy's root if it begins with a slash, else from the group that the caller is in;
/// that one is `.`. Steps without `.`, `..` and empty ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupPath {
    from: From,
    steps: Vec<String>,
}

/// Where a path begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    Root,
    OwnGroup,
}

/// Why a text names no group.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupNameError {
    /// Nothing at all.
    #[error("an empty name: a group is CONTROLLERS:PATH or PATH, / is the root and . the caller's own")]
    Empty,
    /// `:/a`, or `pids,,cpu:/a`.
    #[error("an empty controller name in {0:?}: write CONTROLLERS:PATH, or PATH for every hierarchy")]
    EmptyController(String),
    /// `pids:`.
    #[error("no path in {0:?}: the root group is {0}/")]
    NoPath(String),
    /// `/a/../b`.
    #[error("`{step}` in {path:?}: a group's path has no such step")]
    DotStep {
        /// The step.
        step: &'static str,
        /// The whole path.
        path: String,
    },
    /// A newline or a null byte.
    #[error("a newline or a null byte in {0:?}: no group has that in its name")]
    ControlByte(String),
}

impl FromStr for GroupName {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, GroupNameError> {
        if text.is_empty() {
            return Err(GroupNameError::Empty);
        }
        match text.split_once(':') {
            // A colon behind a slash belongs to the path: containerd names groups `a.slice:cri:id`.
            Some((controllers, path)) if !controllers.contains('/') => {
                if path.is_empty() {
                    return Err(GroupNameError::NoPath(text.to_owned()));
                }
                Ok(Self { hierarchies: parse_controllers(controllers, text)?, path: path.parse()? })
            }
            _ => Ok(Self { hierarchies: Hierarchies::Every, path: text.parse()? }),
        }
    }
}

fn parse_controllers(controllers: &str, whole: &str) -> Result<Hierarchies, GroupNameError> {
    if controllers == "*" {
        return Ok(Hierarchies::Every);
    }
    let names: Vec<_> = controllers.split(',').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(GroupNameError::EmptyController(whole.to_owned()));
    }
    Ok(Hierarchies::With(names))
}

impl FromStr for GroupPath {
    type Err = GroupNameError;

    fn from_str(text: &str) -> Result<Self, GroupNameError> {
        if text.contains(['\n', '\0']) {
            return Err(GroupNameError::ControlByte(text.to_owned()));
        }
        let from = if text.starts_with('/') { From::Root } else { From::OwnGroup };
        if text == "." {
            return Ok(Self::OWN);
        }
        let dot_step = |step| GroupNameError::DotStep { step, path: text.to_owned() };
        let steps = text.split('/').filter(|step| !step.is_empty());
        let steps = steps.map(|step| match step {
            "." => Err(dot_step(".")),
            ".." => Err(dot_step("..")),
            step => Ok(step.to_owned()),
        });
        Ok(Self { from, steps: steps.collect::<Result<_, _>>()? })
    }
}

impl GroupPath {
    /// The root group's path.
    pub const ROOT: Self = Self { from: From::Root, steps: Vec::new() };

    /// The path of the group that the caller is in.
    pub const OWN: Self = Self { from: From::OwnGroup, steps: Vec::new() };

    /// Whether it begins at the root of the hierarchy, and not at the caller's own group.
    pub fn is_absolute(&self) -> bool {
        self.from == From::Root
    }

    /// The group where it begins: [`Self::ROOT`] or [`Self::OWN`].
    pub fn start(&self) -> Self {
        Self { from: self.from, steps: Vec::new() }
    }

    /// The steps from where it begins; none for that group itself.
    pub fn steps(&self) -> &[String] {
        &self.steps
    }

    /// The path of the group above and the last step; `None` for the root, and for the caller's own group.
    pub fn split_last(&self) -> Option<(Self, &str)> {
        let (last, above) = self.steps.split_last()?;
        Some((Self { from: self.from, steps: above.to_vec() }, last))
    }

    /// A path one step further down.
    #[must_use]
    pub fn below(&self, step: &str) -> Self {
        let mut below = self.clone();
        below.steps.push(step.to_owned());
        below
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            From::Root if self.steps.is_empty() => f.write_str("/"),
            From::Root => self.steps.iter().try_for_each(|step| write!(f, "/{step}")),
            From::OwnGroup if self.steps.is_empty() => f.write_str("."),
            From::OwnGroup => f.write_str(&self.steps.join("/")),
        }
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Hierarchies::With(names) = &self.hierarchies {
            write!(f, "{}:", names.join(","))?;
        }
        self.path.fmt(f)
    }
}
