//! Servers that keep snapshots and do not give them up: one that only appends, and an object store with locks.
//!
//! Both are other people's programs on the loopback interface of a namespace, on a port that was free a moment ago.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;
use crate::scene::LONG;
use crate::wait;

/// A server; it is killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(namespace: Option<&Namespace>, command: impl Fn(SocketAddr) -> Command) -> Result<Self> {
        let within = |work: fn(SocketAddr) -> Option<SocketAddr>, at: SocketAddr| match namespace {
            Some(namespace) => namespace.run(|| work(at)),
            None => work(at),
        };
        let free = |at| TcpListener::bind(at).ok()?.local_addr().ok();
        let address = within(free, (Ipv4Addr::LOCALHOST, 0).into()).context("a free port")?;
        let mut command = command(address);
        if let Some(namespace) = namespace {
            let mut inside = namespace.command(command.get_program());
            inside.args(command.get_args());
            command = inside;
        }
        // A bundle of certificates that somebody has set is nothing to talk to ourselves with.
        command.env_remove("AWS_CA_BUNDLE").stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("running {command:?}: see cargo xtask setup"))?;
        let mut server = Self { child, address };
        let answers = |at| TcpStream::connect(at).ok().map(|_| at);
        wait::until("the server", LONG, || {
            let ended = server.child.try_wait().is_ok_and(|status| status.is_some());
            (ended || within(answers, address).is_some()).then_some(())
        })?;
        ensure!(server.child.try_wait()?.is_none(), "the server has ended at once");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// rclone as a server of restic's protocol that takes and gives, and removes nothing.
#[derive(Debug)]
pub struct AppendOnly(Server);

impl AppendOnly {
    /// In this namespace or the test's own, with its files in `directory`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(namespace: Option<&Namespace>, directory: &Path) -> Result<Self> {
        let server = Server::start(namespace, |address| {
            let mut command = Command::new("rclone");
            command.args(["serve", "restic", "--append-only", "--config", "/dev/null", "--addr"]);
            command.arg(address.to_string()).arg(directory);
            command
        })?;
        Ok(Self(server))
    }

    /// The location, as restic takes it.
    #[must_use]
    pub fn location(&self) -> String {
        format!("rest:http://{}", self.0.address)
    }
}

/// An object store that speaks S3, with locks on what is in it. It keeps everything in its memory.
#[derive(Debug)]
pub struct ObjectStore(Server);

/// Who asks; it lets in everybody.
pub const CREDENTIALS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_DEFAULT_REGION", "us-east-1")];

impl ObjectStore {
    /// In this namespace or the test's own.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(namespace: Option<&Namespace>) -> Result<Self> {
        let server = Server::start(namespace, |address| {
            let mut command = Command::new(environment().join("bin/moto_server"));
            command.args(["-H", &address.ip().to_string(), "-p", &address.port().to_string()]);
            command
        })?;
        Ok(Self(server))
    }

    /// The location of a bucket, as restic takes it.
    #[must_use]
    pub fn location(&self, bucket: &str) -> String {
        format!("s3:http://{}/{bucket}", self.0.address)
    }

    /// Makes a bucket in which whatever is put is locked for a day, in compliance mode: for everybody.
    ///
    /// # Errors
    ///
    /// When the store refuses.
    pub fn make_locked(&self, bucket: &str) -> Result<()> {
        self.ask(
            bucket,
            "s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)\n\
             rule = {'DefaultRetention': {'Mode': 'COMPLIANCE', 'Days': 1}}\n\
             lock = {'ObjectLockEnabled': 'Enabled', 'Rule': rule}\n\
             s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock)",
        )
        .map(drop)
    }

    /// How many versions of objects somebody with all rights can remove for good.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn removable(&self, bucket: &str) -> Result<(u64, u64)> {
        let said = self.ask(
            bucket,
            "removed = 0\n\
             versions = s3.list_object_versions(Bucket=bucket).get('Versions', [])\n\
             for version in versions:\n\
             \x20 where = dict(Bucket=bucket, Key=version['Key'], VersionId=version['VersionId'])\n\
             \x20 try:\n\
             \x20   s3.delete_object(BypassGovernanceRetention=True, **where)\n\
             \x20   removed += 1\n\
             \x20 except s3.exceptions.ClientError as error:\n\
             \x20   assert error.response['Error']['Code'] == 'AccessDenied', error\n\
             print(removed, len(versions))",
        )?;
        let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        ensure!(numbers.len() == 2, "{said}");
        Ok((numbers[0], numbers[1]))
    }

    /// rclone, looking at this store.
    #[must_use]
    pub fn rclone(&self, path: &str) -> (Command, String) {
        let mut command = Command::new("rclone");
        command.args(["--config", "/dev/null", "--s3-provider", "Other", "--s3-region", "us-east-1"]);
        command.args(["--s3-env-auth", "--s3-endpoint", &format!("http://{}", self.0.address)]);
        command.envs(CREDENTIALS).env_remove("AWS_CA_BUNDLE");
        (command, format!(":s3:{path}"))
    }

    /// Runs a script of Python against the store with the client library that it comes with.
    fn ask(&self, bucket: &str, script: &str) -> Result<String> {
        let whole = format!(
            "import boto3, sys\ns3 = boto3.client('s3', endpoint_url=sys.argv[1])\nbucket = sys.argv[2]\n{script}\n"
        );
        let output = Command::new(environment().join("bin/python"))
            .args(["-c", &whole, &format!("http://{}", self.0.address), bucket])
            .envs(CREDENTIALS)
            .env_remove("AWS_CA_BUNDLE")
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Where `cargo xtask setup` has put the object store.
fn environment() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/object-store")
}
