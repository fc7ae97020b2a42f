//! [`Runs`]: the runs of a call, of which the screen shows one. All are followed at the same time.

use std::io;
use std::time::{Duration, Instant};

use gradwire::monitor::{MonitorKey, announced};

use crate::app::{App, RunLine};
use crate::feed::{Feed, Source};
use crate::health::Health;
use crate::model::Model;
use crate::source;

/// Time between two looks for new runs of this host.
const LOOK: Duration = Duration::from_secs(1);
/// Updates per second.
const RATE: u8 = 10;

/// A run, and the reason why its source has no connection.
pub(crate) struct Entry {
    pub(crate) label: String,
    pub(crate) feed: Feed,
    pub(crate) disconnected: Option<String>,
}

impl Entry {
    /// Takes the frames that have come, or waits for the first one.
    ///
    /// # Errors
    /// When the recording cannot be written.
    pub(crate) fn update(&mut self, app: &mut App, wait: Duration) -> io::Result<()> {
        // The app shows the connection of the run that is updated, and of the chosen one after that.
        std::mem::swap(&mut app.disconnected, &mut self.disconnected);
        let result = self.feed.update(app, wait);
        std::mem::swap(&mut app.disconnected, &mut self.disconnected);
        result
    }
}

/// The runs in the order of their addresses on the command line, or in the order in which they were found.
pub(crate) struct Runs {
    all: Vec<Entry>,
    /// For a screen without a run.
    empty: Model,
    /// The key for runs that are found, and when they were last looked for. `None`: the command line names the runs.
    finding: Option<(Option<MonitorKey>, Instant)>,
}

impl Runs {
    /// A single run.
    pub(crate) fn of(label: String, feed: Feed) -> Self {
        Self { all: vec![Entry { label, feed, disconnected: None }], empty: Model::default(), finding: None }
    }

    /// Runs that are followed by these addresses.
    pub(crate) fn at(addresses: &[String], key: Option<MonitorKey>) -> Self {
        let all = addresses.iter().map(|address| entry(address, key)).collect();
        Self { all, empty: Model::default(), finding: None }
    }

    /// The runs of this host that have announced themselves. While the screen is shown, later ones are added.
    ///
    /// # Errors
    /// If the directory of the announcements cannot be used.
    pub(crate) fn of_host(key: Option<MonitorKey>) -> io::Result<Self> {
        let addresses: Vec<String> = announced()?.iter().map(|run| run.address.to_string()).collect();
        Ok(Self { finding: Some((key, Instant::now())), ..Self::at(&addresses, key) })
    }

    pub(crate) fn entries(&mut self) -> &mut [Entry] {
        &mut self.all
    }

    /// The addresses of all runs.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.all.iter().map(|entry| entry.label.clone()).collect()
    }

    /// The state of the run that the app shows.
    pub(crate) fn model(&self, app: &App) -> &Model {
        self.all.get(app.run).map_or(&self.empty, |entry| &entry.feed.model)
    }

    /// Brings all runs up to date, and the app's list of them.
    ///
    /// # Errors
    /// When the recording cannot be written.
    pub(crate) fn update(&mut self, app: &mut App) -> io::Result<()> {
        self.find(app);
        for entry in &mut self.all {
            entry.update(app, Duration::ZERO)?;
        }
        app.disconnected = self.all.get(app.run).and_then(|entry| entry.disconnected.clone());
        app.runs = self.all.iter().map(line).collect();
        Ok(())
    }

    /// Adds runs that have announced themselves since the last look.
    fn find(&mut self, app: &mut App) {
        let Some((key, looked)) = &mut self.finding else { return };
        if looked.elapsed() < LOOK {
            return;
        }
        *looked = Instant::now();
        let key = *key;
        for run in announced().unwrap_or_default() {
            let label = run.address.to_string();
            if self.all.iter().all(|entry| entry.label != label) {
                self.all.push(entry(&label, key));
                // The first run is shown at once.
                if self.all.len() == 1 {
                    app.choosing = None;
                }
            }
        }
    }
}

fn entry(address: &str, key: Option<MonitorKey>) -> Entry {
    let source = Source::Live(source::connect(address.to_string(), RATE, key));
    Entry { label: address.to_string(), feed: Feed::new(source, None), disconnected: None }
}

fn line(entry: &Entry) -> RunLine {
    let model = &entry.feed.model;
    let here = model.nodes.keys().filter(|rank| !model.has_left(**rank)).count();
    RunLine {
        label: entry.label.clone(),
        health: Health::of(model),
        connected: entry.disconnected.is_none(),
        nodes: (here, model.run.workers + model.run.servers),
        recipe: model.recipe.clone(),
    }
}
