//! Asks which node, if any, listens at a port that this node wanted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use gradwire_stream::Refusal;
use gradwire_stream::parts::{PREAMBLE_LEN, Preamble};

/// How long an answer may take, in all.
const PATIENCE: Duration = Duration::from_millis(500);

/// A gradwire node that answers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Its rank. `None`: it tells its rank only to nodes with its key.
    pub rank: Option<u32>,
}

/// Whether a gradwire node listens at `address`. `None`: another program does, or it does not answer in time.
///
/// Sends a preamble without encryption, which every node answers with its own one, if only to refuse it. The other node
/// tells its user about it, as of a second process with its rank.
pub(crate) fn node_at(address: SocketAddr, question: &Preamble) -> Option<Listening> {
    let until = Instant::now() + PATIENCE;
    let target = match address {
        SocketAddr::V4(all) if all.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, all.port()).into(),
        SocketAddr::V6(all) if all.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, all.port()).into(),
        address => address,
    };
    // A program that listens at all IPv4 addresses stands in the way of a listener for both families.
    let other = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    let connect = |target| TcpStream::connect_timeout(&target, PATIENCE / 2);
    let mut stream =
        connect(target).or_else(|error| if target.is_ipv6() { connect(other) } else { Err(error) }).ok()?;
    stream.write_all(&question.emit()).ok()?;
    let mut answer = [0; PREAMBLE_LEN];
    let mut read = 0;
    while read < PREAMBLE_LEN {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut answer[read..]).ok()? {
            0 => return None,
            n => read += n,
        }
    }
    let answer = Preamble::parse(&answer).ok()?;
    let hidden = answer.refusal == Some(Refusal::Key);
    Some(Listening { rank: (!hidden).then_some(answer.rank) })
}
