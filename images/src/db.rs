//! The database of one root directory: every relation of Wharf lives in this one SQLite file, so that unique
//! constraints settle races between processes. Both crates put their tables here, each with its own [`Schema`].
//!
//! SQLite's rules that matter here: <https://www.sqlite.org/howtocorrupt.html> (never carry a connection across
//! `fork`: open after it), <https://www.sqlite.org/wal.html>.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Class, Error, Result};

/// The tables of one component, as a list of steps; step n takes version n to n + 1.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The component's name.
    pub component: &'static str,
    /// SQL scripts. Only ever append.
    pub steps: &'static [&'static str],
}

/// With more pages than this in the write-ahead log, whoever closes the database puts them where they belong. The first to
/// open it reads the whole log, so it must stay short; but putting pages back waits for the disk, so no commit does it.
const LONG_LOG: i32 = 30;

/// With so many, readers or a crash have kept everybody from doing it, and the next commit must.
const TOO_LONG_LOG: i32 = 2000;

/// How long others are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open database.
#[derive(Debug)]
pub struct Db {
    connection: Mutex<Connection>,
    path: PathBuf,
    /// Pages in the write-ahead log after our last commit.
    log: Arc<AtomicI32>,
}

/// Names a file that SQLite cannot make sense of, and what can be done.
fn damaged(path: &Path, e: Error) -> Error {
    let code = match &e {
        Error::Db(e) => e.sqlite_error_code(),
        _ => None,
    };
    if !matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) {
        return e;
    }
    Error::new(Class::Internal, format!("{} is damaged: {e}", path.display())).with_hint(
        "put a copy of it back, or move it away: volumes keep their content, and \
         'wharf system check' names those that 'wharf volume create' takes over",
    )
}

impl Db {
    /// Opens (and creates, and migrates) `wharf.db` in `root`, with the tables of `schemas`.
    ///
    /// # Errors
    /// Fails when the file cannot be opened, is damaged, or was written by a newer Wharf.
    pub fn open(root: &Path, schemas: &[Schema]) -> Result<Self> {
        let path = root.join("wharf.db");
        Self::opened(path.clone(), schemas).map_err(|e| damaged(&path, e))
    }

    fn opened(path: PathBuf, schemas: &[Schema]) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        // The last one to close would checkpoint and delete the log, and the next one would pay to make it again.
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let want: i64 = schemas.iter().map(|s| s.steps.len() as i64).sum();
        let have: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        if have == 0 {
            use_log(&connection)?;
        }
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let log = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&log);
        // In the place of SQLite's own rule, which puts pages back in the commit that makes the log long.
        connection.wal_hook(Some(move |wal: &mut rusqlite::hooks::Wal, pages| {
            seen.store(pages, Ordering::Relaxed);
            if pages > TOO_LONG_LOG {
                // The commit stands already. Another who is at it, or a full disk, must not make a failure of it.
                let _ = wal.checkpoint();
            }
            Ok(())
        }))?;
        connection.set_prepared_statement_cache_capacity(64);
        let db = Db { connection: Mutex::new(connection), path, log };
        if have != want {
            db.migrate(schemas, want)?;
        }
        Ok(db)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn migrate(&self, schemas: &[Schema], want: i64) -> Result<()> {
        self.write(|tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS schema (component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT",
            )?;
            for schema in schemas {
                let have: i64 = tx.query_row(
                    "SELECT coalesce((SELECT version FROM schema WHERE component = ?1), 0)",
                    [schema.component],
                    |r| r.get(0),
                )?;
                let have = have as usize;
                if have > schema.steps.len() {
                    return Err(Error::new(
                        Class::Unsupported,
                        format!("{} was written by a newer version of wharf", self.path.display()),
                    )
                    .with_hint("update wharf, or name another directory with --root"));
                }
                for step in &schema.steps[have..] {
                    tx.execute_batch(step)?;
                }
                tx.execute(
                    "INSERT INTO schema VALUES (?1, ?2) ON CONFLICT (component) DO UPDATE SET version = excluded.version",
                    (schema.component, schema.steps.len() as i64),
                )?;
            }
            tx.pragma_update(None, "user_version", want)?;
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Reads. What `f` sees is one statement at a time; use [`Db::write`] where several must agree.
    ///
    /// # Errors
    /// What `f` returns.
    pub fn read<T, E: From<rusqlite::Error>>(&self, f: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        f(&self.lock())
    }

    /// Runs `f` in one IMMEDIATE transaction: committed when it returns `Ok`, rolled back otherwise.
    ///
    /// # Errors
    /// What `f` returns, or the database's own failure.
    pub fn write<T, E: From<rusqlite::Error>>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = f(&tx)?;
        tx.commit()?;
        Ok(value)
    }
}

/// Switches a new database to the write-ahead log. Where several processes make it at once, SQLite waits for none of them
/// here, whatever the busy timeout (<https://www.sqlite.org/wal.html#activating_and_configuring_wal_mode>: the change
/// needs the database for itself).
fn use_log(connection: &Connection) -> Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return Ok(other?),
        }
    }
}

impl Drop for Db {
    /// Whoever waited for us has been answered by now.
    fn drop(&mut self) {
        if self.log.load(Ordering::Relaxed) > LONG_LOG {
            let connection = self.lock();
            // A write then begins the log anew; whoever opens the database next would else read the old one again.
            // Pages that others still read stay in the log, for the next to put back; so no failure matters.
            let _ = connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                .and_then(|()| connection.pragma_query_value(None, "user_version", |r| r.get::<_, i64>(0)))
                .and_then(|version| connection.pragma_update(None, "user_version", version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Schema = Schema { component: "numbers", steps: &["CREATE TABLE n (n INTEGER) STRICT"] };

    fn put(db: &Db, n: i64) -> Result<()> {
        db.write(|tx| Ok(tx.execute("INSERT INTO n VALUES (?1)", [n]).map(drop)?))
    }

    fn count(db: &Db) -> i64 {
        db.read(|c| Ok::<_, Error>(c.query_row("SELECT count(*) FROM n", [], |r| r.get(0))?)).unwrap()
    }

    #[test]
    fn a_long_log_is_put_back_at_the_close_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let main_file = || std::fs::metadata(dir.path().join("wharf.db")).unwrap().len();
        let db = Db::open(dir.path(), &[NUMBERS]).unwrap();
        for n in 0..100 {
            put(&db, n).unwrap();
        }
        let before = main_file();
        assert!(db.log.load(Ordering::Relaxed) > LONG_LOG);
        drop(db);
        assert!(main_file() > before, "the pages are still in the log");
        let db = Db::open(dir.path(), &[NUMBERS]).unwrap();
        assert_eq!(count(&db), 100);
        put(&db, 100).unwrap();
        assert!(db.log.load(Ordering::Relaxed) < LONG_LOG, "the log did not begin anew");
    }

    #[test]
    fn a_new_database_is_made_by_many_at_once() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let barrier = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let (dir, barrier) = (dir.path(), &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        put(&Db::open(dir, &[NUMBERS]).unwrap(), n).unwrap();
                    });
                }
            });
            assert_eq!(count(&Db::open(dir.path(), &[NUMBERS]).unwrap()), 8);
        }
    }

    #[test]
    fn many_write_to_a_log_that_readers_keep_long() {
        let dir = tempfile::tempdir().unwrap();
        let db = || Db::open(dir.path(), &[NUMBERS]).unwrap();
        let read = |reader: &Db| reader.lock().execute_batch("BEGIN; SELECT count(*) FROM n").unwrap();
        let readers = [db(), db()];
        read(&readers[0]);
        let big = format!("CREATE TABLE big AS SELECT zeroblob({}) AS b", TOO_LONG_LOG * 4096);
        db().write(|tx| tx.execute(&big, []).map(drop)).unwrap();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let db = db();
                scope.spawn(move || {
                    for k in 0..100 {
                        put(&db, 100 * n + k).unwrap();
                    }
                    assert!(db.log.load(Ordering::Relaxed) > TOO_LONG_LOG);
                });
            }
            // One of them always reads, so the log cannot begin anew; and what has been read can be put back.
            for n in 1..100 {
                read(&readers[n % 2]);
                std::thread::sleep(Duration::from_millis(1));
                readers[(n + 1) % 2].lock().execute_batch("COMMIT").unwrap();
            }
        });
        assert_eq!(count(&db()), 400);
    }

    #[test]
    fn failed_writes_leave_nothing_and_new_versions_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), &[NUMBERS]).unwrap();
        let failed = db.write(|tx| {
            tx.execute("INSERT INTO n VALUES (1)", [])?;
            Err::<(), _>(Error::new(Class::Conflict, "no"))
        });
        assert_eq!(failed.unwrap_err().class(), Class::Conflict);
        assert_eq!(count(&db), 0);
        drop(db);
        const LATER: Schema = Schema { component: "numbers", steps: &["SELECT 1", "SELECT 2"] };
        drop(Db::open(dir.path(), &[LATER]).unwrap());
        assert_eq!(Db::open(dir.path(), &[NUMBERS]).unwrap_err().class(), Class::Unsupported);
    }
}
