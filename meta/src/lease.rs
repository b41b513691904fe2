//! Who may cache what: the leases of one volume's sessions. Without I/O and without a clock.
//!
//! Three things are leased. The *inode*: its attributes and data, shared by any number of sessions, or exclusive to one,
//! which may then keep writes. The *names* of a directory, present and absent, shared only. A change of an inode takes
//! its leases away from all other sessions before it is applied; a change of a name takes only that name out of what
//! they cache, so a directory that many sessions look at is not forgotten by all of them with every new file. The session
//! that made a directory, or asks for it while nobody else caches anything of it, is *alone* with it until another one looks
//! into it: what it changes there need not be here yet.
//!
//! ```text
//! wants of a call -> block() -> recalls to send, ids to wait for -> finish(id) ... -> apply -> grant()
//! ```
//! Nothing is granted of an inode that a waiting call has reserved, nor to a session that has not answered a recall of
//! it: so no grant is under way when a recall is answered, and waiting calls get on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flexfs_wire::attr::Attr;
use flexfs_wire::id::{Epoch, Ino, SessionId};
use flexfs_wire::lease::{Keep, Leases as Granted, Recall};
use flexfs_wire::name::Name;

use crate::alone::Alone;

/// Leases of one volume, about 100 bytes each. Beyond it nothing is granted, and clients ask every time.
const LEASES_MAX: usize = 2_000_000;

/// Stands for everything that a session may have cached; no inode has this number.
const ANYTHING: Ino = Ino(0);

/// What a call needs of the leases of others before it may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want<'a> {
    /// What others wrote to this inode is here.
    Read(Ino),
    /// Nobody else caches this inode.
    Change(Ino),
    /// Nobody else caches this name of a directory.
    Name(Ino, &'a Name),
}

/// What one session was asked and has not answered.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub(crate) session: SessionId,
    pub(crate) recall: Recall,
}

/// A recall that a waiting call need not ask for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    session: SessionId,
    ino: Ino,
    name: Option<Name>,
}

/// Sessions that hold one thing; nearly always one.
#[derive(Debug)]
enum Holders {
    One(SessionId),
    Many(Vec<SessionId>),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Shared leases of inodes.
    shared: HashMap<Ino, Holders>,
    /// Exclusive ones; such an inode is not in `shared`.
    exclusive: HashMap<Ino, SessionId>,
    /// Leases of the names of directories.
    names: HashMap<Ino, Holders>,
    /// Sessions that are alone with a directory. They hold its names.
    alone: Alone,
    /// Nobody is to be alone with a directory: what is made there unseen could not be refused.
    together: bool,
    /// Sessions that may cache anything: they were granted it by an earlier life of the server.
    wild: BTreeSet<SessionId>,
    /// Of them, those with a scope: they are not told what others are about to change, which may be outside of it. Who changes
    /// anything waits until they have dropped all they had.
    shy: BTreeSet<SessionId>,
    /// Inodes that waiting calls want, and how many do.
    reserved: HashMap<Ino, u32>,
    recalls: BTreeMap<u64, Outstanding>,
    /// Ids in `recalls`.
    asked: HashMap<(SessionId, Ino), Vec<u64>>,
    /// How many of `recalls` each session has to answer.
    owed: HashMap<SessionId, u32>,
    last: u64,
    count: usize,
    orders: Vec<(SessionId, Recall)>,
}

impl Leases {
    /// No leases; recalls get numbers that no earlier start of the server gave: an answer may come late.
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { last: epoch.0 << 40, ..Self::default() }
    }

    /// Asks the sessions that are in the way of `wants` for what they hold. The ids to wait for; none: nobody is.
    /// `done` names what was answered to this very call before.
    pub(crate) fn block(&mut self, session: SessionId, wants: &[Want<'_>], done: &[Done]) -> Vec<u64> {
        let mut asks: Vec<(SessionId, Ino, Keep, Option<Name>)> = Vec::new();
        for want in wants {
            self.each_in_the_way(session, *want, done, &mut |holder, ino, keep, name| {
                let open = asks
                    .iter_mut()
                    .find(|ask| (ask.0, ask.1) == (holder, ino) && (ask.3.is_none() || name.is_none()));
                match open {
                    Some(ask) => {
                        ask.2 = stronger(ask.2, keep);
                        ask.3 = ask.3.take().or_else(|| name.cloned());
                    }
                    None => asks.push((holder, ino, keep, name.cloned())),
                }
            });
        }
        asks.into_iter().map(|(holder, ino, keep, name)| self.ask(holder, ino, keep, name)).collect()
    }

    /// Whether any session but this one is in the way.
    pub(crate) fn is_free(&self, session: SessionId, wants: &[Want<'_>]) -> bool {
        let mut free = true;
        for want in wants {
            self.each_in_the_way(session, *want, &[], &mut |_, _, _, _| free = false);
        }
        free
    }

    fn each_in_the_way(
        &self,
        session: SessionId,
        want: Want<'_>,
        done: &[Done],
        each: &mut impl FnMut(SessionId, Ino, Keep, Option<&Name>),
    ) {
        let is_done = |holder: SessionId, ino: Ino, name: Option<&Name>| {
            done.iter().any(|done| (done.session, done.ino, done.name.as_ref()) == (holder, ino, name))
        };
        match want {
            Want::Read(ino) => {
                let holders = [self.exclusive.get(&ino).copied(), self.alone.holder(ino)];
                for holder in holders.into_iter().flatten().filter(|holder| *holder != session) {
                    each(holder, ino, Keep::Shared, None);
                }
                self.keeper_in_the_way(session, ino, each);
            }
            Want::Change(ino) => {
                let exclusive = self.exclusive.get(&ino).map(std::slice::from_ref).unwrap_or_default();
                let shared = self.shared.get(&ino).map(Holders::all).unwrap_or_default();
                let alone = self.alone.holder(ino).filter(|holder| !shared.contains(holder));
                let holders = exclusive.iter().chain(shared).copied().chain(alone);
                for holder in holders.filter(|holder| *holder != session) {
                    each(holder, ino, Keep::Nothing, None);
                }
                self.keeper_in_the_way(session, ino, each);
                for wild in self.wild.iter().filter(|wild| **wild != session) {
                    if exclusive.contains(wild) || shared.contains(wild) || is_done(*wild, ino, None) {
                        continue;
                    }
                    each(*wild, if self.shy.contains(wild) { ANYTHING } else { ino }, Keep::Nothing, None);
                }
            }
            Want::Name(dir, name) => {
                let holders = self.names.get(&dir).map(Holders::all).unwrap_or_default();
                let wild = self.wild.iter().filter(|wild| !holders.contains(wild));
                for holder in holders.iter().chain(wild).filter(|holder| **holder != session) {
                    if is_done(*holder, dir, Some(name)) {
                        continue;
                    }
                    match self.shy.contains(holder) && !holders.contains(holder) {
                        true => each(*holder, ANYTHING, Keep::Nothing, None),
                        false => each(*holder, dir, Keep::All, Some(name)),
                    }
                }
            }
        }
    }

    /// Who is alone with the directory of a file counts on the file.
    fn keeper_in_the_way(
        &self,
        session: SessionId,
        file: Ino,
        each: &mut impl FnMut(SessionId, Ino, Keep, Option<&Name>),
    ) {
        if let Some((keeper, dir)) = self.alone.keeper(file).filter(|(keeper, _)| *keeper != session) {
            each(keeper, dir, Keep::Shared, None);
        }
    }

    /// A recall that was sent already and asks for no less, or a new one.
    fn ask(&mut self, session: SessionId, ino: Ino, keep: Keep, name: Option<Name>) -> u64 {
        let known = self.asked.get(&(session, ino)).into_iter().flatten().find(|id| {
            self.recalls.get(id).is_some_and(|known| {
                let recall = &known.recall;
                stronger(recall.keep, keep) == recall.keep && (name.is_none() || recall.name == name)
            })
        });
        if let Some(id) = known {
            return *id;
        }
        self.last += 1;
        let id = self.last;
        let recall = Recall { id, ino, keep, name };
        self.asked.entry((session, ino)).or_default().push(id);
        *self.owed.entry(session).or_default() += 1;
        if ino != ANYTHING {
            self.orders.push((session, recall.clone()));
        }
        self.recalls.insert(id, Outstanding { session, recall });
        id
    }

    /// Recalls to be sent.
    pub(crate) fn take_orders(&mut self) -> Vec<(SessionId, Recall)> {
        std::mem::take(&mut self.orders)
    }

    /// Recalls that a session has not answered: to be sent again when its link broke.
    pub(crate) fn outstanding(&self, session: SessionId) -> Vec<Recall> {
        let mine = self.recalls.values().filter(|one| one.session == session && one.recall.ino != ANYTHING);
        mine.map(|one| one.recall.clone()).collect()
    }

    /// Whether a session has not answered a recall.
    pub(crate) fn owes(&self, session: SessionId) -> bool {
        self.owed.contains_key(&session)
    }

    /// Whether a session has not answered a recall of the inode.
    pub(crate) fn is_asked(&self, session: SessionId, ino: Ino) -> bool {
        let mut ids = self.asked.get(&(session, ino)).into_iter().flatten();
        ids.any(|id| self.recalls.get(id).is_some_and(|one| one.recall.keep != Keep::All))
    }

    /// Who was asked for what, and has not answered.
    pub(crate) fn asked(&self, id: u64) -> Option<&Outstanding> {
        self.recalls.get(&id)
    }

    /// Whether any session has an exclusive lease of anything.
    pub(crate) fn has_exclusive(&self) -> bool {
        !self.exclusive.is_empty() || !self.alone.is_empty()
    }

    /// A session did as it was asked. `None` for ids it was not asked, or answered before.
    pub(crate) fn finish(&mut self, session: SessionId, id: u64) -> Option<Done> {
        if self.recalls.get(&id)?.session != session {
            return None;
        }
        let Outstanding { recall, .. } = self.recalls.remove(&id)?;
        if let Some(count) = self.owed.get_mut(&session) {
            *count -= 1;
            if *count == 0 {
                self.owed.remove(&session);
            }
        }
        let place = (session, recall.ino);
        if let Some(ids) = self.asked.get_mut(&place) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.asked.remove(&place);
            }
        }
        if recall.keep != Keep::All && self.is_alone(session, recall.ino) {
            self.alone.end(recall.ino);
        }
        match recall.keep {
            Keep::All => {}
            Keep::Shared => {
                if self.exclusive.get(&recall.ino) == Some(&session) {
                    self.exclusive.remove(&recall.ino);
                    self.shared.insert(recall.ino, Holders::One(session));
                }
            }
            Keep::Nothing => self.drop_inode(session, recall.ino),
        }
        Some(Done { session, ino: recall.ino, name: recall.name })
    }

    /// A waiting call wants these. Given back with `unreserve`.
    pub(crate) fn reserve(&mut self, wants: &[Want<'_>]) -> Vec<Ino> {
        let inos: Vec<Ino> = wants.iter().map(Want::ino).collect();
        for ino in &inos {
            *self.reserved.entry(*ino).or_default() += 1;
        }
        inos
    }

    /// It waits no more.
    pub(crate) fn unreserve(&mut self, inos: &[Ino]) {
        for ino in inos {
            if let Some(count) = self.reserved.get_mut(ino) {
                *count -= 1;
                if *count == 0 {
                    self.reserved.remove(ino);
                }
            }
        }
    }

    /// Grants the shared lease of an inode, or says again what the session has of it.
    pub(crate) fn grant(&mut self, session: SessionId, ino: Ino) -> Granted {
        // Who is alone with a directory knows its attributes better.
        if !self.may_grant(session, ino) || self.alone.holder(ino).is_some_and(|holder| holder != session) {
            return Granted::NONE;
        }
        match self.exclusive.get(&ino) {
            Some(holder) if *holder == session => return Granted::ATTR.and(Granted::EXCLUSIVE),
            Some(_) => return Granted::NONE,
            None => {}
        }
        if add(&mut self.shared, ino, session) {
            self.count += 1;
        }
        Granted::ATTR
    }

    /// Grants the exclusive lease where nobody else holds any, else as `grant`.
    pub(crate) fn grant_exclusive(&mut self, session: SessionId, ino: Ino) -> Granted {
        if !self.may_grant(session, ino) {
            return Granted::NONE;
        }
        if self.exclusive.get(&ino) != Some(&session) && self.is_free(session, &[Want::Change(ino)]) {
            if self.shared.remove(&ino).is_none() {
                self.count += 1;
            }
            self.exclusive.insert(ino, session);
        }
        self.grant(session, ino)
    }

    /// Grants the names of a directory.
    pub(crate) fn grant_names(&mut self, session: SessionId, dir: Ino) -> Granted {
        if !self.may_grant(session, dir) {
            return Granted::NONE;
        }
        if add(&mut self.names, dir, session) {
            self.count += 1;
        }
        Granted::NAMES
    }

    /// From now on nobody may be alone with a directory, or somebody may again. The recalls that go out for it.
    pub(crate) fn keep_together(&mut self, together: bool) -> Vec<u64> {
        let begins = together && !self.together;
        self.together = together;
        let alone = if begins { self.alone.all() } else { Vec::new() };
        alone.into_iter().map(|(dir, session)| self.ask(session, dir, Keep::Shared, None)).collect()
    }

    /// Grants what comes with a new directory: its names, of which there are none yet, and to be alone with it.
    pub(crate) fn grant_born(&mut self, session: SessionId, dir: Ino) -> Granted {
        if self.together || !self.grant_names(session, dir).has(Granted::NAMES) {
            return Granted::NONE;
        }
        self.alone.begin(session, dir);
        Granted::BORN.and(Granted::ALONE)
    }

    /// Lets the session alone with a directory that nobody else caches anything of, not a name either: who looked at it and
    /// still keeps that is not asked, for it would only come back.
    pub(crate) fn grant_alone(&mut self, session: SessionId, dir: Ino) -> Granted {
        let names = self.names.get(&dir).map(Holders::all).unwrap_or_default();
        let is_free = names.iter().chain(&self.wild).all(|holder| *holder == session)
            && self.is_free(session, &[Want::Change(dir)]);
        if self.together || !is_free || !self.grant(session, dir).has(Granted::ATTR) {
            return Granted::NONE;
        }
        self.grant_names(session, dir);
        if !self.is_alone(session, dir) {
            self.alone.begin(session, dir);
        }
        Granted::ATTR.and(Granted::NAMES).and(Granted::ALONE)
    }

    /// Grants, to who is alone with a directory, to be alone with a file in it too: nobody else caches anything of it.
    pub(crate) fn grant_alone_in(&mut self, session: SessionId, dir: Ino, file: Ino) -> bool {
        let granted = self.is_alone(session, dir)
            && self.may_grant(session, dir)
            && self.may_grant(session, file)
            && self.is_free(session, &[Want::Change(file)]);
        if granted {
            self.alone.add(dir, file);
        }
        granted
    }

    /// Whether the session is alone with a directory.
    pub(crate) fn is_alone(&self, session: SessionId, dir: Ino) -> bool {
        self.alone.holder(dir) == Some(session)
    }

    /// Grants what a session that is alone with a directory counts on for what it has made there: it has told its programs.
    /// With too many leases it is asked to be alone there no more: the recall's id.
    pub(crate) fn grant_promised(
        &mut self,
        session: SessionId,
        dir: Ino,
        attr: &Attr,
    ) -> (Granted, Option<u64>) {
        let ino = attr.ino;
        self.count += 1;
        let granted = if attr.is_file() {
            self.exclusive.insert(ino, session);
            Granted::EXCLUSIVE
        } else {
            self.shared.insert(ino, Holders::One(session));
            Granted::NONE
        };
        let born = if attr.is_dir() {
            self.count += 1;
            self.names.insert(ino, Holders::One(session));
            self.alone.begin(session, ino);
            Granted::BORN.and(Granted::ALONE)
        } else {
            Granted::NONE
        };
        // Its own directories it counts on as well.
        let too_alone = if self.together && attr.is_dir() { Some(ino) } else { None };
        let too_many = (self.count() >= LEASES_MAX).then_some(dir);
        let recall = too_alone.or(too_many).map(|dir| self.ask(session, dir, Keep::Shared, None));
        (Granted::NAMES.and(Granted::ATTR).and(granted).and(born), recall)
    }

    fn may_grant(&self, session: SessionId, ino: Ino) -> bool {
        self.count() < LEASES_MAX
            && (self.reserved.is_empty() || !self.reserved.contains_key(&ino))
            && (self.asked.is_empty() || !self.asked.contains_key(&(session, ino)))
    }

    /// A session declares, after a restart, that it has unwritten data of this file, or made names in this directory that
    /// are on their way.
    pub(crate) fn declare(&mut self, session: SessionId, ino: Ino, is_dir: bool) {
        if is_dir {
            self.alone.begin(session, ino);
        } else if self.exclusive.insert(ino, session).is_none() {
            self.count += 1;
        }
    }

    /// A session of the server's last life may cache anything.
    pub(crate) fn set_wild(&mut self, session: SessionId, has_scope: bool) {
        self.wild.insert(session);
        if has_scope {
            self.shy.insert(session);
        }
    }

    /// It no longer does. The recalls that this answers.
    pub(crate) fn set_tame(&mut self, session: SessionId) -> Vec<u64> {
        self.wild.remove(&session);
        self.shy.remove(&session);
        self.asked_of(session, ANYTHING).to_vec()
    }

    /// Whether nobody else has looked at an inode, or changed it, since this session was granted it.
    pub(crate) fn is_sole(&self, session: SessionId, ino: Ino) -> bool {
        let keeper = self.alone.keeper(ino).map(|(keeper, _)| keeper);
        [self.exclusive.get(&ino).copied(), self.alone.holder(ino), keeper].contains(&Some(session))
    }

    /// Recalls of the inode that the session has not answered.
    pub(crate) fn asked_of(&self, session: SessionId, ino: Ino) -> &[u64] {
        self.asked.get(&(session, ino)).map(Vec::as_slice).unwrap_or_default()
    }

    /// The session caches nothing of the inode any more, which answers its recalls, too.
    pub(crate) fn give_back(&mut self, session: SessionId, ino: Ino) {
        self.drop_inode(session, ino);
        if remove(&mut self.names, ino, session) {
            self.count -= 1;
        }
        if self.is_alone(session, ino) {
            self.alone.end(ino);
        }
    }

    /// The session has ended. Its recalls, which nobody has to wait for any more.
    pub(crate) fn end_session(&mut self, session: SessionId) -> Vec<u64> {
        let mut dropped = 0;
        for map in [&mut self.shared, &mut self.names] {
            map.retain(|_, holders| {
                dropped += usize::from(holders.remove(session));
                !holders.all().is_empty()
            });
        }
        let before = self.exclusive.len();
        self.exclusive.retain(|_, holder| *holder != session);
        self.alone.end_session(session);
        self.count -= dropped + before - self.exclusive.len();
        self.wild.remove(&session);
        self.shy.remove(&session);
        self.asked.retain(|(asked, _), _| *asked != session);
        self.orders.retain(|(to, _)| *to != session);
        self.owed.remove(&session);
        let gone: Vec<u64> =
            self.recalls.iter().filter(|(_, one)| one.session == session).map(|(id, _)| *id).collect();
        for id in &gone {
            self.recalls.remove(id);
        }
        gone
    }

    /// Leases granted, for the figures.
    pub(crate) fn count(&self) -> usize {
        self.count + self.alone.count()
    }

    fn drop_inode(&mut self, session: SessionId, ino: Ino) {
        let was_exclusive = self.exclusive.get(&ino) == Some(&session);
        if was_exclusive {
            self.exclusive.remove(&ino);
        }
        if remove(&mut self.shared, ino, session) || was_exclusive {
            self.count -= 1;
        }
    }
}

impl Want<'_> {
    /// The inode it is about.
    pub(crate) fn ino(&self) -> Ino {
        match self {
            Self::Read(ino) | Self::Change(ino) | Self::Name(ino, _) => *ino,
        }
    }
}

impl Holders {
    fn all(&self) -> &[SessionId] {
        match self {
            Self::One(session) => std::slice::from_ref(session),
            Self::Many(sessions) => sessions,
        }
    }

    fn remove(&mut self, session: SessionId) -> bool {
        match self {
            Self::One(one) if *one == session => {
                *self = Self::Many(Vec::new());
                true
            }
            Self::One(_) => false,
            Self::Many(sessions) => {
                let before = sessions.len();
                sessions.retain(|other| *other != session);
                sessions.len() < before
            }
        }
    }
}

/// True when it was not there.
fn add(map: &mut HashMap<Ino, Holders>, ino: Ino, session: SessionId) -> bool {
    let Some(holders) = map.get_mut(&ino) else {
        map.insert(ino, Holders::One(session));
        return true;
    };
    if holders.all().contains(&session) {
        return false;
    }
    match holders {
        Holders::One(one) => *holders = Holders::Many(vec![*one, session]),
        Holders::Many(sessions) => sessions.push(session),
    }
    true
}

/// True when it was there.
fn remove(map: &mut HashMap<Ino, Holders>, ino: Ino, session: SessionId) -> bool {
    let Some(holders) = map.get_mut(&ino) else { return false };
    let removed = holders.remove(session);
    if holders.all().is_empty() {
        map.remove(&ino);
    }
    removed
}

/// What leaves less.
fn stronger(one: Keep, other: Keep) -> Keep {
    match (one, other) {
        (Keep::Nothing, _) | (_, Keep::Nothing) => Keep::Nothing,
        (Keep::Shared, _) | (_, Keep::Shared) => Keep::Shared,
        (Keep::All, Keep::All) => Keep::All,
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::{S_IFDIR, S_IFREG};
    use flexfs_wire::time::Time;

    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);
    const C: SessionId = SessionId(3);
    const X: Ino = Ino(10);

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn where_inodes_are_counted_nobody_is_alone() {
        let mut leases = Leases::new(Epoch(1));
        assert!(leases.grant_born(A, X).has(Granted::ALONE));
        let asked = leases.keep_together(true);
        assert_eq!(asked.len(), 1);
        assert_eq!(leases.keep_together(true), [0u64; 0], "asked once");
        // What it made before it heard of it counts, and its own directory there is asked for too.
        let (granted, recall) = leases.grant_promised(A, X, &Attr::new(Ino(21), S_IFDIR, Time::default()));
        assert!(granted.has(Granted::ALONE) && recall.is_some());
        for id in asked.into_iter().chain(recall) {
            assert!(leases.finish(A, id).is_some());
        }
        assert!(!leases.is_alone(A, X) && !leases.is_alone(A, Ino(21)));
        assert_eq!(leases.grant_born(A, Ino(22)), Granted::NONE);
        assert_eq!(leases.grant_alone(A, Ino(22)), Granted::NONE);
        assert!(leases.keep_together(false).is_empty());
        assert!(leases.grant_born(A, Ino(22)).has(Granted::ALONE));
    }

    #[test]
    fn a_change_takes_shared_leases_from_all_others() {
        let mut leases = Leases::default();
        for session in [A, B, C] {
            assert_eq!(leases.grant(session, X), Granted::ATTR);
        }
        assert!(leases.block(A, &[Want::Read(X)], &[]).is_empty(), "readers do not disturb each other");
        let ids = leases.block(A, &[Want::Change(X)], &[]);
        assert_eq!(ids.len(), 2);
        assert_eq!(leases.block(A, &[Want::Change(X)], &[]), ids, "asked once");
        assert_eq!(leases.take_orders().len(), 2);
        assert_eq!(leases.grant(B, X), Granted::NONE, "not while it has not answered");
        assert!(leases.finish(C, ids[0]).is_none(), "another's recall");
        for (session, id) in [(B, ids[0]), (C, ids[1])] {
            assert!(leases.finish(session, id).is_some());
            assert!(leases.finish(session, id).is_none(), "once");
        }
        assert!(leases.block(A, &[Want::Change(X)], &[]).is_empty());
        assert_eq!(leases.count(), 1);
    }

    #[test]
    fn an_exclusive_lease_goes_down_for_readers_and_away_for_writers() {
        let mut leases = Leases::default();
        let exclusive = Granted::ATTR.and(Granted::EXCLUSIVE);
        assert_eq!(leases.grant_exclusive(A, X), exclusive);
        assert_eq!(leases.grant(A, X), exclusive, "said again");
        assert_eq!(leases.grant(B, X), Granted::NONE, "a listing does not ask others");
        let ids = leases.block(B, &[Want::Read(X)], &[]);
        assert_eq!(leases.take_orders()[0].1.keep, Keep::Shared);
        leases.finish(A, ids[0]).unwrap();
        assert_eq!(leases.grant(B, X), Granted::ATTR);
        assert_eq!(leases.grant_exclusive(A, X), Granted::ATTR, "B is there");
        let ids = leases.block(A, &[Want::Change(X)], &[]);
        leases.finish(B, ids[0]).unwrap();
        assert_eq!(leases.grant_exclusive(A, X), exclusive);
        assert_eq!(leases.count(), 1);
    }

    #[test]
    fn who_made_a_directory_is_alone_with_it_until_another_looks() {
        let mut leases = Leases::default();
        assert_eq!(leases.grant(A, X), Granted::ATTR);
        assert_eq!(leases.grant_born(A, X), Granted::BORN.and(Granted::ALONE));
        assert!(leases.is_alone(A, X) && !leases.is_alone(B, X));
        assert!(leases.block(A, &[Want::Read(X), Want::Change(X)], &[]).is_empty());
        assert_eq!(leases.grant(B, X), Granted::NONE, "a listing of its parent does not ask others");
        let ids = leases.block(B, &[Want::Read(X)], &[]);
        let order = leases.take_orders().remove(0);
        assert_eq!((order.0, order.1.keep), (A, Keep::Shared));
        leases.finish(A, ids[0]).unwrap();
        assert!(!leases.is_alone(A, X));
        assert!(leases.block(B, &[Want::Read(X)], &[]).is_empty());
        assert_eq!(leases.grant(B, X), Granted::ATTR);
        assert_eq!(leases.grant(A, X), Granted::ATTR, "it comes once, with the directory");
        assert!(!leases.is_alone(A, X));
        // Who changes something asks for all of it; so does the end.
        let y = Ino(11);
        leases.grant_born(A, y);
        let ids = leases.block(B, &[Want::Change(y)], &[]);
        assert_eq!(leases.take_orders()[0].1.keep, Keep::Nothing);
        leases.finish(A, ids[0]).unwrap();
        assert!(!leases.is_alone(A, y));
        leases.grant_born(A, y);
        leases.end_session(A);
        assert!(!leases.is_alone(A, y) && leases.is_free(B, &[Want::Change(y), Want::Name(y, &name("n"))]));
    }

    #[test]
    fn what_is_promised_is_granted_and_too_much_ends_the_promise() {
        let mut leases = Leases::default();
        leases.grant_born(A, X);
        let attr = |ino, kind| Attr::new(Ino(ino), kind | 0o700, Time { secs: 1, nanos: 0 });
        let names = Granted::NAMES.and(Granted::ATTR);
        let (file, dir) = (attr(20, S_IFREG), attr(21, S_IFDIR));
        assert_eq!(leases.grant_promised(A, X, &file), (names.and(Granted::EXCLUSIVE), None));
        let born = Granted::BORN.and(Granted::ALONE);
        assert_eq!(leases.grant_promised(A, X, &dir), (names.and(born), None));
        assert!(leases.is_alone(A, Ino(21)));
        assert_eq!(leases.block(B, &[Want::Read(Ino(20))], &[]).len(), 1);
        leases.take_orders();
        leases.count = LEASES_MAX;
        let (granted, recall) = leases.grant_promised(A, X, &attr(22, S_IFREG));
        assert!(granted.has(Granted::EXCLUSIVE) && recall.is_some(), "its program was told");
        let order = leases.take_orders().remove(0);
        assert_eq!((order.0, order.1.ino, order.1.keep), (A, X, Keep::Shared));
        leases.finish(A, recall.unwrap()).unwrap();
        assert!(!leases.is_alone(A, X));
    }

    #[test]
    fn one_name_is_recalled_and_the_others_stay() {
        let mut leases = Leases::default();
        leases.grant_names(B, X);
        leases.grant(B, X);
        let (one, two) = (name("one"), name("two"));
        let wants = [Want::Change(X), Want::Name(X, &one)];
        let ids = leases.block(A, &wants, &[]);
        assert_eq!(ids.len(), 1, "one question for both");
        let order = leases.take_orders().remove(0).1;
        assert_eq!((order.keep, order.name), (Keep::Nothing, Some(one.clone())));
        let reserved = leases.reserve(&wants);
        let done = leases.finish(B, ids[0]).unwrap();
        assert_eq!(leases.grant_names(B, X), Granted::NONE, "reserved for A");
        assert!(leases.block(A, &wants, &[done]).is_empty());
        leases.unreserve(&reserved);
        assert_eq!(leases.grant_names(B, X), Granted::NAMES);
        let ids = leases.block(A, &[Want::Name(X, &two)], &[]);
        assert_eq!(ids.len(), 1, "B still has the names");
        assert_eq!(leases.end_session(B), ids);
        assert!(leases.is_free(A, &[Want::Name(X, &two)]) && leases.count() == 0);
    }

    #[test]
    fn sessions_of_the_last_life_are_asked_about_everything_once() {
        let mut leases = Leases::default();
        leases.set_wild(B, false);
        let wants = [Want::Change(X)];
        let ids = leases.block(A, &wants, &[]);
        assert_eq!(ids.len(), 1);
        assert_eq!(leases.grant_exclusive(A, X), Granted::ATTR, "not exclusive while B may have it");
        let done = leases.finish(B, ids[0]).unwrap();
        assert!(leases.block(A, &wants, &[done]).is_empty(), "not asked twice for one call");
        assert_eq!(leases.block(A, &wants, &[]).len(), 1, "but for the next");
        leases.set_tame(B);
        leases.take_orders();
        assert!(leases.is_free(A, &wants));
    }

    #[test]
    fn what_is_given_back_is_not_recalled() {
        let mut leases = Leases::default();
        leases.grant(B, X);
        leases.grant_names(B, X);
        leases.give_back(B, X);
        leases.give_back(B, X);
        assert_eq!(leases.count(), 0);
        assert!(leases.is_free(A, &[Want::Change(X), Want::Name(X, &name("n"))]));
    }

    #[test]
    fn a_directory_that_nobody_else_caches_is_had_alone_with_the_files_in_it() {
        let mut leases = Leases::default();
        let (file, all) = (Ino(20), Granted::ATTR.and(Granted::NAMES).and(Granted::ALONE));
        leases.grant_names(B, X);
        assert_eq!(leases.grant_alone(A, X), Granted::NONE, "B keeps names of it");
        assert!(!leases.grant_alone_in(A, X, file));
        leases.give_back(B, X);
        leases.grant(B, X);
        assert_eq!(leases.grant_alone(A, X), Granted::NONE, "B keeps its attributes");
        leases.give_back(B, X);
        leases.grant(B, file);
        assert_eq!((leases.grant_alone(A, X), leases.grant_alone(A, X)), (all, all));
        assert!(!leases.grant_alone_in(A, X, file), "B keeps attributes of the file");
        leases.give_back(B, file);
        assert!(leases.grant_alone_in(A, X, file) && leases.grant_alone_in(A, X, file));
        assert!(leases.block(A, &[Want::Read(file), Want::Change(file)], &[]).is_empty());
        // B has a handle of the file, and goes past the directory.
        let ids = leases.block(B, &[Want::Read(file)], &[]);
        let order = leases.take_orders().remove(0);
        assert_eq!((order.0, order.1.ino, order.1.keep), (A, X, Keep::Shared));
        assert!(!leases.grant_alone_in(A, X, Ino(21)), "it is asked");
        leases.finish(A, ids[0]).unwrap();
        assert!(!leases.is_alone(A, X) && leases.block(B, &[Want::Read(file)], &[]).is_empty());
        leases.end_session(A);
        assert_eq!(leases.count(), 0);
    }
}
