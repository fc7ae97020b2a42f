use super::*;
use crate::recipe::{KEYS, Key, KeyValues, Normalize, PRESETS, Pushes, Staleness, Weigh};
use alloc::string::String;
use alloc::vec::Vec;

#[test]
fn every_preset_passes_its_check_and_survives_the_text_form() {
    for preset in PRESETS {
        let recipe = (preset.recipe)();
        assert_eq!(recipe.check(4), Ok(()), "{}", preset.name);
        assert_eq!(recipe.to_string().parse(), Ok(recipe), "{}", preset.name);
    }
}

#[test]
fn stages_limits_and_shards_survive_the_text_form() {
    let recipe = Recipe::softsync(3)
        .with_period("1,10@500,50@2000".parse::<Period>().unwrap())
        .with_staleness(Staleness { scaling: Scaling::Exp { base: 0.9 }, drop_above: Some(40) })
        .with_topology(Topology::Servers { shards: 7 });
    assert_eq!(recipe.to_string().parse(), Ok(recipe));
}

#[test]
fn the_steps_between_fetches_survive_the_text_form() {
    let recipe: Recipe = "async period=5 fetch=10".parse().unwrap();
    assert_eq!((recipe, recipe.check(4)), (Recipe::asynchronous().with_period(5).with_fetch(10), Ok(())));
    assert_eq!(recipe.to_string().parse(), Ok(recipe));
    let error = "async fetch=1.5".parse::<Recipe>().unwrap_err().to_string();
    assert_eq!(error, "fetch: expected a whole number, 0 or more, got \"1.5\"");
}

#[test]
fn codecs_of_both_directions_survive_the_text_form() {
    let controls = ["", " control=band", " density=0.01", " budget=4096 scope=tensor clip=3"];
    let threshold = controls.map(|control| alloc::format!("mesh tau=0.25 momentum=0.9 warmup=3 ramp=10{control}"));
    let dense = ["f32", "bf16", "f16", "int8", "sign"].map(|codec| alloc::format!("async codec={codec} pull={codec}"));
    let topk = "hardsync codec=topk density=0.1 pull=threshold pull_tau=0.5 pull_budget=100".to_string();
    let decay = [
        "sparse decay=0.95",
        "ring-int8 decay=0",
        "sparse scope=chunk values=int8",
        "hardsync codec=sign scope=column pull=sign",
    ]
    .map(ToString::to_string);
    for text in threshold.into_iter().chain(dense).chain([topk]).chain(decay) {
        let recipe: Recipe = text.parse().unwrap();
        assert_eq!(recipe.check(4), Ok(()), "{text}");
        assert_eq!(recipe.to_string().parse(), Ok(recipe), "{text}");
    }
}

#[test]
fn merge_rules_of_a_round_survive_the_text_form_and_take_parameters_where_they_can() {
    for text in [
        "hardsync merge=trimmed-mean trim=0",
        "averaging topology=servers shards=3 merge=trimmed-mean",
        "dl4j topology=servers merge=median",
        "norm-clip codec=topk pull=topk outer=momentum",
        "hardsync merge=centred-clip radius=0.5 iterations=3",
        "hardsync merge=centred-clip radius=inf",
        "averaging topology=servers merge=krum faulty=0 best=4",
        "hardsync merge=adasum",
        "sync merge=adasum",
        "diloco topology=servers merge=rda",
    ] {
        let recipe: Recipe = text.parse().unwrap();
        assert_eq!((recipe.check(4), recipe.to_string().parse()), (Ok(()), Ok(recipe)), "{text}");
    }
}

#[test]
fn rounds_of_the_first_survive_the_text_form() {
    for (text, written) in [
        ("hardsync pace=first", "pace=first count=n-1 grace=0s late=drop"),
        ("hardsync pace=first count=3 grace=200ms late=next", "pace=first count=3 grace=0.2s late=next"),
        ("hardsync pace=first grace=adaptive", "pace=first count=n-1 grace=adaptive cap=2s late=drop"),
        ("hardsync pace=first cap=50ms late=next", "pace=first count=n-1 grace=adaptive cap=0.05s late=next"),
        ("hardsync pace=first grace=adaptive grace=1s", "pace=first count=n-1 grace=1s late=drop"),
        ("hardsync pace=first count=n grace=1.5s", "pace=first count=n grace=1.5s late=drop"),
        ("median pace=first late=next", "pace=first count=n-1 grace=0s late=next merge=median"),
    ] {
        let recipe: Recipe = text.parse().unwrap();
        assert_eq!(recipe.check(4), Ok(()), "{text}");
        assert!(recipe.to_string().contains(written), "{recipe}");
        assert_eq!(recipe.to_string().parse(), Ok(recipe), "{text}");
    }
}

/// A quorum is a notion of views here, and rounds of the first contributions have another name.
#[test]
fn a_quorum_of_contributions_is_answered_with_the_name_that_it_has() {
    let error = |text: &str| text.parse::<Recipe>().unwrap_err().to_string();
    assert_eq!(
        error("hardsync pace=quorum"),
        "pace: expected synchronous, stale, asynchronous or first, got \"quorum\" (did you mean \"first\"?)"
    );
    assert_eq!(error("hardsync quorum=3"), "recipe: \"quorum\" is not a setting (did you mean \"pace=first count=\"?)");
    assert!(error("quorum count=3").ends_with("got \"quorum\" (did you mean \"backup-workers\"?)"));
    assert_eq!(error("hardsync count=3"), "recipe: \"count\" is not a setting of this recipe, it requires pace=first");
    assert_eq!(error("backup-workers late=nxt"), "late: expected drop or next, got \"nxt\" (did you mean \"next\"?)");
    let expected = "grace: expected a time as in 200ms or 0s, or adaptive, got";
    assert_eq!(error("backup-workers grace=200"), alloc::format!("{expected} \"200\""));
    assert_eq!(
        error("backup-workers grace=adaptve"),
        alloc::format!("{expected} \"adaptve\" (did you mean \"adaptive\"?)")
    );
    assert_eq!(error("backup-workers cap=1"), "cap: expected a time as in 200ms or 0s, got \"1\"");
    assert_eq!(
        error("backup-workers count=n+1"),
        "count: expected a number, or n-1 for all workers but 1, got \"n+1\""
    );
}

#[test]
fn a_preset_can_be_overridden() {
    let adapted: Recipe = "hardsync period=20 adapt=speed".parse().unwrap();
    assert_eq!(adapted.check(4), Ok(()));
    assert_eq!(adapted.to_string().parse(), Ok(adapted));
    for text in ["averaging period=9ex weigh=batch", "diloco topology=servers merge=rda pace=first weigh=batch"] {
        let recipe: Recipe = text.parse().unwrap();
        assert_eq!((recipe.weigh(), recipe.check(4)), (Weigh::Batch, Ok(())), "{text}");
        assert_eq!(recipe.to_string().parse(), Ok(recipe), "{text}");
        let plain: Recipe =
            text.strip_suffix("batch").map(|text| alloc::format!("{text}examples")).unwrap().parse().unwrap();
        assert!(plain.weigh() == Weigh::Examples && !plain.to_string().contains("weigh"), "{plain}");
    }
    for text in ["hardsync period=20 adapt=speed normalize=steps", "sparse period=9ex normalize=steps"] {
        let recipe: Recipe = text.parse().unwrap();
        assert_eq!(recipe.normalize(), Normalize::Steps);
        assert_eq!((recipe.check(4), recipe.to_string().parse()), (Ok(()), Ok(recipe)));
    }
    let delayed: Recipe = "async outer=delayed-nesterov pushes=7 mu=0.5".parse().unwrap();
    let outer = Outer::DelayedNesterov { mu: Mu::Fixed(0.5), rate: 0.7, pushes: Pushes::Fixed(7) };
    assert_eq!(delayed, Recipe::asynchronous().with_outer(outer));
    assert_eq!((delayed.check(4), delayed.to_string().parse()), (Ok(()), Ok(delayed)));
    let adapted: Recipe = "adacomm period=8 most=9".parse().unwrap();
    assert_eq!(adapted, Recipe::averaging(8).with_adapt(Adapt::Loss { most: 9 }));
    assert_eq!((adapted.check(4), adapted.to_string().parse()), (Ok(()), Ok(adapted)));
    let recipe: Recipe = "ssp bound=7 shards=3".parse().unwrap();
    assert_eq!(recipe, Recipe::ssp(7).with_topology(Topology::Servers { shards: 3 }));
}

#[test]
fn parse_errors_say_what_was_expected_and_what_came() {
    let error = |text: &str| text.parse::<Recipe>().unwrap_err().to_string();
    assert!(error("asinc").ends_with("got \"asinc\" (did you mean \"async\"?)"));
    assert!(error("qqqqqqqq").ends_with("got \"qqqqqqqq\""));
    assert_eq!(error("ssp bound=-1"), "bound: expected a whole number, 0 or more, got \"-1\"");
    assert_eq!(error("sync bound=1"), "recipe: \"bound\" is not a setting of this recipe, it requires pace=stale");
    assert_eq!(error("sync bund=1"), "recipe: \"bund\" is not a setting (did you mean \"bound\"?)");
    assert_eq!(
        error("sync merge=max"),
        "merge: expected mean, sum, softsync, elastic, trimmed-mean, median, norm-clip, centred-clip, krum, adasum, rda, \
         mean-of-senders or vote, got \"max\""
    );
}

/// The table of axes in the module documentation: each value parses, and the numbers beside it are its defaults.
#[test]
fn the_documented_values_and_defaults_are_those_of_the_parser() {
    let code = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(ToString::to_string).collect() };
    let rows = include_str!("../mod.rs").lines().skip_while(|line| !line.contains("# Axes"));
    let rows = rows.take_while(|line| !line.contains("# Presets")).filter(|line| line.starts_with("//! | "));
    let (mut axis, mut seen) = (String::new(), 0);
    for row in rows.skip(1) {
        let cells: Vec<&str> = row.split('|').collect();
        axis = code(cells[1]).first().cloned().unwrap_or(axis);
        let base = match axis.as_str() {
            "control" => "sync codec=threshold",
            "values" => "sync codec=topk",
            "late" | "grace" => "sync pace=first",
            _ => "sync",
        };
        let base: Recipe = base.parse().unwrap();
        for value in code(cells[2]).iter().filter(|value| *value != "codec") {
            let mut recipe = base;
            assert_eq!(recipe.set(&axis, value), Ok(()), "{row}");
            assert!(!cells[2].contains(&alloc::format!("**`{value}`**")) || recipe == base, "{row}");
            for number in code(cells[3]).join(" ").split(' ').filter_map(|number| number.split_once('=')) {
                let before = recipe;
                assert_eq!((recipe.set(number.0, number.1), recipe), (Ok(()), before), "{row}");
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} values");
}

#[test]
fn a_key_exists_after_the_choice_that_an_error_suggests() {
    for key in KEYS {
        let mut recipe = with(key);
        assert!(matches!(recipe.set(key.name, "?"), Err(RecipeParseError::BadValue { .. })), "{}", key.name);
        if !key.of.is_empty() {
            let without: Recipe = if key.name == "chunk" { "hardsync" } else { "sync topology=ring" }.parse().unwrap();
            let error = { without }.set(key.name, "?").unwrap_err();
            assert!(matches!(error, RecipeParseError::UnknownKey { required: Some(_), .. }), "{}: {error}", key.name);
        }
    }
}

/// A recipe that has made the first of the choices that this key belongs to.
fn with(key: &Key) -> Recipe {
    key.of.split([' ', ',']).next().unwrap().parse().unwrap()
}

/// The reference has the parser's values and defaults.
#[test]
fn the_reference_is_that_of_the_parser() {
    for key in KEYS {
        let mut recipe = with(key);
        if !key.default.is_empty() {
            let before = recipe;
            assert_eq!((recipe.set(key.name, key.default), recipe), (Ok(()), before), "{}", key.name);
        }
        let expected = match recipe.set(key.name, "?").unwrap_err() {
            RecipeParseError::BadValue { expected, .. } => expected,
            error => panic!("{error}"),
        };
        match key.values {
            // A scope means something else for each codec.
            KeyValues::Names(_) if key.name.ends_with("scope") => {}
            KeyValues::Names(names) => {
                let mut of_parser: Vec<&str> = expected.split(", ").flat_map(|names| names.split(" or ")).collect();
                let mut listed: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
                of_parser.sort_unstable();
                listed.sort_unstable();
                assert_eq!(listed, of_parser, "{}", key.name);
                for (name, _) in names {
                    assert_eq!(recipe.set(key.name, name), Ok(()), "{}", key.name);
                }
            }
            KeyValues::Text(_) => assert!(!expected.is_empty()),
        }
    }
    for scope in ["scope", "pull_scope"] {
        let KeyValues::Names(names) = Key::find(scope).unwrap().values else { panic!("{scope}") };
        for (name, _) in names {
            let of = scope.replace("scope", "");
            let axis = if of.is_empty() { "codec" } else { "pull" };
            let sets = |codec: &&str| {
                let mut recipe: Recipe = alloc::format!("{axis}={codec}").parse().unwrap();
                recipe.set(scope, name).is_ok()
            };
            assert!(["threshold", "topk", "sign"].iter().any(sets), "{name}");
        }
    }
}

/// The parser's own texts: each quoted word before an arrow or a bar is a key of the reference.
#[test]
fn the_parser_has_no_key_that_is_not_in_the_reference() {
    let sources = [include_str!("../text.rs"), include_str!("../merge.rs")];
    let mut keys = 0;
    for line in sources.iter().flat_map(|text| text.lines()).map(str::trim_start) {
        let Some(rest) = line.strip_prefix("(\"").or_else(|| line.strip_prefix('"')) else { continue };
        let Some((name, rest)) = rest.split_once('"') else { continue };
        if rest.starts_with(" =>") || rest.starts_with(" |") || rest.starts_with(" if ") || rest.starts_with(", ") {
            assert!(Key::find(name).is_some(), "{name} is not in KEYS");
            keys += 1;
        }
    }
    assert!(keys > 50, "{keys} keys");
}

#[test]
fn all_words_that_are_wrong_are_named_and_the_right_ones_suggested() {
    let error = |text: &str| text.parse::<Recipe>().unwrap_err().to_string();
    assert_eq!(
        error("ssp bond=2 codec=top topology=mash"),
        "recipe: \"bond\" is not a setting (did you mean \"bound\"?); \
         codec: expected f32, bf16, f16, int8, sign, threshold or topk, got \"top\" (did you mean \"topk\"?); \
         topology: expected servers, auto, tree, ring or mesh, got \"mash\" (did you mean \"mesh\"?)"
    );
    assert_eq!(
        error("sparse tau=0.5"),
        "recipe: \"tau\" is not a setting of this recipe, it requires codec=threshold (codec=topk has scope, density, values)"
    );
    assert_eq!(
        error("sync pull_densty=1"),
        "recipe: \"pull_densty\" is not a setting (did you mean \"pull_density\"?)"
    );
    assert!(error("sync ssp").ends_with("\"ssp\" is not a setting, but a preset, and a preset is the first word"));
    assert_eq!(error("ssp bound"), "bound: expected a whole number, 0 or more, got \"\"");
    // The keys of an unknown preset are not known.
    assert!(error("spp bound=2 bond=3").contains("(did you mean \"ssp\"?); recipe: \"bond\" is not"));
}

#[test]
fn gradients_that_cannot_be_shared_are_refused_with_the_reason() {
    let error = |text: &str| text.parse::<Recipe>().unwrap().check(4).unwrap_err().to_string();
    for (text, expected) in [
        (
            "gradients topology=servers",
            "payload=gradients requires topology=tree, ring or mesh: the parameters are at the workers alone",
        ),
        (
            "gradients topology=mesh pace=asynchronous merge=sum codec=threshold",
            "payload=gradients requires pace=synchronous merge=mean: all workers get the mean of a round",
        ),
        (
            "gradients merge=sum lambda=0.5",
            "payload=gradients requires pace=synchronous merge=mean: all workers get the mean of a round",
        ),
        ("gradients period=2", "payload=gradients requires period=1: gradients of different parameters have no mean"),
        ("gradients outer=adam", "outer requires payload=updates: with payload=gradients, the optimizer is "),
        ("gradients optimizer=reset", "payload=gradients requires optimizer=keep: "),
        ("gradients topology=mesh codec=topk momentum=0.9", "payload=gradients requires momentum=0: "),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    for text in ["gradients codec=int8", "gradients topology=ring codec=sign", "gradients topology=mesh codec=topk"] {
        assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
    }
}

#[test]
fn a_mistyped_name_suggests_the_right_one() {
    let error = |text: &str| text.parse::<Recipe>().unwrap_err().to_string();
    assert!(error("gradient").ends_with("(did you mean \"gradients\"?)"));
    assert_eq!(
        error("sync payload=gradient"),
        "payload: expected parameters, updates or gradients, got \"gradient\" (did you mean \"gradients\"?)"
    );
    assert_eq!(
        error("sparse values=two-mean"),
        "values: expected f32, f16, int8 or two-means, got \"two-mean\" (did you mean \"two-means\"?)"
    );
    assert_eq!(error("sparse scope=tensor"), "scope: expected all or chunk, got \"tensor\"");
    assert_eq!(error("sync values=int8"), "recipe: \"values\" is not a setting of this recipe, it requires codec=topk");
    assert_eq!(error("slowmo scale=rates"), "scale: expected update or rate, got \"rates\" (did you mean \"rate\"?)");
    assert!(error("sync topology=rin").ends_with("(did you mean \"ring\"?)"));
    assert!(error("sync payload=weights").ends_with("got \"weights\""));
    assert!(error("sync fan_in=2.5").ends_with("got \"2.5\""), "a number");
}

#[test]
fn contradictory_recipes_are_refused_with_the_reason() {
    let error = |text: &str| text.parse::<Recipe>().unwrap().check(4).unwrap_err().to_string();
    assert_eq!(error("diloco mu=1"), "mu: expected from 0 to below 1, got 1");
    assert_eq!(error("fedadam beta=-0.1"), "beta: expected from 0 to below 1, got -0.1");
    assert_eq!(error("slowmo rate=0"), "rate: expected a finite number above 0, got 0");
    for text in ["slowmo period=20s normalize=steps", "slowmo adapt=loss", "slowmo weigh=batch"] {
        assert!(
            error(text).starts_with("scale=rate requires normalize=none, weigh=examples, and adapt=none or speed: "),
            "{text}"
        );
    }
    for text in
        ["slowmo adapt=loss scale=update", "slowmo topology=servers adapt=speed", "async outer=momentum scale=rate"]
    {
        assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
    }
    assert_eq!(error("sync outer=adagrad floor=inf"), "floor: expected a finite number above 0, got inf");
    assert_eq!(error("averaging period=0"), "period: expected at least 1, got 0");
    let every = "(period=1 synchronises at every step), got 0";
    assert_eq!(error("averaging period=0s"), alloc::format!("period: expected more than 0 s {every}"));
    assert_eq!(error("averaging period=1,0ms@5"), alloc::format!("period: expected more than 0 s {every}"));
    assert_eq!(error("sync period=0ex"), alloc::format!("period: expected at least 1 example {every}"));
    assert_eq!(error("easgd alpha=0.3"), "alpha: expected at most 1/n with rounds (0.25 with 4 workers), got 0.3");
    assert_eq!(error("easgd alpha=1.5/n"), "alpha: expected at most 1/n with rounds (0.25 with 4 workers), got 0.375");
    assert_eq!(error("aeasgd alpha=-1"), "alpha: expected from 0 to 1, got -1");
    assert_eq!(error("aeasgd alpha=5/n"), "alpha: expected from 0 to 1, got 1.25");
    for (text, expected) in [
        ("sync merge=elastic", "merge=elastic requires topology=servers: "),
        ("mesh merge=elastic", "merge=elastic requires topology=servers: "),
        ("ssp merge=elastic", "merge=elastic requires pace=synchronous, or pace=asynchronous overlap=false: "),
        ("aeasgd overlap=true", "merge=elastic requires pace=synchronous, or pace=asynchronous overlap=false: "),
        ("aeasgd payload=parameters", "payload=parameters requires "),
        ("aeasgd fetch=3", "merge=elastic requires no fetch of its own: "),
        (
            "aeasgd staleness=inverse",
            "merge=elastic requires staleness=const without drop_above, outer=none and compensate=none: ",
        ),
        (
            "easgd outer=momentum",
            "merge=elastic requires staleness=const without drop_above, outer=none and compensate=none: ",
        ),
        (
            "aeasgd compensate=magnitude",
            "merge=elastic requires staleness=const without drop_above, outer=none and compensate=none: ",
        ),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    for text in ["aeasgd alpha=1", "aeasgd alpha=0", "easgd alpha=1/n codec=bf16", "aeasgd pull=f16 codec=topk"] {
        assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
    }
    assert_eq!(error("fasgd keep=1"), "keep: expected from 0 to below 1, got 1");
    assert_eq!(error("fasgd length=0"), "length: expected a finite number above 0, got 0");
    assert_eq!(error("fasgd least=-1"), "least: expected a finite number above 0, got -1");
    assert_eq!(error("fasgd push_cost=-1"), "push_cost: expected a finite number, 0 or more, got -1");
    assert_eq!(error("fasgd fetch_cost=inf"), "fetch_cost: expected a finite number, 0 or more, got inf");
    assert_eq!(error("dc-asgd strength=-1"), "strength: expected a finite number, 0 or more, got -1");
    assert_eq!(error("dc-asgd-a worker_rate=0"), "worker_rate: expected a finite number above 0, got 0");
    for (text, expected) in [
        ("sync compensate=delay", "compensate requires topology=servers: "),
        ("mesh compensate=magnitude", "compensate requires topology=servers: "),
        ("hardsync compensate=magnitude", "compensate requires pace=asynchronous or stale: "),
        ("ssp bound=0 compensate=magnitude", "compensate requires pace=asynchronous or stale: "),
        ("ssp compensate=magnitude push_cost=1", "push_cost or fetch_cost requires pace=asynchronous overlap=false: "),
        ("b-fasgd overlap=true", "push_cost or fetch_cost requires pace=asynchronous overlap=false: "),
        ("b-fasgd fetch=3", "push_cost or fetch_cost requires no fetch of its own: "),
        ("ssp compensate=delay", "compensate=delay or delay-adaptive requires pace=asynchronous overlap=false: "),
        (
            "async overlap=true compensate=delay",
            "compensate=delay or delay-adaptive requires pace=asynchronous overlap=false: ",
        ),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    let allowed = ["b-fasgd period=3 fetch=3 codec=int8 pull=bf16", "softsync compensate=magnitude fetch_cost=0.1"];
    for text in allowed.into_iter().chain(["fasgd push_cost=0 fetch=3"]) {
        let recipe: Recipe = text.parse().unwrap();
        assert_eq!((recipe.check(4), recipe.to_string().parse()), (Ok(()), Ok(recipe)), "{text}");
    }
    for text in ["ssp compensate=magnitude", "softsync compensate=delay", "dc-asgd pull=f16 fetch=4", "fasgd fetch=3"] {
        assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
    }
    assert_eq!(error("async fetch=0"), "fetch: expected at least 1, got 0");
    let apart = "fetch other than the period requires ";
    for (text, expected) in [
        ("sync fetch=2", "topology=servers: "),
        ("mesh fetch=2", "topology=servers: "),
        ("hardsync fetch=2", "pace=asynchronous: "),
        ("ssp fetch=2", "pace=asynchronous: "),
        ("async overlap=true fetch=2", "overlap=false: "),
        ("async period=20s fetch=2", "a period of a number of steps: "),
        ("async period=1,2@9 fetch=2", "a period of a number of steps: "),
    ] {
        let got = error(text);
        assert!(got.strip_prefix(apart).is_some_and(|got| got.starts_with(expected)), "{text}: {got}");
    }
    // The same as without.
    for text in ["sync fetch=1", "ssp period=4 fetch=4", "async overlap=true fetch=1"] {
        assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
    }
    assert!(error("ssp period=20s").starts_with("a period in seconds requires pace=synchronous or asynchronous: "));
    assert_eq!(error("mesh tau=0"), "tau: expected a power of two from 2^-110 to 2^110, got 0");
    assert_eq!(error("mesh tau=NaN"), "tau: expected a power of two from 2^-110 to 2^110, got NaN");
    assert_eq!(error("mesh tau=-1"), "tau: expected a power of two from 2^-110 to 2^110, got -1");
    assert_eq!(error("mesh tau=0.3"), "tau: expected a power of two, got 0.3 (the nearest below is 0.25)");
    assert_eq!(error("mesh density=2"), "density: expected above 0 and at most 1, got 2");
    assert_eq!(error("mesh budget=10"), "budget: expected at least 64 bytes, got 10");
    assert_eq!(error("mesh clip=-1"), "clip: expected a finite number of thresholds, 0 or more, got -1");
    for (decay, got) in [("-0.5", "-0.5"), ("1.5", "1.5"), ("NaN", "NaN"), ("inf", "inf")] {
        let text = alloc::format!("sparse decay={decay}");
        assert_eq!(error(&text), alloc::format!("decay: expected from 0 to 1, got {got}"));
    }
    assert_eq!(error("mesh momentum=1"), "momentum: expected from 0 to below 1, got 1");
    for text in
        ["downpour starters=1 head_start=200", "softsync starters=2 head_start=9", "async codec=topk starters=1"]
    {
        assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
    }
    assert!(
        error("hardsync starters=1").starts_with("starters requires topology=mesh or servers, and pace=asynchronous: ")
    );
    assert!(error("async starters=1 warmup=3").starts_with("momentum, warmup, ramp or clip_norm requires codec="));
    assert_eq!(error("mesh starters=5"), "starters: expected at most the number of workers, got 5");
    assert!(error("mesh tau=1e-37").starts_with("tau: expected a power of two from 2^-110 to 2^110, got 0.00000"));
    assert_eq!(error("softsync updates=5"), "updates: expected at most the number of workers (4), got 5");
    assert_eq!(error("async outer=delayed-nesterov pushes=0"), "pushes: expected at least 1, got 0");
    assert_eq!(error("averaging period=9 adapt=loss most=8"), "most: expected at least the period, got 8");
    assert_eq!(
        error("backup-workers count=5"),
        "count: expected at most the number of workers (4), got 5: a worker contributes once to a round, so none would \
         end"
    );
    assert_eq!(error("backup-workers count=0"), "count: expected at least 1, got 0");
    assert_eq!(error("backup-workers count=n-4"), "count: expected n-3 at most with 4 workers, got n-4");
    assert_eq!(
        error("sync pace=first"),
        "pace=first requires topology=servers: all members of a tree, ring or mesh have to be in a round, since each \
         computes its result"
    );
    assert_eq!(error("sync fan_in=0"), "fan_in: expected 1 to 8, got 0");
    assert_eq!(
        error("hardsync merge=trimmed-mean trim=2"),
        "trim: 2 requires at least 5 workers, got 4: it cuts so many values at each end, and one must be left"
    );
    for text in ["sync merge=median", "sync topology=ring merge=norm-clip", "sparse merge=trimmed-mean"] {
        assert!(error(text).contains(" requires topology=servers: it needs the contributions of all"), "{text}");
    }
    assert!(error("async merge=median").starts_with("merge=median requires pace=synchronous or first: "));
    assert_eq!(
        error("backup-workers count=2 merge=trimmed-mean"),
        "trim: 1 requires a count of at least 3, got 2: it cuts so many values at each end, and one must be left"
    );
    assert_eq!(
        error("backup-workers merge=krum faulty=0 best=4"),
        "best: 4 requires a count of at least 4, got 3: it takes so many, and the faulty ones are not among them"
    );
    let needs_rounds = "merge=median requires pace=synchronous or first: ";
    assert!(error("hardsync pace=stale bound=0 merge=median").starts_with(needs_rounds));
    for text in ["median codec=topk", "hardsync merge=trimmed-mean codec=threshold"] {
        assert!(error(text).contains(" requires a codec other than threshold or topk: of a sparse message"), "{text}");
    }
    assert!(error("norm-clip shards=2").starts_with("merge=norm-clip requires shards=1: it measures whole "));
    assert_eq!(error("sign-vote length=0"), "length: expected a finite number above 0, got 0");
    assert_eq!(error("sign-vote length=inf"), "length: expected a finite number above 0, got inf");
    for (text, expected) in [
        (
            "sign-vote decay=1",
            "merge=vote with a lossy codec requires decay=0: a vote has no size, so that a residual ",
        ),
        ("sign-vote codec=int8 decay=0.5", "merge=vote with a lossy codec requires decay=0: "),
        ("averaging topology=servers merge=vote", "merge=vote requires payload=updates: the sign of a parameter "),
        ("sign-vote codec=topk", "merge=vote requires a codec other than threshold or topk: an element that "),
        ("sign-vote end=send", "merge=vote requires end=keep: "),
        ("sign-vote outer=adam", "merge=vote requires outer=none or momentum: all elements move by the same "),
        ("sign-vote outer=adagrad", "merge=vote requires outer=none or momentum: "),
        ("async merge=vote", "merge=vote requires pace=synchronous or first: "),
        ("sync merge=vote", "merge=vote requires topology=servers: it needs the contributions of all"),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    let key = "hardsync length=1".parse::<Recipe>().unwrap_err().to_string();
    assert!(key.ends_with("it requires compensate=magnitude or merge=vote"), "{key}");
    for text in ["hardsync merge=vote", "sign-vote shards=3 period=5 outer=momentum", "sign-vote pull=f32 codec=bf16"] {
        assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
    }
    for (text, expected) in [
        (
            "hardsync merge=mean-of-senders",
            "merge=mean-of-senders requires codec=threshold or topk: other messages carry ",
        ),
        ("sync merge=mean-of-senders", "topology=tree requires merge=mean: "),
        ("async merge=mean-of-senders codec=topk", "merge=mean-of-senders requires pace=synchronous or first: "),
        ("mesh merge=mean-of-senders", "merge=mean-of-senders requires pace=synchronous or first: "),
        (
            "hardsync merge=mean-of-senders codec=topk period=9s normalize=steps",
            "normalize=steps requires merge=mean: the mean number of steps is that of all ",
        ),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    for text in
        ["sparseloco", "gradients topology=mesh codec=topk", "backup-workers shards=2 codec=threshold pull=topk"]
    {
        let text = alloc::format!("{text} merge=mean-of-senders");
        assert_eq!(text.parse::<Recipe>().unwrap().check(4), Ok(()), "{text}");
    }
    for text in ["centred-clip", "krum faulty=0", "adasum", "rda"] {
        let text = alloc::format!("hardsync shards=2 merge={text}");
        assert!(error(&text).contains(" requires shards=1: it measures whole "), "{text}: {}", error(&text));
    }
    for text in ["centred-clip", "adasum", "rda"] {
        let text = alloc::format!("averaging topology=servers merge={text}");
        assert!(error(&text).contains(" requires payload=updates: "), "{text}: {}", error(&text));
    }
    assert!(error("sync fan_in=3 merge=adasum").starts_with("merge=adasum requires fan_in=2: it merges pairs; "));
    assert!(error("sync fan_in=1 merge=adasum").starts_with("merge=adasum requires fan_in=2: "));
    for text in ["sync topology=ring merge=adasum", "sparse merge=adasum"] {
        let expected =
            "merge=adasum requires topology=servers, or tree with fan_in=2: it merges whole tensors in pairs; ";
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    assert!(error("sync merge=adasum codec=bf16").starts_with("merge=adasum topology=tree requires codec=f32: "));
    assert!(error("averaging merge=adasum").starts_with("merge=adasum requires payload=updates: "));
    assert!(error("gradients merge=adasum").starts_with("payload=gradients requires pace=synchronous merge=mean: "));
    assert!(error("sync merge=rda").starts_with("merge=rda requires topology=servers: "));
    let many = "sync merge=adasum".parse::<Recipe>().unwrap().check(257).unwrap_err();
    assert_eq!(many.to_string(), "workers: expected at most 256 with merge=adasum topology=tree, got 257");
    assert!(error("dl4j topology=servers merge=krum faulty=0").starts_with("merge=krum requires optimizer=keep or "));
    assert_eq!(error("hardsync merge=centred-clip radius=0"), "radius: expected above 0, or inf, got 0");
    assert_eq!(error("hardsync merge=centred-clip radius=NaN"), "radius: expected above 0, or inf, got NaN");
    assert_eq!(error("hardsync merge=centred-clip iterations=0"), "iterations: expected at least 1, got 0");
    assert_eq!(error("hardsync merge=krum best=0"), "best: expected at least 1, got 0");
    assert!(error("hardsync merge=krum").starts_with("faulty: 1 requires at least 5 workers, got 4: "));
    assert!(error("hardsync merge=krum faulty=0 best=5").starts_with("best: 5 requires at least 5 workers, got 4: "));
    assert!(error("norm-clip payload=parameters").starts_with("merge=norm-clip requires payload=updates: the norm "));
    for (text, expected) in [
        ("hardsync period=9 adapt=loss", "adapt=loss requires topology=tree, ring or mesh: a server that "),
        ("mesh period=9 adapt=loss", "adapt=loss requires pace=synchronous merge=mean: all workers have "),
        ("async period=20s normalize=steps", "normalize=steps requires pace=synchronous merge=mean: the mean number"),
        ("averaging period=20s normalize=steps", "normalize=steps requires payload=updates: what workers do per "),
        ("sync period=20 normalize=steps", "normalize=steps requires adapt=speed, or a period in seconds or "),
        ("async weigh=batch", "weigh=batch requires merge=mean, norm-clip, centred-clip, krum or rda: other rules "),
        ("median weigh=batch", "weigh=batch requires merge=mean, norm-clip, centred-clip, krum or rda: other rules "),
        ("gradients weigh=batch", "weigh=batch requires payload=updates or parameters: the gradient of all examples "),
        ("sync period=9s normalize=steps weigh=batch", "weigh=batch requires normalize=none: a mean by steps is "),
        ("adacomm weigh=batch", "weigh=batch requires adapt=none or speed: with adapt=loss, contributions tell "),
        ("diloco outer=delayed-nesterov", "outer=delayed-nesterov requires topology=servers: it counts the "),
        ("hardsync outer=delayed-nesterov", "outer=delayed-nesterov requires pace=asynchronous, or stale with a "),
    ] {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
    for text in [
        "averaging adapt=speed",
        "async period=20 fetch=40 adapt=speed",
        "averaging period=20s normalize=steps",
        "async period=20s normalize=steps",
        "sync period=20 normalize=steps",
        "sync period=20 adapt=loss normalize=steps",
        "hardsync period=9 adapt=loss",
        "async period=9 adapt=loss",
        "mesh period=9 adapt=loss",
        "averaging period=9s adapt=loss",
        "averaging period=99ex adapt=loss",
        "averaging period=1,9@5 adapt=loss",
        "sync adapt=loss",
        "gradients adapt=loss",
        "hardsync adapt=speed",
        "hardsync period=20s adapt=speed",
        "hardsync period=1,20@5 adapt=speed",
        "averaging pace=asynchronous",
        "averaging outer=momentum",
        "sync period=20 outer=delayed-nesterov",
        "hardsync period=20 outer=delayed-nesterov",
        "ssp bound=0 outer=delayed-nesterov",
        "mesh outer=momentum",
        "ssp bound=0 staleness=inverse",
        "sync merge=sum",
        "ssp merge=softsync",
        "mesh codec=f32",
        "mesh codec=bf16",
        "sparse codec=f32",
        "sparse relay=2",
        "sparse starters=1",
        "sparse merge=sum",
        "sparse end=send",
        "sync codec=topk",
        "sync topology=ring codec=threshold",
        "ring-int8 end=spread",
        "async end=send",
        "averaging codec=bf16",
        "averaging topology=servers codec=int8",
        "async codec=sign momentum=0.9",
        "async warmup=3",
        "ssp codec=threshold starters=1",
        "hardsync starters=1",
        "backup-workers starters=1",
        "sync starters=1",
        "mesh pull=bf16",
        "mesh staleness=inverse",
        "async optimizer=average",
        "async merge=mean",
        "mesh pace=stale",
        "mesh pace=first",
        "ring-bf16 pace=first",
        "softsync pace=first",
        "backup-workers payload=parameters late=next",
        "backup-workers staleness=inverse",
        "backup-workers late=next drop_above=3",
        "gradients topology=servers pace=first",
        "gradients topology=servers",
        "gradients topology=mesh pace=asynchronous merge=sum codec=threshold",
        "gradients merge=sum lambda=0.5",
        "gradients period=2",
        "gradients optimizer=reset",
        "gradients topology=mesh codec=topk momentum=0.9",
        "gradients codec=topk",
        "sync decay=0.5",
        "sync codec=sign scope=column",
        "sync topology=ring codec=sign scope=column",
        "gradients topology=mesh",
        "async payload=gradients",
        "averaging payload=gradients",
    ] {
        assert!(error(text).contains(" requires "), "{text}: {}", error(text));
    }
}
