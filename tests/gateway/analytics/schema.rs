//! The schema: made once by whoever comes first, partitioned by day, and rid of what is past its time. And the way there.

use futures::future::join_all;
use serde_json::json;

use super::{Numbers, start, yaml};
use crate::support::eventually;
use crate::support::gateway::{Gateway, server};
use crate::support::postgres::{PASSWORD, Postgres};
use crate::support::stub::Stub;

#[tokio::test]
async fn gateways_that_start_at_once_on_an_empty_database_make_one_schema() {
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    // Holds them up until all have seen that there is nothing.
    let holder = postgres.client().await;
    holder.batch_execute("BEGIN; CREATE SCHEMA mcp_gateway").await.expect("done");
    let gateways = join_all((0..3).map(|_| start(&stub, &postgres, "", ""))).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mcp-gateway' AND wait_event_type = 'Lock'";
    eventually("all want to make it", async || (postgres.number(waiting).await == 3).then_some(())).await;
    holder.batch_execute("ROLLBACK").await.expect("done");
    for gateway in &gateways {
        gateway.call("stub", "echo", json!({})).await;
        assert_eq!(Numbers::settled(gateway, 1).await.stored, 1);
        let said = gateway.said().await.join("\n");
        assert!(!said.contains("duplicate key") && !said.contains("already exists"), "{said}");
    }
    assert_eq!(postgres.events().await, 3);
    assert_eq!(postgres.number("SELECT count(*) FROM mcp_gateway.schema_version").await, 1);
    // Today and tomorrow.
    assert_eq!(postgres.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'mcp_gateway.events'::regclass").await, 2);
}

#[tokio::test]
async fn what_is_past_its_retention_is_dropped_and_the_rest_stays() {
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    let first = start(&stub, &postgres, "", "").await;
    eventually("the schema is there", async || {
        (postgres.rows("SELECT to_regclass('mcp_gateway.events') IS NOT NULL").await[0].get::<_, bool>(0)).then_some(())
    })
    .await;
    first.call("stub", "echo", json!({})).await;
    Numbers::settled(&first, 1).await;
    drop(first);
    for ago in [1, 2, 9] {
        let day = format!("(now() AT TIME ZONE 'UTC')::date - {ago}");
        postgres
            .run(&format!(
                "DO $$ DECLARE name text := 'mcp_gateway.events_' || to_char({day}, 'YYYYMMDD'); BEGIN
                    EXECUTE 'CREATE TABLE ' || name || ' (LIKE mcp_gateway.events INCLUDING ALL)';
                    EXECUTE format('ALTER TABLE mcp_gateway.events ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', name,
                        ({day})::text || ' 00:00+00', ({day} + 1)::text || ' 00:00+00');
                END $$;
                INSERT INTO mcp_gateway.events (at, request_id, lane, outcome, status, duration_ms, bytes_in, bytes_out)
                    SELECT ({day})::timestamp AT TIME ZONE 'UTC' + interval '1 hour', 'old-{ago}', 'rest', 'ok', 200, 1, 1, 1"
            ))
            .await;
    }
    postgres.run("INSERT INTO mcp_gateway.batches VALUES ('old', now() - interval '2 days')").await;
    assert_eq!(postgres.events().await, 4);
    let left = async || {
        let rows = postgres.rows("SELECT request_id FROM mcp_gateway.events WHERE request_id LIKE 'old-%' ORDER BY 1").await;
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    let longer = start(&stub, &postgres, "  retention: 36h\n", "").await;
    // It is the last thing done.
    eventually("old batches are forgotten", async || {
        (postgres.number("SELECT count(*) FROM mcp_gateway.batches WHERE id = 'old'").await == 0).then_some(())
    })
    .await;
    assert_eq!(left().await, ["old-1", "old-2"], "the day before yesterday may hold what is younger");
    drop(longer);
    let gateway = start(&stub, &postgres, "  retention: 1d\n", "").await;
    eventually("what is old is gone", async || (postgres.events().await == 2).then_some(())).await;
    assert_eq!(left().await, ["old-1"], "yesterday is not past a day yet");
    assert_eq!(Numbers::of(&gateway).await.rejected, 0);
}

#[tokio::test]
async fn require_wants_a_certificate_of_the_authority_and_prefer_any() {
    let stub = Stub::start().await;
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let postgres = Postgres::with_tls(&pair.cert.pem(), &pair.signing_key.serialize_pem()).await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pair.cert.pem()).expect("writable");
    let encrypted = async || {
        postgres
            .number("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'mcp-gateway'")
            .await
    };
    let address = format!("postgres://gateway:{PASSWORD}@127.0.0.1:{}/postgres", postgres.port());
    {
        let _gateway = Gateway::start(&yaml(&stub, &address, "", "")).await;
        eventually("it is encrypted where the server offers it", async || (encrypted().await == 1).then_some(())).await;
    }
    eventually("it is gone", async || (encrypted().await == 0).then_some(())).await;
    let mut gateway = Gateway::start(&yaml(&stub, &format!("{address}?sslmode=require"), "", "")).await;
    gateway.process.says("PostgreSQL cannot be written").await;
    assert_eq!(encrypted().await, 0, "nobody vouches for it");
    let url = dir.path().join("url");
    std::fs::write(&url, &address).expect("writable");
    let by = |ca: &std::path::Path| {
        format!(
            "{}backends:\n{}analytics: {{ postgres: {{ url_file: {}, ca: {} }} }}\n",
            server(""),
            stub.backend("one", ""),
            url.display(),
            ca.display()
        )
    };
    // A `ca` is asked whatever the mode.
    let other = dir.path().join("other.pem");
    let stranger = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(&other, stranger.cert.pem()).expect("writable");
    let mut misled = Gateway::start(&by(&other)).await;
    misled.process.says("PostgreSQL cannot be written").await;
    assert_eq!(encrypted().await, 0, "not of that authority");
    gateway.load(&by(&ca)).await;
    eventually("it is vouched for", async || (encrypted().await == 1).then_some(())).await;
}
