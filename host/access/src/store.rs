//! Principals, tokens, settings and approvals: a SQLite file in the state folder.
//!
//! A change and the entry of the audit log that tells of it are one transaction: the entry waits in
//! the outbox and is put into the log afterwards, by whoever opens the store next if this process
//! dies. Every row carries a seal that is made with a key beside the database, so a row that was
//! changed by hand is found out by everybody who cannot read that key too.

mod error;
mod key;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use blake3::Hash;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use sandcast_audit::{AuditLog, Digest, SealKey, Settled, private};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use error::AccessError;
use key::Held;
pub(crate) use rows::{Change, Reading};

use crate::{Budget, IssuedToken, Principal, PrincipalId, Role, TokenId, TokenRecord};

/// The folder in the state folder with the policies and the component that evaluates them.
pub const ACCESS_FOLDER: &str = "access";

const DATABASE: &str = "access.sqlite";
const KEY: &str = "access.key";
/// Written after the first row: a state that was set up cannot go back by losing its database.
const MARKER: &str = "initialised";

/// Days that a token is good for unless somebody says otherwise.
pub const DEFAULT_LIFETIME_DAYS: u16 = 90;
/// Days that a token is good for at most.
pub const LONGEST_LIFETIME_DAYS: u16 = 366;
/// Hours that a replaced token is good for at most.
pub const LONGEST_OVERLAP_HOURS: u16 = 168;

/// How long to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the last use of a token is written down.
const USE_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// Principals and tokens that are kept at most.
const MOST_ROWS: i64 = 100_000;

const TABLES: &str = "
    -- Each document is JSON; each seal is of the table, the id and the document.
    CREATE TABLE settings   (id TEXT PRIMARY KEY, document TEXT NOT NULL, seal TEXT NOT NULL) STRICT;
    CREATE TABLE principals (id TEXT PRIMARY KEY, document TEXT NOT NULL, seal TEXT NOT NULL) STRICT;
    -- The hash is the only trace of a token, and part of what is sealed.
    CREATE TABLE tokens     (id TEXT PRIMARY KEY, document TEXT NOT NULL, seal TEXT NOT NULL,
                             last_used TEXT) STRICT;
    CREATE TABLE approvals  (id TEXT PRIMARY KEY, document TEXT NOT NULL, seal TEXT NOT NULL) STRICT;
    -- What pipelines grant their plugins at most, as it was last approved.
    CREATE TABLE grants     (id TEXT PRIMARY KEY, document TEXT NOT NULL, seal TEXT NOT NULL) STRICT;
    -- Events of changes that are done and not yet in the audit log; each seal is of both.
    CREATE TABLE outbox     (id INTEGER PRIMARY KEY AUTOINCREMENT, posted TEXT NOT NULL,
                             event TEXT NOT NULL, seal TEXT NOT NULL) STRICT;
";
/// From version 1, whose events that wait have no seal. They get none now: who wrote them is not known,
/// so there must be none. A process of that version that still runs can post no more.
const FROM_1: &str = "
    DROP TABLE outbox;
    CREATE TABLE outbox     (id INTEGER PRIMARY KEY AUTOINCREMENT, posted TEXT NOT NULL,
                             event TEXT NOT NULL, seal TEXT NOT NULL) STRICT;
";
const VERSION: i64 = 2;

/// What needs a second person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FourEyes {
    /// To point an alias of a model to another version by hand.
    Promote,
    /// To grant the plugins of a pipeline more than was approved last.
    Widen,
    /// To release a plugin from quarantine.
    Release,
}

impl FourEyes {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Promote, Self::Widen, Self::Release];

    /// The word in settings and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Widen => "widen",
            Self::Release => "release",
        }
    }
}

impl std::str::FromStr for FourEyes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is none of promote, widen, release"))
    }
}

/// What was settled when access was set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// When.
    pub initialised: Timestamp,
    /// The component that evaluates policies.
    pub engine: Digest,
    /// What needs a second person.
    pub four_eyes: BTreeSet<FourEyes>,
}

/// A token as it is kept: what lists show, and its hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptToken {
    record: TokenRecord,
    hash: String,
}

/// The open store of a state folder. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    key: Arc<Mutex<Held>>,
    folder: PathBuf,
    /// A place of the audit log before which nothing that is in the outbox can be.
    emptied: Arc<Mutex<Option<Settled>>>,
}

impl Store {
    /// Opens the store of a state folder, or says that access is not set up there. Events that an
    /// earlier process left behind are put into the log.
    ///
    /// # Errors
    /// When it is set up and cannot be used, which is a no to everything.
    pub fn open(folder: &Path, audit: &AuditLog) -> Result<Option<Self>, AccessError> {
        let Some(store) = Self::look(folder)? else {
            return Ok(None);
        };
        // A process may have died between the two, too.
        store.mark()?;
        store.empty_outbox(audit)?;
        Ok(Some(store))
    }

    /// Whether access is set up in a state folder, as far as can be told without opening anything.
    #[must_use]
    pub fn is_there(folder: &Path) -> bool {
        folder.join(DATABASE).exists() || Self::is_set_up(folder)
    }

    /// Whether access is set up in a state folder, as far as a marker says that is written once it is;
    /// by the next opening, where a crash came in between. A database alone says nothing: whoever began
    /// to set access up may have been cut off.
    #[must_use]
    pub fn is_set_up(folder: &Path) -> bool {
        folder.join(ACCESS_FOLDER).join(MARKER).exists()
    }

    /// The same as [`open`](Self::open), and leaves the log alone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn look(folder: &Path) -> Result<Option<Self>, AccessError> {
        let marked = Self::is_set_up(folder);
        let path = folder.join(DATABASE);
        let gone = |what| AccessError::Gone {
            folder: folder.to_path_buf(),
            what,
        };
        if !path.exists() {
            return match marked {
                true => Err(gone(DATABASE)),
                false => Ok(None),
            };
        }
        let key = match SealKey::load(&folder.join(KEY)) {
            Ok(key) => key,
            // Cut off before anything was set up.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !marked => {
                return Ok(None);
            }
            Err(source) => {
                let path = folder.join(KEY);
                return Err(AccessError::File { path, source });
            }
        };
        let store = Self::connect(folder, key)?;
        match store.find::<Settings>("settings", "access")? {
            Some(_) => Ok(Some(store)),
            None if marked => Err(gone("the row of settings")),
            None => Ok(None),
        }
    }

    fn connect(folder: &Path, key: SealKey) -> Result<Self, AccessError> {
        let path = folder.join(DATABASE);
        match private(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(AccessError::File {
                    path,
                    source: error,
                });
            }
            _ => {}
        }
        let open = |source| AccessError::Database {
            what: "open the tables",
            source,
        };
        let mut connection = Connection::open(&path).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        for (name, value) in [("synchronous", "FULL"), ("trusted_schema", "OFF")] {
            connection.pragma_update(None, name, value).map_err(open)?;
        }
        let version = |connection: &Connection| {
            connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        };
        match version(&connection).map_err(open)? {
            VERSION => {}
            0 | 1 => {
                let transaction = connection
                    .transaction_with_behavior(TransactionBehavior::Immediate)
                    .map_err(open)?;
                // Asked again inside: two processes may open a new file at once.
                let step = match version(&transaction).map_err(open)? {
                    0 => Some(TABLES),
                    1 => Some(FROM_1),
                    _ => None,
                };
                if step == Some(FROM_1) {
                    let count = "SELECT count(*) FROM outbox";
                    let waiting = transaction.query_row(count, [], |row| row.get(0));
                    match waiting.map_err(open)? {
                        0 => {}
                        waiting => return Err(AccessError::Waiting(waiting)),
                    }
                }
                if let Some(step) = step {
                    transaction.execute_batch(step).map_err(open)?;
                    transaction
                        .pragma_update(None, "user_version", VERSION)
                        .map_err(open)?;
                }
                transaction.commit().map_err(open)?;
            }
            _ => return Err(AccessError::Newer),
        }
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            key: Arc::new(Mutex::new(Held::new(key))),
            folder: folder.to_path_buf(),
            emptied: Arc::default(),
        })
    }

    /// Sets access up in a state folder, with one operator and a token for them, once `hand_over` has
    /// given that token to somebody: where it cannot, nothing is set up, since nobody could go on.
    ///
    /// # Errors
    /// When it is set up already, the token cannot be handed over, or it cannot be written.
    pub fn initialise(
        folder: &Path,
        audit: &AuditLog,
        first: (&PrincipalId, u16),
        settings: &Settings,
        by: &str,
        hand_over: impl FnOnce(&IssuedToken) -> io::Result<()>,
    ) -> Result<(Self, IssuedToken), AccessError> {
        let (first, days) = first;
        if Self::look(folder)?.is_some() {
            return Err(AccessError::Initialised(folder.to_path_buf()));
        }
        let key_path = folder.join(KEY);
        let key = SealKey::load_or_make(&key_path).map_err(|source| AccessError::File {
            path: key_path,
            source,
        })?;
        let store = Self::connect(folder, key)?;
        let now = settings.initialised;
        let issued = store.transact("set access up", |change| {
            if change.find::<Settings>("settings", "access")?.is_some() {
                return Err(AccessError::Initialised(folder.to_path_buf()));
            }
            change.put("settings", "access", settings)?;
            let four_eyes: Vec<&str> = settings.four_eyes.iter().map(|it| it.as_str()).collect();
            change.post(
                by,
                "initialised",
                "state:here",
                &format!(
                    "policies are evaluated by {}; four eyes for: {}",
                    settings.engine,
                    or_nothing(&four_eyes)
                ),
            )?;
            change.add(first, [Role::Operator].into(), now, by)?;
            let issued = change.issue(first, days, now, by)?;
            hand_over(&issued).map_err(AccessError::HandOver)?;
            Ok(issued)
        })?;
        store.mark()?;
        store.empty_outbox(audit)?;
        Ok((store, issued))
    }

    /// Marks the folder as one where access was set up, if it is not.
    fn mark(&self) -> Result<(), AccessError> {
        let marker = self.folder.join(ACCESS_FOLDER).join(MARKER);
        if marker.exists() {
            return Ok(());
        }
        let marked = fs::create_dir_all(self.folder.join(ACCESS_FOLDER))
            .and_then(|()| fs::write(&marker, format!("{}\n", Timestamp::now())));
        marked.map_err(|source| AccessError::File {
            path: marker,
            source,
        })
    }

    /// The state folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was settled.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn settings(&self) -> Result<Settings, AccessError> {
        let missing = || AccessError::Gone {
            folder: self.folder.clone(),
            what: "the row of settings",
        };
        self.find("settings", "access")?.ok_or_else(missing)
    }

    /// Everybody, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn principals(&self) -> Result<Vec<Principal>, AccessError> {
        self.read(|reading| reading.all("principals"))
    }

    /// One principal.
    ///
    /// # Errors
    /// When there is none such, or it cannot be read.
    pub fn principal(&self, id: &PrincipalId) -> Result<Principal, AccessError> {
        self.find("principals", id.as_str())?
            .ok_or_else(|| AccessError::NoPrincipal(id.to_string()))
    }

    /// All tokens, the oldest first; the tokens themselves are not among it.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn tokens(&self) -> Result<Vec<TokenRecord>, AccessError> {
        self.read(|reading| {
            let kept: Vec<KeptToken> = reading.all("tokens")?;
            let mut used: BTreeMap<String, String> = reading.last_uses()?;
            let mut records: Vec<TokenRecord> = kept.into_iter().map(|kept| kept.record).collect();
            for record in &mut records {
                record.last_used = used
                    .remove(record.id.as_str())
                    .and_then(|time| time.parse().ok());
            }
            records.sort_by_key(|record| record.created);
            Ok(records)
        })
    }

    /// The record and the hash of a token.
    pub(crate) fn kept(&self, id: &TokenId) -> Result<Option<(TokenRecord, Hash)>, AccessError> {
        let Some(kept) = self.find::<KeptToken>("tokens", id.as_str())? else {
            return Ok(None);
        };
        let hash = Hash::from_hex(&kept.hash).map_err(|_| AccessError::Tampered {
            table: "tokens",
            id: id.to_string(),
        })?;
        Ok(Some((kept.record, hash)))
    }

    /// Writes down that a token was used, now and then.
    pub(crate) fn used(&self, id: &TokenId, now: Timestamp) -> Result<(), AccessError> {
        const WHAT: &str = "write down the use of a token";
        let wrap = |source| AccessError::Database { what: WHAT, source };
        let connection = self.lock();
        let last: Option<String> = connection
            .query_row(
                "SELECT last_used FROM tokens WHERE id = ?1",
                [id.as_str()],
                |row| row.get(0),
            )
            .optional()
            .map_err(wrap)?
            .flatten();
        let last = last.and_then(|time| time.parse::<Timestamp>().ok());
        if last.is_some_and(|last| now.duration_since(last).abs() < USE_EVERY) {
            return Ok(());
        }
        connection
            .execute(
                "UPDATE tokens SET last_used = ?2 WHERE id = ?1",
                params![id.as_str(), now.to_string()],
            )
            .map_err(wrap)?;
        Ok(())
    }

    /// Adds a principal.
    ///
    /// # Errors
    /// When the name is taken, there is no role, or it cannot be written.
    pub fn add_principal(
        &self,
        audit: &AuditLog,
        id: &PrincipalId,
        roles: BTreeSet<Role>,
        now: Timestamp,
        by: &str,
    ) -> Result<Principal, AccessError> {
        self.change(audit, "add a principal", |change| {
            change.add(id, roles, now, by)
        })
    }

    /// Disables a principal, or enables them again.
    ///
    /// # Errors
    /// When there is none such, it is the last operator, or it cannot be written.
    pub fn set_disabled(
        &self,
        audit: &AuditLog,
        id: &PrincipalId,
        disabled: bool,
        now: Timestamp,
        by: &str,
    ) -> Result<Principal, AccessError> {
        self.change(audit, "change a principal", |change| {
            let mut principal: Principal = change
                .find("principals", id.as_str())?
                .ok_or_else(|| AccessError::NoPrincipal(id.to_string()))?;
            if principal.disabled.is_some() == disabled {
                return Ok(principal);
            }
            let all: Vec<Principal> = change.all("principals")?;
            let manages = |it: &Principal| {
                it.disabled.is_none() && it.roles.contains(&Role::Operator) && it.id != *id
            };
            if disabled && principal.roles.contains(&Role::Operator) && !all.iter().any(manages) {
                return Err(AccessError::LastOperator(id.clone()));
            }
            principal.disabled = disabled.then_some(now);
            change.put("principals", id.as_str(), &principal)?;
            let what = match disabled {
                true => "principal-disabled",
                false => "principal-enabled",
            };
            change.post(by, what, &format!("principal:{id}"), "")?;
            Ok(principal)
        })
    }

    /// Says what a principal may take of a server.
    ///
    /// # Errors
    /// When there is none such, or it cannot be written.
    pub fn set_budget(
        &self,
        audit: &AuditLog,
        id: &PrincipalId,
        budget: Budget,
        by: &str,
    ) -> Result<Principal, AccessError> {
        self.change(audit, "change a principal", |change| {
            let mut principal: Principal = change
                .find("principals", id.as_str())?
                .ok_or_else(|| AccessError::NoPrincipal(id.to_string()))?;
            if principal.budget == budget {
                return Ok(principal);
            }
            principal.budget = budget;
            change.put("principals", id.as_str(), &principal)?;
            let of = format!("principal:{id}");
            change.post(by, "principal-budget", &of, &budget.to_string())?;
            Ok(principal)
        })
    }

    /// Gives a principal a token.
    ///
    /// # Errors
    /// When there is none such, they are disabled, the time is out of bounds, or it cannot be written.
    pub fn issue_token(
        &self,
        audit: &AuditLog,
        principal: &PrincipalId,
        days: u16,
        now: Timestamp,
        by: &str,
    ) -> Result<IssuedToken, AccessError> {
        self.change(audit, "issue a token", |change| {
            change.issue(principal, days, now, by)
        })
    }

    /// Gives the principal of a token another one; the old one is good for some hours more. Unless it
    /// is said otherwise the new one is good for as many days as the old one was, and for more only
    /// where an operator says so: else nobody who holds a token for a month had to come back.
    ///
    /// # Errors
    /// When the token is not good any more, a time is out of bounds, or it cannot be written.
    pub fn rotate_token(
        &self,
        audit: &AuditLog,
        id: &TokenId,
        days: Option<u16>,
        overlap_hours: u16,
        now: Timestamp,
        by: &str,
    ) -> Result<IssuedToken, AccessError> {
        if overlap_hours > LONGEST_OVERLAP_HOURS {
            return Err(AccessError::OutOfBounds {
                what: "--overlap-hours",
                most: LONGEST_OVERLAP_HOURS,
            });
        }
        self.change(audit, "replace a token", |change| {
            let mut old = change.good_token(id, now)?;
            let most = old.record.days();
            let days = days.unwrap_or(most);
            if days > most && !change.is_operator(by)? {
                return Err(AccessError::LongerThanBefore { most });
            }
            let issued = change.issue(&old.record.principal, days, now, by)?;
            let until = now + SignedDuration::from_hours(i64::from(overlap_hours));
            old.record.expires = old.record.expires.min(until);
            old.record.replaced_by = Some(issued.record.id.clone());
            change.put("tokens", id.as_str(), &old)?;
            change.post(
                by,
                "token-replaced",
                &format!("token:{id}"),
                &format!("by {}; good until {}", issued.record.id, old.record.expires),
            )?;
            Ok(issued)
        })
    }

    /// Ends a token at once.
    ///
    /// # Errors
    /// When it is not good any more, or it cannot be written.
    pub fn revoke_token(
        &self,
        audit: &AuditLog,
        id: &TokenId,
        now: Timestamp,
        by: &str,
    ) -> Result<TokenRecord, AccessError> {
        self.change(audit, "revoke a token", |change| {
            let mut kept = change.good_token(id, now)?;
            kept.record.revoked = Some(now);
            change.put("tokens", id.as_str(), &kept)?;
            let of = format!("of principal:{}", kept.record.principal);
            change.post(by, "token-revoked", &format!("token:{id}"), &of)?;
            Ok(kept.record)
        })
    }

    /// Puts what is in the outbox into the audit log, if all of it was posted here. An event that is
    /// there already, because a process died before it could take it out, is not written again.
    pub(crate) fn empty_outbox(&self, audit: &AuditLog) -> Result<(), AccessError> {
        const WHAT: &str = "empty the outbox of audit events";
        let wrap = |source| AccessError::Database { what: WHAT, source };
        let settled = audit.settled();
        let waiting: i64 = self
            .lock()
            .query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))
            .map_err(wrap)?;
        let emptied = || self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting == 0 {
            // Whatever comes into it from here on is put into the log after this place.
            *emptied() = settled;
            return Ok(());
        }
        let known = *emptied();
        // Inside the transaction no other process can do the same.
        let settled = self.transact(WHAT, |change| {
            let settled = audit.append_waiting(change.waiting()?, known)?;
            change
                .transaction
                .execute("DELETE FROM outbox", [])
                .map_err(wrap)?;
            Ok(settled)
        })?;
        *emptied() = settled;
        Ok(())
    }

    /// A change with the entries of the log that tell of it.
    pub(crate) fn change<T>(
        &self,
        audit: &AuditLog,
        what: &'static str,
        work: impl FnOnce(&Change<'_>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let done = self.transact(what, work)?;
        self.empty_outbox(audit)?;
        Ok(done)
    }

    /// Writes everything or nothing, while no other process writes.
    pub(crate) fn transact<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Change<'_>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let wrap = |source| AccessError::Database { what, source };
        let mut connection = self.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(wrap)?;
        let key = self.key_in_force(&transaction)?;
        self.settle_key()?;
        let change = Change {
            transaction,
            key: &key,
            what,
        };
        let done = work(&change)?;
        change.transaction.commit().map_err(wrap)?;
        Ok(done)
    }

    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Reading<'_>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let connection = self.lock();
        let key = self.key_in_force(&connection)?;
        work(&Reading {
            connection: &connection,
            key: &key,
        })
    }

    pub(crate) fn find<T: DeserializeOwned>(
        &self,
        table: &'static str,
        id: &str,
    ) -> Result<Option<T>, AccessError> {
        self.read(|reading| reading.find(table, id))
    }

    /// A panic inside a transaction rolled it back, so the connection is whole.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn or_nothing(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        words => words.join(", "),
    }
}

#[cfg(test)]
mod tests;
