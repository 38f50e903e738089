//! What the databases of a state have in common.

use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

/// Has a database keep what is written in a log beside it, so that who reads does not wait for who
/// writes. Where several open it for the first time at once, SQLite says to some of them that it is
/// busy, however long they would wait; so they ask again.
///
/// # Errors
/// If it cannot, or is busy for longer than anybody should wait.
pub fn write_ahead(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    const PAUSE: Duration = Duration::from_millis(5);
    let until = Instant::now() + patience;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < until =>
            {
                thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_open_one_that_is_not_there_yet() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("new.sqlite");
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let connection = Connection::open(&path).expect("it opens");
                        write_ahead(&connection, Duration::from_secs(10)).expect("they take turns");
                    });
                }
            });
        }
    }

    #[test]
    fn who_waits_too_long_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new.sqlite");
        let holder = Connection::open(&path).expect("it opens");
        holder
            .execute_batch("CREATE TABLE t (x); BEGIN EXCLUSIVE")
            .expect("it is held");
        let other = Connection::open(&path).expect("it opens");
        other
            .busy_timeout(Duration::ZERO)
            .expect("it does not wait");
        let error = write_ahead(&other, Duration::from_millis(30)).expect_err("it is held");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
    }
}
