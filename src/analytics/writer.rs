//! From the queue into PostgreSQL: one task, one connection, a batch at a time. What fails for a while is kept and tried
//! again while the queue fills; what would fail for ever is dropped, or it would hold up all that comes after it.
//!
//! A batch is one statement of arrays. It notes its own id beside its rows, so that one whose answer was lost, and which may
//! have been stored, can be sent again: it is stored once. (`COPY` would need a transaction of four round trips for that,
//! and is no faster for batches of this size.)

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};

use super::{Event, schema};
use crate::config::analytics::Analytics as Conf;
use crate::observe::analytics::{AnalyticsMeter, Dropped};
use crate::store::postgres::{Connection, Fault, Postgres, Value};

/// How long a statement may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pauses before trying again, from the first to the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// How often the days to come are made and those past dropped.
const ROUND: Duration = Duration::from_secs(3600);
/// The same where dropping failed.
const SOONER: Duration = Duration::from_secs(300);
/// How long what is left may be tried for once nobody gives more.
const LAST: Duration = Duration::from_secs(30);

const INSERT: &str = "WITH fresh AS (INSERT INTO mcp_gateway.batches (id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING 1)
    INSERT INTO mcp_gateway.events (at, request_id, lane, version, tenant, subject, way, server, method, name, backend,
        outcome, status, code, rate_limit, cache, duration_ms, bytes_in, bytes_out)
    SELECT * FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::text[], $13::text[], $14::smallint[], $15::text[], $16::text[], $17::text[],
        $18::double precision[], $19::bigint[], $20::bigint[]) WHERE EXISTS (SELECT FROM fresh)";

/// Stores what the queue brings.
pub struct Writer {
    queue: mpsc::Receiver<Event>,
    /// What is to be stored next.
    batch: Vec<Event>,
    size: usize,
    flush: Duration,
    retention: Duration,
    hurry: watch::Receiver<bool>,
    postgres: Arc<Postgres>,
    meter: Arc<AnalyticsMeter>,
    connection: Option<Connection>,
    /// Days that are known to have a partition.
    covered: BTreeSet<Date>,
    /// The reason last told.
    told: String,
}

impl Writer {
    pub(super) fn new(
        conf: &Conf,
        queue: mpsc::Receiver<Event>,
        hurry: watch::Receiver<bool>,
        postgres: Arc<Postgres>,
        meter: Arc<AnalyticsMeter>,
    ) -> Self {
        let (size, flush, retention) = (conf.batch, conf.flush.0, conf.retention.0);
        let (batch, covered, told) = (Vec::new(), BTreeSet::new(), String::new());
        Self { queue, batch, size, flush, retention, hurry, postgres, meter, connection: None, covered, told }
    }

    /// Stores events until nobody can give more.
    pub async fn run(mut self) {
        // At once, so that the first lines of the log say whether it works.
        let mut round = Instant::now();
        loop {
            let more = tokio::select! {
                more = self.gather() => more,
                () = tokio::time::sleep_until(round) => {
                    round = Instant::now() + self.tidy().await;
                    continue;
                }
            };
            if !self.batch.is_empty() {
                self.store().await;
            }
            if !more {
                return;
            }
        }
    }

    /// Waits for a batch: for one that is full, or for as long as its first event may wait. Tells whether more can come.
    async fn gather(&mut self) -> bool {
        if self.batch.is_empty() && self.queue.recv_many(&mut self.batch, self.size).await == 0 {
            return false;
        }
        let until = Instant::now() + self.flush;
        while self.batch.len() < self.size {
            let room = self.size - self.batch.len();
            // Never ends if whoever would hurry us is gone: then the queue ends too.
            let hurry = async {
                if self.hurry.wait_for(|hurry| *hurry).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                count = self.queue.recv_many(&mut self.batch, room) => if count == 0 { return false },
                () = hurry => break,
                () = tokio::time::sleep_until(until) => break,
            }
        }
        true
    }

    /// Makes tomorrow's partition and drops those past their time; tells when to do it again.
    async fn tidy(&mut self) -> Duration {
        match self.tidied().await {
            Ok(next) => {
                self.works();
                next
            }
            Err(fault) => {
                self.failed(&fault);
                PAUSES[1]
            }
        }
    }

    async fn tidied(&mut self) -> Result<Duration, Fault> {
        let connection = self.opened().await?;
        let today = schema::day(Timestamp::now());
        self.cover(&connection, [today, today.saturating_add(1.day())].into()).await?;
        // A day that is begun is kept whole.
        if let Err(fault) = schema::retire(&connection, self.retention.as_secs().div_ceil(86_400)).await {
            // Somebody may be reading them.
            log::warn!("analytics: days past their retention are not dropped yet: {fault}");
            return Ok(SOONER);
        }
        self.connection = Some(connection);
        Ok(ROUND)
    }

    /// Stores the batch, or drops it where that can never be.
    async fn store(&mut self) {
        let id = uuid::Uuid::new_v4().to_string();
        let (mut pause, mut closed, mut again) = (PAUSES[0], None, false);
        loop {
            let Err(fault) = self.write(&id).await else {
                self.works();
                self.meter.store(self.batch.len());
                break self.batch.clear();
            };
            self.failed(&fault);
            if fault.is_permanent() && again {
                break self.lose(Dropped::Rejected);
            }
            // Once more on a connection made anew, which looks at the schema again: somebody may have changed it.
            again = fault.is_permanent();
            if self.queue.is_closed() && closed.get_or_insert_with(Instant::now).elapsed() > LAST {
                while self.queue.recv_many(&mut self.batch, self.size).await > 0 {}
                break self.lose(Dropped::Closed);
            }
            tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    async fn write(&mut self, id: &str) -> Result<(), Fault> {
        let connection = self.opened().await?;
        let days = self.batch.iter().map(|event| schema::day(event.at)).collect();
        self.cover(&connection, days).await?;
        insert(&connection, id, &self.batch).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn cover(&mut self, connection: &Connection, days: BTreeSet<Date>) -> Result<(), Fault> {
        if !days.is_subset(&self.covered) {
            schema::cover(connection, &days).await?;
            self.covered.extend(days);
        }
        Ok(())
    }

    /// The connection, made anew where it is broken. Whoever takes it gives it back if it was good for something.
    async fn opened(&mut self) -> Result<Connection, Fault> {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.is_closed()) {
            return Ok(connection);
        }
        let connection = self.postgres.connect(PATIENCE).await?;
        schema::migrate(&connection).await?;
        Ok(connection)
    }

    fn lose(&mut self, why: Dropped) {
        log::error!("analytics: {} events are dropped", self.batch.len());
        self.meter.lose(why, self.batch.len());
        self.batch.clear();
    }

    /// Believes nothing any more of what there is, and tells each reason once.
    fn failed(&mut self, fault: &Fault) {
        self.covered.clear();
        let cause = fault.to_string();
        if self.told != cause {
            log::error!("analytics: PostgreSQL cannot be written: {cause}; events wait, and are dropped when the queue is full");
            self.told = cause;
        }
    }

    fn works(&mut self) {
        if !self.told.is_empty() {
            log::warn!("analytics: PostgreSQL is written again");
            self.told.clear();
        }
    }
}

async fn insert(connection: &Connection, id: &str, events: &[Event]) -> Result<(), Fault> {
    let mut values: Vec<(Box<dyn ToSql + Sync + Send + '_>, Type)> = vec![(Box::new(id), Type::TEXT)];
    let at: Vec<SystemTime> = events.iter().map(|event| event.at.into()).collect();
    values.push((Box::new(at), Type::TIMESTAMPTZ_ARRAY));
    let columns: [Text; 11] = [
        |event| Some(&event.request_id),
        |event| Some(event.lane),
        |event| event.version.as_deref(),
        |event| event.tenant.as_deref(),
        |event| event.subject.as_deref(),
        |event| event.way,
        |event| event.server.as_deref(),
        |event| event.method.as_deref(),
        |event| event.name.as_deref(),
        |event| event.backend.as_deref(),
        |event| Some(event.outcome),
    ];
    for column in columns {
        values.push(texts(events, column));
    }
    let status: Vec<i16> = events.iter().map(|event| i16::try_from(event.status).unwrap_or(0)).collect();
    values.push((Box::new(status), Type::INT2_ARRAY));
    let columns: [Text; 3] = [|event| event.code, |event| event.limit.as_deref(), |event| event.cache];
    for column in columns {
        values.push(texts(events, column));
    }
    let duration: Vec<f64> = events.iter().map(|event| event.duration.as_secs_f64() * 1e3).collect();
    values.push((Box::new(duration), Type::FLOAT8_ARRAY));
    let bytes = |of: fn(&Event) -> usize| -> Vec<i64> { events.iter().map(|event| i64::try_from(of(event)).unwrap_or(i64::MAX)).collect() };
    values.push((Box::new(bytes(|event| event.bytes_in)), Type::INT8_ARRAY));
    values.push((Box::new(bytes(|event| event.bytes_out)), Type::INT8_ARRAY));
    let values: Vec<Value<'_>> = values.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone())).collect();
    // None written: the batch was stored before, and its answer was lost.
    connection.write(INSERT, &values).await.map(drop)
}

type Text = for<'e> fn(&'e Event) -> Option<&'e str>;

fn texts<'e>(events: &'e [Event], column: Text) -> (Box<dyn ToSql + Sync + Send + 'e>, Type) {
    let texts: Vec<Option<Cow<'e, str>>> = events.iter().map(|event| column(event).map(clean)).collect();
    (Box::new(texts), Type::TEXT_ARRAY)
}

/// PostgreSQL takes any character but NUL.
fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}
