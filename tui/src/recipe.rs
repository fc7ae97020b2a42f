//! The short name of a recipe: nodes report all of its settings, of which a narrow screen would show the first.

use gradwire_core::recipe::PRESETS;
use gradwire_core::telemetry::Run;
use gradwire_core::{Cluster, Recipe};

/// The preset that is nearest to the recipe of a run, with the settings that differ, for example "ssp bound=5". The text
/// of the run if it is no recipe, or if no preset makes it shorter.
pub(crate) fn short(run: &Run) -> String {
    let cluster = Cluster { workers: run.workers, servers: run.servers };
    let in_full = |recipe: Recipe| recipe.fitted(cluster, run.parameters as usize).to_string();
    let parse = |text: &str| text.parse::<Recipe>().ok();
    let Some(full) = parse(&run.recipe).map(in_full) else { return run.recipe.clone() };
    let names = PRESETS.iter().filter_map(|preset| {
        let base = in_full((preset.recipe)());
        let differs = full.split(' ').filter(|word| base.split(' ').all(|other| other != *word));
        let name = std::iter::once(preset.name).chain(differs).collect::<Vec<_>>().join(" ");
        // A setting of the preset that the recipe does not have cannot be taken back.
        (parse(&name).map(in_full).as_ref() == Some(&full)).then_some(name)
    });
    // A reader expects the topology and the pace of a method behind its name. Of equal ones the first preset is taken: plain
    // names come before names of published systems.
    let weight = |word: &str| if ["topology=", "pace="].iter().any(|key| word.starts_with(key)) { 10 } else { 1 };
    let weights = |name: &String| name.split(' ').map(weight).sum::<usize>();
    let name = names.chain([run.recipe.clone()]).min_by_key(weights).unwrap_or_default();
    // Settings that have their defaults say nothing.
    let mut words: Vec<&str> = name.split(' ').collect();
    for at in (1..words.len()).rev() {
        let word = words.remove(at);
        if parse(&words.join(" ")).map(in_full).as_ref() != Some(&full) {
            words.insert(at, word);
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_named_by_the_nearest_preset() {
        let named = |text: &str, servers: u32| {
            let (cluster, parameters) = (Cluster { workers: 4, servers }, 50_826);
            let recipe = text.parse::<Recipe>().map_or_else(|_| text.into(), |r| r.fitted(cluster, 50_826).to_string());
            short(&Run { recipe, workers: 4, servers, parameters, name: None })
        };
        for (text, servers) in
            [("ssp bound=5", 1), ("sync", 0), ("ring-int8", 0), ("averaging period=20", 0), ("mesh", 0)]
        {
            assert_eq!(named(text, servers), text);
        }
        assert_eq!(named("easgd", 1), "easgd");
        let sparse = named("ssp bound=4 codec=threshold tau=0.001953125 control=density density=0.02", 1);
        assert_eq!(sparse, "ssp bound=4 codec=threshold density=0.02");
        assert_eq!(named("no recipe", 0), "no recipe");
    }
}
