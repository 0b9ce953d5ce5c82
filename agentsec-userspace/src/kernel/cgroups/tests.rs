//! On the machine's own tree, below a cgroup of each test's own.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;

/// A cgroup that is removed with everything below it.
struct Own {
    tree: Tree,
    path: String,
}

impl Own {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tree = Tree::find().expect("these tests need cgroup v2");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("agentsec-{}-{now:x}-{n}", std::process::id());
        fs::create_dir(tree.mount().join(&path)).expect("these tests need root");
        Self { tree, path }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.tree.directory(&child(&self.path, name)).unwrap()
    }

    fn make(&self, name: &str) -> u64 {
        fs::create_dir_all(self.directory(name)).unwrap();
        fs::metadata(self.directory(name)).unwrap().ino()
    }

    fn remove(&self, name: &str) {
        fs::remove_dir(self.directory(name)).unwrap();
    }

    fn paths(&self) -> BTreeSet<String> {
        let listing = self.tree.list(&self.path).unwrap();
        let below = |path: &str| path[self.path.len() + 1..].to_owned();
        listing.cgroups.iter().map(|cgroup| below(&cgroup.path)).collect()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Ok(listing) = self.tree.list(&self.path) else { return };
        let below = listing.cgroups.into_iter().map(|cgroup| cgroup.path).rev();
        for path in below.chain([self.path.clone()]) {
            let _ = fs::remove_dir(self.tree.mount().join(path));
        }
    }
}

/// A process that waits until it is dropped.
struct Waiting(Child);

impl Waiting {
    fn new() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn enter(&self, own: &Own, name: &str, file: &str) {
        let file = own.directory(name).join(file);
        let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
        write!(file, "{}", self.0.id()).unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rings until `changed`; a bell that has been rung by other tests says nothing about ours.
async fn ring_until(watch: &mut Watch, mut changed: impl FnMut() -> bool) {
    let rings = async {
        loop {
            watch.ring().await.unwrap();
            if changed() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), rings).await.expect("the bell rings");
}

/// How many cgroups do not ring; another test has one that is too deep.
fn unheard(watch: &Watch) -> u64 {
    match watch.coverage() {
        Coverage::Whole => 0,
        Coverage::Partial { unwatched } => unwatched,
    }
}

/// Whether something in a cgroup of ours would ring. A ring may be another test's, so it alone proves nothing.
fn hears(watch: &Watch, own: &Own, name: &str) -> bool {
    watch.watched.paths.values().any(|path| *path == child(&own.path, name))
}

#[test]
fn every_cgroup_is_listed_with_its_id_and_level() {
    let own = Own::new();
    let (a, b, c) = (own.make("a"), own.make("a/b"), own.make("c"));
    let listing = own.tree.list(&own.path).unwrap();
    let expected = [("a", a, 2), ("c", c, 2), ("a/b", b, 3)];
    let mut found = listing.cgroups.clone();
    found.sort_by_key(|cgroup| (cgroup.level, cgroup.path.clone()));
    for (cgroup, (name, id, level)) in found.iter().zip(expected) {
        assert_eq!(*cgroup, Cgroup { id, path: child(&own.path, name), level });
    }
    assert_eq!((found.len(), listing.beyond, listing.unnamed), (3, 0, 0));
    let all = own.tree.list("").unwrap().cgroups;
    assert!(found.iter().all(|cgroup| all.contains(cgroup)));
    assert_eq!(
        own.tree.get(&child(&own.path, "a/b")).unwrap().map(|cgroup| (cgroup.id, cgroup.level)),
        Some((b, 3))
    );
}

#[test]
fn what_does_not_exist_is_empty_and_no_error() {
    let own = Own::new();
    let path = child(&own.path, "never");
    assert_eq!(own.tree.list(&path).unwrap(), Listing::default());
    assert_eq!(own.tree.get(&path).unwrap(), None);
    assert_eq!(own.tree.get(&child(&own.path, "cgroup.procs")).unwrap(), None, "a file is no cgroup");
    assert!(own.tree.members(&path, Scope::WithDescendants).unwrap().is_empty());
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let tree = Tree::find().unwrap();
    for path in ["/a", "a/", "a//b", "..", "a/../../b", "."] {
        assert!(tree.list(path).is_err(), "{path}");
        assert!(tree.members(path, Scope::Itself).is_err(), "{path}");
    }
}

#[test]
fn a_cgroup_that_is_made_again_has_another_id() {
    let own = Own::new();
    let before = own.make("a");
    own.remove("a");
    assert_ne!(own.make("a"), before);
}

#[test]
fn what_is_too_many_or_too_deep_is_counted() {
    let own = Own::new();
    for name in ["a", "b", "c", "a/d"] {
        own.make(name);
    }
    let listing = own.tree.list_at_most(&own.path, 2).unwrap();
    assert_eq!(listing.cgroups.len(), 2);
    assert!(listing.beyond >= 1, "{listing:?}");
    let deep = vec!["x"; MOST_LEVELS as usize].join("/");
    own.make(&deep);
    let listing = own.tree.list(&own.path).unwrap();
    assert_eq!(listing.beyond, 1, "our own cgroup is at level 1, so one is beyond");
    assert_eq!(listing.cgroups.iter().map(|cgroup| cgroup.level).max(), Some(MOST_LEVELS));
    // The fixture removes what is listed.
    fs::remove_dir(own.directory(&deep)).unwrap();
}

#[test]
fn a_name_that_is_not_utf_8_is_skipped_and_counted() {
    use std::os::unix::ffi::OsStrExt;
    let own = Own::new();
    own.make("good");
    let bad = own.directory("good").with_file_name(std::ffi::OsStr::from_bytes(b"b\xffd"));
    fs::create_dir(&bad).unwrap();
    let listing = own.tree.list(&own.path).unwrap();
    fs::remove_dir(bad).unwrap();
    assert_eq!((listing.cgroups.len(), listing.unnamed), (1, 1));
}

#[test]
fn processes_are_found_where_they_are() {
    let own = Own::new();
    own.make("a/b");
    let (one, two) = (Waiting::new(), Waiting::new());
    one.enter(&own, "a", "cgroup.procs");
    two.enter(&own, "a/b", "cgroup.procs");
    let path = child(&own.path, "a");
    let members = |scope| own.tree.members(&path, scope).unwrap();
    assert_eq!(members(Scope::Itself), BTreeSet::from([one.0.id()]));
    assert_eq!(members(Scope::WithDescendants), BTreeSet::from([one.0.id(), two.0.id()]));
    drop((one, two));
    assert!(members(Scope::WithDescendants).is_empty());
}

#[test]
fn a_process_in_a_threaded_cgroup_is_found() {
    let own = Own::new();
    own.make("a/threads");
    fs::write(own.directory("a/threads").join("cgroup.type"), "threaded").unwrap();
    let one = Waiting::new();
    one.enter(&own, "a", "cgroup.procs");
    one.enter(&own, "a/threads", "cgroup.threads");
    let path = child(&own.path, "a/threads");
    assert_eq!(own.tree.members(&path, Scope::Itself).unwrap(), BTreeSet::from([one.0.id()]));
}

#[tokio::test]
async fn the_bell_rings_for_cgroups_inside_cgroups_that_are_new() {
    let own = Own::new();
    let mut watch = Watch::new(&own.tree).unwrap();
    assert!(unheard(&watch) <= 1);
    own.make("a/b/c");
    ring_until(&mut watch, || own.paths().contains("a/b/c")).await;
    assert!(hears(&watch, &own, "a/b/c"), "made before its parents were watched");
    own.make("a/b/c/d");
    ring_until(&mut watch, || own.paths().contains("a/b/c/d")).await;
    own.remove("a/b/c/d");
    ring_until(&mut watch, || !own.paths().contains("a/b/c/d")).await;
    own.make("a/b/c/d/e");
    ring_until(&mut watch, || own.paths().contains("a/b/c/d/e")).await;
    assert!(hears(&watch, &own, "a/b/c/d/e"));
}

#[tokio::test]
async fn too_few_watches_are_told_and_the_rest_still_rings() {
    let own = Own::new();
    let elsewhere = own.tree.list("").unwrap().cgroups.len() as u64;
    let mut watch = Watch::with_at_most(&own.tree, 1).unwrap();
    assert!((1..elsewhere + 100).contains(&unheard(&watch)), "{:?}", watch.coverage());
    // The root is watched, so a cgroup right below it rings.
    let other = Own::new();
    ring_until(&mut watch, || own.tree.get(&other.path).unwrap().is_some()).await;
    watch.most = MOST_CGROUPS;
    watch.look_again().unwrap();
    assert!(unheard(&watch) <= 1);
    own.make("a");
    ring_until(&mut watch, || own.paths().contains("a")).await;
}

#[tokio::test]
async fn watches_of_removed_cgroups_are_given_up() {
    let own = Own::new();
    let mut watch = Watch::new(&own.tree).unwrap();
    for _ in 0..20 {
        own.make("a/b");
        ring_until(&mut watch, || own.paths().contains("a/b")).await;
        own.remove("a/b");
        own.remove("a");
        ring_until(&mut watch, || own.paths().is_empty()).await;
    }
    own.make("end");
    ring_until(&mut watch, || own.paths().contains("end")).await;
    let ours: Vec<_> = watch.watched.paths.values().filter(|path| path.starts_with(&own.path)).collect();
    assert_eq!(ours.len(), 2, "itself and the last one: {ours:?}");
    let number = watch.as_raw_fd();
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let first = own.tree.get(&own.path).unwrap().unwrap().id;
    let inodes = told.lines().filter_map(|line| line.split(" ino:").nth(1)?.split(' ').next());
    let inodes = inodes.map(|inode| u64::from_str_radix(inode, 16).unwrap());
    // Other tests' cgroups come and go beside ours, but not forty of them.
    let since = inodes.filter(|inode| *inode >= first).count();
    assert!(
        (2..30).contains(&since),
        "the kernel keeps {since} watches on cgroups made since the test began"
    );
}

#[tokio::test]
async fn what_appears_while_the_queue_is_full_is_watched_all_the_same() {
    let own = Own::new();
    let mut watch = Watch::new(&own.tree).unwrap();
    let most: u32 =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // Two messages each, and nobody takes them.
    for _ in 0..most / 2 + 1 {
        own.make("a");
        own.remove("a");
    }
    own.make("unheard/of");
    ring_until(&mut watch, || own.paths().contains("unheard/of")).await;
    assert!(hears(&watch, &own, "unheard/of"));
}
