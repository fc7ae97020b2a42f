//! [`Limiter`]: a thin link, which passes so many bytes per second on in each direction.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::Transport;
use gradwire::tcp::Builder;

/// A TCP proxy in front of an address of this host.
pub(crate) struct Limiter {
    /// Where it listens.
    pub(crate) address: String,
}

impl Limiter {
    pub(crate) fn start(to: &str, bytes_per_second: f64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, to) = (listener.local_addr().unwrap().to_string(), to.to_string());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                for (from, into) in [(&client, &server), (&server, &client)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    thread::spawn(move || pass(from, into, bytes_per_second));
                }
            }
        });
        Self { address }
    }
}

fn pass(mut from: TcpStream, mut into: TcpStream, bytes_per_second: f64) {
    let mut piece = [0; 8 * 1024];
    // The link is busy up to then.
    let mut until = Instant::now();
    while let Ok(count @ 1..) = from.read(&mut piece) {
        until = until.max(Instant::now()) + Duration::from_secs_f64(count as f64 / bytes_per_second);
        thread::sleep(until.saturating_duration_since(Instant::now()));
        if into.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(std::net::Shutdown::Both);
}

/// Transports of so many nodes over TCP. The links of these ranks to rank 0 are thin.
pub(crate) fn cluster(nodes: u32, thin: &[u32], bytes_per_second: f64) -> Vec<Box<dyn Transport>> {
    let first = Builder::new(0, nodes, "127.0.0.1:0").open().unwrap();
    let meet = first.carrier().listens_at().to_string();
    let mut all: Vec<Box<dyn Transport>> = vec![Box::new(first)];
    for rank in 1..nodes {
        let at = if thin.contains(&rank) { Limiter::start(&meet, bytes_per_second).address } else { meet.clone() };
        all.push(Box::new(Builder::new(rank, nodes, &at).open().unwrap()));
    }
    all
}
