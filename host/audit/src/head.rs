use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Digest, TreeHash, VerifierKey};

pub(crate) const LOG_FILE: &str = "log.jsonl";
pub(crate) const HEAD_FILE: &str = "head.json";

/// Where the chain ends: what `head.json` holds. It is what makes a cut tail visible, and what
/// lets the tree grow without the entries before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// The digest of the last entry.
    pub(crate) digest: Digest,
    /// The key in force after it.
    #[serde(default)]
    pub(crate) key: Option<VerifierKey>,
    /// Its number, which is also the size of the tree.
    pub(crate) sequence: u64,
    /// The byte of the log at which its line starts.
    pub(crate) start: u64,
    /// The roots of the tree's perfect subtrees, the largest first. Logs from before there was a
    /// tree have none; it is then made from the entries, once.
    #[serde(default)]
    pub(crate) tree: Option<Vec<TreeHash>>,
}

impl Head {
    /// The one way in which a head is spelt.
    fn to_text(&self) -> String {
        let Self {
            digest,
            key,
            sequence,
            start,
            tree,
        } = self;
        let key = key
            .as_ref()
            .map(|key| format!("\"key\":\"{key}\","))
            .unwrap_or_default();
        let tree = tree.as_ref().map(|roots| {
            let roots: Vec<String> = roots.iter().map(|root| format!("\"{root}\"")).collect();
            format!(",\"tree\":[{}]", roots.join(","))
        });
        let tree = tree.unwrap_or_default();
        format!(
            "{{\"digest\":\"{digest}\",{key}\"sequence\":{sequence},\"start\":{start}{tree}}}\n"
        )
    }

    /// Reads the head of a folder. `Ok(None)` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or, as `InvalidData`, when it is not a head.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(dir.join(HEAD_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(head) if head.to_text().as_bytes() == bytes => Ok(Some(head)),
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// Replaces the head of a folder in one step.
    pub(crate) fn store(&self, dir: &Path, sync: bool) -> io::Result<()> {
        let temporary = dir.join("head.json.new");
        let mut file = fs::File::create(&temporary)?;
        io::Write::write_all(&mut file, self.to_text().as_bytes())?;
        if sync {
            file.sync_data()?;
        }
        fs::rename(&temporary, dir.join(HEAD_FILE))
    }
}
