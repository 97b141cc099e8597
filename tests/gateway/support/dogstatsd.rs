//! An agent's end of DogStatsD: a socket that takes datagrams, and a parser of its own that is as strict as the protocol's
//! description (metrics, version 1.1) and adds up as agents do.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What an agent was told of one name and its tags.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The sum of a counter.
    pub sum: f64,
    /// The last value of a gauge.
    pub last: Option<f64>,
    /// Values of a distribution, and how often each came.
    pub values: Vec<(f64, u64)>,
}

/// Everything an agent was told.
#[derive(Debug, Default)]
pub struct Heard {
    /// By the name and the tags in the order of their names, `key:value`.
    pub series: BTreeMap<(String, Vec<String>), Known>,
    pub datagrams: usize,
    pub lines: usize,
    /// The longest datagram.
    pub longest: usize,
    /// What is no DogStatsD.
    pub faults: Vec<String>,
}

/// A listening agent; it is gone when dropped.
pub struct Agent {
    pub heard: Arc<Mutex<Heard>>,
    ends: Arc<Notify>,
    task: Option<JoinHandle<()>>,
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Agent {
    /// At an address; says which it became.
    pub async fn udp(address: &str) -> (Self, String) {
        let socket = UdpSocket::bind(address).await.expect("a port");
        let address = socket.local_addr().expect("bound").to_string();
        (Self::on(Socket::Udp(socket), Arc::default()), address)
    }

    pub fn unix(path: &Path) -> Self {
        Self::on(Socket::Unix(UnixDatagram::bind(path).expect("a path")), Arc::default())
    }

    /// On a socket that nobody read so far.
    pub fn reading(socket: UnixDatagram) -> Self {
        Self::on(Socket::Unix(socket), Arc::default())
    }

    fn on(socket: Socket, heard: Arc<Mutex<Heard>>) -> Self {
        let (told, ends) = (Arc::clone(&heard), Arc::new(Notify::new()));
        let ending = Arc::clone(&ends);
        let task = tokio::spawn(async move {
            let mut room = vec![0; 1 << 16];
            loop {
                let read = tokio::select! {
                    read = socket.read(&mut room) => read,
                    () = ending.notified() => break,
                };
                told.lock().expect("no panic while held").take(&room[..read.expect("a datagram")]);
            }
            for datagram in socket.close() {
                told.lock().expect("no panic while held").take(&datagram);
            }
        });
        Self { heard, ends, task: Some(task) }
    }

    /// Takes no more, reads what it has, and is gone. Tells what it heard.
    pub async fn stop(mut self) -> Arc<Mutex<Heard>> {
        self.ends.notify_one();
        self.task.take().expect("it runs").await.expect("no panic");
        Arc::clone(&self.heard)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

impl Socket {
    async fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(room).await,
            Self::Unix(socket) => socket.recv(room).await,
        }
    }

    /// Lets nobody send any more; what the system still had of them.
    fn close(self) -> Vec<Vec<u8>> {
        let Self::Unix(socket) = self else { return Vec::new() };
        let socket = socket.into_std().expect("a socket");
        socket.shutdown(Shutdown::Read).expect("open");
        let mut room = vec![0; 1 << 16];
        let next = || socket.recv(&mut room).ok().filter(|length| *length > 0).map(|length| room[..length].to_vec());
        std::iter::from_fn(next).collect()
    }
}

impl Heard {
    fn take(&mut self, datagram: &[u8]) {
        self.datagrams += 1;
        self.longest = self.longest.max(datagram.len());
        let Ok(text) = std::str::from_utf8(datagram) else { return self.faults.push(format!("{datagram:?}")) };
        for line in text.split('\n') {
            self.lines += 1;
            match parse(line) {
                Some(metric) => self.add(metric),
                None => self.faults.push(line.to_owned()),
            }
        }
    }

    fn add(&mut self, metric: Metric) {
        let known = self.series.entry((metric.name, metric.tags)).or_default();
        for value in metric.values {
            match metric.kind {
                Kind::Count => known.sum += value,
                Kind::Gauge => known.last = Some(value),
                Kind::Distribution => known.values.push((value, metric.times)),
            }
        }
    }
}

enum Kind {
    Count,
    Gauge,
    Distribution,
}

struct Metric {
    name: String,
    values: Vec<f64>,
    kind: Kind,
    times: u64,
    tags: Vec<String>,
}

/// `name:value:…|type|@rate|#key:value,…`, and nothing else.
fn parse(line: &str) -> Option<Metric> {
    let (name, rest) = line.split_once(':')?;
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(fine) && name.len() <= 200;
    let mut fields = rest.split('|').peekable();
    let values = fields.next()?.split(':').map(number).collect::<Option<Vec<_>>>()?;
    let kind = match fields.next()? {
        "c" => Kind::Count,
        "g" => Kind::Gauge,
        "d" => Kind::Distribution,
        _ => return None,
    };
    let rate = fields.next_if(|field| field.starts_with('@')).map(|field| number(&field[1..]).filter(|rate| *rate > 0.0 && *rate <= 1.0));
    let rate = rate.map_or(Some(1.0), |rate| rate.filter(|_| matches!(kind, Kind::Distribution)))?;
    let mut tags: Vec<String> = match fields.next_if(|field| field.starts_with('#')) {
        Some(field) => field[1..].split(',').map(tag).collect::<Option<_>>()?,
        None => Vec::new(),
    };
    tags.sort();
    let once = tags.windows(2).all(|pair| pair[0].split(':').next() != pair[1].split(':').next());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as agents do")]
    let times = (1.0 / rate) as u64;
    (named && once && fields.next().is_none()).then(|| Metric { name: name.to_owned(), values, kind, times, tags })
}

/// Digits with a point or a sign at most: what every parser of numbers takes.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (all(whole) && all(rest)).then(|| text.parse().ok())?
}

/// "Tags must start with a letter and after that may contain" a few characters, "up to 200" of them.
fn tag(text: &str) -> Option<String> {
    let (key, value) = text.split_once(':')?;
    let fine = text.chars().all(|c| c.is_alphanumeric() || "_-:./".contains(c)) && text.chars().count() <= 200;
    (fine && key.starts_with(char::is_alphabetic) && !value.is_empty()).then(|| text.to_owned())
}

#[test]
fn what_is_no_dogstatsd_is_noticed() {
    for right in ["a:1|c", "a.b_c:1.5|g|#k:v", "a:1:2.5:-3|d|@0.5|#k:v,l:w:x/y"] {
        assert!(parse(right).is_some(), "{right}");
    }
    for wrong in [
        "",
        "a",
        "a:1",
        "a:|c",
        "a:1|x",
        "1a:1|c",
        "a-b:1|c",
        "a:1e3|c",
        "a:+1|c",
        "a:NaN|g",
        "a:1|c|@0.5",
        "a:1|d|@0",
        "a:1|d|@2",
        "a:1|c|#",
        "a:1|c|#k",
        "a:1|c|#k:",
        "a:1|c|#k:v,",
        "a:1|c|#k:v,k:w",
        "a:1|c|#k:{v}",
        "a:1|c|#1:v",
        "a:1|c|#k:v|@0.5",
        "a:1|c|T1",
    ] {
        assert!(parse(wrong).is_none(), "{wrong}");
    }
}
