//! Which field of the header holds which field of a message, by kind.
//!
//! A kind can carry two messages where one of its fields tells them apart: [`Kind::Ack`], [`Kind::Mark`],
//! [`Kind::Fetch`], [`Kind::Member`], [`Kind::View`] and [`Kind::State`].

use super::message::{RANKS, WEIGHT_MAX};
use super::{
    Ack, Commit, Hello, Kind, Leave, Message, Moments, Occasion, Offer, Part, Push, Quanta, Reply, Report,
    SnapshotMark, Wanted, WireError,
};
use crate::id::{Clock, Incarnation, PeerId, Sequence, ShardId};
use crate::machine::Failure;
use crate::rider::Rider;
use crate::time::StepTime;

/// Counts above this are refused: no run reaches them, and sums of two do not overflow.
const COUNT_MAX: u64 = u64::MAX / 4;
/// Bit of the weight of a reply that names the time of a step of the reference.
const REFERENCE: u32 = StepTime::MAX + 1;
/// Bit of a push's weight, or of a reply's sequence, that has a number in its upper half.
const RIDES: u64 = 1 << 63;
/// Weight of the reply that welcomes a worker which is not ahead of the row clock.
const WELCOME: u32 = 2;
/// In place of the code of a failure: the peer was unreachable for too long.
const UNREACHABLE: u32 = u32::MAX;
/// Weight of the receipt for a contribution. Acknowledgements of a mesh have less.
const RECEIPT: u32 = 2;
/// Bits of a report's weight.
const HAS: u32 = 1;
const LEAVES: u32 = 2;
const LAST: u32 = 4;
const BROKEN: u32 = 8;
const TOLD: u32 = 16;

/// The weight of a request for these parts of a snapshot.
const fn wanted_code(wanted: Wanted) -> u32 {
    match wanted {
        Wanted::Marks => 1,
        Wanted::Ledger => 2,
        Wanted::All => 3,
    }
}

/// The fields whose content depends on the kind.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) origin: u32,
    pub(super) shard: u32,
    pub(super) weight: u32,
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) clock: u64,
    pub(super) base: u64,
}

impl Message {
    /// Reads the fields of a header with a body of `length` bytes.
    pub(super) fn parse(kind: Kind, fields: &Fields, length: u32) -> Result<Self, WireError> {
        let mut reader = Reader { kind, rest: *fields };
        let message = reader.message(length)?;
        reader.end()?;
        Ok(message)
    }

    /// The fields of the header. `sender` has the sender's origin and incarnation, and zeros.
    pub(super) fn emit(&self, sender: Fields) -> Fields {
        let of = |origin: PeerId, incarnation: Incarnation| Fields {
            origin: origin.0,
            incarnation: incarnation.0,
            ..Fields::default()
        };
        match *self {
            Self::Refuse | Self::Release | Self::Again => sender,
            Self::Moments(moments) => {
                let mut at = moments.iter().map(|at| at.0);
                let mut next = || at.next().unwrap_or(0);
                Fields { sequence: next(), clock: next(), base: next(), ..sender }
            }
            Self::Hello(hello) => Fields {
                base: hello.digest,
                weight: hello.has_parameters.into(),
                clock: hello.resumed_at.0,
                sequence: hello.run,
                ..of(hello.rank, hello.incarnation)
            },
            Self::Push(push) => Fields {
                shard: push.shard.0,
                sequence: push.sequence.0,
                clock: match push.rider {
                    None => push.weight,
                    rider => RIDES | u64::from(Rider::to_wire(rider)) << 32 | push.weight.min(u32::MAX.into()),
                },
                base: push.base.0,
                weight: u32::from(!push.fetches) | push.step_time.map_or(0, StepTime::micros) << 1,
                ..of(push.worker, push.incarnation)
            },
            Self::Params(reply) | Self::Delta(reply) => Fields {
                shard: reply.shard.0,
                sequence: match reply.magnitude {
                    Some(_) if reply.sequence.0 <= u32::MAX.into() => {
                        RIDES | u64::from(Rider::to_wire(reply.magnitude)) << 32 | reply.sequence.0
                    }
                    _ => reply.sequence.0,
                },
                clock: reply.row.0,
                base: reply.version.0,
                weight: match reply.occasion {
                    Occasion::Answer { reference } => reference.map_or(0, |step| REFERENCE | step.micros()),
                    Occasion::Final => 1,
                    Occasion::Welcome { lead } => WELCOME.saturating_add(lead).min(REFERENCE - 1),
                },
                ..sender
            },
            Self::Up(part) | Self::Down(part) => Fields {
                sequence: part.view.0,
                clock: part.round.0,
                shard: part.chunk,
                weight: u32::from(part.finishing) | Rider::to_wire(part.rider) << 1,
                base: part.weight,
                ..sender
            },
            Self::Quanta(quanta) => Fields {
                sequence: quanta.last.0,
                clock: quanta.first.0,
                base: quanta.base.0,
                ..of(quanta.origin, quanta.incarnation)
            },
            Self::QuantaAck(ack) => Fields { sequence: ack.last.0, ..of(ack.origin, ack.incarnation) },
            Self::Receipt { shard, sequence, magnitude } => {
                let base = Rider::to_wire(magnitude).into();
                Fields { weight: RECEIPT, shard: shard.0, sequence: sequence.0, base, ..sender }
            }
            Self::StreamEnd { origin, incarnation, last } => {
                Fields { weight: 1, sequence: last.0, ..of(origin, incarnation) }
            }
            Self::Have { view, last } => Fields { weight: 1, base: view.0, sequence: last.0, ..sender },
            Self::SnapshotMark(mark) => Fields {
                base: mark.view.0,
                sequence: mark.sequence.0,
                clock: mark.last.map_or(0, |last| last.0 + 1),
                ..of(mark.origin, mark.incarnation)
            },
            Self::Seed { view } => Fields { sequence: view.0, ..sender },
            Self::FetchSnapshot { view, wanted } => Fields { sequence: view.0, weight: wanted_code(wanted), ..sender },
            Self::Ledger { view, applied } => Fields { sequence: view.0, clock: applied.0, ..sender },
            Self::FetchParameters { view } | Self::Prepare { view } => Fields { sequence: view.0, ..sender },
            Self::Leave(leave) => {
                Fields { sequence: leave.last.0, base: leave.stays.into(), ..of(leave.origin, leave.incarnation) }
            }
            Self::Awaits { on, at, silent_ms } => Fields { origin: on.0, clock: at.0, shard: silent_ms, ..sender },
            Self::Failed { failure } => {
                let (shard, base) = failure.code();
                Fields { shard, base, ..sender }
            }
            Self::PeerLost { peer, failure } => {
                let (shard, base) = failure.map_or((UNREACHABLE, 0), Failure::code);
                Fields { shard, base, weight: peer.0.saturating_add(1), ..sender }
            }
            Self::Silence { span_ms } => Fields { shard: span_ms, ..sender },
            Self::Report(report) => Fields {
                sequence: report.view.0,
                clock: report.round.0,
                weight: [(report.has, HAS), (report.leaves, LEAVES), (report.last, LAST), (report.broken, BROKEN)]
                    .into_iter()
                    .chain([(report.told, TOLD)])
                    .fold(0, |bits, (set, bit)| if set { bits | bit } else { bits }),
                base: report.entered.0,
                shard: report.members,
                ..sender
            },
            Self::Members { view, first, mask } => {
                Fields { sequence: view.0, shard: first.0 / RANKS, base: mask, ..sender }
            }
            Self::MemberRange { view, first, count } => {
                Fields { weight: 2, sequence: view.0, shard: first.0, base: count.into(), ..sender }
            }
            Self::Lost { first, mask } => Fields { weight: 1, shard: first.0 / RANKS, base: mask, ..sender },
            Self::Commit(commit) => Fields {
                sequence: commit.view.0,
                clock: commit.round.0,
                shard: commit.donor.0,
                weight: 1 + u32::from(commit.last) + 2 * u32::from(commit.returns),
                ..sender
            },
            Self::Parameters { view, round, vector, riders } => {
                let [first, last] = riders.map_or([0; 2], |riders| riders.map(|of| Rider::to_wire(Some(of))));
                let base = u64::from(first) << 32 | u64::from(last);
                Fields { sequence: view.0, clock: round.0, shard: vector, base, ..sender }
            }
            Self::Offer(offer) => Fields {
                shard: offer.shard.0,
                sequence: offer.sequence.0,
                clock: offer.row.0,
                base: offer.version.0,
                weight: offer.whole.into(),
                ..sender
            },
        }
    }
}

/// Takes the fields of a header one by one. A field that the kind does not use must be 0, so that every header has one
/// meaning and one form.
struct Reader {
    kind: Kind,
    rest: Fields,
}

impl Reader {
    fn message(&mut self, length: u32) -> Result<Message, WireError> {
        Ok(match self.kind {
            Kind::Refuse => Message::Refuse,
            Kind::Release => Message::Release,
            Kind::Again => Message::Again,
            Kind::Moments => self.moments()?,
            Kind::Hello => Message::Hello(Hello {
                rank: self.origin(),
                incarnation: self.incarnation(),
                digest: core::mem::take(&mut self.rest.base),
                has_parameters: self.flag()?,
                resumed_at: self.clock()?,
                run: core::mem::take(&mut self.rest.sequence),
            }),
            Kind::Push => self.push(length).map(Message::Push)?,
            Kind::Params => self.reply().map(Message::Params)?,
            Kind::Delta => self.reply().map(Message::Delta)?,
            Kind::Up => self.part(length).map(Message::Up)?,
            Kind::Down => self.part(length).map(Message::Down)?,
            Kind::Quanta => self.quanta().map(Message::Quanta)?,
            Kind::Ack => self.ack()?,
            Kind::Mark => self.mark()?,
            Kind::Seed => Message::Seed { view: self.sequence()? },
            Kind::Ledger => Message::Ledger { view: self.sequence()?, applied: self.clock()? },
            Kind::Fetch => match self.weight() {
                0 => Message::FetchParameters { view: self.sequence()? },
                got => {
                    let wanted = [Wanted::Marks, Wanted::Ledger, Wanted::All];
                    let wanted = wanted.into_iter().find(|wanted| wanted_code(*wanted) == got);
                    let wanted = wanted.ok_or_else(|| self.error("weight", "at most 3", got.into()))?;
                    Message::FetchSnapshot { view: self.sequence()?, wanted }
                }
            },
            Kind::Leave => Message::Leave(Leave {
                origin: self.origin(),
                incarnation: self.incarnation(),
                last: self.sequence()?,
                stays: self.base_flag()?,
            }),
            Kind::Awaits => Message::Awaits { on: self.origin(), at: self.clock()?, silent_ms: self.shard() },
            Kind::Failed => {
                let (code, value) = (self.shard(), core::mem::take(&mut self.rest.base));
                let lost = self.weight().checked_sub(1).map(PeerId);
                let failure = Failure::from_code(code, value);
                match (lost, failure) {
                    (None, Some(failure)) => Message::Failed { failure },
                    (Some(peer), Some(_)) => Message::PeerLost { peer, failure },
                    (Some(peer), None) if (code, value) == (UNREACHABLE, 0) => Message::PeerLost { peer, failure },
                    _ => return Err(self.error("shard", "a failure", code.into())),
                }
            }
            Kind::Silence => Message::Silence { span_ms: self.shard() },
            Kind::Report => self.report().map(Message::Report)?,
            Kind::Member if self.rest.weight == 2 => {
                self.weight();
                let base = core::mem::take(&mut self.rest.base);
                let count = u32::try_from(base).map_err(|_| self.error("base", "at most 4294967295", base))?;
                Message::MemberRange { view: self.sequence()?, first: PeerId(self.shard()), count }
            }
            Kind::Member => {
                let Some(first) = self.rest.shard.checked_mul(RANKS) else {
                    return Err(self.error("shard", "at most 67108863", self.rest.shard.into()));
                };
                self.rest.shard = 0;
                let (first, mask) = (PeerId(first), core::mem::take(&mut self.rest.base));
                match self.flag()? {
                    true => Message::Lost { first, mask },
                    false => Message::Members { view: self.sequence()?, first, mask },
                }
            }
            Kind::View => match self.weight() {
                0 => Message::Prepare { view: self.sequence()? },
                weight @ 1..=4 => Message::Commit(Commit {
                    view: self.sequence()?,
                    round: self.clock()?,
                    donor: PeerId(self.shard()),
                    last: (weight - 1) & 1 != 0,
                    returns: (weight - 1) & 2 != 0,
                }),
                got => return Err(self.error("weight", "at most 4", got.into())),
            },
            Kind::State => self.state(length)?,
        })
    }

    fn push(&mut self, length: u32) -> Result<Push, WireError> {
        let rider = self.riding("clock", self.rest.clock)?;
        let weight = match core::mem::take(&mut self.rest.clock) {
            clock @ RIDES.. => clock & u64::from(u32::MAX),
            clock => self.examples("clock", clock)?,
        };
        Ok(Push {
            shard: ShardId(self.shard()),
            worker: self.origin(),
            incarnation: self.incarnation(),
            sequence: self.sequence()?,
            base: self.base()?,
            rider,
            weight,
            repeats: weight > 0 && length == 0,
            fetches: self.rest.weight & 1 == 0,
            step_time: StepTime::from_wire(self.weight() >> 1),
        })
    }

    fn reply(&mut self) -> Result<Reply, WireError> {
        let magnitude = self.riding("sequence", self.rest.sequence)?;
        if magnitude.is_some() {
            self.rest.sequence &= u64::from(u32::MAX);
        }
        Ok(Reply {
            shard: ShardId(self.shard()),
            magnitude,
            sequence: self.sequence()?,
            row: self.clock()?,
            version: self.base()?,
            occasion: match self.weight() {
                0 => Occasion::Answer { reference: None },
                1 => Occasion::Final,
                REFERENCE => return Err(self.error("weight", "a time above 0", REFERENCE.into())),
                weight @ REFERENCE.. => Occasion::Answer { reference: StepTime::from_wire(weight - REFERENCE) },
                weight => Occasion::Welcome { lead: weight - WELCOME },
            },
        })
    }

    fn part(&mut self, length: u32) -> Result<Part, WireError> {
        let bits = self.weight();
        let part = Part {
            view: self.sequence()?,
            round: self.clock()?,
            chunk: self.shard(),
            finishing: bits & 1 != 0,
            rider: self.rider("weight", bits >> 1)?,
            weight: {
                let got = core::mem::take(&mut self.rest.base);
                self.examples("base", got)?
            },
        };
        if (part.weight > 0) != (length > 0) {
            return Err(self.error("length", "a body if and only if the weight is above 0", length.into()));
        }
        if part.rider.is_some() && part.weight == 0 {
            return Err(self.error("weight", "0 or 1 without examples", bits.into()));
        }
        Ok(part)
    }

    fn quanta(&mut self) -> Result<Quanta, WireError> {
        let quanta = Quanta {
            origin: self.origin(),
            incarnation: self.incarnation(),
            first: Sequence(self.clock()?.0),
            last: self.sequence()?,
            base: self.base()?,
        };
        if quanta.last < quanta.first {
            return Err(self.error("sequence", "at least the clock", quanta.last.0));
        }
        Ok(quanta)
    }

    fn ack(&mut self) -> Result<Message, WireError> {
        let (origin, incarnation) = (self.origin(), self.incarnation());
        match self.weight() {
            0 => Ok(Message::QuantaAck(Ack { origin, incarnation, last: self.sequence()? })),
            1 => Ok(Message::StreamEnd { origin, incarnation, last: self.sequence()? }),
            RECEIPT => {
                let bits = core::mem::take(&mut self.rest.base);
                let small = u32::try_from(bits).map_err(|_| self.error("base", "a number, or 0", bits))?;
                let magnitude = self.rider("base", small)?;
                Ok(Message::Receipt { shard: ShardId(self.shard()), sequence: self.sequence()?, magnitude })
            }
            got => Err(self.error("weight", "at most 2", got.into())),
        }
    }

    fn mark(&mut self) -> Result<Message, WireError> {
        let view = Sequence(self.base()?.0);
        if self.flag()? {
            return Ok(Message::Have { view, last: self.sequence()? });
        }
        Ok(Message::SnapshotMark(SnapshotMark {
            view,
            origin: self.origin(),
            incarnation: self.incarnation(),
            sequence: self.sequence()?,
            last: self.clock()?.0.checked_sub(1).map(Sequence),
        }))
    }

    fn moments(&mut self) -> Result<Message, WireError> {
        let all = [Clock(self.sequence()?.0), self.clock()?, self.base()?];
        let moments = Moments::new(all);
        // One list has one form: falling, and zeros last.
        let falls = |pair: &[Clock]| pair[0] > pair[1] || pair[1] == Clock(0);
        match all.windows(2).find(|pair| !falls(pair)) {
            Some(pair) => Err(self.error("clock", "less than the moment before", pair[1].0)),
            None => Ok(Message::Moments(moments)),
        }
    }

    fn report(&mut self) -> Result<Report, WireError> {
        let bits = self.weight();
        if bits > (HAS | LEAVES | LAST | BROKEN | TOLD) {
            return Err(self.error("weight", "at most 31", bits.into()));
        }
        Ok(Report {
            view: self.sequence()?,
            entered: Sequence(self.base()?.0),
            members: self.shard(),
            round: self.clock()?,
            has: bits & HAS != 0,
            leaves: bits & LEAVES != 0,
            last: bits & LAST != 0,
            broken: bits & BROKEN != 0,
            told: bits & TOLD != 0,
        })
    }

    /// A donor's parameters have weight 0 and a body; a worker's offer has weight 1 and a body, or neither.
    fn state(&mut self, length: u32) -> Result<Message, WireError> {
        let whole = self.flag()?;
        if !whole && length > 0 {
            let (view, round, vector) = (self.sequence()?, self.clock()?, self.shard());
            let bits = core::mem::take(&mut self.rest.base);
            let [first, last] = [bits >> 32, bits].map(|bits| self.rider("base", bits as u32));
            let riders = match (first?, last?) {
                (None, None) => None,
                (Some(first), Some(last)) => Some([first, last]),
                _ => return Err(self.error("base", "two numbers, or 0", bits)),
            };
            return Ok(Message::Parameters { view, round, vector, riders });
        }
        if whole && length == 0 {
            return Err(self.error("weight", "0 without a body", 1));
        }
        let (shard, sequence) = (ShardId(self.shard()), self.sequence()?);
        Ok(Message::Offer(Offer { shard, sequence, row: self.clock()?, version: self.base()?, whole }))
    }

    // Fields

    fn origin(&mut self) -> PeerId {
        PeerId(core::mem::take(&mut self.rest.origin))
    }

    fn incarnation(&mut self) -> Incarnation {
        Incarnation(core::mem::take(&mut self.rest.incarnation))
    }

    fn shard(&mut self) -> u32 {
        core::mem::take(&mut self.rest.shard)
    }

    fn weight(&mut self) -> u32 {
        core::mem::take(&mut self.rest.weight)
    }

    fn sequence(&mut self) -> Result<Sequence, WireError> {
        let got = core::mem::take(&mut self.rest.sequence);
        self.count("sequence", got).map(Sequence)
    }

    fn clock(&mut self) -> Result<Clock, WireError> {
        let got = core::mem::take(&mut self.rest.clock);
        self.count("clock", got).map(Clock)
    }

    fn base(&mut self) -> Result<Clock, WireError> {
        let got = core::mem::take(&mut self.rest.base);
        self.count("base", got).map(Clock)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.weight() {
            weight @ (0 | 1) => Ok(weight == 1),
            got => Err(self.error("weight", "0 or 1", got.into())),
        }
    }

    fn base_flag(&mut self) -> Result<bool, WireError> {
        match core::mem::take(&mut self.rest.base) {
            base @ (0 | 1) => Ok(base == 1),
            got => Err(self.error("base", "0 or 1", got)),
        }
    }

    fn rider(&self, field: &'static str, bits: u32) -> Result<Option<Rider>, WireError> {
        Rider::from_wire(bits).map_err(|()| self.error(field, "a positive finite float", bits.into()))
    }

    /// The number in the upper half of a field whose highest bit says that there is one.
    fn riding(&self, field: &'static str, got: u64) -> Result<Option<Rider>, WireError> {
        if got < RIDES {
            return Ok(None);
        }
        let rider = self.rider(field, ((got - RIDES) >> 32) as u32)?;
        rider.map(Some).ok_or_else(|| self.error(field, "a number above 0", got))
    }

    fn examples(&self, field: &'static str, got: u64) -> Result<u64, WireError> {
        if got <= WEIGHT_MAX { Ok(got) } else { Err(self.error(field, "at most 2^60 - 1", got)) }
    }

    fn count(&self, field: &'static str, got: u64) -> Result<u64, WireError> {
        if got <= COUNT_MAX { Ok(got) } else { Err(self.error(field, "at most 2^62 - 1", got)) }
    }

    /// Every field but the sender's has been taken, or is 0.
    fn end(&self) -> Result<(), WireError> {
        let rest = &self.rest;
        let unused = [
            ("shard", u64::from(rest.shard)),
            ("weight", u64::from(rest.weight)),
            ("sequence", rest.sequence),
            ("clock", rest.clock),
            ("base", rest.base),
        ];
        match unused.into_iter().find(|(_, got)| *got != 0) {
            Some((field, got)) => Err(self.error(field, "0", got)),
            None => Ok(()),
        }
    }

    fn error(&self, field: &'static str, expected: &'static str, got: u64) -> WireError {
        WireError::Field { kind: self.kind, field, expected, got }
    }
}
