//! What was placed where: a small file, and beside it each anchor's latest checkpoint as it was placed.

use crate::core::time::rfc3339;
use crate::record::evidence::note::Checkpoint;
use crate::whole_file;
use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

const STATE_NAME: &str = "state.json";
const VERSION: u32 = 1;

/// A checkpoint that lies at an anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchored {
    /// Names the log.
    pub origin: String,
    /// Entries that it covers.
    pub size: u64,
    /// Root over them, in base64.
    pub root: String,
    /// When it was placed, RFC 3339.
    pub at: String,
    /// When a witness cosigned it, seconds since 1970 by its clock.
    pub cosigned_at: Option<u64>,
}

impl Anchored {
    /// A checkpoint that was placed at this time.
    #[must_use]
    pub fn new(checkpoint: &Checkpoint, wall_ns: u64, cosigned_at: Option<u64>) -> Self {
        Self {
            origin: checkpoint.origin.clone(),
            size: checkpoint.size,
            root: STANDARD.encode(checkpoint.root),
            at: rfc3339(wall_ns),
            cosigned_at,
        }
    }

    /// The checkpoint; `None` if its root is none.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let root = STANDARD.decode(&self.root).ok()?.try_into().ok()?;
        Some(Checkpoint { origin: self.origin.clone(), size: self.size, root })
    }
}

/// How it stands with one anchor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorState {
    /// Names the place: another one has nothing of what this one has.
    pub place: String,
    /// The latest checkpoint that lies there.
    pub anchored: Option<Anchored>,
    /// Attempts that failed since.
    pub failures: u32,
    /// Why the latest of them did.
    pub error: Option<String>,
    /// The log contradicts what lies there.
    pub contradicted: bool,
}

/// All anchors by name.
pub type States = BTreeMap<String, AnchorState>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    anchors: States,
}

/// The directory that remembers.
#[derive(Clone, Debug)]
pub struct Memory {
    directory: PathBuf,
}

impl Memory {
    /// In a daemon's state directory.
    #[must_use]
    pub fn in_state(state_dir: &Path) -> Self {
        Self { directory: state_dir.join(super::ANCHORS_NAME) }
    }

    /// What was remembered; nothing if there is nothing yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read or understood.
    pub fn load(&self) -> Result<States> {
        let path = self.directory.join(STATE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(States::new()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let document: Document =
            serde_json::from_slice(&bytes).with_context(|| format!("understanding {}", path.display()))?;
        if document.version != VERSION {
            let version = document.version;
            return Err(anyhow!("{}: it is of version {version}, not {VERSION}", path.display()));
        }
        Ok(document.anchors)
    }

    /// Remembers; it is on the disk afterwards.
    ///
    /// # Errors
    ///
    /// When it cannot be written; what was remembered before still is.
    pub fn save(&self, states: &States) -> Result<()> {
        let document = Document { version: VERSION, anchors: states.clone() };
        let bytes = serde_json::to_vec_pretty(&document).context("writing the anchors' state")?;
        self.replace(STATE_NAME, &bytes)
    }

    /// Keeps a checkpoint as it lies at the anchor `name`, with the witness's signature if it has one.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep(&self, name: &str, signed: &str) -> Result<()> {
        self.replace(&format!("{name}.checkpoint"), signed.as_bytes())
    }

    /// Where the latest checkpoint of the anchor `name` is kept.
    #[must_use]
    pub fn kept(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.checkpoint"))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        let written = made.and_then(|()| whole_file::replace(&path, bytes));
        written.with_context(|| format!("writing {}", path.display()))
    }
}

/// Up to which size of the log `origin` an anchor covers it; `None` when none does yet.
#[must_use]
pub fn covered(states: &States, origin: &str) -> Option<u64> {
    let of_log = |state: &AnchorState| {
        let anchored = state.anchored.as_ref().filter(|anchored| anchored.origin == origin)?;
        (!state.contradicted).then_some(anchored.size)
    };
    states.values().filter_map(of_log).max()
}
