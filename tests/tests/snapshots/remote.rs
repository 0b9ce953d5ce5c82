//! Repositories elsewhere: an append-only server, which nothing here can make forget, and copies.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agentsec::recovery::{Cancel, Kind, Store};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};

use super::{Bench, tree};

/// rclone as a server of restic's protocol that takes and gives, and removes nothing.
struct AppendOnly {
    child: Child,
    address: SocketAddr,
}

impl AppendOnly {
    fn start(directory: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new("rclone")
            .args([
                "serve",
                "restic",
                "--append-only",
                "--config",
                "/dev/null",
                "--addr",
                &address.to_string(),
            ])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("running rclone: cargo xtask setup installs it")?;
        let server = Self { child, address };
        wait::until("the server", Duration::from_secs(30), || TcpStream::connect(address).ok())?;
        Ok(server)
    }
}

impl Drop for AppendOnly {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_append_only_server_takes_snapshots_and_forgets_none() -> Result<()> {
    let mut bench = Bench::new()?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(5))?;
    fs::create_dir(bench.path("server"))?;
    let server = AppendOnly::start(&bench.path("server"))?;
    bench.store.restic.repository = format!("rest:http://{}/a", server.address);
    let expected = tree::entries(&bench.path("state"))?;
    let record = bench.create()?;
    ensure!(bench.verify(&record.id)?.is_verified());
    let refused = bench.store.restic.forget(std::slice::from_ref(&record.id), false, &Cancel::default());
    ensure!(
        bench.store.restic.snapshots(Some(&record.id), &Cancel::default())?.len() == 1,
        "it is still there"
    );
    assert_eq!(refused.unwrap_err().kind, Kind::Denied, "and told at once");
    bench.restore(&record.id, &bench.path("out"))?;
    super::assert_same(&expected, &tree::entries(&bench.path("out"))?, "from the server");
    Ok(())
}

#[test]
fn a_copy_elsewhere_has_the_same_tree_and_restic_finds_it_whole() -> Result<()> {
    let bench = Bench::new()?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(6))?;
    let record = bench.verify(&bench.create()?.id)?;
    let other = bench.path("copy").display().to_string();
    bench.store.restic.copy_to(&other, std::slice::from_ref(&record.id), &Cancel::default())?;
    let mut there: Store = bench.store.clone();
    there.restic.repository = other;
    let copied = there.restic.snapshots(None, &Cancel::default())?;
    let tree = record.tree.as_deref();
    ensure!(tree.is_some(), "whoever has read a snapshot knows its tree");
    assert_eq!(copied.iter().map(|copy| Some(copy.tree.as_str())).collect::<Vec<_>>(), [tree]);
    there.restic.verify(&copied[0].id, tree, &Cancel::default(), &mut |_, _| {})?;
    Ok(())
}
