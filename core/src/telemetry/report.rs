//! The encoding of a [`Report`]. [`emit`] and [`parse`] list the same fields in the same order.

use alloc::vec::Vec;

use super::reader::Reader;
use super::{LogError, NODES_MAX, Progress, Report, Stage, TEXT_MAX, Times, number, numbers, text};
use crate::id::{Clock, Incarnation, PeerId};
use crate::run_id::RunId;
use crate::status::{Counters, Histogram, LinkStatus, Presence, Rest, Role, Status, Waiting, WorkerStatus};
use crate::time::Instant;

/// All counters, in the order of the encoding. Destructuring makes a forgotten field a compile error.
fn counts(counters: &mut Counters) -> [&mut u64; 18] {
    let Counters {
        applied,
        duplicates,
        late,
        dropped,
        rejected,
        empty,
        applications,
        entries,
        non_finite,
        merged,
        dense_bytes,
        lost,
        reconnects,
        resent,
        deferred,
        repeated,
        skipped_pushes,
        skipped_fetches,
    } = counters;
    [
        applied,
        duplicates,
        late,
        dropped,
        rejected,
        empty,
        applications,
        entries,
        non_finite,
        merged,
        dense_bytes,
        lost,
        reconnects,
        resent,
        deferred,
        repeated,
        skipped_pushes,
        skipped_fetches,
    ]
}

pub(super) const ROLES: [Role; 4] = [Role::Worker, Role::Server, Role::Collective, Role::Mesh];
pub(super) const PRESENCES: [Presence; 5] =
    [Presence::Awaited, Presence::Present, Presence::Suspect, Presence::Lost, Presence::Left];

pub(super) fn emit(log: &mut Vec<u8>, report: &Report) {
    let Report { at, host, run, incarnation, stage, status, times, progress } = report;
    number(log, at.as_nanos());
    text(log, host);
    text(log, run.as_ref().map_or("", RunId::as_str));
    number(log, incarnation.0);
    log.push(Stage::ALL.iter().position(|known| known == stage).unwrap_or(0) as u8);
    number(log, u64::from(status.me.0));
    log.push(ROLES.iter().position(|role| *role == status.role).unwrap_or(0) as u8);
    number(log, status.clock.0);
    match status.waiting {
        None => log.push(0),
        Some(Waiting { on, at, clock, since, reported_by }) => {
            log.push(1);
            numbers(log, &[u64::from(on.0), at.0, clock.0, since.as_nanos(), u64::from(reported_by.0)]);
        }
    }
    numbers(log, &counts(&mut { status.counters }).map(|count| *count));
    // Trailing empty buckets are not written: most runs use a few of 64.
    let buckets = status.staleness.buckets();
    let used = buckets.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    number(log, used as u64);
    buckets[..used].iter().for_each(|count| number(log, *count));
    numbers(log, &[status.staleness.sum(), status.staleness.max()]);
    // Cut to the limit that `parse` enforces.
    let workers = &status.workers[..status.workers.len().min(NODES_MAX)];
    number(log, workers.len() as u64);
    for worker in workers {
        number(log, u64::from(worker.rank.0));
        log.push(PRESENCES.iter().position(|state| *state == worker.state).unwrap_or(0) as u8);
        number(log, worker.clock.0);
    }
    let links = &status.links[..status.links.len().min(NODES_MAX)];
    number(log, links.len() as u64);
    for link in links {
        let LinkStatus { peer, bytes_out, bytes_in, messages_out, messages_in, last_heard, response_ns, arriving_ns } =
            *link;
        // 0 stands for no message yet.
        let heard = last_heard.map_or(0, |at| at.as_nanos().saturating_add(1));
        numbers(log, &[u64::from(peer.0), bytes_out, bytes_in, messages_out, messages_in, heard]);
        numbers(log, &[response_ns, arriving_ns]);
    }
    let lost = [status.clipped, status.forgotten];
    for x in [status.residual_norm, status.residual_updates, status.density, status.tau].into_iter().chain(lost) {
        log.extend((x as f32).to_le_bytes());
    }
    log.push(u8::from(status.rest.is_some()));
    if let Some(Rest { norm, updates, messages, kept }) = status.rest {
        [norm, updates, kept].iter().for_each(|x| log.extend((*x as f32).to_le_bytes()));
        number(log, u64::from(messages));
    }
    numbers(log, &[status.operations as u64, status.updates, status.view, u64::from(status.members)]);
    let Times { elapsed, steps, stepped, stepped_compute, compute, encode, decode, apply, wait, wire } = *times;
    numbers(log, &[elapsed, steps, stepped, stepped_compute, compute, encode, decode, apply, wait, wire]);
    log.extend(progress.loss.to_le_bytes());
    log.extend(progress.accuracy.to_le_bytes());
    number(log, progress.examples);
}

pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Report, LogError> {
    let at = Instant::from_nanos(reader.number()?);
    let host = reader.text(TEXT_MAX)?;
    let run = reader.run()?;
    let incarnation = Incarnation(reader.number()?);
    let stage = reader.one_of(&Stage::ALL)?;
    let me = PeerId(reader.short()?);
    let role = reader.one_of(&ROLES)?;
    let clock = Clock(reader.number()?);
    let waiting = match reader.byte()? {
        0 => None,
        1 => Some(Waiting {
            on: PeerId(reader.short()?),
            at: Clock(reader.number()?),
            clock: Clock(reader.number()?),
            since: Instant::from_nanos(reader.number()?),
            reported_by: PeerId(reader.short()?),
        }),
        got => return Err(LogError::Kind { got }),
    };
    let mut counters = Counters::default();
    for count in counts(&mut counters) {
        *count = reader.number()?;
    }
    let mut buckets = [0; Histogram::BUCKETS];
    let used = reader.count(Histogram::BUCKETS)?;
    for bucket in &mut buckets[..used] {
        *bucket = reader.number()?;
    }
    // A trailing empty bucket would be a second encoding of the same histogram.
    if used > 0 && buckets[used - 1] == 0 {
        return Err(LogError::Body);
    }
    let staleness = Histogram::from_parts(buckets, reader.number()?, reader.number()?);
    let workers = (0..reader.count(NODES_MAX)?).map(|_| {
        let rank = PeerId(reader.short()?);
        Ok(WorkerStatus { rank, state: reader.one_of(&PRESENCES)?, clock: Clock(reader.number()?) })
    });
    let workers = workers.collect::<Result<_, LogError>>()?;
    let links = (0..reader.count(NODES_MAX)?).map(|_| {
        let peer = PeerId(reader.short()?);
        let [bytes_out, bytes_in] = [reader.number()?, reader.number()?];
        let [messages_out, messages_in] = [reader.number()?, reader.number()?];
        let last_heard = reader.number()?.checked_sub(1).map(Instant::from_nanos);
        let [response_ns, arriving_ns] = [reader.number()?, reader.number()?];
        Ok(LinkStatus { peer, bytes_out, bytes_in, messages_out, messages_in, last_heard, response_ns, arriving_ns })
    });
    let links = links.collect::<Result<_, LogError>>()?;
    let mut x = [0.0; 6];
    for x in &mut x {
        *x = f64::from(reader.float()?);
    }
    let [residual_norm, residual_updates, density, tau, clipped, forgotten] = x;
    let rest = match reader.byte()? {
        0 => None,
        1 => {
            let [norm, updates, kept] = [reader.float()?, reader.float()?, reader.float()?].map(f64::from);
            Some(Rest { norm, updates, kept, messages: reader.short()? })
        }
        got => return Err(LogError::Kind { got }),
    };
    let operations = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
    let (updates, view, members) = (reader.number()?, reader.number()?, reader.short()?);
    let mut status = Status {
        me,
        role,
        clock,
        waiting,
        counters,
        staleness,
        workers,
        links,
        residual_norm,
        residual_updates,
        rest,
        density,
        tau,
        clipped,
        forgotten,
        times: Times::default(),
        operations,
        updates,
        view,
        members,
    };
    let [elapsed, steps, stepped, stepped_compute] =
        [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
    let [compute, encode] = [reader.number()?, reader.number()?];
    let [decode, apply, wait] = [reader.number()?, reader.number()?, reader.number()?];
    let wire = reader.number()?;
    let times = Times { elapsed, steps, stepped, stepped_compute, compute, encode, decode, apply, wait, wire };
    // The frame has them once.
    status.times = times;
    let progress = Progress { loss: reader.float()?, accuracy: reader.float()?, examples: reader.number()? };
    Ok(Report { at, host, run, incarnation, stage, status, times, progress })
}
