//! Cores and the time spent on them.
//!
//! The process under test has one core to itself, everything that drives it shares the other, so the two do not push
//! each other around and CPU per request means the same in every row.

use std::fs;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::Result;

/// Who runs where.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub proxy: usize,
    pub load: usize,
}

impl Cores {
    /// The first two cores this process may use.
    pub fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
        match (cores.next(), cores.next()) {
            (Some(proxy), Some(load)) => Ok(Self { proxy, load }),
            _ => Err("two cores are needed: one for the proxy, one for the load".into()),
        }
    }
}

/// Keeps the calling thread, and every process it starts from now on, on one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// What the numbers were measured on.
pub fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    format!("{}, Linux {}", model.unwrap_or("unknown CPU"), read("/proc/sys/kernel/osrelease").trim())
}

/// User and system time of a process group: nginx works in a child of the process we started.
pub fn spent(group: u32) -> Result<Duration> {
    time(members(group)?.iter().map(|stat| stat.ticks).sum())
}

/// Time a core was not idle, whoever used it, the host of a virtual machine included.
pub fn busy(core: usize) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = stat.lines().find(|line| line.starts_with(&name));
    time(line.and_then(busy_ticks).ok_or("no such core in /proc/stat")?)
}

/// Resident memory of a process group, in bytes.
pub fn resident(group: u32) -> Result<u64> {
    let pages: u64 = members(group)?.iter().map(|stat| stat.pages).sum();
    let page = sysconf(SysconfVar::PAGE_SIZE)?.ok_or("no page size")?;
    Ok(pages * page as u64)
}

#[derive(Debug, PartialEq)]
struct Stat {
    group: u32,
    ticks: u64,
    pages: u64,
}

fn time(ticks: u64) -> Result<Duration> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.ok_or("no clock tick")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// User, nice and system, then irq, softirq and steal; between them idle and waiting, after them guests counted twice.
fn busy_ticks(line: &str) -> Option<u64> {
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    let (worked, interrupted) = (ticks.get(..3)?, ticks.get(5..8)?);
    Some(worked.iter().chain(interrupted).sum())
}

fn members(group: u32) -> Result<Vec<Stat>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let numeric = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        // A process may end between the listing and the reading; it is then none of ours.
        let stat = numeric.then(|| fs::read_to_string(entry.path().join("stat")).ok()).flatten();
        members.extend(stat.as_deref().and_then(parse).filter(|stat| stat.group == group));
    }
    if members.is_empty() {
        return Err(format!("process {group} is gone").into());
    }
    Ok(members)
}

/// Reads `/proc/PID/stat`; the fields follow the last parenthesis, since a name may hold spaces.
fn parse(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat { group: field(5)? as u32, ticks: field(14)? + field(15)?, pages: field(24)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idling_and_guests_do_not_make_a_core_busy() {
        assert_eq!(busy_ticks("cpu0 1 2 4 1000 1000 8 16 32 1000 1000"), Some(63));
    }

    #[test]
    fn a_stat_line_is_read_though_the_name_holds_a_space() {
        let line = "12 (nginx: wor ker) S 1 11 11 0 -1 4 3 3 0 0 90 7 31 22 20 0 1 0 10 512 990 18 0";
        assert_eq!(parse(line), Some(Stat { group: 11, ticks: 97, pages: 990 }));
    }
}
