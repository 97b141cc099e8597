//! The log on standard error: one line per record, JSON or text. Lines are gathered and written by a thread of their
//! own, since an unbuffered line costs 10–20 µs on the request path; a panic or exit flushes what is pending.
//! Records that are objects (`proxy/line`, `proxy/audit`), of which every request may have one, go there without env_logger
//! between.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use env_logger::fmt::Formatter;
use jiff::Timestamp;
use log::{Level, Record};
use serde::Serialize;

use super::levels::levels;
use super::object::Object;
use crate::config::Log;

/// Pending bytes beyond which lines are dropped rather than memory: standard error is not being read.
const MAX_PENDING: usize = 8 << 20;
/// Pending bytes that are written without waiting for more, while the processor still has them at hand.
const ENOUGH: usize = 256 << 10;
/// The largest buffer that is kept for what comes next.
const SPARE: usize = 2 * ENOUGH;
/// The longest line whose room is kept.
const LONG: usize = 16 << 10;
/// How long a line may wait.
const DELAY: Duration = Duration::from_millis(100);
/// How long whoever reads standard error is waited for at the end.
const LAST: Duration = Duration::from_secs(1);

/// Starts logging. Called once, by `main`.
pub fn init(settings: &Log) {
    let mut builder = env_logger::Builder::new();
    // All that reaches it: what is written is for `levels` to say.
    builder.filter_level(log::LevelFilter::Trace);
    builder.target(env_logger::Target::Pipe(Box::new(Buffered)));
    JSON.store(settings.json, Ordering::Relaxed);
    if settings.json {
        builder.format(json);
    } else {
        builder.format(text);
    }
    if log::set_boxed_logger(Box::new(Switched(builder.build()))).is_ok() {
        levels().configure(&settings.level);
    }
    let _ = std::thread::Builder::new().name("log".into()).spawn(write_forever);
}

/// The logger, behind levels that change while it runs.
struct Switched(env_logger::Logger);

impl log::Log for Switched {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        levels().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !levels().enabled(record.metadata()) {
            return;
        }
        self.0.log(record);
    }

    fn flush(&self) {
        flush();
    }
}

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Where a line is made, used again and again.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// A millisecond and how it is written: many records share one.
    static NOW: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
}

/// Writes a record that is an object of its own, its members behind those of every line; as the message where lines are text.
/// Whoever calls has asked whether it is to be written.
pub fn tell(target: &'static str, level: Level, members: impl FnOnce(&mut Object<'_>)) {
    LINE.with_borrow_mut(|line| {
        line.clear();
        let is_json = JSON.load(Ordering::Relaxed);
        if is_json {
            begin(line, target, level);
        }
        members(&mut Object::within(line));
        if is_json {
            line.extend_from_slice(b"}\n");
            pending().add(line);
        } else if let Some((_, members)) = String::from_utf8_lossy(line).split_once(',') {
            log::log!(target: target, level, "{{{members}}}");
        }
        line.shrink_to(LONG);
    });
}

/// Writes what every line begins with.
fn begin(line: &mut Vec<u8>, target: &str, level: Level) {
    NOW.with_borrow_mut(|(at, text)| {
        let now = Timestamp::now();
        if text.is_empty() || *at != now.as_millisecond() {
            *at = now.as_millisecond();
            text.clear();
            let _ = write!(text, "{now:.3}");
        }
        for part in ["{\"ts\":\"", text, "\",\"level\":\"", name(level), "\",\"target\":\"", target, "\""] {
            line.extend_from_slice(part.as_bytes());
        }
    });
}

fn json(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        ts: String,
        level: &'static str,
        target: &'a str,
        msg: String,
    }
    let line = Line { ts: now(), level: name(record.level()), target: record.target(), msg: record.args().to_string() };
    serde_json::to_writer(&mut *out, &line)?;
    writeln!(out)
}

fn text(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    writeln!(out, "{} {:5} {} {}", now(), name(record.level()), record.target(), shown(&record.args().to_string()))
}

/// A message may quote what others sent. A line break in it must not look like a record of its own, and nothing in it may
/// drive the terminal that shows it.
fn shown(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// The time now as RFC 3339 in UTC, to the millisecond.
pub fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

#[derive(Default)]
struct Pending {
    lines: Mutex<Lines>,
    arrived: Condvar,
}

/// What is to be written, and how many lines more there would be.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Lines {
    fn add(&mut self, line: &[u8]) {
        if self.bytes.len() < MAX_PENDING {
            self.bytes.extend_from_slice(line);
        } else {
            self.dropped += 1;
        }
    }
}

impl Pending {
    fn add(&self, line: &[u8]) {
        let mut lines = self.lines();
        let before = lines.bytes.len();
        lines.add(line);
        let wakes = before == 0 || (before < ENOUGH && lines.bytes.len() >= ENOUGH);
        drop(lines);
        if wakes {
            self.arrived.notify_one();
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pending() -> &'static Arc<Pending> {
    static PENDING: OnceLock<Arc<Pending>> = OnceLock::new();
    PENDING.get_or_init(Arc::default)
}

/// Where env_logger writes to.
struct Buffered;

impl Write for Buffered {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        pending().add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_forever() {
    let arrived = &pending().arrived;
    let mut spare = Vec::new();
    loop {
        let lines = arrived.wait_while(pending().lines(), |lines| lines.bytes.is_empty());
        drop(lines.unwrap_or_else(PoisonError::into_inner));
        spare = write_pending(spare);
        // What comes now waits for more.
        drop(arrived.wait_timeout_while(pending().lines(), DELAY, |lines| lines.bytes.len() < ENOUGH));
    }
}

/// Writes what is pending; called before the process ends, which must not wait for ever for a pipe that nobody reads.
pub fn flush() {
    let (done, written) = mpsc::sync_channel(1);
    let write = move || {
        write_pending(Vec::new());
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("log, at the end".into()).spawn(write).is_ok() {
        let _ = written.recv_timeout(LAST);
    }
}

/// Writes what is pending; `spare` takes what comes meanwhile. Gives back a buffer to be used again.
fn write_pending(spare: Vec<u8>) -> Vec<u8> {
    // One at a time: at the end, what another has taken is waited for.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let take = |bytes| std::mem::replace(&mut *pending().lines(), Lines { bytes, dropped: 0 });
    let mut lines = take(spare);
    let _ = std::io::stderr().write_all(&lines.bytes);
    if lines.dropped > 0 {
        log::error!("{} records were dropped, as standard error was not read fast enough", lines.dropped);
        let _ = std::io::stderr().write_all(&take(Vec::new()).bytes);
    }
    lines.bytes.clear();
    lines.bytes.shrink_to(SPARE);
    lines.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_shown_and_not_sent_to_it() {
        assert_eq!(shown("é \"a\"\r\n\u{1b}[2J\u{9b}x\0"), "é \"a\"\\r\\n\\u{1b}[2J\\u{9b}x\\u{0}");
    }
    #[test]
    fn what_finds_no_room_is_counted() {
        let mut lines = Lines::default();
        lines.add(&vec![b'x'; MAX_PENDING - 1]);
        lines.add(b"fits\n");
        lines.add(b"does not\n");
        assert_eq!((lines.bytes.len(), lines.dropped), (MAX_PENDING + 4, 1));
    }
}
