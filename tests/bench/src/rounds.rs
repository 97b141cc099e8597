//! The rounds: every row once per answer size and round, one after the other.
//!
//! A machine gets faster and slower by the minute. Rows measured within the same minute are compared with each other,
//! and the order turns from round to round so that no row always follows the same one.

use crate::Result;
use crate::load::{Load, Sample};
use crate::row::{Row, SIZES, Size, Subject, What};
use crate::stand::{Running, Stand};

/// One cell of the table in one round.
pub struct Measured {
    pub round: usize,
    pub row: Row,
    pub size: Size,
    pub sample: Sample,
}

pub async fn run(stand: &Stand, rows: &[Row], rounds: usize, load: &Load) -> Result<Vec<Measured>> {
    let subjects = start_all(stand, rows).await?;
    let mut rows = rows.to_vec();
    let mut all = Vec::new();
    for round in 0..rounds {
        for size in SIZES {
            for &row in &rows {
                let sample = measure(&subjects, row, size, load).await?;
                tell(round, rounds, row, size, &sample);
                all.push(Measured { round, row, size, sample });
            }
        }
        rows.rotate_left(1);
    }
    Ok(all)
}

/// Each subject once, though the gateway serves two rows.
pub fn subjects(rows: &[Row]) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = rows.iter().map(|row| row.subject()).collect();
    subjects.dedup();
    subjects
}

async fn start_all(stand: &Stand, rows: &[Row]) -> Result<Vec<Running>> {
    let mut running = Vec::new();
    for subject in subjects(rows) {
        running.push(stand.start(subject).await?);
    }
    Ok(running)
}

async fn measure(subjects: &[Running], row: Row, size: Size, load: &Load) -> Result<Sample> {
    let running = subjects.iter().find(|running| running.subject == row.subject()).ok_or("not started")?;
    let sample = load.put_on(running, row, size).await.map_err(|error| format!("{} ({}): {error}", row.name(), size.name()))?;
    // Which of them memory gave and which Redis, the gateway's own metrics tell.
    let expected = match row.what() {
        What::Own => 0.0..=0.0,
        What::Same | What::List => 1.0..=1.0,
        What::Turns(_) => 0.5..=1.0,
    };
    if expected.contains(&sample.hits) {
        return Ok(sample);
    }
    Err(format!("{} ({}): {:.3} of its answers came from a cache", row.name(), size.name(), sample.hits).into())
}

fn tell(round: usize, rounds: usize, row: Row, size: Size, sample: &Sample) {
    eprintln!(
        "round {}/{rounds}  {:6}{:16}{:8.0} req/s  p99 {:6.0} µs  CPU {:6.1} µs",
        round + 1,
        size.name(),
        row.name(),
        sample.rate,
        sample.p99,
        sample.cpu
    );
}
