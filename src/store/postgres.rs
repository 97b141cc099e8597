//! PostgreSQL: one connection for each user of it, made when first needed. A server that hangs answers nothing, so every
//! wait here has an end of its own beside the server's `statement_timeout`.

use std::error::Error as _;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::trust;
use crate::config::analytics::Postgres as Conf;

/// The longest connecting may take, with a name to be found, TLS and a password.
const CONNECT: Duration = Duration::from_secs(5);
/// What a statement may take longer than the server would let it, before the server counts as hung.
const GRACE: Duration = Duration::from_secs(2);

/// A value with its type, for a statement that is not prepared.
pub type Value<'v> = (&'v (dyn ToSql + Sync), Type);

/// A PostgreSQL, connected to or not.
pub struct Postgres {
    address: Config,
    tls: MakeRustlsConnect,
}

impl Postgres {
    /// # Errors
    /// When the URL is none, or the authorities cannot be read.
    pub fn new(conf: &Conf) -> Result<Self, String> {
        let mut address = conf.address().map_err(|fault| format!("analytics.postgres: {fault}"))?;
        address.application_name("mcp-gateway").connect_timeout(CONNECT).tcp_user_timeout(CONNECT);
        let is_verified = address.get_ssl_mode() == SslMode::Require;
        let tls = trust::config(conf.ca.as_deref(), is_verified).map_err(|fault| format!("analytics.postgres: {fault}"))?;
        Ok(Self { address, tls: MakeRustlsConnect::new(tls) })
    }

    /// Connects; statements on the connection may take as long as `patience`.
    ///
    /// # Errors
    /// Why not, without a secret.
    pub async fn connect(&self, patience: Duration) -> Result<Connection, Fault> {
        let connecting = tokio::time::timeout(CONNECT, self.address.connect(self.tls.clone())).await;
        let (client, driver) = connecting.map_err(|_| Fault::late())??;
        // What callers send is Unicode; elsewhere one word of theirs would cost the rows beside it.
        let encoding = driver.parameter("server_encoding").unwrap_or("UTF8").to_owned();
        let driver = tokio::spawn(async {
            if let Err(error) = driver.await {
                log::debug!("the connection to PostgreSQL ended: {}", Fault::from(error));
            }
        });
        let connection = Connection { client, driver: driver.abort_handle(), limit: patience + GRACE };
        if !matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
            return Err(Fault { text: format!("the database is encoded in {encoding}, not UTF8"), state: None });
        }
        connection
            .run(&format!("SET statement_timeout = {}; SET TimeZone = 'UTC'; SET client_min_messages = warning", patience.as_millis()))
            .await?;
        Ok(connection)
    }
}

/// A connection; it is closed when dropped.
pub struct Connection {
    client: Client,
    driver: AbortHandle,
    limit: Duration,
}

impl Connection {
    /// Whether it is known to be broken.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements without values, all or none of them.
    ///
    /// # Errors
    /// What PostgreSQL said, or that it did not answer.
    pub async fn run(&self, statements: &str) -> Result<(), Fault> {
        self.within(self.client.batch_execute(statements)).await
    }

    /// Runs a statement; tells how many rows it wrote.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn write(&self, statement: &str, values: &[Value<'_>]) -> Result<u64, Fault> {
        self.within(self.client.execute_typed(statement, values)).await
    }

    /// # Errors
    /// As [`Self::run`].
    pub async fn rows(&self, question: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Fault> {
        self.within(self.client.query_typed(question, values)).await
    }

    /// Does `work` in one transaction that nobody else does meanwhile who asks for the same `lock`.
    ///
    /// # Errors
    /// As [`Self::run`]; nothing is done then, and the connection is of no more use.
    pub async fn locked(&self, lock: i64, work: impl AsyncFnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
        self.run(&format!("BEGIN; SELECT pg_advisory_xact_lock({lock})")).await?;
        work().await?;
        self.run("COMMIT").await
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Fault> {
        Ok(tokio::time::timeout(self.limit, answer).await.map_err(|_| Fault::late())??)
    }
}

impl Drop for Connection {
    /// The driver would go on writing to a server that hangs.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What went wrong, without a secret.
#[derive(Debug)]
pub struct Fault {
    text: String,
    state: Option<SqlState>,
}

impl Fault {
    fn late() -> Self {
        Self { text: "no answer in time".to_owned(), state: None }
    }

    /// Whether the same would fail again: by its data (class 22), a constraint (23), or what is there and may be used (42).
    pub fn is_permanent(&self) -> bool {
        self.state.as_ref().is_some_and(|state| ["22", "23", "42"].iter().any(|class| state.code().starts_with(class)))
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(told) = error.as_db_error() {
            // Its detail would quote the row.
            return Self { text: format!("{} ({})", told.message(), told.code().code()), state: Some(told.code().clone()) };
        }
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Self { text: format!("{error}{cause}"), state: None }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
