//! A DNS server of the test's own, over UDP and TCP, whose records change when the test says so.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

/// A running server; it stops when dropped.
pub struct Names {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

#[derive(Default)]
struct Shared {
    records: Mutex<BTreeMap<String, Vec<Record>>>,
    asked: Mutex<BTreeMap<String, usize>>,
    failing: AtomicBool,
    /// Whether answers do not fit into a datagram.
    too_long: AtomicBool,
    /// How many of the next datagrams are lost.
    losing: AtomicUsize,
    /// How often it was asked over TCP.
    over_tcp: AtomicUsize,
}

impl Names {
    pub async fn start() -> Self {
        let (socket, listener) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            // Somebody else may have the port over TCP.
            if let Ok(listener) = TcpListener::bind(socket.local_addr().expect("bound")).await {
                break (socket, listener);
            }
        };
        let (address, shared) = (socket.local_addr().expect("bound"), Arc::new(Shared::default()));
        let tasks = [tokio::spawn(serve(socket, Arc::clone(&shared))), tokio::spawn(serve_long(listener, Arc::clone(&shared)))];
        Self { address, shared, tasks }
    }

    /// Has every answer not fit into a datagram, which says so and holds no record.
    pub fn grow(&self) {
        self.shared.too_long.store(true, Ordering::SeqCst);
    }

    /// Loses so many questions to come over UDP.
    pub fn lose(&self, count: usize) {
        self.shared.losing.store(count, Ordering::SeqCst);
    }

    /// How often it was asked over TCP.
    pub fn over_tcp(&self) -> usize {
        self.shared.over_tcp.load(Ordering::SeqCst)
    }

    /// How many questions are still to be lost.
    pub fn to_lose(&self) -> usize {
        self.shared.losing.load(Ordering::SeqCst)
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
        self.shared.failing.store(failing, Ordering::SeqCst);
    }

    /// How often a name was asked for, whatever the type.
    pub fn asked(&self, name: &str) -> usize {
        self.shared.asked.lock().expect("no panic while held").get(name).copied().unwrap_or_default()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn named(name: &str) -> Name {
    Name::from_ascii(format!("{name}.")).expect("a name")
}

async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        if shared.losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            continue;
        }
        let question = Message::from_vec(&buffer[..length]).expect("the resolver writes DNS");
        let mut answer = answer(&shared, question);
        if shared.too_long.load(Ordering::SeqCst) {
            answer.answers.clear();
            answer.metadata.truncation = true;
        }
        let _ = socket.send_to(&answer.to_vec().expect("encodes"), client).await;
    }
}

/// Over TCP, where a message follows its length (RFC 1035 §4.2.2).
async fn serve_long(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((mut client, _)) = listener.accept().await {
        while let Ok(length) = client.read_u16().await {
            let mut question = vec![0; length.into()];
            client.read_exact(&mut question).await.expect("the whole question");
            shared.over_tcp.fetch_add(1, Ordering::SeqCst);
            let answer = answer(&shared, Message::from_vec(&question).expect("the resolver writes DNS")).to_vec().expect("encodes");
            client.write_u16(u16::try_from(answer.len()).expect("short")).await.expect("written");
            client.write_all(&answer).await.expect("written");
        }
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
    if shared.failing.load(Ordering::SeqCst) {
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
