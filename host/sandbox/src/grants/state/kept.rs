//! What plugins keep, as those see it who operate the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use sandcast_audit::Digest;
use serde::Serialize;
use thiserror::Error;

use super::store::LAYOUT;

/// How long a plugin may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What one plugin keeps, under its name in a pipeline and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptBucket {
    /// The pipeline; nothing for a plugin that is loaded without one.
    pub pipeline: String,
    /// What the pipeline calls the plugin.
    pub name: String,
    /// The id in its manifest.
    pub plugin: String,
    /// How many keys.
    pub keys: u64,
    /// Bytes of keys and values together.
    pub bytes: u64,
}

/// One pair of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPair {
    /// The key, as the plugin chose it.
    pub key: String,
    /// The number of the change that made the value.
    pub version: u64,
    /// The value.
    pub value: Vec<u8>,
}

impl KeptPair {
    /// The digest of the value, which says whether it changed without saying what it is.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.value)
    }
}

/// Why what plugins keep cannot be looked at or cleared.
#[derive(Debug, Error)]
pub enum KeptError {
    /// The file cannot be read or written.
    #[error("cannot {what} the state of plugins in {}; is another process at it, or is it not a file of this host?", path.display())]
    Database {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The file has another layout.
    #[error("the state of plugins in {} has layout {found}, and this host knows {LAYOUT}; use the version that wrote it", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// It is on record that it was cleared, and the file could not be written.
    #[error("nothing was cleared in {}, although the audit log says so by now; give the command again", path.display())]
    NotCleared {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// What had to be done along with it failed, so nothing was cleared.
    #[error("nothing was cleared, because it cannot be recorded")]
    Record(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The file in which all plugins of a state folder keep what they keep.
#[derive(Debug)]
pub struct KeptState {
    path: PathBuf,
    connection: Connection,
}

impl KeptState {
    /// Opens the file to look at it; `None` where no plugin ever kept anything.
    ///
    /// # Errors
    /// When it cannot be opened or has another layout.
    pub fn look(path: &Path) -> Result<Option<Self>, KeptError> {
        Self::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Opens it to clear something, too.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn open_to_clear(path: &Path) -> Result<Option<Self>, KeptError> {
        Self::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn open(path: &Path, access: OpenFlags) -> Result<Option<Self>, KeptError> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = || -> Result<(Connection, i64), rusqlite::Error> {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            let layout = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((connection, layout))
        };
        let path = path.to_path_buf();
        match opened() {
            Ok((connection, LAYOUT)) => Ok(Some(Self { path, connection })),
            // Made, and cut off before anything was in it.
            Ok((_, 0)) => Ok(None),
            Ok((_, found)) => Err(KeptError::Layout { path, found }),
            Err(source) => Err(KeptError::Database {
                what: "open",
                path,
                source,
            }),
        }
    }

    fn failed(&self, what: &'static str) -> impl Fn(rusqlite::Error) -> KeptError + use<> {
        let path = self.path.clone();
        move |source| KeptError::Database {
            what,
            path: path.clone(),
            source,
        }
    }

    /// What each plugin keeps, by pipeline and name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn buckets(&self) -> Result<Vec<KeptBucket>, KeptError> {
        let failed = self.failed("read");
        let mut statement = self
            .connection
            .prepare(
                "SELECT pipeline, name, plugin, keys, bytes FROM space ORDER BY pipeline, name, plugin",
            )
            .map_err(&failed)?;
        let rows = statement.query_map([], |row| {
            Ok(KeptBucket {
                pipeline: row.get(0)?,
                name: row.get(1)?,
                plugin: row.get(2)?,
                keys: unsigned(row.get(3)?),
                bytes: unsigned(row.get(4)?),
            })
        });
        let rows = rows.map_err(&failed)?.collect::<Result<_, _>>();
        rows.map_err(&failed)
    }

    /// Goes over the pairs of a bucket in the order of their keys, one in memory at a time, until
    /// `visit` has enough of them.
    ///
    /// # Errors
    /// When the file cannot be read; and what `visit` says.
    pub fn pairs<E: From<KeptError>>(
        &self,
        bucket: &KeptBucket,
        mut visit: impl FnMut(KeptPair) -> Result<bool, E>,
    ) -> Result<(), E> {
        let failed = self.failed("read");
        let mut statement = self
            .connection
            .prepare(
                "SELECT pair.key, pair.version, pair.value FROM pair JOIN space ON space.id = pair.space \
                 WHERE space.pipeline = ?1 AND space.name = ?2 AND space.plugin = ?3 ORDER BY pair.key",
            )
            .map_err(&failed)?;
        let mut rows = statement
            .query((&bucket.pipeline, &bucket.name, &bucket.plugin))
            .map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let pair = || -> Result<KeptPair, rusqlite::Error> {
                Ok(KeptPair {
                    key: row.get(0)?,
                    version: unsigned(row.get(1)?),
                    value: row.get(2)?,
                })
            };
            if !visit(pair().map_err(&failed)?)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes everything out of a bucket, whatever it is by now. `record` is told what that is, and
    /// nothing is cleared unless it could write that down. What was there is written over. A crash
    /// after that and before the end leaves it on record and not done; to do it again is the way out.
    ///
    /// # Errors
    /// When the file cannot be written, or `record` fails; everything is then still there.
    pub fn clear(
        &mut self,
        bucket: &KeptBucket,
        record: impl FnOnce(&KeptBucket) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<KeptBucket, KeptError> {
        let failed = self.failed("clear");
        let KeptBucket {
            pipeline,
            name,
            plugin,
            ..
        } = bucket;
        self.connection
            .pragma_update(None, "secure_delete", true)
            .map_err(&failed)?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&failed)?;
        let found = transaction.query_row(
            "SELECT id, keys, bytes FROM space WHERE pipeline = ?1 AND name = ?2 AND plugin = ?3",
            (pipeline, name, plugin),
            |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?)),
        );
        let (id, keys, bytes) = found.map_err(&failed)?;
        let cleared = KeptBucket {
            keys: unsigned(keys),
            bytes: unsigned(bytes),
            ..bucket.clone()
        };
        transaction
            .execute("DELETE FROM pair WHERE space = ?1", [id])
            .map_err(&failed)?;
        // The count of changes goes on, so that nobody swaps a value that is another by now.
        transaction
            .execute(
                "UPDATE space SET keys = 0, bytes = 0, changes = changes + 1 WHERE id = ?1",
                [id],
            )
            .map_err(&failed)?;
        record(&cleared).map_err(KeptError::Record)?;
        let path = &self.path;
        transaction
            .commit()
            .map_err(|source| KeptError::NotCleared {
                path: path.clone(),
                source,
            })?;
        // What was there is in the write-ahead log too; a plugin that reads keeps it there a while.
        let emptied = self
            .connection
            .pragma_update(None, "wal_checkpoint", "TRUNCATE");
        if let Err(error) = emptied {
            tracing::debug!(%error, "the write-ahead log of the state of plugins stays for now");
        }
        Ok(cleared)
    }
}

/// A count in the file, which is never negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::StateGrant;
    use super::super::store::{Pairs, Space};
    use super::*;

    fn space(name: &str) -> Space {
        Space {
            pipeline: "line".to_owned(),
            name: name.to_owned(),
            plugin: "acme/keeper".to_owned(),
        }
    }

    fn keys_of(kept: &KeptState, bucket: &KeptBucket) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let visited: Result<(), KeptError> = kept.pairs(bucket, |pair| {
            found.push((pair.key, pair.value));
            Ok(true)
        });
        visited.expect("reads");
        found
    }

    #[test]
    fn a_bucket_is_shown_and_cleared_and_the_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kept.sqlite");
        assert!(KeptState::look(&path).expect("looks").is_none());
        assert!(!path.exists(), "looking makes nothing");
        let (one, other) = (space("one"), space("other"));
        let grant = StateGrant::default();
        let pairs = Pairs::open(Some(&path)).expect("opened");
        let secret = b"a secret that is long enough to be found".to_vec();
        let both = [
            ("a".to_owned(), secret.clone()),
            ("b".to_owned(), b"2".to_vec()),
        ];
        pairs.set(&one, &grant, &both).expect("kept");
        pairs.set(&other, &grant, &both[1..]).expect("kept");

        // While a plugin has it open.
        let mut kept = KeptState::open_to_clear(&path).expect("opens").expect("is");
        let buckets = kept.buckets().expect("reads");
        let told: Vec<(&str, u64, u64)> = buckets
            .iter()
            .map(|bucket| (bucket.name.as_str(), bucket.keys, bucket.bytes))
            .collect();
        assert_eq!(told, [("one", 2, 2 + 40 + 1), ("other", 1, 2)]);
        assert_eq!(keys_of(&kept, &buckets[0]), both);

        // What cannot be recorded is not done.
        let error = kept.clear(&buckets[0], |_| Err("the disk is full".into()));
        assert!(matches!(error, Err(KeptError::Record(_))));
        assert_eq!(kept.buckets().expect("reads"), buckets);

        let version = pairs.version(&one, "b").expect("reads").expect("is there");
        let cleared = kept.clear(&buckets[0], |found| {
            assert_eq!((found.keys, found.bytes), (2, 43));
            Ok(())
        });
        assert_eq!(cleared.expect("cleared"), buckets[0]);
        assert_eq!(pairs.list(&one, "").expect("reads"), Vec::<String>::new());
        assert_eq!(pairs.list(&other, "").expect("reads"), ["b"]);
        pairs.set(&one, &grant, &both[1..]).expect("there is room");
        let again = pairs.version(&one, "b").expect("reads").expect("is there");
        assert!(again > version + 1, "{again} is no version that was");
        drop((kept, pairs));
        for file in std::fs::read_dir(folder.path()).expect("a folder") {
            let bytes = std::fs::read(file.expect("a file").path()).expect("read");
            let is_there = bytes.windows(secret.len()).any(|part| part == secret);
            assert!(!is_there, "what was cleared is not in the file");
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kept.sqlite");
        std::fs::write(&path, "no database at all, but long enough to be one").expect("writes");
        let error = KeptState::look(&path).expect_err("is none");
        assert!(matches!(error, KeptError::Database { .. }), "{error}");
        std::fs::remove_file(&path).expect("removes");
        let connection = Connection::open(&path).expect("makes");
        connection
            .pragma_update(None, "user_version", 9)
            .expect("sets");
        let error = KeptState::look(&path).expect_err("is another");
        assert!(
            matches!(error, KeptError::Layout { found: 9, .. }),
            "{error}"
        );
    }
}
