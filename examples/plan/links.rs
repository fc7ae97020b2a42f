//! `--measure --to HOST:PORT`: latency and bandwidth of the link to another machine, where `plan --answer` runs.
//!
//! A question is 16 bytes: [`MAGIC`], a number of bytes, and the way that they take. `UP`: they follow the question, and the
//! answer is one byte. `DOWN`: they are the answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// A link as measured.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Seconds of a message without its bytes, one way.
    pub(crate) latency: f64,
    /// Bytes per second.
    pub(crate) up: f64,
    pub(crate) down: f64,
}

const MAGIC: [u8; 4] = *b"GWPL";
const UP: u32 = 0;
const DOWN: u32 = 1;
const QUESTION: usize = 16;
/// The most bytes of a question.
const BYTES_MAX: u64 = 64 << 20;
/// The longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time of the measurement of one size in one way, and its fewest repetitions.
const TIME: Duration = Duration::from_millis(700);
const REPEATS: usize = 3;
/// Bytes that are written or read at once.
const PIECE: usize = 256 << 10;

/// Measures the link to the machine at `to`, with messages of 64 KiB, 1 MiB, and `bytes` (of at most 64 MiB). `tell` gets a
/// line for each size. The result has the bandwidths of the size nearest to `bytes`.
///
/// # Errors
/// If the other side cannot be reached, does not answer within 10 s, or is another program.
pub(crate) fn measure(to: &str, bytes: u64, mut tell: impl FnMut(&str)) -> io::Result<Measured> {
    let mut stream = connect(to)?;
    let mut piece = vec![0; PIECE];
    let round_trip = median(|| ask(&mut stream, UP, 0, &mut piece))?;
    tell(&format!("to {to}: {:.0} us one way", 1e6 * round_trip / 2.0));
    let last = bytes.clamp(1, BYTES_MAX);
    let mut measured = Measured { latency: round_trip / 2.0, up: 0.0, down: 0.0 };
    for size in [64 << 10, 1 << 20].into_iter().filter(|size| *size < last).chain([last]) {
        let mut rate = |way| {
            let seconds = median(|| ask(&mut stream, way, size, &mut piece))?;
            // A message takes its latency beside its bytes, and the question or the answer takes another.
            io::Result::Ok(size as f64 / (seconds - round_trip).max(0.1 * seconds))
        };
        (measured.up, measured.down) = (rate(UP)?, rate(DOWN)?);
        let (up, down) = (measured.up / 1e6, measured.down / 1e6);
        tell(&format!("to {to}: {:.2} MB in one message: {up:.1} MB/s up, {down:.1} MB/s down", size as f64 / 1e6));
    }
    Ok(measured)
}

fn connect(to: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in to.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return prepared(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The median time of a call in seconds.
fn median(mut call: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    // The first call opens the window of the connection.
    call()?;
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < REPEATS || begun.elapsed() < TIME {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Asks one question, and waits for its answer.
fn ask(stream: &mut TcpStream, way: u32, bytes: u64, piece: &mut [u8]) -> io::Result<()> {
    let mut question = [0; QUESTION];
    question[..4].copy_from_slice(&MAGIC);
    question[4..8].copy_from_slice(&way.to_le_bytes());
    question[8..].copy_from_slice(&bytes.to_le_bytes());
    stream.write_all(&question)?;
    if way == UP {
        send(stream, bytes, piece)?;
        stream.read_exact(&mut [0])
    } else {
        receive(stream, bytes, piece)
    }
}

fn send(stream: &mut TcpStream, mut bytes: u64, piece: &[u8]) -> io::Result<()> {
    while bytes > 0 {
        let most = bytes.min(piece.len() as u64);
        stream.write_all(&piece[..most as usize])?;
        bytes -= most;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, mut bytes: u64, piece: &mut [u8]) -> io::Result<()> {
    while bytes > 0 {
        let most = bytes.min(piece.len() as u64);
        match stream.read(&mut piece[..most as usize])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes -= read as u64,
        }
    }
    Ok(())
}

/// Answers questions at an address, one machine after the other, until the process ends. `tell` gets a line when it
/// listens, and one per machine.
///
/// # Errors
/// If the system refuses to listen there.
pub(crate) fn answer(at: &str, mut tell: impl FnMut(&str)) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    tell(&format!("answering at {}; end it with Ctrl-C", listener.local_addr()?));
    let mut piece = vec![0; PIECE];
    loop {
        // An error concerns one connection, or lasts a while: the others are answered.
        let Ok((stream, peer)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        match prepared(stream).and_then(|stream| answer_one(stream, &mut piece)) {
            Ok(()) => tell(&format!("{peer} has measured the link to this machine")),
            Err(error) => tell(&turned_away(peer, &error)),
        }
    }
}

fn turned_away(peer: SocketAddr, error: &io::Error) -> String {
    format!("the measurement of {peer} has ended early: {error}")
}

/// Answers all questions of one machine.
fn answer_one(mut stream: TcpStream, piece: &mut [u8]) -> io::Result<()> {
    let mut question = [0; QUESTION];
    loop {
        let first = stream.read(&mut question)?;
        if first == 0 {
            return Ok(());
        }
        stream.read_exact(&mut question[first..])?;
        let (magic, rest) = question.split_at(4);
        let (way, bytes) = rest.split_at(4);
        let way = u32::from_le_bytes(way.try_into().unwrap_or_default());
        let bytes = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        if magic != MAGIC || way > DOWN || bytes > BYTES_MAX {
            let _ = stream.shutdown(Shutdown::Both);
            return Err(io::Error::new(io::ErrorKind::InvalidData, "expected a question of plan --measure"));
        }
        if way == UP {
            receive(&mut stream, bytes, piece)?;
            stream.write_all(&[0])?;
        } else {
            send(&mut stream, bytes, piece)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_measured_and_strangers_are_turned_away() {
        let (told, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || answer("127.0.0.1:0", |line| told.send(line.to_string()).unwrap()));
        let line = || lines.recv_timeout(PATIENCE).unwrap();
        let said = line();
        let at = said.strip_prefix("answering at ").unwrap().split(';').next().unwrap();
        for bad in [*b"GET / HTTP/1.1\r\n", *b"GWPL\0\0\0\0\0\0\0\0\0\0\0\xff", *b"GWPL\x02\0\0\0\0\0\0\0\0\0\0\0"] {
            let mut stranger = TcpStream::connect(at).unwrap();
            stranger.write_all(&bad).unwrap();
            assert_eq!(stranger.read_to_end(&mut Vec::new()).unwrap(), 0);
            assert!(line().ends_with("expected a question of plan --measure"));
        }
        let mut sizes = 0;
        let Measured { latency, up, down } = measure(at, 3_000_000, |_| sizes += 1).unwrap();
        assert!(sizes == 4 && latency > 0.0 && latency < 0.1 && up > 1e6 && down > 1e6, "{latency} {up} {down}");
        assert!(line().ends_with("has measured the link to this machine"));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(measure(&closed.to_string(), 1, |_| {}).is_err());
    }
}
