//! `--recipes`: names and texts of recipes, with grids of values and with numbers to tune.
//!
//! Commas separate recipes. `period={10,30}` stands for two recipes, and `period=5..50` for one whose period is tuned
//! together with the learning rate.

use std::ops::RangeInclusive;

use gradwire::Recipe;
use gradwire::recipe::RecipeParseError;

/// Most recipes of a grid.
const MOST: usize = 100;

/// A recipe to compare.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// Its text, as it was given.
    pub(crate) name: String,
    pub(crate) recipe: Recipe,
    /// The key and the range of a number that is tuned.
    pub(crate) number: Option<(String, RangeInclusive<f64>)>,
}

/// The recipes of a text.
///
/// # Errors
/// A message in one line.
pub(crate) fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let mut rules: Vec<Rule> = Vec::new();
    for part in parts(text) {
        for name in expand(&part)? {
            let rule = rule(&name)?;
            if rules.iter().any(|other| other.name == rule.name) {
                return Err(format!("{:?} is there twice", rule.name));
            }
            rules.push(rule);
            if rules.len() > MOST {
                return Err(format!("expected at most {MOST} recipes, got more"));
            }
        }
    }
    Ok(rules)
}

/// The recipes between commas. A comma in braces or before a number belongs to a value, as in `period=1,10@500`.
fn parts(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        let next = text[at + 1..].trim_start().chars().next();
        if c == ',' && depth == 0 && !next.is_some_and(|next| next.is_ascii_digit()) {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.iter().map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The texts of a grid: one for each value in the first braces, and so on.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = text.split_once('{') else {
        return match text.contains('}') {
            true => Err(format!("expected \"{{\" before \"}}\", got {text:?}")),
            false => Ok(vec![text.into()]),
        };
    };
    let (values, after) =
        rest.split_once('}').ok_or_else(|| format!("expected \"}}\" after the values of a grid, got {text:?}"))?;
    let mut all = Vec::new();
    for value in values.split(',').map(str::trim) {
        if value.is_empty() {
            return Err(format!("expected values with commas between them, as in {{10,30}}, got {{{values}}}"));
        }
        all.extend(expand(&format!("{before}{value}{after}"))?);
        if all.len() > MOST {
            return Err(format!("expected at most {MOST} recipes, got more"));
        }
    }
    Ok(all)
}

/// The recipe of a text, in which one value may be a range.
fn rule(name: &str) -> Result<Rule, String> {
    if name.is_empty() {
        return Err("expected the name of a recipe, got \"\"".into());
    }
    let is_range = |word: &&str| word.split_once('=').is_some_and(|(_, value)| value.contains(".."));
    let ranges: Vec<&str> = name.split(' ').filter(is_range).collect();
    let range = match ranges[..] {
        [] => None,
        [word] => Some(number(word).ok_or_else(|| {
            format!("expected a range of two numbers above 0, the smaller one first, as in period=5..50, got {word:?}")
        })?),
        _ => return Err(format!("expected at most one number to tune, got {}", ranges.join(" and "))),
    };
    // The recipe has the smallest value for now. Each point of the tuning sets its own.
    let word = |word: &str| match (&range, is_range(&word)) {
        (Some((key, values)), true) => format!("{key}={}", values.start()),
        _ => word.to_string(),
    };
    let text = name.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let recipe = text.parse().map_err(|error: RecipeParseError| {
        let text = error.to_string();
        text.strip_prefix("recipe: ").unwrap_or(&text).to_string()
    })?;
    Ok(Rule { name: name.into(), recipe, number: range })
}

fn number(word: &str) -> Option<(String, RangeInclusive<f64>)> {
    let (key, values) = word.split_once('=')?;
    let (from, to) = values.split_once("..")?;
    let bound = |text: &str| text.parse().ok().filter(|x: &f64| *x > 0.0 && x.is_finite());
    let (from, to) = (bound(from)?, bound(to)?);
    (from <= to).then(|| (key.into(), from..=to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse(text).unwrap().into_iter().map(|rule| rule.name).collect()
    }

    #[test]
    fn commas_separate_recipes_and_braces_hold_values() {
        assert_eq!(names("sync, ssp  bound=5"), ["sync", "ssp bound=5"]);
        assert_eq!(names("averaging period={10, 30},async"), ["averaging period=10", "averaging period=30", "async"]);
        let grid = names("hardsync period={1,2} codec={f32,int8}");
        assert_eq!(grid.len(), 4);
        assert_eq!(grid[1], "hardsync period=1 codec=int8");
        assert_eq!(names("averaging period=1,10@500,sync"), ["averaging period=1,10@500", "sync"]);
    }

    #[test]
    fn a_range_is_a_number_to_tune() {
        let rule = parse("averaging period=5..50").unwrap().remove(0);
        assert_eq!(rule.number, Some(("period".into(), 5.0..=50.0)));
        assert_eq!(rule.recipe, Recipe::averaging(5));
        assert_eq!(parse("sync").unwrap()[0].number, None);
    }

    #[test]
    fn wrong_recipes_are_one_clear_line() {
        let cases = [
            ("", "expected the name of a recipe"),
            ("sync,", "expected the name of a recipe"),
            ("avaraging period={1,2}", "averaging"),
            ("averaging priod={1,2}", "priod"),
            ("averaging period={1,x}", "x"),
            ("averaging period={1,2", "expected \"}\" after the values"),
            ("averaging period=1}", "expected \"{\" before"),
            ("averaging period={1,,2}", "expected values with commas"),
            ("averaging period=50..5", "the smaller one first"),
            ("ssp bound=1..3 shards=1..2", "at most one number to tune"),
            ("sync,sync", "\"sync\" is there twice"),
        ];
        for (text, words) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{text:?}: {error}");
        }
        let many: Vec<String> = (1..=101).map(|value| value.to_string()).collect();
        assert!(parse(&format!("averaging period={{{}}}", many.join(","))).unwrap_err().contains("at most 100"));
    }
}
