//! The database of one root directory: every relation of Wharf lives in this one SQLite file, so that unique
//! constraints settle races between processes. Both crates put their tables here, each with its own [`Schema`].
//!
//! SQLite's rules that matter here: <https://www.sqlite.org/howtocorrupt.html> (never carry a connection across
//! `fork`: open after it), <https://www.sqlite.org/wal.html>.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Class, Error, Result};

/// The tables of one component, as a list of steps; step n takes version n to n + 1.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The component's name.
    pub component: &'static str,
    /// SQL scripts. Only ever append.
    pub steps: &'static [&'static str],
}

/// An open database.
#[derive(Debug)]
pub struct Db {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl Db {
    /// Opens (and creates, and migrates) `wharf.db` in `root`, with the tables of `schemas`.
    ///
    /// # Errors
    /// Fails when the file cannot be opened, or was written by a newer Wharf.
    pub fn open(root: &Path, schemas: &[Schema]) -> Result<Self> {
        let path = root.join("wharf.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        // The last one to close would checkpoint and delete the log, and the next one would pay to make it again.
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let want: i64 = schemas.iter().map(|s| s.steps.len() as i64).sum();
        let have: i64 = connection.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        if have == 0 {
            connection.pragma_update(None, "journal_mode", "WAL")?;
        }
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "wal_autocheckpoint", 40)?;
        connection.set_prepared_statement_cache_capacity(64);
        let db = Db { connection: Mutex::new(connection), path };
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
