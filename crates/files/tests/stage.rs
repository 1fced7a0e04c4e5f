//! A forest with one hierarchy on which a script writes and reads interface files: the only code of these tests that
//! calls the API.
//!
//! A line is one operation. `mkdir /a` makes a group. `/a/pids.max < 5` writes, and what comes of it follows another
//! `=`; `/a/pids.max = 5\n` reads. `v2 /a carrier cpu.stat TEXT` adds a v2 directory's file (`leaf` for the leaf of an own
//! cell); `gone /a` lets all of them go, `lost /a` without a look at their
//! last figures. Texts are single words with escapes: `\s` is a space, `''` nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;

use pinfold_files::{
    AttachTarget, Birth, Change, Counter, Facts, FileId, MountOptions, Place, Read, Request, Sight, Source,
    Texts, controllers, counters, file, inherited, list, lookup, parse_write,
};
use pinfold_model::{
    ControllerSet, Forest, Gid, GroupId, HierarchyId, Moment, Name, Ownership, Placing, Settings, Uid, Value,
};

const OWNER: Ownership = Ownership { uid: Uid(0), gid: Gid(0), mode: 0o755 };
const NOW: Moment = Moment { seconds: 0, nanoseconds: 0 };

/// Runs a script on a hierarchy with every controller, on a machine with CPUs 0 to 3 of which 1 is away.
pub(crate) fn check(script: &str) {
    let mut stage = Stage::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["mkdir", path] => stage.mkdir(path),
            ["v2", path, place, file, text] => stage.add_text(path, place, file, &bytes(text)),
            ["gone", path] => stage.gone(path),
            ["lost", path] => drop(stage.texts.remove(&stage.group(path))),
            [path, "<", text, "=", outcome] => assert_eq!(stage.write(path, &bytes(text)), outcome, "{line}"),
            [path, "=", text] => {
                let shown = stage.read_on(path).map(|bytes| bytes.escape_ascii().to_string());
                assert_eq!(
                    shown.unwrap_or_else(|errno| errno),
                    bytes(text).escape_ascii().to_string(),
                    "{line}"
                );
            }
            _ => panic!("not an operation: {line}"),
        }
    }
}

/// The bytes behind a word of a script.
pub(crate) fn bytes(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.trim_matches('\'').as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (byte, length) = match rest {
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b's', ..] => (b' ', 1),
            [b'x', ..] => (u8::from_str_radix(std::str::from_utf8(&rest[1..3]).unwrap(), 16).unwrap(), 3),
            _ => panic!("not an escape: {word}"),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

/// Every v2 file that some row depends on.
fn v2_files() -> BTreeSet<String> {
    let rows = controllers().iter().flat_map(|id| pinfold_files::controller(id).files);
    let given = rows.filter_map(|row| match row.place {
        Place::WithV2(file) | Place::BelowRootWithV2(file) => Some(file.to_owned()),
        Place::Everywhere | Place::RootOnly | Place::BelowRoot => None,
    });
    given.collect()
}

pub(crate) struct Stage {
    pub(crate) forest: Forest,
    hierarchy: HierarchyId,
    pub(crate) facts: Facts,
    /// The v2 texts of each group.
    texts: HashMap<GroupId, Texts>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let mut forest = Forest::new(Placing { limiting: controllers(), first: ControllerSet::EMPTY });
        let options = MountOptions::parse("all", controllers()).unwrap();
        let plan = forest.plan_mount(options.request).unwrap();
        let hierarchy = forest.commit_mount(plan, OWNER, Settings::NONE, NOW);
        let facts = Facts {
            user_hz: 100,
            possible_cpus: 4,
            online_cpus: vec![0, 2, 3],
            cpus: vec![0, 2, 3],
            mems: vec![0, 1],
            page_size: 4096,
            linux: (6, 1),
            nodes: vec![0, 1],
            v2_files: v2_files(),
        };
        Self { forest, hierarchy, facts, texts: HashMap::new() }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn root(&self) -> GroupId {
        self.forest.hierarchy(self.hierarchy).unwrap().root()
    }

    pub(crate) fn mkdir(&mut self, path: &str) {
        let (above, name) = path.rsplit_once('/').unwrap();
        let parent = self.group(above);
        let settings = self.sight(parent, |sight| inherited(controllers(), sight, Birth::Mkdir));
        let plan = self.forest.plan_make(parent, Name::new(OsStr::new(name)).unwrap()).unwrap();
        self.forest.commit_make(plan, OWNER, settings, NOW);
    }

    pub(crate) fn group(&self, path: &str) -> GroupId {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(self.root(), |id, name| self.forest.group(id).unwrap().child(name.as_bytes()).unwrap())
    }

    /// The files of a group.
    pub(crate) fn files(&self, group: GroupId) -> Vec<FileId> {
        list(controllers(), group == self.root(), &self.facts).collect()
    }

    pub(crate) fn add_text(&mut self, path: &str, place: &str, name: &str, text: &[u8]) {
        let group = self.group(path);
        let sources = controllers().iter().flat_map(|id| pinfold_files::controller(id).files);
        let is_meant = |source: &&Source| match source {
            Source::Carriers(file) | Source::Beside(file, _) => place == "carrier" && *file == name,
            Source::Since(counter) => place == "since" && *counter == name,
            Source::Own(file) | Source::OwnLeaves(file) => place == "leaf" && *file == name,
            Source::Root(file) => place == "base" && *file == name,
            Source::Machine(what) => place == "machine" && *what == name,
            Source::Descriptors => place == "process" && name == "fd",
            Source::Measured => place == "measured" && name == "cpu",
            Source::Nowhere => false,
            Source::Realm(file) => place == "realm" && *file == name,
        };
        let meant: HashSet<Source> =
            sources.flat_map(|file| file.sources()).filter(is_meant).copied().collect();
        assert!(!meant.is_empty(), "no row reads {name} of a {place}");
        for source in meant {
            let text = String::from_utf8(text.to_vec()).unwrap();
            self.texts.entry(group).or_default().push(source, text);
        }
    }

    pub(crate) fn gone(&mut self, path: &str) {
        let group = self.group(path);
        let last = self.texts.remove(&group).unwrap_or_default();
        for counter in counters(controllers()) {
            self.set_counter(group, counter, |settings| counter.keep(settings, &last, &Texts::default()));
        }
    }

    fn set_counter(&mut self, group: GroupId, counter: &Counter, value: impl Fn(&Settings) -> Option<Value>) {
        let settings = self.forest.group_mut(group).unwrap().settings_mut();
        let value = value(settings);
        settings.replace(counter.key, value);
    }

    fn find(&self, path: &str) -> Result<(GroupId, FileId), String> {
        let (above, name) = path.rsplit_once('/').unwrap();
        let group = self.group(above);
        let id = lookup(controllers(), false, group == self.root(), &self.facts, OsStr::new(name));
        id.map(|id| (group, id)).ok_or_else(|| "ENOENT".to_owned())
    }

    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let (group, id) = self.find(path)?;
        Ok(self.show(group, id))
    }

    /// The same, and keeps what the next read goes on from.
    pub(crate) fn read_on(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let (group, id) = self.find(path)?;
        let Read::Followed { show, .. } = file(id).1.read else { return Ok(self.show(group, id)) };
        let (text, kept) = self.sight(group, show);
        let settings = self.forest.group_mut(group).unwrap().settings_mut();
        kept.into_iter().for_each(|(key, value)| _ = settings.replace(key, value));
        Ok(text)
    }

    /// What a file shows; nothing for a list of members.
    pub(crate) fn show(&self, group: GroupId, id: FileId) -> Vec<u8> {
        match file(id).1.read {
            Read::Shown { show, .. } => self.sight(group, show),
            Read::Followed { show, .. } => self.sight(group, show).0,
            Read::Refused | Read::Named | Read::Members(_) => Vec::new(),
        }
    }

    pub(crate) fn sight<T>(&self, group: GroupId, look: impl FnOnce(&Sight<'_>) -> T) -> T {
        let none = Texts::default();
        let v2 = self.texts.get(&group).unwrap_or(&none);
        look(&Sight { forest: &self.forest, group, v2, facts: &self.facts })
    }

    pub(crate) fn parse(&self, group: GroupId, id: FileId, data: &[u8]) -> Result<Request, String> {
        self.sight(group, |sight| parse_write(id, sight, data))
            .map_err(|error| format!("{:?}", error.errno()))
    }

    pub(crate) fn write(&mut self, path: &str, data: &[u8]) -> String {
        let asked = self.find(path).and_then(|(group, id)| Ok((group, self.parse(group, id, data)?)));
        match asked {
            Err(errno) => errno,
            Ok((_, Request::Attach(_, AttachTarget::Writer))) => "writer".to_owned(),
            Ok((_, Request::Attach(_, AttachTarget::Id(pid)))) => pid.to_string(),
            Ok((_, Request::Register(_))) => "registered".to_owned(),
            Ok((_, Request::Change(Change::IfTaken { then: Err(error), .. }))) => {
                format!("{:?}", error.errno())
            }
            Ok((group, Request::Change(change))) => {
                self.carry_out(group, change);
                "ok".to_owned()
            }
        }
    }

    pub(crate) fn carry_out(&mut self, group: GroupId, change: Change) {
        match change {
            Change::Nothing | Change::Reclaim(_) | Change::IfTaken { then: Err(_), .. } => {}
            Change::Keep(assignments) | Change::IfTaken { then: Ok(assignments), .. } => {
                for to in assignments {
                    let value = (to.value != to.setting.initial).then_some(to.value);
                    self.forest.group_mut(to.group).unwrap().settings_mut().replace(to.setting.key, value);
                }
            }
            Change::Reset(counters) => {
                let live = self.texts.get(&group).cloned().unwrap_or_default();
                for counter in counters {
                    self.set_counter(group, counter, |_| counter.reset(&live));
                }
            }
        }
    }
}
