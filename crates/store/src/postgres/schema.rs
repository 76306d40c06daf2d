//! The schema of a database, and how one is brought to the latest.
//!
//! Nothing is changed in a database that a newer version has written. Start at [`migrate`].

use tokio_postgres::Client;

use crate::error::OpenError;

/// The migrations in order, the first making version 1.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/postgres/0001_first.sql")];

/// The run of the store that was begun last.
pub(super) async fn present_run(client: &Client) -> Result<i64, tokio_postgres::Error> {
    client.query_one("SELECT number FROM meta WHERE name = 'run'", &[]).await?.try_get(0)
}

/// Runs the migrations that the database at `place` has not had, each in a transaction of its own.
pub(super) async fn migrate(client: &mut Client, place: &str) -> Result<(), OpenError> {
    let failed = |error: tokio_postgres::Error| OpenError::database(place, error);
    let make = "CREATE TABLE IF NOT EXISTS muster_schema (version BIGINT NOT NULL)";
    client.batch_execute(make).await.map_err(failed)?;
    let sql = "SELECT coalesce(max(version), 0) FROM muster_schema";
    let found: i64 = client.query_one(sql, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    let known = i64::try_from(MIGRATIONS.len()).expect("a handful");
    if found > known {
        return Err(OpenError::DatabaseNewer { place: place.to_owned(), found, known });
    }
    for (version, sql) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let transaction = client.transaction().await.map_err(failed)?;
        transaction.batch_execute(sql).await.map_err(failed)?;
        transaction.execute("INSERT INTO muster_schema (version) VALUES ($1)", &[&version]).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
    }
    Ok(())
}
