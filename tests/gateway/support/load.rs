//! Callers that go on asking while something happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use super::gateway::Gateway;
use super::{eventually, http};

/// Callers that ask one request after another until they are stopped.
pub struct Load {
    done: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub fn on(gateway: &Gateway) -> Self {
        let load = Self { done: Arc::default(), asked: Arc::default(), failed: Arc::default(), tasks: Vec::new() };
        let task = |_| {
            let (done, asked, failed) = (Arc::clone(&load.done), Arc::clone(&load.asked), Arc::clone(&load.failed));
            let url = gateway.at("/api/mcp/stub");
            let body = json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": { "text": "hello" } } });
            tokio::spawn(async move {
                let client = http();
                while !done.load(Ordering::Relaxed) {
                    let answer = client.post(&url).json(&body).send().await;
                    asked.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(u64::from(!answer.is_ok_and(|answer| answer.status() == 200)), Ordering::Relaxed);
                }
            })
        };
        let tasks = (0..4).map(task).collect();
        Self { tasks, ..load }
    }

    /// Waits for so many requests more.
    pub async fn more(&self, count: u64) {
        let until = self.asked.load(Ordering::Relaxed) + count;
        eventually("requests are answered", async || (self.asked.load(Ordering::Relaxed) >= until).then_some(())).await;
    }

    /// Ends it; tells how many were asked and how many failed.
    pub async fn end(self) -> (u64, u64) {
        self.done.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        (self.asked.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}
