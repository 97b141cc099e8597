//! The table of outcomes: every fault, in both lanes, for a call that must not run twice and for a list that may.

use super::*;

/// One row: what the client gets for a call and for a list, over REST and native, and whether a breaker counts it.
struct Row {
    fault: Fault,
    call: [u16; 2],
    list: [u16; 2],
    counted: [bool; 2],
}

const fn row(fault: Fault, call: [u16; 2], list: [u16; 2], counted: bool) -> Row {
    Row { fault, call, list, counted: [counted, counted] }
}

/// A list is asked of the other backend as long as nothing of an answer was passed on: 200. What the native lane passes
/// through is not its to judge, and is cut where the backend cuts it.
const TABLE: &[Row] = &[
    row(Fault::ResetAfterHeader, [502, 502], [200, 200], true),
    row(Fault::ResetAfterAll, [502, 502], [200, 200], true),
    row(Fault::Hang, [504, 504], [200, 200], true),
    row(Fault::HalfClose, [502, 502], [200, 200], true),
    row(Fault::CloseInHeader, [502, 502], [200, 200], true),
    row(Fault::CloseAfterHeader, [502, 502], [200, 502], true),
    row(Fault::CloseInBody, [502, 502], [200, 502], true),
    row(Fault::Trickle, [504, 504], [200, 200], true),
    row(Fault::TooLong, [502, 502], [200, 502], true),
    Row { counted: [true, false], ..row(Fault::TooShort, [502, 200], [200, 200], true) },
    row(Fault::Garbage, [502, 502], [200, 200], true),
    Row { counted: [true, false], ..row(Fault::NotJson, [502, 200], [200, 200], true) },
    row(Fault::BadChunk, [502, CUT], [200, CUT], true),
    row(Fault::CutStream, [502, CUT], [200, CUT], true),
    row(Fault::Status(500), [502, 500], [200, 200], true),
    row(Fault::Status(503), [502, 503], [200, 200], true),
    row(Fault::Told(502), [502, 502], [200, 200], true),
    row(Fault::Status(400), [502, 400], [502, 400], false),
    row(Fault::Status(401), [502, 502], [502, 502], false),
    row(Fault::Told(403), [502, 403], [502, 403], false),
    row(Fault::Status(404), [502, 404], [502, 404], false),
    row(Fault::Told(429), [502, 429], [502, 429], false),
    row(Fault::ToolError, [200, 200], [200, 200], false),
    row(Fault::RpcError, [502, 200], [502, 200], false),
];

/// Breakers that open with the first failure and take the next request as a probe, so that each row sees one change.
const TELLING: &str =
    "load_balancer: { strategy: consistent_hash, hash_by: \"header:X-Steer\", retries: { budget: 100%, repeat: annotated } }
circuit_breaker: { failure_threshold: 1, recovery_timeout: 1ms }\n";

/// Two backends, of which requests with the header go to the first as long as it lives.
struct Pair {
    bad: Faulty,
    good: Faulty,
    gateway: Gateway,
    steer: String,
}

impl Pair {
    async fn start(more: &str) -> Self {
        let (bad, good) = (Faulty::start(), Faulty::start());
        let gateway = gateway(&[bad.backend("bad", ", timeout: 300ms"), good.backend("good", "")], more).await;
        let mut pair = Self { bad, good, gateway, steer: String::new() };
        for i in 0..100 {
            pair.steer = i.to_string();
            let told = pair.ask(Lane::Rest, WRITE).await;
            if pair.bad.received(&told.id) == 1 {
                return pair;
            }
        }
        panic!("no caller meets the first backend");
    }

    async fn ask(&self, lane: Lane, kind: Kind) -> Told {
        send(request(&self.gateway.url, lane, kind).header("x-steer", &self.steer)).await
    }

    /// How often the request was received, by each.
    fn received(&self, told: &Told) -> (usize, usize) {
        (self.bad.received(&told.id), self.good.received(&told.id))
    }

    async fn heal(&self) {
        self.bad.commit(None);
        eventually("it may be tried", async || (breaker(&self.gateway, "bad").await != "open").then_some(())).await;
        assert_eq!(self.ask(Lane::Rest, WRITE).await.status, 200);
        assert_eq!(breaker(&self.gateway, "bad").await, "closed", "a probe that passes closes it");
    }
}

#[tokio::test]
async fn every_fault_has_its_outcome_and_no_call_runs_twice() {
    let pair = Pair::start(TELLING).await;
    let mut wrong = Vec::new();
    for Row { fault, call, list, counted } in TABLE {
        for (i, lane) in [Lane::Rest, Lane::Native].into_iter().enumerate() {
            for (kind, expected) in [(WRITE, call[i]), (Kind::List, list[i]), (Kind::Call("read"), list[i]), (Kind::Call("put"), list[i])] {
                pair.bad.commit(*fault);
                let told = pair.ask(lane, kind).await;
                let is_counted = breaker(&pair.gateway, "bad").await != "closed";
                let (at_bad, at_good) = pair.received(&told);
                let repeated = usize::from(kind != WRITE && counted[i] && expected == 200);
                let seen = (told.status, is_counted, at_good, at_bad <= 1);
                if seen != (expected, counted[i], repeated, true) {
                    wrong.push(format!("{fault:?} {lane:?} {kind:?}: {seen:?}, expected {:?}; {told:?}", (expected, counted[i], repeated)));
                }
                pair.heal().await;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_was_not_sent_goes_elsewhere_and_what_may_have_been_runs_at_most_once() {
    let pair = Pair::start(TELLING).await;
    for lane in [Lane::Rest, Lane::Native] {
        pair.bad.refuse().await;
        let told = pair.ask(lane, WRITE).await;
        assert_eq!((told.status, pair.received(&told)), (200, (0, 1)), "{lane:?}: refused");
        assert_ne!(breaker(&pair.gateway, "bad").await, "closed", "who cannot be reached fails");
        pair.bad.listen();
        pair.heal().await;
        for _ in 0..10 {
            // The reset meets the gateway before, while or after it writes.
            pair.bad.commit(Fault::ResetAtOnce);
            let told = pair.ask(lane, WRITE).await;
            let received = pair.received(&told);
            assert!(matches!((told.status, received), (200, (0, 1)) | (502, (0, 0))), "{lane:?}: {told:?} {received:?}");
            pair.heal().await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_or_reads_slowly_is_no_failure_of_the_backend() {
    let faulty = Faulty::start();
    let one_strike = "circuit_breaker: { failure_threshold: 1 }\n";
    let gateway = gateway_with("request_timeout: 2s", &[faulty.backend("one", "")], one_strike).await;
    faulty.commit(Fault::Hang);
    for (lane, kind) in [(Lane::Rest, WRITE), (Lane::Native, WRITE), (Lane::Native, Kind::List)] {
        let leaves = begin(&gateway, lane, kind);
        until_hanging(&faulty, 1).await;
        leaves.abort();
        until_hanging(&faulty, 0).await;
        assert_eq!(breaker(&gateway, "one").await, "closed", "{lane:?} {kind:?}");
    }
    faulty.commit(Fault::Large);
    let response = request(&gateway.url, Lane::Native, WRITE).send().await.expect("an answer");
    // Longer than a whole answer may take; the slowness is the fault that is tested.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let _ = response.bytes().await;
    eventually("the call ended", async || (gateway.metric("backend_in_flight{backend=\"one\"}").await == 0).then_some(())).await;
    assert_eq!(breaker(&gateway, "one").await, "closed", "its client was slow, not the backend");
}

#[tokio::test]
async fn a_batch_that_runs_out_of_time_is_no_failure_of_the_backend() {
    let faulty = Faulty::start();
    let one_strike = "circuit_breaker: { failure_threshold: 1 }\n";
    let gateway = gateway_with("request_timeout: 2s", &[faulty.backend("one", "")], one_strike).await;
    faulty.work(100, std::time::Duration::from_millis(1200));
    let call = json!({ "method": "call_tool", "params": { "tool_name": "write", "arguments": {} } });
    let (status, answers) = gateway.rest("stub", json!(vec![call; 24])).await;
    let late = answers.as_array().expect("an array").iter().filter(|answer| answer["status"] == 504).count();
    assert_eq!((status, late >= 8), (200, true), "eight at a time: the last ones find no time left: {answers}");
    assert_eq!(breaker(&gateway, "one").await, "closed", "nobody else is to suffer for one caller's batch");
    assert!(faulty.calls() <= 16, "and what has no time left is not sent");
}

#[tokio::test]
async fn middleware_that_refuses_is_no_failure_and_one_that_fails_is() {
    let pair = {
        let (bad, good) = (Faulty::start(), Faulty::start());
        let entry = |faulty: &Faulty, name| faulty.backend(name, ", protocol: middleware, timeout: 300ms");
        let gateway = Gateway::start(&yaml("", &[entry(&bad, "bad"), entry(&good, "good")], TELLING)).await;
        is_up(&gateway, "bad", true).await;
        is_up(&gateway, "good", true).await;
        Pair { bad, good, gateway, steer: String::new() }
    };
    let mut pair = pair;
    for i in 0.. {
        pair.steer = i.to_string();
        let told = pair.ask(Lane::Rest, WRITE).await;
        if pair.bad.received(&told.id) == 1 {
            break;
        }
    }
    for status in [400, 401, 403, 404, 409, 422, 429] {
        pair.bad.commit(Fault::Status(status));
        for kind in [WRITE, Kind::List] {
            pair.ask(Lane::Rest, kind).await;
            assert_eq!(breaker(&pair.gateway, "bad").await, "closed", "{status}");
        }
    }
    for status in [500, 502, 503, 504] {
        pair.bad.commit(Fault::Status(status));
        let told = pair.ask(Lane::Rest, WRITE).await;
        assert_eq!((told.status, pair.received(&told)), (if status == 504 { 504 } else { 502 }, (1, 0)), "{status}");
        assert_ne!(breaker(&pair.gateway, "bad").await, "closed", "{status}");
        let told = pair.ask(Lane::Rest, Kind::List).await;
        assert_eq!((told.status, pair.received(&told)), (200, (1, 1)), "{status}: a list is asked elsewhere");
        pair.heal().await;
    }
}
