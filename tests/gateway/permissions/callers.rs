//! Callers with API keys, each with a role of its own name, and a gateway that knows them.

use mcp_gateway::digest::{hex, sha256};
use serde_json::{Map, Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::{eventually, http};

/// A caller and the rules of its only role.
pub struct Caller {
    pub name: &'static str,
    rules: Value,
}

impl Caller {
    pub const fn new(name: &'static str, rules: Value) -> Self {
        Self { name, rules }
    }
}

/// The key of a caller.
pub fn key(name: &str) -> String {
    format!("mgk_test_{name}_0123456789abcdef")
}

/// `sha256:…` of a caller's key, as the configuration wants it.
pub fn hash(name: &str) -> String {
    format!("sha256:{}", hex(&sha256(key(name).as_bytes())))
}

/// A gateway that asks for keys.
pub struct Guarded {
    pub gateway: Gateway,
}

impl Guarded {
    /// Starts before `backends` and waits until `knower` sees the tools of all servers.
    pub async fn start(callers: &[Caller], backends: &str, knower: &str) -> Self {
        // JSON is YAML.
        let keys: Vec<Value> = callers
            .iter()
            .map(|caller| json!({ "id": caller.name, "hash": hash(caller.name), "tenant": "acme", "roles": [caller.name] }))
            .collect();
        let roles: Map<String, Value> = callers.iter().map(|caller| (caller.name.to_owned(), caller.rules.clone())).collect();
        let auth = json!({ "api_keys": { "keys": keys } });
        Self::with(&format!("auth: {auth}\nroles: {}\n", Value::Object(roles)), backends, &key(knower)).await
    }

    /// Starts with sections of the caller's own.
    pub async fn with(sections: &str, backends: &str, knower: &str) -> Self {
        let gateway = Gateway::start(&format!("{}{sections}backends:\n{backends}", server(""))).await;
        let guarded = Self { gateway };
        let known = async || {
            let rows = guarded.servers(knower).await;
            (!rows.is_empty() && rows.iter().all(|row| row["status"] == "healthy" && row["tools_count"] != 0)).then_some(())
        };
        eventually("the catalogue is known", known).await;
        guarded
    }

    /// The rows of `GET /api/servers` as the holder of a key sees them.
    pub async fn servers(&self, key: &str) -> Vec<Value> {
        let answer = http().get(self.gateway.at("/api/servers")).header("x-api-key", key).send().await.expect("an answer");
        let page: Value = answer.json().await.expect("JSON");
        page["servers"].as_array().cloned().unwrap_or_default()
    }
}
