//! The rows of the tables.

use gradwire::recipe::PRESETS;
use gradwire_examples::bad::Bad;
use gradwire_examples::task::Name;

/// A run, except for its seed.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) task: Name,
    pub(crate) workers: u32,
    pub(crate) recipe: String,
    pub(crate) rate: Rate,
    /// The fault in the updates of the worker with the highest rank.
    pub(crate) bad: Option<Bad>,
}

/// The learning rate of a run.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Rate {
    /// `Recipe::learning_rate` for the number of workers.
    Default,
    /// The rate that is best for one worker.
    Single,
}

/// A row of a table: several setups, in columns.
pub(crate) struct Row {
    pub(crate) task: Name,
    /// Rows of a group are compared with its first row.
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<Setup>,
}

impl Row {
    /// All words of the row, for `--filter`.
    pub(crate) fn words(&self) -> String {
        let recipes: Vec<&str> = self.columns.iter().map(|setup| setup.recipe.as_str()).collect();
        format!("{} | {} | {}", self.group, self.name, recipes.join(" | "))
    }
}

/// Codecs by name, with the words of the recipe. `pull` words are these with a prefix.
const CODECS: &[(&str, &[(&str, &str)])] = &[
    ("f32", &[("codec", "f32")]),
    ("bf16", &[("codec", "bf16")]),
    ("f16", &[("codec", "f16")]),
    ("int8", &[("codec", "int8")]),
    ("sign", &[("codec", "sign")]),
    ("top-k 10 %", &[("codec", "topk"), ("density", "0.1")]),
    ("top-k 1 %", &[("codec", "topk"), ("density", "0.01")]),
    ("threshold 1 %", &[("codec", "threshold"), ("density", "0.01")]),
];
/// The number of codecs that are dense.
const DENSE: usize = 5;

/// The words of a codec for contributions, and its words for pulls.
fn words(codec: &[(&str, &str)]) -> (String, String) {
    let codec_words: Vec<String> = codec.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pull = |(key, value): &(&str, &str)| match *key {
        "codec" => format!("pull={value}"),
        key => format!("pull_{key}={value}"),
    };
    (codec_words.join(" "), codec.iter().map(pull).collect::<Vec<_>>().join(" "))
}

/// Each codec on each topology that takes it. The first row of a group is dense.
pub(crate) fn codecs(task: Name, workers: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |group: &str, name: &str, recipe: String| {
        let setup = Setup { task, workers, recipe, rate: Rate::Default, bad: None };
        rows.push(Row { task, group: group.to_string(), name: name.to_string(), columns: vec![setup] });
    };
    for (name, codec) in &CODECS[..DENSE] {
        row("ring", name, format!("sync topology=ring {}", words(codec).0));
    }
    for (name, codec) in CODECS {
        row("servers, dense pull", name, format!("hardsync {}", words(codec).0));
    }
    for (name, codec) in CODECS {
        let (push, pull) = words(codec);
        row("servers, coded pull", name, format!("hardsync {push} {pull}"));
    }
    row("mesh, synchronous", "f32 (ring)", "sync topology=ring codec=f32".to_string());
    for (name, codec) in &CODECS[1..] {
        row("mesh, synchronous", name, format!("sync topology=mesh {}", words(codec).0));
    }
    for (name, codec) in &CODECS[DENSE..] {
        let recipe = format!("sync topology=mesh {} warmup=30", words(codec).0);
        row("mesh, synchronous", &format!("{name}, 30 dense first"), recipe);
    }
    // Local steps: a message every 30 of them, so that few are sent.
    for (name, recipe) in [
        ("f32 (ring)", "sync topology=ring"),
        ("top-k 1 %", "local-sparse"),
        ("sparseloco", "sparseloco"),
        ("sparseloco, 8 bits", "sparseloco values=int8"),
        ("sparseloco, floats", "sparseloco values=f32"),
        ("sparseloco, floats, nothing forgotten", "sparseloco values=f32 decay=1"),
        ("sparseloco, nothing forgotten", "sparseloco decay=1"),
        ("sparseloco, largest of the vector", "sparseloco scope=all"),
    ] {
        row("every 30 steps", name, format!("{recipe} period=30"));
    }
    // Every message carries every element of at least the smallest quantum.
    row("mesh, asynchronous", "all elements", "mesh warmup=1000000000".to_string());
    for density in ["0.1", "0.01"] {
        let percent = if density == "0.1" { 10 } else { 1 };
        row("mesh, asynchronous", &format!("threshold {percent} %"), format!("mesh density={density}"));
        let name = format!("threshold {percent} %, 30 dense first");
        row("mesh, asynchronous", &name, format!("mesh density={density} warmup=30"));
    }
    rows
}

/// The treatment of a residual at the end, for codecs that leave one. A column per choice.
pub(crate) const ENDS: [&str; 3] = ["keep", "send", "spread messages=20"];

pub(crate) fn ends(task: Name, workers: u32) -> Vec<Row> {
    let codecs = [
        ("top-k 0.1 %", "codec=topk density=0.001"),
        ("top-k 1 %", "codec=topk density=0.01"),
        ("threshold 0.1 %", "codec=threshold density=0.001"),
        ("threshold 1 %", "codec=threshold density=0.01"),
        ("sign", "codec=sign"),
        ("int8", "codec=int8"),
    ];
    let mut rows = Vec::new();
    for group in ["async", "ssp", "hardsync", "mesh"] {
        for (name, codec) in codecs.iter().filter(|(name, _)| group != "mesh" || name.starts_with("threshold")) {
            let column = |end| Setup {
                task,
                workers,
                recipe: format!("{group} {codec} end={end}"),
                rate: Rate::Default,
                bad: None,
            };
            let columns = ENDS.into_iter().map(column).collect();
            rows.push(Row { task, group: group.to_string(), name: (*name).to_string(), columns });
        }
    }
    rows
}

/// The numbers of workers that the table of presets has a column for.
pub(crate) const WORKERS: [u32; 3] = [2, 4, 8];

/// Every preset, at the rate that is best for one worker.
pub(crate) fn presets(task: Name, _: u32) -> Vec<Row> {
    let setup =
        |recipe: &str, workers| Setup { task, workers, recipe: recipe.to_string(), rate: Rate::Single, bad: None };
    let row = |name: &str, columns| Row { task, group: "presets".to_string(), name: name.to_string(), columns };
    let mut rows = vec![row("one worker", vec![setup("sync", 1)])];
    for preset in PRESETS {
        rows.push(row(preset.name, WORKERS.map(|workers| setup(preset.name, workers)).to_vec()));
    }
    rows
}

/// Merge rules that the table of bad workers compares, for 8 workers.
const MERGES: &[(&str, &str)] = &[
    ("mean", "hardsync"),
    ("norm-clip", "norm-clip"),
    ("trimmed-mean, trim 1", "hardsync merge=trimmed-mean trim=1"),
    ("trimmed-mean, trim 2", "hardsync merge=trimmed-mean trim=2"),
    ("median", "median"),
    ("centred-clip, radius 0.05", "hardsync merge=centred-clip radius=0.05"),
    ("centred-clip, radius 0.2", "hardsync merge=centred-clip radius=0.2"),
    ("centred-clip, radius 1", "hardsync merge=centred-clip radius=1"),
    ("krum, faulty 1, best 1", "hardsync merge=krum faulty=1 best=1"),
    ("krum, faulty 1, best 5", "hardsync merge=krum faulty=1 best=5"),
    ("vote", "hardsync merge=vote length=0.001"),
    ("vote, 1 bit both ways", "sign-vote"),
    ("rda", "hardsync merge=rda"),
    ("adasum", "hardsync merge=adasum"),
];

/// The fault of one worker of 8: a column without a fault, and then a column for each kind.
pub(crate) fn bad(task: Name, _: u32) -> Vec<Row> {
    let kinds = || [None].into_iter().chain(Bad::ALL.map(Some));
    let row = |(name, recipe): &(&str, &str)| {
        let setup = |bad| Setup { task, workers: 8, recipe: (*recipe).to_string(), rate: Rate::Default, bad };
        let columns = kinds().map(setup).collect();
        Row { task, group: "one bad worker of 8".to_string(), name: (*name).to_string(), columns }
    };
    MERGES.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradwire::Recipe;

    #[test]
    fn every_recipe_of_the_tables_passes_its_check() {
        let tables = Name::ALL.map(|task| [codecs(task, 4), ends(task, 4), presets(task, 4), bad(task, 4)]);
        for row in tables.iter().flatten().flatten() {
            for setup in &row.columns {
                let recipe: Recipe = setup.recipe.parse().unwrap_or_else(|error| panic!("{}: {error}", setup.recipe));
                assert_eq!(recipe.check(setup.workers), Ok(()), "{}", setup.recipe);
            }
        }
    }
}
