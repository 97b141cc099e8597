//! What was asked, by whom and how it ended, written down in PostgreSQL: one event for each request to an MCP server. The
//! request path gives an event away and never waits: between it and `writer` there is a queue with an end, and what does
//! not fit is dropped and counted. `schema` is how events lie in the database, `question` what can be asked of them.

pub mod question;
mod schema;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use self::question::{Answer, Question};
pub use self::writer::Writer;
use crate::config::Config;
use crate::config::analytics::Analytics as Conf;
use crate::observe::analytics::{AnalyticsMeter, Dropped};
use crate::observe::few::PerSecond;
use crate::observe::metrics::Metrics;
use crate::store::postgres::{Connection, Postgres};

/// Characters of the longest text of an event: what waits is bounded in bytes as well.
const LONGEST: usize = 128;
/// Requests that were refused before their caller was known, whatever for, and are written down in a second.
const STRANGERS: usize = 10;
/// How long PostgreSQL may work on an administrator's question: a week of a hundred thousand events a day takes half of it.
const QUESTION: Duration = Duration::from_secs(10);
/// The same with connecting, and waiting for another's.
const ANSWER: Duration = Duration::from_secs(12);

/// One request to an MCP server. No arguments, no results, no credentials, and no URIs, which may hold secrets.
#[derive(Debug, Default)]
pub struct Event {
    /// When it had ended.
    pub at: Timestamp,
    pub request_id: Box<str>,
    /// `rest` or `native`.
    pub lane: &'static str,
    /// Of the REST API.
    pub version: Option<Box<str>>,
    pub tenant: Option<Box<str>>,
    pub subject: Option<Box<str>>,
    /// How the caller was recognised.
    pub way: Option<&'static str>,
    pub server: Option<Arc<str>>,
    pub method: Option<Box<str>>,
    /// The tool or prompt.
    pub name: Option<Box<str>>,
    pub backend: Option<Box<str>>,
    pub outcome: &'static str,
    /// HTTP status.
    pub status: u16,
    /// The code of a refusal.
    pub code: Option<&'static str>,
    /// The rate limit that refused it.
    pub limit: Option<Box<str>>,
    pub cache: Option<&'static str>,
    pub duration: Duration,
    /// Bytes of the request's body.
    pub bytes_in: usize,
    /// Bytes of the answer, before any coding.
    pub bytes_out: usize,
}

/// A text as an event may hold it: whoever sent it chose its length.
pub fn brief(text: &str) -> Box<str> {
    text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end]).into()
}

/// The way to PostgreSQL, of one configuration.
pub struct Analytics {
    conf: Conf,
    events: mpsc::Sender<Event>,
    /// Taken by the background service.
    writer: Mutex<Option<Writer>>,
    /// The process ends: nothing waits for more to be written with.
    hurry: watch::Sender<bool>,
    meter: Arc<AnalyticsMeter>,
    strangers: PerSecond,
    postgres: Arc<Postgres>,
    /// For questions of administrators, one at a time.
    reading: tokio::sync::Mutex<Option<Connection>>,
}

impl Analytics {
    /// Builds what the configuration wants; unchanged, the old one stays.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn build(config: &Config, old: Option<&Arc<Self>>, metrics: &Metrics) -> Result<Option<Arc<Self>>, String> {
        let Some(conf) = &config.analytics else { return Ok(None) };
        if let Some(old) = old.filter(|old| old.conf == *conf) {
            return Ok(Some(Arc::clone(old)));
        }
        let postgres = Arc::new(Postgres::new(&conf.postgres)?);
        let (events, queue) = mpsc::channel(conf.queue);
        let hurry = watch::Sender::new(false);
        let meter = Arc::clone(&metrics.analytics);
        meter.show();
        let writer = Writer::new(conf, queue, hurry.subscribe(), Arc::clone(&postgres), Arc::clone(&meter));
        let (writer, reading) = (Mutex::new(Some(writer)), tokio::sync::Mutex::default());
        Ok(Some(Arc::new(Self {
            conf: conf.clone(),
            events,
            writer,
            hurry,
            meter,
            strangers: PerSecond::new(STRANGERS),
            postgres,
            reading,
        })))
    }

    /// What stores the events, once; it ends by itself when nobody can give it any more.
    pub fn writer(&self) -> Option<Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives an event away. Never waits. Requests whose caller was not recognised get half of the queue, and a few rows in each
    /// second: whoever is not let in could otherwise have it that what others did is not written down, or fill the disk.
    pub fn tell(&self, event: Event) {
        self.meter.queue();
        let is_stranger = event.way.is_none();
        let is_crowd = is_stranger && self.events.capacity() <= self.conf.queue / 2;
        if is_stranger && !self.strangers.takes() {
            self.meter.lose(Dropped::Strangers, 1);
        } else if is_crowd || self.events.try_send(event).is_err() {
            self.meter.lose(Dropped::QueueFull, 1);
        }
    }

    /// How long events stay.
    pub fn retention(&self) -> Duration {
        self.conf.retention.0
    }

    /// Has what waits stored now, for up to `limit`.
    pub async fn finish(&self, limit: Duration) {
        self.hurry.send_replace(true);
        let until = Instant::now() + limit;
        while self.meter.queued() > 0 {
            if Instant::now() >= until {
                log::warn!("analytics: {} events were not stored before the process ended", self.meter.queued());
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks PostgreSQL.
    ///
    /// # Errors
    /// Why there is no answer, or none in time.
    pub async fn ask(&self, question: &Question) -> Result<Answer, String> {
        let asked = tokio::time::timeout(ANSWER, self.read(question)).await;
        asked.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    async fn read(&self, question: &Question) -> Result<Answer, String> {
        let mut reading = self.reading.lock().await;
        // Out of its place meanwhile: one whose asker went has an answer under way.
        let connection = match reading.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.postgres.connect(QUESTION).await.map_err(|fault| fault.to_string())?,
        };
        let answer = question.ask(&connection).await.map_err(|fault| fault.to_string())?;
        *reading = Some(connection);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_let_in_crowds_nobody_out() {
        let yaml = "backends: [ { name: a, url: 'http://a', protocol: mcp } ]\nanalytics: { postgres: 'postgres://u@h/d', queue: 10 }";
        let (config, metrics) = (crate::config::parse("test", yaml, &|_| None).unwrap(), Metrics::new());
        let analytics = Analytics::build(&config, None, &metrics).unwrap().unwrap();
        (0..100).for_each(|_| analytics.tell(Event::default()));
        assert_eq!(analytics.meter.queued(), 5);
        (0..5).for_each(|_| analytics.tell(Event { way: Some("api_key"), ..Event::default() }));
        assert_eq!(analytics.meter.queued(), 10);
        analytics.tell(Event { way: Some("api_key"), ..Event::default() });
        assert_eq!(analytics.meter.queued(), 10, "it is full");
    }
}
