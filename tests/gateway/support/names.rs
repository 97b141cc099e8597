//! A DNS server of the test's own, over UDP, whose records change when the test says so.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// A running server; it stops when dropped.
pub struct Names {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    records: Mutex<BTreeMap<String, Vec<Record>>>,
    asked: Mutex<BTreeMap<String, usize>>,
    failing: std::sync::atomic::AtomicBool,
}

impl Names {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let (address, shared) = (socket.local_addr().expect("bound"), Arc::new(Shared::default()));
        let task = tokio::spawn(serve(socket, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// The addresses of a name.
    pub fn set(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let record = |address: &&str| RData::A(A(address.parse::<Ipv4Addr>().expect("an address")));
        self.put(name, ttl, addresses.iter().map(record));
    }

    /// The services of a name: priority, weight, port and target.
    pub fn set_services(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) {
        let record =
            |(priority, weight, port, target): &(u16, u16, u16, &str)| RData::SRV(SRV::new(*priority, *weight, *port, named(target)));
        self.put(name, ttl, services.iter().map(record));
    }

    fn put(&self, name: &str, ttl: u32, data: impl Iterator<Item = RData>) {
        let records = data.map(|data| Record::from_rdata(named(name), ttl, data)).collect();
        self.shared.records.lock().expect("no panic while held").insert(name.to_owned(), records);
    }

    /// Answers every question with SERVFAIL.
    pub fn fail(&self, failing: bool) {
        self.shared.failing.store(failing, std::sync::atomic::Ordering::SeqCst);
    }

    /// How often a name was asked for, whatever the type.
    pub fn asked(&self, name: &str) -> usize {
        self.shared.asked.lock().expect("no panic while held").get(name).copied().unwrap_or_default()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn named(name: &str) -> Name {
    Name::from_ascii(format!("{name}.")).expect("a name")
}

async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let question = Message::from_vec(&buffer[..length]).expect("the resolver writes DNS");
        let answer = answer(&shared, question);
        let _ = socket.send_to(&answer.to_vec().expect("encodes"), client).await;
    }
}

fn answer(shared: &Shared, question: Message) -> Message {
    let query = question.queries.first().expect("a question").clone();
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    *shared.asked.lock().expect("no panic while held").entry(name.clone()).or_default() += 1;
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.authoritative = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    if shared.failing.load(std::sync::atomic::Ordering::SeqCst) {
        answer.metadata.response_code = ResponseCode::ServFail;
        return answer;
    }
    let fits =
        |record: &&Record| matches!((&record.data, query.query_type()), (RData::A(_), RecordType::A) | (RData::SRV(_), RecordType::SRV));
    match shared.records.lock().expect("no panic while held").get(&name) {
        Some(records) => drop(answer.add_answers(records.iter().filter(fits).cloned())),
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer
}
