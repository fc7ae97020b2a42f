//! Child processes of one run: [`Children`] starts them with rank and address in their environment, passes on their
//! output, restarts and stops them.
//!
//! The children belong to the supervisor: each has a session of its own, which ends with the child's rank, with the run,
//! and with the supervisor, also if the supervisor is killed ([`guardian`]).

mod deaths;
mod guardian;
mod monitor;
mod output;
mod port;
mod session;
mod signals;
mod spawn;

use std::ffi::OsString;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::RunId;
use rustix::process::{Pid, Signal};

use deaths::Deaths;
pub use deaths::Exit;
use guardian::Guardian;
pub use guardian::run_if_guardian;
pub use monitor::with_ports;
use output::{LastWords, Queue};
pub use port::Port;
use session::Mark;
use signals::{Received, Signals};
pub use signals::{is_ignored, name};

/// A line of a child's output, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub rank: u32,
    /// A line of stderr, or a message about the process; else a line of stdout.
    pub stderr: bool,
    /// The bytes that the child has printed, whether they are text or not.
    pub bytes: Vec<u8>,
}

/// The processes to start.
pub struct Plan {
    pub program: OsString,
    pub args: Vec<OsString>,
    pub count: u32,
    /// How often the process of a rank is started again after a failure.
    pub restarts: u32,
    /// The other processes go on when one has failed for good. Otherwise they are stopped, unless a signal from outside
    /// has ended it: a run survives the loss of a process.
    pub keep_going: bool,
    /// An additional environment variable for the children.
    pub env: Option<(&'static str, &'static str)>,
}

/// The end of all processes.
#[derive(Debug)]
pub enum End {
    /// All processes have ended with code 0.
    Success,
    /// This process was the first to fail for good.
    Failed(Failure),
    /// A signal to the supervisor, by its number, has ended the run.
    Stopped(i32),
}

/// The failure of a process.
#[derive(Clone, Debug)]
pub struct Failure {
    pub rank: u32,
    pub exit: Exit,
    /// The last line that the process has written to stderr, shortened; empty if it has written no line.
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, exit, why } = self;
        let (colon, why) = if why.is_empty() { ("", "") } else { (": ", why.as_str()) };
        write!(f, "process {rank} failed first ({exit}){colon}{why}")
    }
}

/// The child processes of one run. Dropping it kills them.
pub struct Children {
    plan: Plan,
    /// The port of rank 0.
    port: Port,
    /// The processes, in order of rank.
    slots: Vec<Slot>,
    /// A name that no other launch has. A launcher around this one may have named the job already.
    job: String,
    /// The mark that the processes of this launch have in their environment.
    mark: Mark,
    signals: Signals,
    deaths: Deaths,
    queue: Arc<Queue>,
    /// The first failure in time.
    first: Option<(u32, Exit)>,
    /// Why and since when the run is being stopped.
    stopping: Option<Stopping>,
    /// Last, since it is to outlive the processes.
    guardian: Guardian,
}

/// A run that is being stopped.
struct Stopping {
    /// The number of the signal to the supervisor; `None`: a process has failed.
    signal: Option<i32>,
    /// When to kill the processes that are still running; `None`: they have been killed.
    kill_at: Option<Instant>,
}

/// A rank, and the process that has it.
struct Slot {
    /// The process, running or ended; `None`: no process is there, and the number of the last one may belong to another
    /// process.
    child: Option<Child>,
    /// The end of the process.
    exit: Option<Exit>,
    /// Reports the end of the process to [`Deaths`].
    handle: Option<OwnedFd>,
    last_words: LastWords,
    restarts: u32,
    /// When to start the next process.
    restart_at: Option<Instant>,
}

impl Slot {
    fn is_running(&self) -> bool {
        self.child.is_some() && self.exit.is_none()
    }

    fn process(&self) -> Option<Pid> {
        self.child.as_ref().map(Pid::from_child)
    }
}

/// Time between a signal and SIGKILL: long enough to suspend a run.
const GRACE: Duration = Duration::from_secs(10);
/// The same after a failure: the other processes cannot do much without the failed one.
const GRACE_AFTER_FAILURE: Duration = Duration::from_secs(3);
/// The pause before a restart keeps a process that fails at once from being started in a busy loop.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Time for the rest of the output after all processes have ended: a process that they have started may hold a pipe.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);
/// The longest time until a signal or a restart is noticed.
const TICK: Duration = Duration::from_millis(20);

impl Children {
    /// Starts the processes. Signals to this process are theirs from here on. Call it on the main thread, and after
    /// [`run_if_guardian`].
    ///
    /// # Errors
    /// If a process cannot be started, the other processes are killed.
    pub fn start(plan: Plan) -> std::io::Result<Self> {
        let mark = Mark::new();
        let drawn = || RunId::drawn(RandomState::new().build_hasher().finish()).to_string();
        let mut children = Self {
            port: Port::reserve()?,
            slots: Vec::new(),
            signals: Signals::catch()?,
            deaths: Deaths::new()?,
            queue: Arc::default(),
            first: None,
            stopping: None,
            guardian: Guardian::start(&mark)?,
            job: std::env::var("GRADWIRE_JOB").unwrap_or_else(|_| drawn()),
            mark,
            plan,
        };
        for rank in 0..children.plan.count {
            let restarts = children.plan.restarts;
            let last_words = LastWords::default();
            let slot = Slot { child: None, exit: None, handle: None, last_words, restarts, restart_at: None };
            children.slots.push(slot);
            children.spawn(rank)?;
        }
        Ok(children)
    }

    /// Starts the process of a rank, and two threads that read its output.
    fn spawn(&mut self, rank: u32) -> std::io::Result<()> {
        let mut command = Command::new(&self.plan.program);
        command
            .args(&self.plan.args)
            .env("GRADWIRE_RANK", rank.to_string())
            .env("GRADWIRE_PROCESSES", self.plan.count.to_string())
            .env("GRADWIRE_LOCAL_RANK", rank.to_string())
            .env("GRADWIRE_MEET", self.port.address().to_string())
            .env("GRADWIRE_JOB", &self.job)
            .env(session::MARK, self.mark.of_rank(rank).text())
            .envs(self.plan.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn::spawn(command, self.guardian.link()?)?;
        let slot = &mut self.slots[rank as usize];
        slot.last_words.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(out) = child.stdout.take() {
            self.queue.read(out, move |bytes| Line { rank, stderr: false, bytes }, None);
        }
        if let Some(err) = child.stderr.take() {
            let last_words = Some(Arc::clone(&slot.last_words));
            self.queue.read(err, move |bytes| Line { rank, stderr: true, bytes }, last_words);
        }
        slot.handle = self.deaths.watch(rank, Pid::from_child(&child));
        (slot.child, slot.exit) = (Some(child), None);
        Ok(())
    }

    /// Waits until all processes have ended, and passes each line of their output to `print`, on a thread of its own: a
    /// terminal that takes no output delays neither signals nor restarts.
    pub fn wait(mut self, mut print: impl FnMut(Line) + Send + 'static) -> End {
        let queue = Arc::clone(&self.queue);
        let printer = thread::spawn(move || std::iter::from_fn(|| queue.next()).for_each(&mut print));
        while self.slots.iter().any(|slot| slot.is_running() || slot.restart_at.is_some()) {
            self.turn();
        }
        self.queue.close();
        let mut until = Instant::now() + OUTPUT_GRACE;
        while self.queue.has_pipes() && Instant::now() < until {
            self.turn();
        }
        self.end_sessions(None);
        // A reader that takes no output holds this process up, as it would the children, but not after a signal.
        until = Instant::now() + OUTPUT_GRACE;
        while !printer.is_finished() {
            self.turn();
            let stopped = self.stopping.as_ref().is_some_and(|stopping| stopping.signal.is_some());
            if (stopped || self.queue.has_pipes()) && Instant::now() > until {
                break;
            }
        }
        let signal = self.stopping.as_ref().and_then(|stopping| stopping.signal);
        match (self.first, signal) {
            (Some((rank, exit)), _) => End::Failed(Failure { rank, exit, why: self.why(rank) }),
            (None, Some(signal)) => End::Stopped(signal),
            (None, None) => End::Success,
        }
    }

    /// Waits a little, then handles signals, ends of processes and deadlines.
    fn turn(&mut self) {
        let ended = self.deaths.next(TICK);
        let received: Vec<_> = self.signals.take().collect();
        received.into_iter().for_each(|received| self.on_signal(received));
        ended.into_iter().for_each(|rank| self.on_death(rank));
        // Processes that cannot be watched.
        for rank in 0..self.plan.count {
            if self.slots[rank as usize].handle.is_none() {
                self.on_death(rank);
            }
        }
        let now = Instant::now();
        if let Some(Stopping { kill_at: at @ Some(_), .. }) = &mut self.stopping
            && *at <= Some(now)
        {
            *at = None;
            self.kill();
        }
        for rank in 0..self.slots.len() {
            if self.slots[rank].restart_at.is_some_and(|at| at <= now) {
                self.restart(rank as u32);
            }
        }
    }

    fn on_signal(&mut self, received: Received) {
        match received {
            Received::Stop(signal) => match &mut self.stopping {
                // The end of a terminal and of a login sends SIGHUP, maybe twice, beside another signal.
                Some(_) if signal == Signal::HUP => {}
                Some(stopping) => stopping.kill_at = stopping.kill_at.map(|_| Instant::now()),
                None => self.stop(Some(signal)),
            },
            Received::Pass(signal) => session::signal(&self.running(), signal),
            Received::Suspend => {
                session::signal(&self.running(), Signal::STOP);
                // Goes on when this process goes on.
                let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
                session::signal(&self.running(), Signal::CONT);
            }
        }
    }

    /// Tells the processes to end: because of a signal to this process, or of a failure.
    fn stop(&mut self, signal: Option<Signal>) {
        let grace = if signal.is_some() { GRACE } else { GRACE_AFTER_FAILURE };
        let number = signal.map(Signal::as_raw);
        self.stopping = Some(Stopping { signal: number, kill_at: Some(Instant::now() + grace) });
        self.slots.iter_mut().for_each(|slot| slot.restart_at = None);
        let running = self.running();
        session::signal(&running, signal.unwrap_or(Signal::TERM));
        // A stopped process notices no other signal.
        session::signal(&running, Signal::CONT);
    }

    /// Kills all processes.
    fn kill(&mut self) {
        for (_, rank) in self.slots.iter().zip(0..).filter(|(slot, _)| slot.is_running()) {
            self.tell(rank, "did not end in time: killed");
        }
        session::kill(&self.running(), &self.mark);
    }

    /// Notes the end of the process of a rank, if it has ended. Decides about a restart, and about the other processes.
    fn on_death(&mut self, rank: u32) {
        let slot = &mut self.slots[rank as usize];
        let Some(process) = slot.process().filter(|_| slot.exit.is_none()) else { return };
        let Some(exit) = Exit::of(process) else { return };
        (slot.exit, slot.handle) = (Some(exit), None);
        if exit == Exit::Code(0) || self.stopping.is_some() {
            return;
        }
        if exit.has_left() {
            self.tell(rank, &format!("ended: {exit}, after a signal to it; the other processes go on"));
            self.end_sessions(Some(rank));
            return;
        }
        let restart = slot.restarts > 0;
        if restart {
            slot.restarts -= 1;
            slot.restart_at = Some(Instant::now() + RESTART_PAUSE);
        } else {
            self.first.get_or_insert((rank, exit));
        }
        let is_stop = !restart && !self.plan.keep_going && !exit.is_from_outside();
        let others = self.slots.iter().any(|slot| slot.is_running() || slot.restart_at.is_some());
        let what = match (restart, is_stop) {
            (true, _) => "; restarting",
            (_, true) if others => "; stopping the other processes",
            (_, false) if others => "; the other processes go on",
            _ => "",
        };
        self.tell(rank, &format!("ended: {exit}{what}"));
        self.end_sessions(Some(rank));
        if is_stop {
            self.stop(None);
        }
    }

    fn restart(&mut self, rank: u32) {
        self.slots[rank as usize].restart_at = None;
        if let Err(error) = self.spawn(rank) {
            self.tell(rank, &format!("cannot be restarted: {error}; stopping the other processes"));
            self.first.get_or_insert((rank, Exit::Code(1)));
            self.stop(None);
        }
    }

    /// Kills the remaining processes of a rank, or of all ranks, and forgets them.
    fn end_sessions(&mut self, only: Option<u32>) {
        let mark = only.map_or_else(|| self.mark.clone(), |rank| self.mark.of_rank(rank));
        let slots = self.slots.iter_mut().zip(0..).filter(|(_, rank)| only.is_none_or(|only| only == *rank));
        let mut ending: Vec<Child> = slots.filter_map(|(slot, _)| slot.child.take()).collect();
        session::kill(&ending.iter().map(Pid::from_child).collect::<Vec<_>>(), &mark);
        for child in &mut ending {
            // Its number stays its own until here.
            let _ = child.wait();
            self.guardian.release(Pid::from_child(child));
        }
    }

    /// The leaders of the sessions: running processes, and ended ones with successors that may be running.
    fn running(&self) -> Vec<Pid> {
        self.slots.iter().filter_map(Slot::process).collect()
    }

    fn tell(&self, rank: u32, text: &str) {
        self.queue.tell(Line { rank, stderr: true, bytes: text.as_bytes().to_vec() });
    }

    /// The last words of a rank.
    fn why(&self, rank: u32) -> String {
        let words = self.slots[rank as usize].last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = String::from_utf8_lossy(&words).chars().filter(|c| !c.is_control()).take(500).collect();
        text.trim().to_string()
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.end_sessions(None);
    }
}
