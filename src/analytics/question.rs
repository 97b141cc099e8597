//! What administrators ask of the events: of a window of time, by tool, caller, server, tenant or error, the most frequent
//! first.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::types::Type;

use crate::store::postgres::{Connection, Fault, Value};

/// What events are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Tool,
    Caller,
    Server,
    Tenant,
    Error,
}

impl By {
    pub const ALL: [Self; 5] = [Self::Tool, Self::Caller, Self::Server, Self::Tenant, Self::Error];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Caller => "caller",
            Self::Server => "server",
            Self::Tenant => "tenant",
            Self::Error => "error",
        }
    }

    /// What is the same in all events of a row, by name, and which events count.
    const fn of(self) -> (&'static [(&'static str, &'static str)], &'static str) {
        match self {
            Self::Tool => (&[("server", "server"), ("tool", "name")], "method = 'tools/call' AND name IS NOT NULL"),
            Self::Caller => (&[("tenant", "tenant"), ("subject", "subject"), ("way", "way")], "true"),
            Self::Server => (&[("server", "server")], "true"),
            Self::Tenant => (&[("tenant", "tenant")], "true"),
            Self::Error => (&[("server", "server"), ("error", "coalesce(code, outcome)")], FAILED),
        }
    }
}

/// Callers who left are no errors.
const FAILED: &str = "outcome NOT IN ('ok', 'abandoned')";

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The time until now that is asked about.
    pub window: Duration,
    pub by: By,
    /// The only server asked about.
    pub server: Option<String>,
    /// Rows.
    pub limit: u32,
}

/// The answer to a question.
#[derive(Debug, Serialize)]
pub struct Answer {
    since: String,
    until: String,
    by: &'static str,
    rows: Vec<Row>,
}

/// What is the same in some events, and what they come to.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    key: serde_json::Map<String, serde_json::Value>,
    count: i64,
    errors: i64,
    /// From 0 to 1.
    error_share: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    bytes_in: i64,
    bytes_out: i64,
    last_seen: String,
}

impl Question {
    /// Asks it.
    ///
    /// # Errors
    /// What PostgreSQL said, or that it did not answer.
    pub async fn ask(&self, connection: &Connection) -> Result<Answer, Fault> {
        let until = SystemTime::now();
        let since = until.checked_sub(self.window).unwrap_or(SystemTime::UNIX_EPOCH);
        let limit = i64::from(self.limit);
        let mut values: Vec<Value<'_>> = vec![(&since, Type::TIMESTAMPTZ), (&until, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
        if let Some(server) = &self.server {
            values.push((server, Type::TEXT));
        }
        let found = connection.rows(&self.sql(), &values).await?;
        let (keys, _) = self.by.of();
        let rows = found.iter().map(|row| Row::read(keys, row)).collect();
        Ok(Answer { since: written(since), until: written(until), by: self.by.name(), rows })
    }

    /// What stays open for as long as its caller likes says nothing of latency.
    fn sql(&self) -> String {
        let (keys, events) = self.by.of();
        let columns = keys.iter().map(|(_, column)| *column).collect::<Vec<_>>().join(", ");
        let groups = (1..=keys.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let server = if self.server.is_some() { "AND server = $4" } else { "" };
        format!(
            "SELECT {columns}, count(*), count(*) FILTER (WHERE {FAILED}),
                percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY duration_ms),
                sum(bytes_in)::bigint, sum(bytes_out)::bigint, max(at)
            FROM mcp_gateway.events
            WHERE at >= $1 AND at <= $2 AND method IS DISTINCT FROM 'subscriptions/listen' AND {events} {server}
            GROUP BY {groups} ORDER BY count(*) DESC, {groups} LIMIT $3"
        )
    }
}

impl Row {
    fn read(keys: &[(&str, &str)], row: &tokio_postgres::Row) -> Self {
        let key = keys.iter().enumerate().map(|(i, (name, _))| ((*name).to_owned(), row.get::<_, Option<String>>(i).into()));
        let at = keys.len();
        let (count, errors): (i64, i64) = (row.get(at), row.get(at + 1));
        let percentiles: Vec<f64> = row.get(at + 2);
        let percentile = |i: usize| percentiles.get(i).map_or(0.0, |ms| (ms * 1e3).round() / 1e3);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let error_share = errors as f64 / count as f64;
        Self {
            key: key.collect(),
            count,
            errors,
            error_share,
            p50_ms: percentile(0),
            p95_ms: percentile(1),
            p99_ms: percentile(2),
            bytes_in: row.get(at + 3),
            bytes_out: row.get(at + 4),
            last_seen: written(row.get(at + 5)),
        }
    }
}

fn written(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}
