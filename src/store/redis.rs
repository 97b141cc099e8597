//! Redis, with one multiplexed connection that is made anew when it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, RedisError};
use tokio::sync::OnceCell;

use crate::config;
use crate::observe::metrics::redis_error;

/// The longest a question may take that nobody asks on the request path.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The longest connecting may take, with a name to be found, TLS and a password.
const CONNECT: Duration = Duration::from_secs(3);

/// A Redis, connected or not.
pub struct Redis {
    client: Client,
    /// The longest a question may take: what a dead store costs its users.
    timeout: Duration,
    connection: OnceCell<ConnectionManager>,
    /// Somebody is connecting beside the questions.
    connecting: AtomicBool,
}

impl Redis {
    /// # Errors
    /// When the URL is not one, without quoting it.
    pub fn new(conf: &config::Redis) -> Result<Self, String> {
        let client = Client::open(conf.url.expose()).map_err(|_| "redis.url: not a Redis URL".to_owned())?;
        Ok(Self { client, timeout: TIMEOUT, connection: OnceCell::new(), connecting: AtomicBool::new(false) })
    }

    /// Connects beside everything else, as long as that takes, if it is not connected: no request could wait for it, and one
    /// that gives up must not undo what was begun.
    pub fn connect_beside(self: &Arc<Self>) {
        if !self.connection.initialized() && !self.connecting.swap(true, Ordering::Relaxed) {
            let redis = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(cause) = redis.connect().await {
                    log::debug!("cannot connect to Redis: {cause}");
                }
                redis.connecting.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Gives up a question after `timeout`.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Runs one command, or one pipeline given as a closure over the connection.
    ///
    /// # Errors
    /// What went wrong, without a secret.
    pub async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, String> {
        let mut connection = self.connect().await?;
        command.query_async(&mut connection).await.map_err(|e| explain(&e))
    }

    /// Runs commands in one round trip.
    ///
    /// # Errors
    /// What went wrong, without a secret.
    pub async fn pipeline<T: FromRedisValue>(&self, commands: &redis::Pipeline) -> Result<T, String> {
        let mut connection = self.connect().await?;
        commands.query_async(&mut connection).await.map_err(|e| explain(&e))
    }

    /// Hands what is published on a channel to `told`, until the connection breaks.
    ///
    /// # Errors
    /// Why it did.
    pub async fn hear(&self, channel: &str, told: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), String> {
        let opened = tokio::time::timeout(TIMEOUT, self.client.get_async_pubsub()).await.map_err(|_| "no answer in time".to_owned())?;
        let mut heard = opened.map_err(|e| explain(&e))?;
        heard.subscribe(channel).await.map_err(|e| explain(&e))?;
        let mut messages = heard.on_message();
        while let Some(message) = messages.next().await {
            told(message.get_payload_bytes());
        }
        Ok(())
    }

    /// Runs a script (`EVALSHA`, loaded where Redis does not know it).
    ///
    /// # Errors
    /// What went wrong, without a secret.
    pub async fn invoke<T: FromRedisValue>(&self, script: &redis::ScriptInvocation<'_>) -> Result<T, String> {
        let mut connection = self.connect().await?;
        script.invoke_async(&mut connection).await.map_err(|e| explain(&e))
    }

    async fn connect(&self) -> Result<ConnectionManager, String> {
        let connect = || async {
            let config = ConnectionManagerConfig::new()
                .set_response_timeout(Some(self.timeout))
                .set_connection_timeout(Some(CONNECT))
                .set_number_of_retries(1);
            self.client.get_connection_manager_with_config(config).await
        };
        self.connection.get_or_try_init(connect).await.cloned().map_err(|e| explain(&e))
    }
}

fn explain(error: &RedisError) -> String {
    redis_error();
    // The kind only where authentication failed: the server's words may quote what was sent.
    if error.kind() == redis::ErrorKind::AuthenticationFailed { "authentication failed".to_owned() } else { error.to_string() }
}
