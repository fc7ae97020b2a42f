//! [`Screen`]: the terminal in raw mode, restored on every way out; and [`Signals`].
//!
//! | way out | how the terminal is restored |
//! |---|---|
//! | return, error | `Drop` of [`Screen`] |
//! | panic, of any thread | the panic hook, before the message is printed; the process ends with code 101 |
//! | SIGTERM, SIGHUP, SIGINT, SIGQUIT | a flag, which the loop of the screen looks at ten times a second |
//! | a terminal that is gone | a thread ends the process: a read from such a terminal does not return |
//! | SIGTSTP, Ctrl-Z | [`Screen::suspend`]; the screen is set up again after SIGCONT |

use std::io::{self, IsTerminal, Stdout, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;

/// Time between two looks at the signals and the terminal, and the time that the loop of the screen has to end by itself.
const LOOK: Duration = Duration::from_millis(200);
const GRACE: Duration = Duration::from_millis(800);

/// The terminal while dtop draws on it.
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<CrosstermBackend<Stdout>>,
    mouse: bool,
}

impl Screen {
    /// Sets the terminal up, and installs a panic hook that restores it. `mouse`: capture the mouse.
    ///
    /// # Errors
    /// If the terminal refuses. It is restored then.
    pub(crate) fn enter(mouse: bool) -> io::Result<Self> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            hook(panic);
            // The main thread would go on drawing after the panic of another one.
            std::process::exit(101);
        }));
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        let mut screen = Self { terminal, mouse };
        screen.set_up()?;
        Ok(screen)
    }

    fn set_up(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        if self.mouse {
            execute!(stdout(), EnableMouseCapture)?;
        }
        // Not `Terminal::clear`: it asks for the cursor's position, which not every terminal answers. A new terminal knows
        // nothing of the screen, so the next draw is a whole one.
        execute!(stdout(), Clear(ClearType::All))?;
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }

    /// Restores the terminal, stops the process as the terminal's own Ctrl-Z would, and sets the terminal up again when
    /// the process is continued.
    ///
    /// # Errors
    /// If the terminal refuses.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        leave();
        emulate_default_handler(SIGTSTP)?;
        self.set_up()
    }

    /// Sets the terminal up again after the process was stopped and continued from outside: the shell may have changed it.
    ///
    /// # Errors
    /// If the terminal refuses.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        // Crossterm takes the present mode for the one to restore, unless raw mode is off.
        let _ = disable_raw_mode();
        self.set_up()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Restores the terminal. Errors are ignored: the terminal may be gone.
fn leave() {
    let _ = execute!(stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// The signals that have come.
pub(crate) struct Signals {
    /// The number of the signal that ends the process; 0: no signal has come.
    end: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    go_on: Arc<AtomicBool>,
}

impl Signals {
    /// Installs handlers that set flags. The second signal of a kind ends the process at once.
    ///
    /// # Errors
    /// If the operating system does not install a handler.
    pub(crate) fn install() -> io::Result<Self> {
        let (end, stop, go_on) = (Arc::default(), Arc::default(), Arc::default());
        for signal in [SIGTERM, SIGHUP, SIGINT, SIGQUIT] {
            let again = Arc::new(AtomicBool::new(false));
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
            flag::register(signal, again)?;
            flag::register_usize(signal, Arc::clone(&end), signal as usize)?;
        }
        flag::register(SIGTSTP, Arc::clone(&stop))?;
        flag::register(SIGCONT, Arc::clone(&go_on))?;
        Ok(Self { end, stop, go_on })
    }

    /// Starts a thread that ends the process after a signal, or when the terminal is gone, if the loop of the screen
    /// cannot: crossterm reads from a terminal that is gone for ever.
    ///
    /// # Errors
    /// If the operating system starts no thread.
    pub(crate) fn guard(&self) -> io::Result<()> {
        let end = Arc::clone(&self.end);
        let guard = move || loop {
            thread::sleep(LOOK);
            let signal = match end.load(Ordering::Relaxed) {
                0 if stdout().is_terminal() => continue,
                0 => SIGHUP,
                signal => signal as i32,
            };
            thread::sleep(GRACE);
            leave();
            std::process::exit(128 + signal);
        };
        thread::Builder::new().name("terminal".to_string()).spawn(guard).map(drop)
    }

    /// The exit code for the signal that ends the process: 128 + its number.
    pub(crate) fn end(&self) -> Option<u8> {
        match self.end.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(128 + signal as u8),
        }
    }

    /// Whether the process has to stop for a while. Reset by the call.
    pub(crate) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Whether the process was continued. Reset by the call.
    pub(crate) fn take_go_on(&self) -> bool {
        self.go_on.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
