//! The log on standard error: one line per record, JSON or text. Lines are gathered and written by a thread of their
//! own, since an unbuffered line costs 10–20 µs on the request path; a panic or exit flushes what is pending.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use env_logger::fmt::Formatter;
use jiff::Timestamp;
use log::Record;
use serde::Serialize;

use super::levels::levels;
use crate::config::Log;

/// Pending bytes beyond which lines are dropped rather than memory: standard error is not being read.
const MAX_PENDING: usize = 8 << 20;
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
        if levels().enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        flush();
    }
}

/// The structured fields of a record, when its message is one JSON object (see `proxy/record` and `proxy/audit`).
fn json(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        ts: String,
        level: &'static str,
        target: &'a str,
        msg: String,
    }
    if matches!(record.target(), "access" | "audit") {
        write!(out, "{{\"ts\":\"{:.3}\",\"level\":\"{}\",\"target\":\"{}\",", Timestamp::now(), level(record), record.target())?;
        std::fmt::write(&mut Tail { out, is_begun: false }, *record.args()).map_err(std::io::Error::other)?;
        return writeln!(out);
    }
    let line = Line { ts: now(), level: level(record), target: record.target(), msg: record.args().to_string() };
    serde_json::to_writer(&mut *out, &line)?;
    writeln!(out)
}

/// Writes an object behind members that stand already: without the brace it begins with.
struct Tail<'o> {
    out: &'o mut Formatter,
    is_begun: bool,
}

impl std::fmt::Write for Tail<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let rest = if self.is_begun { text } else { text.trim_start_matches('{') };
        self.is_begun |= !text.is_empty();
        self.out.write_all(rest.as_bytes()).map_err(|_| std::fmt::Error)
    }
}

fn text(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    writeln!(out, "{} {:5} {} {}", now(), level(record), record.target(), shown(&record.args().to_string()))
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

fn level(record: &Record<'_>) -> &'static str {
    match record.level() {
        log::Level::Error => "error",
        log::Level::Warn => "warn",
        log::Level::Info => "info",
        log::Level::Debug => "debug",
        log::Level::Trace => "trace",
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
        let mut lines = pending().lines();
        if lines.bytes.is_empty() {
            pending().arrived.notify_one();
        }
        lines.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_forever() {
    loop {
        let lines = pending().lines();
        let lines = pending().arrived.wait_while(lines, |lines| lines.bytes.is_empty()).unwrap_or_else(PoisonError::into_inner);
        drop(lines);
        write_pending();
        std::thread::sleep(DELAY);
    }
}

/// Writes what is pending; called before the process ends, which must not wait for ever for a pipe that nobody reads.
pub fn flush() {
    let (done, written) = mpsc::sync_channel(1);
    let write = move || {
        write_pending();
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("log, at the end".into()).spawn(write).is_ok() {
        let _ = written.recv_timeout(LAST);
    }
}

fn write_pending() {
    let take = || std::mem::take(&mut *pending().lines());
    let lines = take();
    let _ = std::io::stderr().write_all(&lines.bytes);
    if lines.dropped > 0 {
        log::error!("{} records were dropped, as standard error was not read fast enough", lines.dropped);
        let _ = std::io::stderr().write_all(&take().bytes);
    }
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
