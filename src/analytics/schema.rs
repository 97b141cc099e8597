//! How events lie in PostgreSQL: a table partitioned by day in a schema of its own. Replicas start at once and share it, so
//! whatever changes the schema holds an advisory lock and looks again once it has it.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use tokio_postgres::types::Type;

use crate::store::postgres::{Connection, Fault};

/// The key of the lock: "mcp-gate" in ASCII.
const LOCK: i64 = 0x6d63_702d_6761_7465;
/// A partition is dropped between readers, who must not have to wait for long behind the one who waits for them.
const DROP_PATIENCE: &str = "SET LOCAL lock_timeout = '1s'";
/// How long a batch is remembered.
const REMEMBERED: &str = "1 day";

/// Each brings the schema from its index to the next version, and stays as it is once it was released. A replica of an
/// older version goes on writing meanwhile, so they only ever add.
const MIGRATIONS: &[&str] = &[
    // The indexes are for a window of time, and for one of a server among many. (BRIN is smaller, but of the newest blocks,
    // which are asked for most, it knows nothing until they are vacuumed.)
    "CREATE TABLE mcp_gateway.events (
        at timestamptz NOT NULL,
        request_id text NOT NULL,
        lane text NOT NULL,
        version text,
        tenant text,
        subject text,
        way text,
        server text,
        method text,
        name text,
        backend text,
        outcome text NOT NULL,
        status smallint NOT NULL,
        code text,
        rate_limit text,
        cache text,
        duration_ms double precision NOT NULL,
        bytes_in bigint NOT NULL,
        bytes_out bigint NOT NULL
    ) PARTITION BY RANGE (at);
    CREATE INDEX events_at ON mcp_gateway.events (at);
    CREATE INDEX events_server_at ON mcp_gateway.events (server, at);
    CREATE TABLE mcp_gateway.batches (id text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());",
];

/// The day an event belongs to.
pub fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// Brings the schema up to date.
///
/// # Errors
/// What PostgreSQL said.
pub async fn migrate(connection: &Connection) -> Result<(), Fault> {
    // Without a lock or a write first: it is as it should be, mostly.
    if version(connection).await? >= MIGRATIONS.len() {
        return Ok(());
    }
    connection
        .locked(LOCK, async || {
            // Asked for only where it is missing: `IF NOT EXISTS` takes the right to make one even where there is one.
            let made = connection.rows("SELECT to_regnamespace('mcp_gateway') IS NOT NULL", &[]).await?;
            if !made.first().is_some_and(|row| row.get(0)) {
                connection.run("CREATE SCHEMA mcp_gateway").await?;
            }
            connection
                .run(
                    "CREATE TABLE IF NOT EXISTS mcp_gateway.schema_version
                    (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())",
                )
                .await?;
            for (before, migration) in MIGRATIONS.iter().enumerate().skip(version(connection).await?) {
                let after = before + 1;
                connection.run(&format!("{migration}; INSERT INTO mcp_gateway.schema_version (version) VALUES ({after})")).await?;
                log::info!("analytics: the schema is at version {after}");
            }
            Ok(())
        })
        .await
}

async fn version(connection: &Connection) -> Result<usize, Fault> {
    let known = connection.rows("SELECT to_regclass('mcp_gateway.schema_version') IS NOT NULL", &[]).await?;
    if !known.first().is_some_and(|row| row.get(0)) {
        return Ok(0);
    }
    let highest = connection.rows("SELECT coalesce(max(version), 0) FROM mcp_gateway.schema_version", &[]).await?;
    Ok(highest.first().and_then(|row| usize::try_from(row.get::<_, i32>(0)).ok()).unwrap_or(0))
}

/// Makes partitions for days that have none.
///
/// # Errors
/// What PostgreSQL said.
pub async fn cover(connection: &Connection, days: &BTreeSet<Date>) -> Result<(), Fault> {
    let missing = missing(connection, days).await?;
    if missing.is_empty() {
        return Ok(());
    }
    connection
        .locked(LOCK, async || {
            for day in self::missing(connection, &missing).await? {
                let (table, next) = (partition(day), day.saturating_add(1.day()));
                // Attached, since this lets others write meanwhile; made as a partition it would keep them out.
                let make = format!(
                    "CREATE TABLE mcp_gateway.{table} (LIKE mcp_gateway.events INCLUDING ALL);
                ALTER TABLE mcp_gateway.events ATTACH PARTITION mcp_gateway.{table}
                    FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"
                );
                connection.run(&make).await?;
            }
            Ok(())
        })
        .await
}

async fn missing(connection: &Connection, days: &BTreeSet<Date>) -> Result<BTreeSet<Date>, Fault> {
    let names: Vec<String> = days.iter().map(|day| partition(*day)).collect();
    let question = "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid
        WHERE inhparent = 'mcp_gateway.events'::regclass AND relname = ANY($1)";
    let found = connection.rows(question, &[(&names, Type::TEXT_ARRAY)]).await?;
    let found: BTreeSet<String> = found.iter().map(|row| row.get(0)).collect();
    Ok(days.iter().copied().filter(|day| !found.contains(&partition(*day))).collect())
}

fn partition(day: Date) -> String {
    format!("events_{:04}{:02}{:02}", day.year(), day.month(), day.day())
}

/// Drops the days that are past their time, by the database's clock, which replicas share.
///
/// # Errors
/// What PostgreSQL said; also that somebody reads them now.
pub async fn retire(connection: &Connection, days: u64) -> Result<(), Fault> {
    let days = i32::try_from(days).unwrap_or(i32::MAX);
    let question = "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid
        WHERE inhparent = 'mcp_gateway.events'::regclass AND relname ~ '^events_[0-9]{8}$'
        AND relname < 'events_' || to_char(now() - make_interval(days => $1), 'YYYYMMDD')";
    let past = connection.rows(question, &[(&days, Type::INT4)]).await?;
    let past: Vec<String> = past.iter().map(|row| row.get(0)).collect();
    for table in &past {
        connection
            .locked(LOCK, async || connection.run(&format!("{DROP_PATIENCE}; DROP TABLE IF EXISTS mcp_gateway.{table}")).await)
            .await?;
        log::info!("analytics: dropped {table}, which is past its retention");
    }
    connection.run(&format!("DELETE FROM mcp_gateway.batches WHERE at < now() - interval '{REMEMBERED}'")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_of_the_day_of_its_time_in_utc() {
        let at = |text: &str| partition(day(text.parse().unwrap()));
        assert_eq!(at("2026-11-26T23:59:59.999Z"), "events_20261126");
        assert_eq!(at("2026-11-27T00:00:00Z"), "events_20261127");
        assert_eq!(at("2026-11-26T23:30:00-01:00"), "events_20261127");
    }
}
