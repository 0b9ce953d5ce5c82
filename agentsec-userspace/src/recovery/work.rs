//! Jobs that take and read snapshots, each in a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::core::EventKind;

use super::catalogue::Record;
use super::durable;
use super::error::{Failure, Kind};
use super::freeze::Frozen;
use super::retention::{self, Shelf};
use super::service::Task;
use super::store::{Store, Wish};
use super::testimony::Attested;
use super::world::{Told, World};

/// How often data that no snapshot needs is given back.
const PRUNE: Duration = Duration::from_secs(3600);
/// How long a store that allows no forgetting is left in peace.
const DENIED: Duration = Duration::from_secs(86_400);
/// How long an equal tree that was verified speaks for a new snapshot of it.
const SPEAKS_NS: u64 = 3_600_000_000_000;

/// Takes one consistent point of `group`, whose last is `agent`: everybody who is to be frozen is frozen together.
pub(super) fn create(
    task: &Task,
    agent: &str,
    group: &[String],
    by: &str,
    automated: bool,
) -> Result<Value, Failure> {
    let mut records = Vec::new();
    let taken = take(task, group, by, &mut records);
    // Nobody is frozen any more. What was taken is in the catalogue, whether or not the others followed.
    for (name, record) in &mut records {
        name_tree(task, name, record);
        tell_snapshot(task, name, "created", record, json!({ "by": by, "automated": automated }));
    }
    let taken = taken.and_then(|()| {
        records
            .iter()
            .map(|(name, record)| {
                verify(task, name, &record.id, by, automated).map(|record| (name.clone(), record))
            })
            .collect::<Result<Vec<_>, _>>()
    });
    match taken {
        Ok(records) => {
            if automated {
                tidy(task, group);
            }
            copy(task, &records);
            remember(task, &records);
            let own = records.into_iter().find(|(name, _)| name == agent).map(|(_, record)| record);
            Ok(serde_json::to_value(own).unwrap_or_default())
        }
        Err(failure) => {
            let data = json!({
                "action": "failed", "work": "create", "error": failure.message, "by": by, "automated": automated,
            });
            tell(task, agent, EventKind::Snapshot, data);
            Err(failure)
        }
    }
}

/// What the repository is asked for anyway names the tree of a snapshot that was just made. Should that fail, its id
/// stands for it.
fn name_tree(task: &Task, agent: &str, record: &mut Record) {
    look_for_strangers(task, agent);
    let store = task.service.world().store(agent, &task.service.shared().paths.state_dir);
    let catalogue = store.and_then(|store| store.catalogue());
    if let Ok(found) = catalogue.and_then(|catalogue| catalogue.find(&record.id).cloned()) {
        *record = found;
    }
}

/// What was taken is in `records` also when a later one fails.
fn take(task: &Task, group: &[String], by: &str, records: &mut Vec<(String, Record)>) -> Result<(), Failure> {
    let shared = task.service.shared();
    let world = task.service.world();
    let stores: Result<Vec<Store>, Failure> =
        group.iter().map(|name| world.store(name, &shared.paths.state_dir)).collect();
    let stores = stores?;
    // The repositories first: nobody is kept frozen while one is being made.
    stores.iter().try_for_each(|store| store.prepare(&task.cancel))?;
    let mut frozen = Vec::new();
    for store in &stores {
        if let Some(cgroup) = world.freezes(&store.agent, shared.cgroups())? {
            frozen.push((store.agent.clone(), Frozen::new(&cgroup, &store.file("frozen"))?));
        }
    }
    let point = Uuid::now_v7().to_string();
    for store in &stores {
        task.say(format!("reading {}", store.agent));
        let depends = world.agent(&store.agent)?.recovery.dependencies.iter().filter_map(|other| {
            let record = records.iter().find(|(name, _)| name == other).map(|(_, record)| record)?;
            Some((other.clone(), record.id.clone()))
        });
        let wish = Wish {
            point: point.clone(),
            depends: depends.collect(),
            frozen: frozen.iter().any(|(name, _)| *name == store.agent),
            by: by.to_owned(),
        };
        let record =
            store.create(&wish, &|| shared.now(), &task.cancel, &mut |done, all| task.progress(done, all))?;
        records.push((store.agent.clone(), record));
    }
    Ok(())
}

/// Reads a snapshot again, and tells what came of it.
pub(super) fn verify(
    task: &Task,
    agent: &str,
    id: &str,
    by: &str,
    automated: bool,
) -> Result<Record, Failure> {
    let shared = task.service.shared();
    let store = task.service.world().store(agent, &shared.paths.state_dir)?;
    if automated && let Some(record) = spoken_for(&store, id, shared.now().wall_ns)? {
        return Ok(record);
    }
    task.say(format!("verifying {}", super::plan::short(id)));
    let verified =
        store.verify(id, &|| shared.now(), &task.cancel, &mut |done, all| task.progress(done, all));
    // What the loop has just made is on its way to the log.
    let verified = if automated { verified } else { verified.and_then(|record| attest(task, agent, record)) };
    match &verified {
        Ok(record) => tell_snapshot(task, agent, "verified", record, json!({ "by": by })),
        Err(failure) if matches!(failure.kind, Kind::Damaged | Kind::NoSnapshot) => {
            let data =
                json!({ "what": "snapshot_damaged", "snapshot": id, "error": failure.message, "by": by });
            shared.tell_alert(agent, data);
        }
        Err(_) => {}
    }
    verified
}

/// A snapshot of which every byte is right may still be none of ours.
fn attest(task: &Task, agent: &str, record: Record) -> Result<Record, Failure> {
    match task.service.testimony(agent, std::slice::from_ref(&record)).of(&record) {
        Attested::No(why) => {
            let message = format!("snapshot {} is whole, but may not be ours: {why}", record.id);
            Err(Failure::new(Kind::Damaged, message))
        }
        Attested::Yes | Attested::Unknown(_) => Ok(record),
    }
}

/// A tree is named by the hash of everything in it: when the very same one was read a short while ago, the automatic
/// loop need not read it again.
fn spoken_for(store: &Store, id: &str, now_ns: u64) -> Result<Option<Record>, Failure> {
    let mut catalogue = store.catalogue()?;
    let Some(tree) = catalogue.find(id)?.tree.clone() else { return Ok(None) };
    let fresh = |record: &&Record| {
        record.is_verified()
            && record.tree.as_ref() == Some(&tree)
            && record.verified_ns.is_some_and(|at| at <= now_ns && now_ns - at < SPEAKS_NS)
    };
    let Some(verified_ns) = catalogue.records.iter().rev().find(fresh).and_then(|record| record.verified_ns)
    else {
        return Ok(None);
    };
    catalogue.update(id, |record| record.verified_ns = Some(verified_ns));
    catalogue.save()?;
    catalogue.find(id).map(|record| Some(record.clone()))
}

/// Compares the repository with the catalogue; what has changed in it without our doing is told, once.
fn look_for_strangers(task: &Task, agent: &str) {
    let looked = (|| {
        let store = task.service.world().store(agent, &task.service.shared().paths.state_dir)?;
        let missing = |store: &Store| -> Result<BTreeSet<String>, Failure> {
            let records = store.catalogue()?.records;
            Ok(records.into_iter().filter(|record| record.missing).map(|record| record.id).collect())
        };
        let before = missing(&store)?;
        let strangers: BTreeSet<String> =
            store.compare(&task.cancel)?.into_iter().map(|stored| stored.id).collect();
        let known_file = store.file("strangers.json");
        let known: BTreeSet<String> = durable::load(&known_file)?.unwrap_or_default();
        let after = missing(&store)?;
        let (new, gone): (Vec<_>, Vec<_>) =
            (strangers.difference(&known).collect(), after.difference(&before).collect());
        if !new.is_empty() || !gone.is_empty() {
            let data = json!({ "what": "repository_changed", "not_ours": new, "gone": gone });
            task.service.shared().tell_alert(agent, data);
            durable::save(&known_file, &strangers)?;
        }
        Ok(())
    })();
    if let Err::<(), Failure>(failure) = looked {
        let data = json!({ "action": "failed", "work": "compare", "error": failure.message });
        tell(task, agent, EventKind::Snapshot, data);
    }
}

/// Forgets what retention lets go. What fails is told and tried again with the next snapshot.
fn tidy(task: &Task, group: &[String]) {
    let world = task.service.world();
    if let Err(failure) = try_tidy(task, &world, group) {
        let data = json!({ "action": "failed", "work": "retention", "error": failure.message });
        tell(task, group.last().map_or("", String::as_str), EventKind::Snapshot, data);
    }
}

fn try_tidy(task: &Task, world: &World, group: &[String]) -> Result<(), Failure> {
    let state_dir = &task.service.shared().paths.state_dir;
    let mut catalogues = BTreeMap::new();
    // Everybody's: another agent's snapshot may depend on one of these.
    for name in world.agents.keys() {
        catalogues.insert(name.clone(), world.store(name, state_dir)?.catalogue()?);
    }
    let shelves = catalogues
        .iter()
        .filter_map(|(name, catalogue)| {
            let keep = world.agents.get(name)?.recovery.keep;
            let keep = group.contains(name).then_some(keep);
            Some((name.clone(), Shelf { records: &catalogue.records, keep }))
        })
        .collect();
    for (name, ids) in retention::removable(&shelves) {
        let store = world.store(&name, state_dir)?;
        // What the repository has let go already, a server's own retention or a run that was killed, needs no leave.
        let is_gone =
            |id: &String| catalogues[&name].records.iter().any(|record| record.id == *id && record.missing);
        let (gone, there): (Vec<String>, Vec<String>) = ids.into_iter().partition(is_gone);
        strike(task, &store, &gone)?;
        if !there.is_empty() {
            let_go(task, &store, &there)?;
        }
    }
    Ok(())
}

/// Has the repository forget, unless it has refused that a short while ago.
fn let_go(task: &Task, store: &Store, ids: &[String]) -> Result<(), Failure> {
    let (stamp, denied) = (store.file("pruned"), store.file("denied"));
    if !is_older(&denied, DENIED) {
        return Ok(());
    }
    let prune = is_older(&stamp, PRUNE);
    task.say(format!("letting {} old snapshots of {} go", ids.len(), store.agent));
    if let Err(failure) = store.restic.forget(ids, prune, &task.cancel) {
        if failure.kind != Kind::Denied {
            return Err(failure);
        }
        std::fs::write(&denied, "").map_err(Failure::io(denied.display()))?;
        let message = format!(
            "the store lets nothing be removed, as an append-only one does not; all snapshots stay until it removes \
             them itself, and it is asked again in a day: {failure}"
        );
        return Err(Failure::new(Kind::Denied, message));
    }
    if prune {
        std::fs::write(&stamp, "").map_err(Failure::io(stamp.display()))?;
    }
    strike(task, store, ids)
}

/// Takes what is gone out of the catalogue.
fn strike(task: &Task, store: &Store, ids: &[String]) -> Result<(), Failure> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut catalogue = store.catalogue()?;
    catalogue.records.retain(|record| !ids.contains(&record.id));
    catalogue.save()?;
    tell(task, &store.agent, EventKind::Snapshot, json!({ "action": "removed", "snapshots": ids }));
    Ok(())
}

fn is_older(path: &std::path::Path, age: Duration) -> bool {
    let modified = std::fs::metadata(path).and_then(|about| about.modified());
    // One of the future is from a clock that was wrong, and would hold for as long.
    modified.map_or(true, |at| SystemTime::now().duration_since(at).map_or(true, |old| old > age))
}

/// Copies what is new to the second location, if there is one. What fails is told; the snapshot itself stands.
fn copy(task: &Task, records: &[(String, Record)]) {
    for (name, record) in records {
        let copied = (|| {
            let store = task.service.world().store(name, &task.service.shared().paths.state_dir)?;
            let Some(other) = &store.copy_to else { return Ok(()) };
            task.say(format!("copying {} of {name}", super::plan::short(&record.id)));
            store.restic.copy_to(other, std::slice::from_ref(&record.id), &task.cancel)?;
            let mut catalogue = store.catalogue()?;
            catalogue.update(&record.id, |record| record.copied = true);
            catalogue.save()
        })();
        if let Err(failure) = copied {
            let data = json!({
                "action": "failed", "work": "copy", "snapshot": record.id, "error": failure.message,
            });
            tell(task, name, EventKind::Snapshot, data);
        }
    }
}

/// Keeps what is new in memory too, where there is room for it. What fails is told; the snapshot itself stands.
fn remember(task: &Task, records: &[(String, Record)]) {
    for (name, record) in records {
        let kept = (|| {
            let store = task.service.world().store(name, &task.service.shared().paths.state_dir)?;
            let Some(memory) = &store.memory else { return Ok(()) };
            task.say(format!("keeping {} of {name} in memory", super::plan::short(&record.id)));
            memory.keep(&store.restic, record, &task.cancel).map(drop)
        })();
        if let Err(failure) = kept {
            let data = json!({
                "action": "failed", "work": "memory", "snapshot": record.id, "error": failure.message,
            });
            tell(task, name, EventKind::Snapshot, data);
        }
    }
}

fn tell_snapshot(task: &Task, agent: &str, action: &str, record: &Record, more: Value) {
    let mut data = json!({
        "action": action,
        "snapshot": record.id,
        "tree": record.tree,
        "point": record.point,
        "finished": record.finished.shown(),
        "depends": record.depends,
        "files": record.files,
        "bytes": record.bytes,
        "added_bytes": record.added,
        "frozen": record.frozen,
        "vanished_files": record.vanished,
    });
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more);
    }
    tell(task, agent, EventKind::Snapshot, data);
}

pub(super) fn tell(task: &Task, agent: &str, kind: EventKind, data: Value) {
    task.service.shared().tell(Told::Event { agent: agent.to_owned(), kind, data });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_the_future_holds_nothing_up() {
        let stamp = tempfile::NamedTempFile::new().unwrap();
        let at = |time| stamp.as_file().set_modified(time).unwrap();
        assert!(!is_older(stamp.path(), PRUNE), "just made");
        at(SystemTime::now() - 2 * PRUNE);
        assert!(is_older(stamp.path(), PRUNE));
        at(SystemTime::now() + 1000 * DENIED);
        assert!(is_older(stamp.path(), PRUNE), "a clock was wrong");
        assert!(is_older(&stamp.path().join("absent"), PRUNE));
    }
}
