//! Rows as they are read and written: each with its seal, changes with their events.

use std::collections::{BTreeMap, BTreeSet};

use blake3::Hash;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use sandcast_audit::{Event, SealKey, Waiting};
use serde::{Serialize, de::DeserializeOwned};

use super::{AccessError, KeptToken, LONGEST_LIFETIME_DAYS, MOST_ROWS};
use crate::{Budget, IssuedToken, Principal, PrincipalId, Role, Token, TokenId, TokenRecord};

pub(super) const OUTBOX: &str = "outbox";

/// Rows, each held to its seal.
pub(crate) struct Reading<'a> {
    pub(super) connection: &'a Connection,
    pub(super) key: &'a SealKey,
}

impl Reading<'_> {
    pub(crate) fn find<T: DeserializeOwned>(
        &self,
        table: &'static str,
        id: &str,
    ) -> Result<Option<T>, AccessError> {
        let statement = format!("SELECT document, seal FROM {table} WHERE id = ?1");
        let found: Option<(String, String)> = self
            .connection
            .query_row(&statement, [id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(|source| AccessError::Database {
                what: "look up a row",
                source,
            })?;
        found
            .map(|(document, seal)| self.open(table, id, &document, &seal))
            .transpose()
    }

    pub(crate) fn all<T: DeserializeOwned>(
        &self,
        table: &'static str,
    ) -> Result<Vec<T>, AccessError> {
        let wrap = |source| AccessError::Database {
            what: "list rows",
            source,
        };
        let statement = format!("SELECT id, document, seal FROM {table} ORDER BY id");
        let mut statement = self.connection.prepare(&statement).map_err(wrap)?;
        let rows = statement
            .query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                ))
            })
            .map_err(wrap)?;
        rows.map(|row| {
            let (id, document, seal) = row.map_err(wrap)?;
            self.open(table, &id, &document, &seal)
        })
        .collect()
    }

    pub(super) fn last_uses(&self) -> Result<BTreeMap<String, String>, AccessError> {
        let wrap = |source| AccessError::Database {
            what: "list rows",
            source,
        };
        let statement = "SELECT id, last_used FROM tokens WHERE last_used IS NOT NULL";
        let mut statement = self.connection.prepare(statement).map_err(wrap)?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(wrap)?;
        rows.collect::<Result<_, _>>().map_err(wrap)
    }

    fn open<T: DeserializeOwned>(
        &self,
        table: &'static str,
        id: &str,
        document: &str,
        seal: &str,
    ) -> Result<T, AccessError> {
        let tampered = || AccessError::Tampered {
            table,
            id: id.chars().take(80).collect(),
        };
        if !self.holds(table, id, document, seal) {
            return Err(tampered());
        }
        serde_json::from_str(document).map_err(|_| tampered())
    }

    /// Whether a seal is that of a row.
    pub(super) fn holds(&self, table: &str, id: &str, document: &str, seal: &str) -> bool {
        // Hashes are compared in constant time.
        Hash::from_hex(seal).is_ok_and(|seal| self.key.seal(table, id, document) == seal)
    }
}

/// The kinds of events that this store posts, and no others.
fn is_posted_here(event: &Event) -> bool {
    matches!(
        event,
        Event::AccessChanged { .. }
            | Event::ApprovalRequested { .. }
            | Event::ApprovalDecided { .. }
            | Event::ApprovalCarriedOut { .. }
    )
}

/// A transaction under way.
pub(crate) struct Change<'a> {
    pub(super) transaction: Transaction<'a>,
    pub(super) key: &'a SealKey,
    pub(super) what: &'static str,
}

impl Change<'_> {
    fn reading(&self) -> Reading<'_> {
        Reading {
            connection: &self.transaction,
            key: self.key,
        }
    }

    pub(crate) fn find<T: DeserializeOwned>(
        &self,
        table: &'static str,
        id: &str,
    ) -> Result<Option<T>, AccessError> {
        self.reading().find(table, id)
    }

    pub(crate) fn all<T: DeserializeOwned>(
        &self,
        table: &'static str,
    ) -> Result<Vec<T>, AccessError> {
        self.reading().all(table)
    }

    pub(crate) fn put(
        &self,
        table: &'static str,
        id: &str,
        row: &impl Serialize,
    ) -> Result<(), AccessError> {
        let document = serde_json::to_string(row)
            .map_err(|error| self.wrap(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
        let seal = self.key.seal(table, id, &document).to_hex();
        let statement = format!(
            "INSERT INTO {table} (id, document, seal) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET document = ?2, seal = ?3"
        );
        self.transaction
            .execute(&statement, params![id, document, seal.as_str()])
            .map_err(|source| self.wrap(source))?;
        Ok(())
    }

    /// Tells of a change in the audit log, with it.
    pub(super) fn post(
        &self,
        by: &str,
        what: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), AccessError> {
        self.post_event(&Event::AccessChanged {
            by: by.to_owned(),
            change: what.to_owned(),
            subject: subject.to_owned(),
            detail: detail.to_owned(),
        })
    }

    pub(crate) fn post_event(&self, event: &Event) -> Result<(), AccessError> {
        let event = serde_json::to_string(event)
            .map_err(|error| self.wrap(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
        let posted = Timestamp::now().to_string();
        let seal = self.key.seal(OUTBOX, &posted, &event).to_hex();
        self.transaction
            .execute(
                "INSERT INTO outbox (posted, event, seal) VALUES (?1, ?2, ?3)",
                params![posted, event, seal.as_str()],
            )
            .map_err(|source| self.wrap(source))?;
        Ok(())
    }

    /// The events that wait, each as it was posted here; one that was not is an error, so that none
    /// of them is signed.
    pub(super) fn waiting(&self) -> Result<Vec<Waiting>, AccessError> {
        let wrap = |source| self.wrap(source);
        let statement = "SELECT id, posted, event, seal FROM outbox ORDER BY id";
        let mut statement = self.transaction.prepare(statement).map_err(wrap)?;
        let rows = statement
            .query_map([], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })
            .map_err(wrap)?;
        let reading = self.reading();
        rows.map(|row| {
            let (id, posted, event, seal) = row.map_err(wrap)?;
            let tampered = || AccessError::Tampered {
                table: OUTBOX,
                id: id.to_string(),
            };
            if !reading.holds(OUTBOX, &posted, &event, &seal) {
                return Err(tampered());
            }
            let event = serde_json::from_str(&event).map_err(|_| tampered())?;
            if !is_posted_here(&event) {
                return Err(tampered());
            }
            let posted = posted.parse().map_err(|_| tampered())?;
            Ok(Waiting { posted, event })
        })
        .collect()
    }

    pub(super) fn add(
        &self,
        id: &PrincipalId,
        roles: BTreeSet<Role>,
        now: Timestamp,
        by: &str,
    ) -> Result<Principal, AccessError> {
        if roles.is_empty() {
            return Err(AccessError::NoRole);
        }
        if self.find::<Principal>("principals", id.as_str())?.is_some() {
            return Err(AccessError::Taken(id.clone()));
        }
        self.room("principals")?;
        let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let detail = format!("as {}", words.join(", "));
        self.post(by, "principal-added", &format!("principal:{id}"), &detail)?;
        let principal = Principal {
            id: id.clone(),
            roles,
            created: now,
            disabled: None,
            budget: Budget::default(),
        };
        self.put("principals", id.as_str(), &principal)?;
        Ok(principal)
    }

    pub(super) fn issue(
        &self,
        principal: &PrincipalId,
        days: u16,
        now: Timestamp,
        by: &str,
    ) -> Result<IssuedToken, AccessError> {
        if !(1..=LONGEST_LIFETIME_DAYS).contains(&days) {
            return Err(AccessError::OutOfBounds {
                what: "--days",
                most: LONGEST_LIFETIME_DAYS,
            });
        }
        let known: Principal = self
            .find("principals", principal.as_str())?
            .ok_or_else(|| AccessError::NoPrincipal(principal.to_string()))?;
        if known.disabled.is_some() {
            return Err(AccessError::Disabled(principal.clone()));
        }
        self.room("tokens")?;
        let token = Token::generate().map_err(AccessError::Random)?;
        let record = TokenRecord {
            id: token.id().clone(),
            principal: principal.clone(),
            created: now,
            expires: now + SignedDuration::from_hours(24 * i64::from(days)),
            revoked: None,
            replaced_by: None,
            last_used: None,
        };
        let kept = KeptToken {
            record: record.clone(),
            hash: token.hash().to_hex().to_string(),
        };
        self.put("tokens", record.id.as_str(), &kept)?;
        self.post(
            by,
            "token-issued",
            &format!("token:{}", record.id),
            &format!("for principal:{principal}, until {}", record.expires),
        )?;
        Ok(IssuedToken { token, record })
    }

    pub(super) fn good_token(
        &self,
        id: &TokenId,
        now: Timestamp,
    ) -> Result<KeptToken, AccessError> {
        self.find::<KeptToken>("tokens", id.as_str())?
            .filter(|kept| kept.record.revoked.is_none() && now < kept.record.expires)
            .ok_or_else(|| AccessError::NoToken(id.clone()))
    }

    /// Whether somebody, as records name them, runs the place.
    pub(super) fn is_operator(&self, name: &str) -> Result<bool, AccessError> {
        let found: Option<Principal> = self.find("principals", name)?;
        Ok(found.is_some_and(|it| it.disabled.is_none() && it.roles.contains(&Role::Operator)))
    }

    /// Whether there is room for one more.
    fn room(&self, table: &'static str) -> Result<(), AccessError> {
        let count = format!("SELECT count(*) FROM {table}");
        let count: i64 = self
            .transaction
            .query_row(&count, [], |row| row.get(0))
            .map_err(|source| self.wrap(source))?;
        match count < MOST_ROWS {
            true => Ok(()),
            false => Err(AccessError::TooMany(table)),
        }
    }

    fn wrap(&self, source: rusqlite::Error) -> AccessError {
        AccessError::Database {
            what: self.what,
            source,
        }
    }
}
