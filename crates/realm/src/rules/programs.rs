//! Which file is at the path of a program, for rules that name it: no event waits for a file system that has to be asked.
//!
//! Where the kernel remembers all of the way, which is so for every program that runs from a local file system, it says at once. Otherwise
//! somebody asks ([`Asking`]), and whoever executes that program is told of when there is an answer, or when it has taken too long. A
//! user's file system may never answer: so only a few ask for the programs of one user, and others of his wait for their turn.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use pinfold_kernel::executable::{Asking, Place};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many ask for one user's programs at once.
const MOST_OF_ONE: usize = 4;

/// The paths that are asked about, and who waits.
#[derive(Debug)]
pub(super) struct Programs<W> {
    questions: HashMap<Vec<u8>, Question<W>>,
    /// Those for whom nobody waits any more, with their users: they take a place until they have an answer.
    stuck: Vec<(u32, Asking)>,
}

#[derive(Debug)]
struct Question<W> {
    /// Whose program it is.
    user: u32,
    /// `None`: it is not its turn yet.
    asking: Option<Asking>,
    until: Instant,
    waiting: Vec<W>,
}

/// What is at the path of a program, and who waited for it.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Answer<W> {
    pub(super) path: Vec<u8>,
    pub(super) place: Place,
    pub(super) waited: Vec<W>,
}

impl<W> Programs<W> {
    /// Nobody asks for anything.
    pub(super) fn new() -> Self {
        Self { questions: HashMap::new(), stuck: Vec::new() }
    }

    /// What is at a path where a user's process has its program. [`Place::Unknown`]: `who` will be told, see [`Self::take_answers`].
    pub(super) fn place(&mut self, path: &[u8], user: u32, who: W) -> Place {
        let remembered = Place::remembered(path);
        if remembered != Place::Unknown {
            return remembered;
        }
        match self.questions.get_mut(path) {
            Some(question) => question.waiting.push(who),
            None => {
                let until = Instant::now() + PATIENCE;
                let question = Question { user, asking: None, until, waiting: vec![who] };
                self.questions.insert(path.to_vec(), question);
                self.ask();
            }
        }
        Place::Unknown
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.questions.is_empty()
    }

    /// Whether somebody waits of whom that is so.
    pub(super) fn is_waiting(&self, is_it: impl Fn(&W) -> bool) -> bool {
        self.questions.values().flat_map(|question| &question.waiting).any(is_it)
    }

    /// Nobody waits any more of whom that is so.
    pub(super) fn forget(&mut self, is_it: impl Fn(&W) -> bool) {
        self.questions.values_mut().for_each(|question| question.waiting.retain(|who| !is_it(who)));
    }

    /// The answers that have come, and for whom it has taken too long: for those there is nothing at the path.
    pub(super) fn take_answers(&mut self, now: Instant) -> Vec<Answer<W>> {
        let mut answers = Vec::new();
        self.questions.retain(|path, question| {
            let place = match question.asking.as_ref().and_then(Asking::answer) {
                Some(place) => {
                    question.asking = None;
                    place
                }
                None if question.until <= now => Place::Empty,
                None => return true,
            };
            self.stuck.extend(question.asking.take().map(|asking| (question.user, asking)));
            let waited = std::mem::take(&mut question.waiting);
            answers.push(Answer { path: path.clone(), place, waited });
            false
        });
        if !answers.is_empty() {
            self.ask();
        }
        answers
    }

    /// Has those asked for whose turn it is.
    fn ask(&mut self) {
        self.stuck.retain(|(_, asking)| !asking.is_over());
        let mut turns: HashMap<u32, usize> = HashMap::new();
        let asked = self.questions.values().filter(|question| question.asking.is_some());
        let asked = asked.map(|question| question.user).chain(self.stuck.iter().map(|(user, _)| *user));
        asked.for_each(|user| *turns.entry(user).or_default() += 1);
        for (path, question) in &mut self.questions {
            let asked = turns.entry(question.user).or_default();
            if question.asking.is_none() && *asked < MOST_OF_ONE {
                // Out of processes, perhaps: that takes too long, too.
                question.asking = Asking::about(path).ok();
                question.until = Instant::now() + PATIENCE;
                *asked += usize::from(question.asking.is_some());
            }
        }
    }

    /// After what time somebody has waited long enough.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        let until = self.questions.values().map(|question| question.until).min();
        until.map(|until| until.saturating_duration_since(now))
    }

    /// What becomes readable when there is an answer.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let asking = self.questions.values().filter_map(|question| question.asking.as_ref());
        asking.map(std::os::fd::AsFd::as_fd)
    }
}
