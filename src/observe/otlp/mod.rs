//! Telling a collector by OTLP over HTTP (protobuf): of requests that are over (`traces`) and of metrics (`metrics`). Here is
//! what both need: how a batch is posted, and who it is from.

pub mod metrics;
pub mod traces;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::spans::Value;
use crate::config::Collector;
use crate::egress::Client;
use crate::egress::web::Site;

/// How long a collector is left alone after it failed, at most.
const LATEST: Duration = Duration::from_secs(30);

/// One collector's path for one kind of batch.
struct Poster {
    site: Site,
    headers: Vec<(HeaderName, HeaderValue)>,
    service: String,
    timeout: Duration,
}

/// What became of a batch.
enum Sent {
    Taken,
    /// It may be taken later.
    Later(String, Option<Duration>),
    /// It never will be.
    Refused(String),
}

impl Poster {
    /// `key` is where the configuration names the collector; `path` is added to its URL.
    ///
    /// # Errors
    /// When the URL or a header cannot be written into a request.
    fn new(conf: &Collector, key: &str, path: &str) -> Result<Self, String> {
        let mut url = conf.otlp.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        let header = |(name, value): &(String, crate::config::Secret)| {
            let value = HeaderValue::from_str(value.expose()).map(|mut value| {
                value.set_sensitive(true);
                value
            });
            name.parse::<HeaderName>().ok().zip(value.ok()).ok_or_else(|| format!("{key}.headers.{name}: no header can carry it"))
        };
        let headers = conf.headers.iter().map(header).collect::<Result<_, _>>()?;
        let (service, timeout) = (conf.service.clone(), conf.timeout.0);
        Ok(Self { site: Site::new(&url, None)?, headers, service, timeout })
    }

    /// OTLP 1.x, "OTLP/HTTP Response": 429, 502, 503 and 504 may be repeated, everything else not.
    async fn post(&self, client: &Client, body: Bytes) -> Sent {
        let mut head = self.site.request("POST");
        head.header(&header::CONTENT_TYPE, &HeaderValue::from_static("application/x-protobuf"));
        for (name, value) in &self.headers {
            head.header(name, value);
        }
        let answer = match self.site.ask(client, head, body, self.timeout).await {
            Ok(answer) => answer,
            Err(failure) => return Sent::Later(failure.to_string(), None),
        };
        match answer.status {
            status if status.is_success() => Sent::Taken,
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Sent::Later(format!("it answered {status}"), answer.retry_after),
            status => Sent::Refused(format!("it answered {status}")),
        }
    }

    /// Who tells: the same for everything.
    fn resource(&self) -> Resource {
        let attributes = vec![
            pair("service.name", self.service.as_str().into()),
            pair("service.version", env!("CARGO_PKG_VERSION").into()),
            pair("service.instance.id", super::instance().into()),
        ];
        Resource { attributes, ..Resource::default() }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "mcp-gateway".into(), version: env!("CARGO_PKG_VERSION").into(), ..InstrumentationScope::default() }
}

fn pair(name: &str, value: Value<'_>) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.to_owned()),
        Value::Number(number) => any_value::Value::IntValue(number),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
