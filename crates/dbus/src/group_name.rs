//! How people and programs name groups: `CONTROLLERS:PATH`, as libcgroup's tools do.

use std::fmt;
use std::str::FromStr;

/// A group, or the groups at one path in several hierarchies, as a user names them.
///
/// `pids,freezer:/jobs/7` is the group `/jobs/7` of the hierarchy or hierarchies with these controllers, `name=x:/jobs`
/// one of the named hierarchy, and `/jobs/7` (or `*:/jobs/7`) those of every hierarchy.
///
/// ```
/// use pinfold_dbus::GroupName;
/// let name: GroupName = "pids,freezer:jobs//7/".parse()?;
/// assert_eq!(name.to_string(), "pids,freezer:/jobs/7");
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

/// The path of a group from its hierarchy's root: steps without `.`, `..` and empty ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupPath(Vec<String>);

/// Why a text names no group.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupNameError {
    /// Nothing at all.
    #[error("an empty name: a group is CONTROLLERS:PATH or PATH, and / is the root")]
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
        let dot_step = |step| GroupNameError::DotStep { step, path: text.to_owned() };
        let steps = text.split('/').filter(|step| !step.is_empty());
        let steps = steps.map(|step| match step {
            "." => Err(dot_step(".")),
            ".." => Err(dot_step("..")),
            step => Ok(step.to_owned()),
        });
        Ok(Self(steps.collect::<Result<_, _>>()?))
    }
}

impl GroupPath {
    /// The root group's path.
    pub const ROOT: Self = Self(Vec::new());

    /// The steps from the root; none for the root itself.
    pub fn steps(&self) -> &[String] {
        &self.0
    }

    /// The path of the group above and the last step; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, &str)> {
        let (last, above) = self.0.split_last()?;
        Some((Self(above.to_vec()), last))
    }

    /// A path one step further down.
    #[must_use]
    pub fn below(&self, step: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.to_owned());
        Self(steps)
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|step| write!(f, "/{step}"))
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
