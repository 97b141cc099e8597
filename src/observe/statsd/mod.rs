//! Telling a Datadog agent of the metrics that `/metrics` shows, in the form of DogStatsD (protocol 1.1, which agents since
//! 7.25 understand). Every process tells what it counted itself, so that two of them, as in an upgrade, add up.
//!
//! An agent that is away costs one datagram at each interval. What was counted meanwhile is told when it is back, so that
//! a restart of the agent is no gap in what adds up; after a longer absence it is not, because all of it at once would
//! look like a burst of now.

mod agent;
mod lines;

use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;

use self::agent::Agent;
use self::lines::{Form, Line, Told};
use super::export::Teller;
use crate::config::Datadog;

/// How long what was counted is kept for an agent that is away.
const KEPT: Duration = Duration::from_secs(300);
/// Datagrams sent at once, and the time that the agent has to read them: its buffer holds about 200 KiB.
const WAVE: usize = 16;
const PAUSE: Duration = Duration::from_millis(5);

/// Tells one agent.
#[derive(Default)]
pub struct Statsd {
    to: Option<(Agent, Form)>,
    told: Told,
    /// Since when it was not told everything.
    behind: Option<Instant>,
}

impl Teller for Statsd {
    type Conf = Datadog;

    fn turn_to(&mut self, conf: &Datadog, skip: Option<&[MetricFamily]>) -> Result<String, String> {
        let form = Form::new(conf);
        if let Some(families) = skip {
            self.told = Told::default();
            let lines = self.told.lines(families, &form);
            self.told.accept(&lines);
        }
        self.behind = None;
        self.to = Some((Agent::new(conf.statsd.clone()), form));
        Ok(format!("the Datadog agent at {}", conf.statsd))
    }

    async fn tell(&mut self, families: Vec<MetricFamily>) -> Result<(), String> {
        let Some((agent, form)) = &mut self.to else { return Ok(()) };
        let lines = self.told.lines(&families, form);
        let sent = send(agent, &lines, &mut self.told).await;
        match &sent {
            Ok(()) => self.behind = None,
            Err(_) if self.behind.get_or_insert_with(Instant::now).elapsed() > KEPT => {
                self.told.accept(&lines);
            }
            Err(_) => {}
        }
        sent
    }
}

/// Sends nothing, to see whether somebody listens.
///
/// # Errors
/// Why there is nobody, where that can be known.
pub async fn reach(conf: &Datadog) -> Result<(), String> {
    let mut agent = Agent::new(conf.statsd.clone());
    agent.connect().await?;
    agent.send(&[]).await?;
    agent.heard().await
}

/// Sends all lines, in waves. The first datagram of a flush finds out whether anybody listens.
async fn send(agent: &mut Agent, lines: &[Line], told: &mut Told) -> Result<(), String> {
    agent.connect().await?;
    for (number, (datagram, lines)) in pack(lines, agent.room()).iter().enumerate() {
        if number > 0 && number % WAVE == 0 {
            tokio::time::sleep(PAUSE).await;
        }
        agent.send(datagram.as_bytes()).await?;
        // At once: whoever gives this up here must not have it told twice.
        told.accept(lines);
        if number == 0 {
            agent.heard().await.inspect_err(|_| told.recall(lines))?;
        }
    }
    Ok(())
}

/// Lines put together up to a size; one that is longer goes alone.
fn pack(lines: &[Line], room: usize) -> Vec<(String, &[Line])> {
    let mut datagrams = Vec::new();
    let mut rest = lines;
    while let Some((first, _)) = rest.split_first() {
        let mut text = first.text.clone();
        let more = rest[1..].iter().take_while(|line| {
            let fits = text.len() + 1 + line.text.len() <= room;
            if fits {
                text.push('\n');
                text.push_str(&line.text);
            }
            fits
        });
        let (inside, behind) = rest.split_at(1 + more.count());
        datagrams.push((text, inside));
        rest = behind;
    }
    datagrams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_as_full_as_they_may_be_and_hold_every_line_once() {
        let line = |length: usize| Line::of("x".repeat(length));
        let lines: Vec<Line> = [4, 5, 1, 30, 2, 2, 2, 2, 1].map(line).into();
        let packed = pack(&lines, 11);
        let sizes: Vec<_> = packed.iter().map(|(text, lines)| (text.len(), lines.len())).collect();
        assert_eq!(sizes, [(10, 2), (1, 1), (30, 1), (11, 4), (1, 1)]);
        let all: Vec<&str> = packed.iter().flat_map(|(text, _)| text.split('\n')).collect();
        assert_eq!(all, lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>());
        assert!(pack(&[], 11).is_empty());
    }
}
