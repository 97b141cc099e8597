//! `mcp-gateway doctor`: reaches everything that the configuration names, once, and says what is wrong and what to do about
//! it. It changes nothing, and needs no gateway that runs.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::mpsc;
use url::Url;

use super::tls::Certificates;
use crate::auth::jwks::KeySet;
use crate::config::identity::{JwtKeys, Site};
use crate::config::{self, Config};
use crate::egress::Client;
use crate::egress::web;
use crate::extend::Extensions;
use crate::observe::statsd;
use crate::snapshot::State;
use crate::store::postgres::Postgres;
use crate::store::redis::Redis;
use crate::upstream::backend::Backend;
use crate::upstream::discovery::etcd;
use crate::upstream::{catalog, facts::Speaks};

/// The longest that one thing may take to be reached.
const WAIT: Duration = Duration::from_secs(10);
/// Days before its end from which on a certificate is a fault.
const RENEWED: i64 = 14;

/// What was found out about one thing.
pub struct Finding {
    /// What it is and where the configuration names it.
    pub about: String,
    pub told: Result<String, Fault>,
}

/// What is wrong, and what to do.
pub struct Fault {
    pub what: String,
    pub advice: String,
}

impl Fault {
    fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.told {
            Ok(told) => write!(f, "ok    {}: {told}", self.about),
            Err(fault) => write!(f, "FAIL  {}: {}\n      {}", self.about, fault.what, fault.advice),
        }
    }
}

/// Reaches everything, all at the same time.
pub async fn examine(config: Config, extensions: Extensions) -> Vec<Finding> {
    let mut findings = vec![state_dir(&config), listeners(&config)];
    findings.extend(certificate(&config));
    findings.extend(join_all(stores(&config)).await);
    let (reload, _wishes) = mpsc::channel(1);
    // The secret seals nothing here.
    match State::new(config, &[0; 32], reload, extensions) {
        Ok(state) => findings.extend(reached(&state).await),
        Err(why) => findings.push(Finding { about: "configuration".into(), told: Err(Fault::new(why, "the gateway would not start")) }),
    }
    findings
}

type Asking<'a> = std::pin::Pin<Box<dyn Future<Output = Finding> + Send + 'a>>;

/// Redis, etcd and whoever is asked about callers and told of traces and metrics.
fn stores(config: &Config) -> Vec<Asking<'_>> {
    let mut all: Vec<Asking<'_>> = Vec::new();
    all.extend(config.redis.iter().map(|conf| Box::pin(redis(conf)) as Asking<'_>));
    all.extend(config.analytics.iter().map(|conf| Box::pin(postgres(&conf.postgres)) as Asking<'_>));
    if let Some(conf) = &config.discovery.etcd {
        all.extend(conf.endpoints.iter().map(|endpoint| Box::pin(etcd_member(conf, endpoint)) as Asking<'_>));
    }
    let auth = config.auth.as_ref();
    for jwt in auth.iter().flat_map(|auth| &auth.jwt) {
        if let JwtKeys::Jwks(site) = &jwt.keys {
            all.push(Box::pin(keys(site)));
        }
    }
    let introspection = auth.and_then(|auth| auth.oauth2.as_ref()?.introspection.as_ref());
    all.extend(introspection.map(|conf| Box::pin(service("auth.oauth2.introspection", &conf.site)) as Asking<'_>));
    let external = auth.and_then(|auth| auth.external.as_ref());
    all.extend(external.map(|conf| Box::pin(service("auth.external", &conf.site)) as Asking<'_>));
    let tracing = config.observability.tracing.as_ref().map(|conf| ("observability.tracing", &conf.collector));
    let metrics = config.observability.otlp_metrics.as_ref().map(|conf| ("observability.metrics.otlp", &conf.collector));
    all.extend(tracing.into_iter().chain(metrics).map(|(key, collector)| {
        let site = Site { url: collector.otlp.clone(), ca: None, timeout: collector.timeout };
        Box::pin(async move { service(key, &site).await }) as Asking<'_>
    }));
    all.extend(config.observability.datadog.iter().map(|conf| Box::pin(datadog(conf)) as Asking<'_>));
    all
}

async fn reached(state: &State) -> Vec<Finding> {
    let snapshot = state.snapshot();
    join_all(snapshot.upstream.backends.iter().map(|each| backend(each, &state.shared.probes))).await
}

/// Resolves, checks and identifies a backend, as the gateway does.
async fn backend(backend: &Backend, probes: &Client) -> Finding {
    let about = format!("backend {} ({})", backend.name(), backend.conf.url);
    let began = Instant::now();
    let asked = async {
        let alive = backend.check().await;
        let facts = catalog::identify(probes, backend).await.map_err(|why| (alive, why))?;
        Ok((alive, facts))
    };
    let told = match tokio::time::timeout(WAIT, asked).await {
        Err(_) => Err(Fault::new(
            format!("no answer within {} s", WAIT.as_secs()),
            "it accepts connections and hangs, or a firewall drops what is sent",
        )),
        Ok(Err((alive, why))) => Err(Fault::new(&why, advice(alive, &why))),
        Ok(Ok((false, _))) => Err(Fault::new(
            "it answers, but its health check fails",
            "see backends[].health_check: its path must answer 2xx within its timeout",
        )),
        Ok(Ok((true, facts))) => {
            let speaks = facts.speaks.map_or("nothing known", Speaks::name);
            let servers: Vec<&str> = facts.servers.keys().map(String::as_str).collect();
            Ok(format!("{speaks}, serves {}, {} ms", servers.join(", "), began.elapsed().as_millis()))
        }
    };
    Finding { about, told }
}

/// What to do about a backend that cannot be asked, by why.
fn advice(alive: bool, why: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| why.to_ascii_lowercase().contains(word));
    if says(&["401", "403", "credential"]) {
        "it wants a credential: backends[].credential"
    } else if says(&["certificate", "tls"]) {
        "TLS: backends[].tls.ca for an authority of your own, backends[].tls.sni for its name"
    } else if says(&["404", "405"]) {
        "it answers, but not at this path: backends[].mcp_path (default /mcp), or protocol: middleware for REST"
    } else if alive {
        "its health check passes, but it does not speak MCP or the REST form at this URL: url, mcp_path, protocol"
    } else {
        "nothing answers there: is it running, are host and port right, does the name resolve here, may this machine connect?"
    }
}

/// Whether somebody listens, as far as datagrams tell.
async fn datadog(conf: &config::Datadog) -> Finding {
    let told = match tokio::time::timeout(WAIT, statsd::reach(conf)).await.unwrap_or_else(|_| Err("no answer in time".into())) {
        Ok(()) if matches!(conf.statsd, config::Statsd::Unix(_)) => Ok("listens".to_owned()),
        Ok(()) => Ok("its host does not say that nobody listens".to_owned()),
        Err(why) => {
            Err(Fault::new(why, "observability.datadog.statsd: does the agent run, and take metrics there? Requests do not need it"))
        }
    };
    Finding { about: format!("observability.datadog ({})", conf.statsd), told }
}

async fn redis(conf: &config::Redis) -> Finding {
    let asked = async {
        let store = Redis::new(conf)?.within(WAIT);
        store.query::<String>(&redis::cmd("PING")).await?;
        // Connected, as it is when requests ask.
        let began = Instant::now();
        store.query::<String>(&redis::cmd("PING")).await.map(|_| began.elapsed())
    };
    let told = match tokio::time::timeout(WAIT, asked).await.unwrap_or_else(|_| Err("no answer in time".into())) {
        Ok(took) => in_time(took, conf.timeout.0),
        Err(why) => Err(Fault::new(
            why,
            "redis.url: is it running, is the password right, rediss:// for TLS? Until then each replica counts and keeps for itself",
        )),
    };
    Finding { about: "redis".into(), told }
}

/// Whether requests wait for a Redis that answers after `took`.
fn in_time(took: Duration, timeout: Duration) -> Result<String, Fault> {
    if took <= timeout {
        return Ok(format!("answers, {} ms", took.as_millis()));
    }
    Err(Fault::new(
        format!("answers after {} ms, and requests wait {} ms", took.as_millis(), timeout.as_millis()),
        "redis.timeout: longer, or a Redis that is nearer. Until then each replica counts and keeps for itself",
    ))
}

async fn postgres(conf: &config::analytics::Postgres) -> Finding {
    let began = Instant::now();
    let asked = async {
        let store = Postgres::new(conf)?;
        let connection = store.connect(WAIT).await.map_err(|fault| fault.to_string())?;
        connection.run("SELECT 1").await.map_err(|fault| fault.to_string())
    };
    let told = match tokio::time::timeout(WAIT, asked).await.unwrap_or_else(|_| Err("no answer in time".into())) {
        Ok(()) => Ok(format!("answers, {} ms", began.elapsed().as_millis())),
        Err(why) => Err(Fault::new(
            why,
            "analytics.postgres: is it running, are user, password and database right, sslmode, ca? Requests do not need it",
        )),
    };
    Finding { about: "analytics.postgres".into(), told }
}

async fn etcd_member(conf: &config::discovery::Etcd, endpoint: &Url) -> Finding {
    let client = Client::new(1);
    let asked = etcd::count(conf, endpoint, &client);
    let told = match tokio::time::timeout(WAIT, asked).await.unwrap_or_else(|_| Err("no answer in time".into())) {
        Ok(count) => Ok(format!("{count} key(s) below {}", conf.prefix)),
        Err(why) => Err(Fault::new(why, "discovery.etcd: endpoints, ca, username and password; a member without a quorum does not answer")),
    };
    Finding { about: format!("etcd {endpoint}"), told }
}

/// The keys of an issuer of tokens.
async fn keys(site: &Site) -> Finding {
    let about = format!("keys of an issuer ({})", site.url);
    let advice = "auth.jwt[].jwks_url must answer with a JWK Set that holds keys for signatures; until then its tokens are refused";
    let told = match KeySet::new(site) {
        Err(why) => Err(Fault::new(why, advice)),
        Ok(set) => {
            let tending = tokio::spawn(Arc::clone(&set).tend(Arc::new(Client::new(1))));
            set.first().await;
            tending.abort();
            if set.is_known() { Ok("fetched".to_owned()) } else { Err(Fault::new("cannot be fetched (the log above says why)", advice)) }
        }
    };
    Finding { about, told }
}

/// A web service that is asked about every caller: whether anything speaks HTTP there.
async fn service(key: &str, site: &Site) -> Finding {
    let about = format!("{key} ({})", site.url);
    let client = Client::new(1);
    let asked = async {
        let web = web::Site::new(&site.url, site.ca.as_ref())?;
        web.ask(&client, web.request("GET"), Bytes::new(), WAIT).await.map_err(|failure| failure.to_string())
    };
    let told = match asked.await {
        // It was asked nothing it would answer; that it says so is enough.
        Ok(answer) => Ok(format!("reached ({} to a plain GET)", answer.status.as_u16())),
        Err(why) => Err(Fault::new(why, format!("{key}: is it running, does the name resolve here, is its certificate trusted (ca)?"))),
    };
    Finding { about, told }
}

/// How long the certificate is good.
fn certificate(config: &Config) -> Option<Finding> {
    let tls = config.server.tls.as_ref()?;
    let about = format!("certificate {}", tls.cert.display());
    let renew = "renew it; the gateway takes a new file without a restart";
    let told = match Certificates::load(tls).map(|certificates| certificates.ends()) {
        Err(why) => Err(Fault::new(why, "server.tls: cert and key are PEM files that belong together")),
        Ok(None) => Ok("readable".to_owned()),
        Ok(Some(ends)) => match (ends - jiff::Timestamp::now().as_second()) / 86_400 {
            days if days < 0 => Err(Fault::new("it has ended", renew)),
            days if days < RENEWED => Err(Fault::new(format!("it ends in {days} day(s)"), renew)),
            days => Ok(format!("good for {days} days")),
        },
    };
    Some(Finding { about, told })
}

/// Whether state can be kept.
fn state_dir(config: &Config) -> Finding {
    let dir = &config.server.state_dir;
    let advice =
        "server.state_dir must be a folder of the gateway's user (systemd: StateDirectory=); without it session ids end with the process";
    let told = super::secret::own_folder(dir)
        .and_then(|()| {
            let probe = dir.join(format!(".doctor-{}", std::process::id()));
            std::fs::write(&probe, b"")?;
            std::fs::remove_file(&probe)
        })
        .map(|()| "can be written".to_owned())
        .map_err(|error| Fault::new(error.to_string(), advice));
    Finding { about: format!("state_dir {}", dir.display()), told }
}

/// Whether the addresses are free, or a gateway has them already.
fn listeners(config: &Config) -> Finding {
    let server = &config.server;
    let all = [Some(server.listen), server.h2c, server.admin, server.tls.as_ref().map(|tls| tls.listen)];
    let (mut free, mut taken) = (Vec::new(), Vec::new());
    for address in all.into_iter().flatten() {
        match TcpListener::bind(address) {
            Ok(_) => free.push(address),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => taken.push(address),
            Err(error) => {
                let fault = Fault::new(
                    format!("{address}: {error}"),
                    "server.listen, h2c, admin, tls.listen: an address of this machine; ports below 1024 need CAP_NET_BIND_SERVICE",
                );
                return Finding { about: "listeners".into(), told: Err(fault) };
            }
        }
    }
    let list = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let told = match (taken.is_empty(), free.is_empty()) {
        (true, _) => format!("free: {}", list(&free)),
        (false, true) => format!("in use: {} (by the gateway that runs, it seems)", list(&taken)),
        (false, false) => format!("free: {}; in use: {}", list(&free), list(&taken)),
    };
    Finding { about: "listeners".into(), told: Ok(told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_answers_later_than_requests_wait_is_a_fault() {
        let [took, longer] = [50, 80].map(Duration::from_millis);
        assert_eq!(in_time(took, took).ok().as_deref(), Some("answers, 50 ms"));
        let fault = in_time(longer, took).err().unwrap();
        assert_eq!(fault.what, "answers after 80 ms, and requests wait 50 ms");
        assert!(fault.advice.starts_with("redis.timeout: "));
    }
}
