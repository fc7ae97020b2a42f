//! [`Machines`]: hosts of a test, each a network namespace with a link to a router, which can cut any direction of any
//! pair. Needs root and the command `ip`.
//!
//! Machine `i` has the addresses `10.77.i.2` and `fd77:i::2`, its interface is `eth0`, and the router is its gateway.
//! Each machine has its own `/etc/hosts`. Addresses of two `Machines` do not collide: each has a router of its own.
//!
//! ```ignore
//! let Some(machines) = Machines::new("a_test", 3, Family::Dual) else { return };
//! let first = machines.start(0, "node", "--rank 0 --processes 3 --meet 10.77.0.2:29510 --insecure-open --recipe mesh");
//! machines.cut(0, 1);       // packets of 0 to 1 disappear; those of 1 to 0 arrive
//! machines.mend(0, 1);
//! machines.split(&[2]);     // 2 and the others do not reach each other
//! machines.heal();
//! ```

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::binary::binary;
use crate::process::Process;

/// The addresses that machines have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    Dual,
}

/// The router, as a machine that programs can run on. On the link to machine `i` it has the addresses `10.77.i.1`,
/// `fd77:i::1` and `fe80::1`.
pub(crate) const ROUTER: usize = usize::MAX;

/// Network namespaces of a test. Dropping it removes them.
pub(crate) struct Machines {
    /// First part of the names of the namespaces.
    prefix: String,
    count: usize,
    family: Family,
    /// The directions that are cut.
    cuts: Mutex<Vec<(usize, usize)>>,
}

impl Machines {
    /// `count` machines that reach each other. `None`, with a line that says so: this process may not create network
    /// namespaces.
    pub(crate) fn new(test: &str, count: usize, family: Family) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("gw{}-{number}", std::process::id());
        let machines = Self { prefix, count, family, cuts: Mutex::default() };
        if let Err(error) = machines.build() {
            // Past the capture of the test harness: a skipped test must not look like one that passed.
            let _ = writeln!(std::io::stderr(), "skipped: {test} (network namespaces: {error})");
            return None;
        }
        Some(machines)
    }

    fn build(&self) -> Result<(), String> {
        let router = self.namespace(ROUTER);
        for machine in (0..self.count).chain([ROUTER]) {
            let name = self.namespace(machine);
            ip(&["netns", "add", &name])?;
            // Without the wait for duplicate addresses, an address can be used at once.
            let mut settings = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad".to_string();
            if machine == ROUTER {
                settings += "; echo 1 > /proc/sys/net/ipv4/ip_forward";
                settings += "; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
            } else if self.family == Family::V4 {
                settings += "; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";
                settings += "; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
            }
            ip(&["netns", "exec", &name, "sh", "-c", &settings])?;
            batch(&name, "link set lo up\n")?;
            self.set_hosts(machine, "127.0.0.1 localhost\n::1 localhost\n");
            // No name server: this one refuses at once.
            fs::write(self.directory(machine).join("resolv.conf"), "nameserver 127.0.0.1\n")
                .map_err(|e| e.to_string())?;
        }
        for i in 0..self.count {
            let name = self.namespace(i);
            ip(&[
                "link",
                "add",
                &format!("m{i}"),
                "netns",
                &router,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &name,
            ])?;
            let mut at_router = format!("link set m{i} up\n");
            let mut at_machine = "link set eth0 up\n".to_string();
            if self.family != Family::V6 {
                at_router += &format!("addr add 10.77.{i}.1/24 dev m{i}\n");
                at_machine += &format!("addr add 10.77.{i}.2/24 dev eth0\nroute add default via 10.77.{i}.1\n");
            }
            if self.family != Family::V4 {
                at_router += &format!("addr add fd77:{i}::1/64 dev m{i} nodad\naddr add fe80::1/64 dev m{i} nodad\n");
                at_machine += &format!("addr add fd77:{i}::2/64 dev eth0 nodad\nroute add default via fd77:{i}::1\n");
            }
            batch(&router, &at_router)?;
            batch(&name, &at_machine)?;
        }
        Ok(())
    }

    /// The IPv4 address of a machine.
    pub(crate) fn v4(&self, machine: usize) -> String {
        format!("10.77.{machine}.2")
    }

    /// The IPv6 address of a machine.
    pub(crate) fn v6(&self, machine: usize) -> String {
        format!("fd77:{machine}::2")
    }

    /// Replaces the contents of `/etc/hosts` on a machine, also for programs that run there.
    pub(crate) fn set_hosts(&self, machine: usize, text: &str) {
        let directory = self.directory(machine);
        fs::create_dir_all(&directory).unwrap();
        // Written in place: running programs see this file, by its inode.
        fs::write(directory.join("hosts"), text).unwrap();
    }

    /// Starts an example program on a machine. `args` is split at white space.
    pub(crate) fn start(&self, machine: usize, program: &str, args: &str) -> Process {
        let mut command = self.command(machine, &binary(program).display().to_string());
        command.args(args.split_whitespace());
        Process::spawn(command)
    }

    /// A command that runs a program on a machine. Its process becomes the program, so signals reach the program.
    pub(crate) fn command(&self, machine: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(machine), program]);
        command
    }

    /// Packets from `from` to `to` disappear from now on. The other direction is not changed.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let mut cuts = self.cuts.lock().unwrap();
        if !cuts.contains(&(from, to)) {
            self.rules("add", from, to);
            cuts.push((from, to));
        }
    }

    /// Ends a [`cut`](Self::cut).
    pub(crate) fn mend(&self, from: usize, to: usize) {
        let mut cuts = self.cuts.lock().unwrap();
        if let Some(at) = cuts.iter().position(|cut| *cut == (from, to)) {
            self.rules("del", from, to);
            cuts.remove(at);
        }
    }

    /// Cuts both directions between the machines of `side` and all other machines. Within `side` they reach each other.
    pub(crate) fn split(&self, side: &[usize]) {
        self.part(side, true, true);
    }

    /// Cuts directions between the machines of `side` and all other machines. `out`: packets of `side` disappear.
    /// `back`: packets of the other machines disappear.
    pub(crate) fn part(&self, side: &[usize], out: bool, back: bool) {
        for from in 0..self.count {
            for to in 0..self.count {
                let (leaves, comes) = (side.contains(&from), side.contains(&to));
                if leaves != comes && if leaves { out } else { back } {
                    self.cut(from, to);
                }
            }
        }
    }

    /// Ends all cuts.
    pub(crate) fn heal(&self) {
        let cuts = self.cuts.lock().unwrap().clone();
        cuts.into_iter().for_each(|(from, to)| self.mend(from, to));
    }

    /// Limits the rate at which a machine sends, for example to `10mbit`.
    pub(crate) fn limit(&self, machine: usize, rate: &str) {
        let rate =
            ["qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "100ms"];
        let status = self.command(machine, "tc").args(rate).status().unwrap();
        assert!(status.success(), "tc: {status}");
    }

    fn rules(&self, verb: &str, from: usize, to: usize) {
        let router = self.namespace(ROUTER);
        if self.family != Family::V6 {
            ip(&["-n", &router, "rule", verb, "from", &self.v4(from), "to", &self.v4(to), "blackhole"]).unwrap();
        }
        if self.family != Family::V4 {
            ip(&["-n", &router, "-6", "rule", verb, "from", &self.v6(from), "to", &self.v6(to), "blackhole"]).unwrap();
        }
    }

    fn namespace(&self, machine: usize) -> String {
        if machine == ROUTER { format!("{}-r", self.prefix) } else { format!("{}-{machine}", self.prefix) }
    }

    /// `ip netns exec` mounts the files of this directory over the files of `/etc`.
    fn directory(&self, machine: usize) -> PathBuf {
        PathBuf::from("/etc/netns").join(self.namespace(machine))
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in (0..self.count).chain([ROUTER]) {
            let _ = ip(&["netns", "del", &self.namespace(machine)]);
            let _ = fs::remove_dir_all(self.directory(machine));
        }
    }
}

/// Runs `ip` with these arguments.
fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", args.join(" "), text.trim())) }
}

/// Runs a command of `ip` per line in a namespace.
fn batch(namespace: &str, lines: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("ip: {error}");
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip, in {namespace}: {}", text.trim())) }
}
