//! A real Prometheus of the test's own with the rules of `conf/prometheus`, and promtool.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::process::Process;
use super::{eventually, http, root};

/// A running Prometheus; it is killed when dropped.
pub struct Prometheus {
    url: String,
    began: f64,
    client: reqwest::Client,
    _dir: TempDir,
    _process: Process,
}

impl Prometheus {
    /// Scrapes a target as the job `mcp-gateway`, several times a second.
    pub async fn scraping(target: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rules: Vec<_> = ["recording", "alerts"].map(|name| root().join(format!("conf/prometheus/{name}.yaml"))).into();
        let conf = json!({
            "global": { "scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "500ms" },
            "rule_files": rules,
            "scrape_configs": [{ "job_name": "mcp-gateway", "static_configs": [{ "targets": [target] }] }],
        });
        std::fs::write(dir.path().join("prometheus.yaml"), conf.to_string()).expect("writable");
        loop {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
            // Somebody else may have been given the port meanwhile.
            if let Some(process) = serve(port, &dir).await {
                let url = format!("http://127.0.0.1:{port}/api/v1");
                return Self { url, began: now(), client: http(), _dir: dir, _process: process };
            }
        }
    }

    /// The series that an expression gave at any moment since the start, with their values that are numbers.
    pub async fn since_start(&self, expression: &str) -> Vec<(Value, Vec<f64>)> {
        let times = [("start", self.began), ("end", now())].map(|(name, time)| (name, time.to_string()));
        let asked = [("query", expression), ("step", "0.5")].into_iter().map(|(name, text)| (name, text.to_owned())).chain(times);
        let found = self.ask("query_range", &asked.collect::<Vec<_>>()).await;
        let number = |point: &Value| point[1].as_str().and_then(|text| text.parse().ok()).filter(|value: &f64| value.is_finite());
        let series = |series: &Value| {
            let values = series["values"].as_array().into_iter().flatten().filter_map(number).collect();
            (series["metric"].clone(), values)
        };
        found["result"].as_array().into_iter().flatten().map(series).filter(|(_, values): &(_, Vec<_>)| !values.is_empty()).collect()
    }

    /// The values of a label, of all series or of those that match.
    pub async fn label(&self, name: &str, matching: Option<&str>) -> Vec<String> {
        let matching: Vec<_> = matching.into_iter().map(|matching| ("match[]", matching.to_owned())).collect();
        serde_json::from_value(self.ask(&format!("label/{name}/values"), &matching).await).expect("texts")
    }

    /// The rules it evaluates, and how they do.
    pub async fn rules(&self) -> Vec<Value> {
        let groups = self.ask("rules", &[]).await["groups"].as_array().expect("groups").clone();
        groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
    }

    async fn ask(&self, path: &str, asked: &[(&str, String)]) -> Value {
        let mut url = reqwest::Url::parse(&format!("{}/{path}", self.url)).expect("a URL");
        url.query_pairs_mut().extend_pairs(asked);
        let mut answer: Value = self.client.get(url).send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{path} {asked:?}: {answer}");
        answer["data"].take()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// `None` if it ended before it was ready, as it does when the port is taken.
async fn serve(port: u16, dir: &TempDir) -> Option<Process> {
    let mut command = Command::new(binary("prometheus").await);
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.arg("--config.file").arg(dir.path().join("prometheus.yaml"));
    command.arg("--storage.tsdb.path").arg(dir.path().join("data"));
    let mut process = Process::start(command);
    let ready = eventually("Prometheus is ready, or ended", async || {
        let ready = process.output().iter().any(|line| line.contains("Server is ready to receive web requests"));
        let ended = process.child.try_wait().is_ok_and(|status| status.is_some());
        if ready || ended { Some(ready) } else { None }
    })
    .await;
    assert!(ready || process.output().iter().any(|line| line.contains("address already in use")), "{}", process.output().join("\n"));
    ready.then_some(process)
}

/// Runs promtool in the repository with this on its input: whether it is content, and what it says.
pub async fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(binary("promtool").await);
    command.args(arguments).current_dir(root()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("promtool runs");
    let mut stdin = child.stdin.take().expect("piped");
    // One that does not read its input has closed it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), said)
}

async fn binary(name: &str) -> String {
    let found = Command::new("which").arg(name).output().await.expect("`which` runs");
    assert!(found.status.success(), "{name} is missing: install the Debian package prometheus, as `make parts` does");
    String::from_utf8_lossy(&found.stdout).trim().to_owned()
}
