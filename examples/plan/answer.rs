//! The answer: forecasts by number of workers, ranked; the best of all; break-even and sensitivity.

use gradwire::Recipe;
use gradwire::plan::{Case, Forecast, PlanError};
use gradwire::recipe::{Codec, Merge, Outer, Pace, Payload, Period};
use gradwire_examples::options::exit;

use super::input::Input;
use super::simulate::{Simulated, simulate};

/// Most workers that a break-even is looked for at.
const WORKERS_MAX: usize = 256;

pub(crate) struct Answer {
    /// By number of workers, as asked.
    pub(crate) groups: Vec<Group>,
    /// Of the case with the fastest row, at which break-even and sensitivity are computed: the index of its group.
    pub(crate) best: usize,
    pub(crate) breaks: Vec<Break>,
    pub(crate) variants: Vec<Variant>,
    /// The best rows of that group in the simulator, if it was asked.
    pub(crate) simulated: Vec<Simulated>,
}

/// The recipes for one number of workers.
pub(crate) struct Group {
    pub(crate) workers: usize,
    /// The fastest first.
    pub(crate) rows: Vec<Row>,
    /// Recipes that do not fit, with the reason.
    pub(crate) unfit: Vec<(usize, String)>,
}

pub(crate) struct Row {
    /// Index of the recipe.
    pub(crate) recipe: usize,
    pub(crate) forecast: Forecast,
    /// The speed-up, divided by the penalty.
    pub(crate) gain: f64,
    /// Seconds of an epoch.
    pub(crate) epoch: Option<f64>,
}

/// From when on a recipe is as fast as one worker.
pub(crate) struct Break {
    pub(crate) recipe: usize,
    /// The factor on the bandwidth. 0: at any; `None`: at none.
    pub(crate) bandwidth: Option<f64>,
    /// The fewest workers at this bandwidth, of equal speed.
    pub(crate) workers: Option<usize>,
}

/// The best recipe, if one thing were better.
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) recipe: usize,
    pub(crate) gain: f64,
    /// The speed-up of the recipe that is the best as things are.
    pub(crate) of_best: f64,
}

impl Answer {
    /// # Errors
    /// An exit code and a message, if no recipe fits any number of workers.
    pub(crate) fn of(input: &Input) -> Result<Self, (u8, String)> {
        let groups = input.cases.iter().map(|case| group(input, case)).collect::<Result<Vec<_>, _>>()?;
        let gain = |group: &Group| group.rows.first().map_or(0.0, |row| row.gain);
        // The fewest workers among equals.
        let best = (0..groups.len()).rev().max_by(|a, b| gain(&groups[*a]).total_cmp(&gain(&groups[*b]))).unwrap_or(0);
        let Some(first) = groups[best].rows.first() else {
            let reason = groups[best].unfit.first().map_or("no recipe", |(_, reason)| reason);
            return Err((exit::USAGE, format!("--recipe: {reason}")));
        };
        let (first, case) = (first.recipe, &input.cases[best]);
        let breaks = groups[best].rows.iter().map(|row| break_even(input, case, row.recipe)).collect();
        let variants =
            case.variants().into_iter().filter_map(|(name, case)| variant(input, first, name, &case)).collect();
        let simulated = if input.simulates { simulate(input, case, &groups[best]) } else { Vec::new() };
        Ok(Self { groups, best, breaks, variants, simulated })
    }

    /// The best row of all.
    pub(crate) fn first(&self) -> &Row {
        &self.groups[self.best].rows[0]
    }
}

fn group(input: &Input, case: &Case) -> Result<Group, (u8, String)> {
    let (mut rows, mut unfit) = (Vec::new(), Vec::new());
    for (at, (name, recipe)) in input.recipes.iter().enumerate() {
        match case.forecast(&placed(name, *recipe, case)) {
            Ok(forecast) => {
                let gain = forecast.speed_up / input.penalties[at].unwrap_or(1.0);
                let batch = f64::from(case.batch.unwrap_or(1));
                let epoch = input.examples.map(|examples| examples / (batch * forecast.rate));
                rows.push(Row { recipe: at, forecast, gain, epoch });
            }
            Err(PlanError::Recipe(error)) => unfit.push((at, error.to_string())),
            Err(PlanError::NoBatch) => {
                return Err((
                    exit::USAGE,
                    format!("--batch: expected the examples of a step for {name:?}, got nothing"),
                ));
            }
            Err(error) => return Err((exit::USAGE, error.to_string())),
        }
    }
    // A stable sort: recipes that are equal stay in their order.
    rows.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    Ok(Group { workers: case.steps.len(), rows, unfit })
}

/// The recipe with the shards that `node` cuts a long vector into, unless the user has chosen shards or servers.
pub(crate) fn placed(name: &str, recipe: Recipe, case: &Case) -> Recipe {
    let chosen = case.servers.is_some() || name.contains("shards=");
    if chosen { recipe } else { recipe.spread(case.steps.len() as u32, case.params).0 }
}

fn break_even(input: &Input, case: &Case, at: usize) -> Break {
    let (name, recipe) = &input.recipes[at];
    let (recipe, needed) = (&placed(name, *recipe, case), input.penalties[at].unwrap_or(1.0));
    let equal = case.steps.iter().all(|step| *step == case.steps[0]);
    let bandwidth = case.bandwidth_for(recipe, needed).ok().flatten();
    let workers = if equal { case.workers_for(recipe, needed, WORKERS_MAX).ok().flatten() } else { None };
    Break { recipe: at, bandwidth, workers }
}

fn variant(input: &Input, first: usize, name: &'static str, case: &Case) -> Option<Variant> {
    let group = group(input, case).ok()?;
    let best = group.rows.first()?;
    let of_best = group.rows.iter().find(|row| row.recipe == first)?.gain;
    Some(Variant { name, recipe: best.recipe, gain: best.gain, of_best })
}

/// Does a recipe compute what one worker computes with a batch of all workers' examples? Then no penalty is needed but
/// that of the larger batch.
pub(crate) fn is_exact(recipe: &Recipe) -> bool {
    matches!(recipe.pace(), Pace::Synchronous | Pace::Stale { bound: 0 })
        && recipe.period() == Period::every(1)
        && recipe.merge() == Merge::Mean
        && recipe.payload() != Payload::Parameters
        && (recipe.codec(), recipe.pull(), recipe.outer()) == (Codec::F32, Codec::F32, Outer::None)
}
