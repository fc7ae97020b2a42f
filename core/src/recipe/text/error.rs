//! [`RecipeParseError`], with the names that a mistyped one is most similar to.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::recipe::{KEYS, Key, PRESETS, Recipe};

/// Why a text could not be parsed as a recipe.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipeParseError {
    /// There is no preset with this name.
    UnknownPreset {
        /// The given name.
        got: String,
        /// The preset with the most similar name, if one is similar enough for a suggestion.
        nearest: Option<&'static str>,
    },
    /// There is no such key, or it belongs to a choice that the recipe has not made.
    UnknownKey {
        /// The given key.
        got: String,
        /// The choice that the key belongs to, for instance `pace=stale` for `bound`.
        required: Option<&'static str>,
        /// If the recipe has made another choice in its place, the keys of that choice: `codec=topk has density, …`.
        instead: Option<String>,
        /// The key with the most similar name, if there is no such key and one is similar enough.
        nearest: Option<&'static str>,
    },
    /// The key does not take this value.
    BadValue {
        /// The key, without a prefix `pull_`.
        key: &'static str,
        /// The values that the key takes.
        expected: &'static str,
        /// The given value.
        got: String,
    },
    /// More than one word of the text is wrong: the error of each.
    Several(Vec<Self>),
}

/// The error for a key that the recipe does not have.
pub(super) fn unknown_key(name: &str, recipe: &Recipe) -> RecipeParseError {
    let got = name.to_string();
    let Some(key) = Key::find(name) else {
        let nearest = most_similar(name, KEYS.iter().map(|key| key.name));
        return RecipeParseError::UnknownKey { got, required: None, instead: None, nearest };
    };
    let axis = key.of.split('=').next().unwrap_or_default();
    RecipeParseError::UnknownKey { got, required: Some(key.of), instead: keys_of(recipe, axis), nearest: None }
}

/// The choice of a recipe on this axis, and the keys that belong to it, in words. `None`: no key does.
fn keys_of(recipe: &Recipe, axis: &str) -> Option<String> {
    let text = recipe.to_string();
    let value = text.split(' ').find_map(|word| word.strip_prefix(axis)?.strip_prefix('='))?;
    let belongs = |key: &&Key| {
        let choices = key.of.strip_prefix(axis).and_then(|rest| rest.strip_prefix('='));
        choices.is_some_and(|choices| choices.split(", ").flat_map(|names| names.split(" or ")).any(|it| it == value))
    };
    let keys: Vec<&str> = KEYS.iter().filter(belongs).map(|key| key.name).collect();
    (!keys.is_empty()).then(|| alloc::format!("{axis}={value} has {}", keys.join(", ")))
}

/// The preset with the smallest edit distance to `name`, if that is at most half the length of the preset's name.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    // Other systems call rounds of the first contributions by this name. Here a quorum belongs to views.
    if name == "quorum" {
        return Some("backup-workers");
    }
    most_similar(name, PRESETS.iter().map(|preset| preset.name))
}

/// The candidate with the smallest edit distance to `name`, if that is at most half of its own length.
fn most_similar(name: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let distance = |candidate: &str| edit_distance(name.as_bytes(), candidate.as_bytes());
    let best = candidates.min_by_key(|candidate| distance(candidate))?;
    (distance(best) * 2 <= best.len()).then_some(best)
}

/// Levenshtein distance, with one row of the table in memory.
pub(crate) fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: alloc::vec::Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl fmt::Display for RecipeParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPreset { got, nearest } => {
                write!(f, "recipe: expected a preset (")?;
                for (i, preset) in PRESETS.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { ", " }, preset.name)?;
                }
                write!(f, ") or key=value, got {got:?}")?;
                match nearest {
                    Some(name) => write!(f, " (did you mean {name:?}?)"),
                    None => Ok(()),
                }
            }
            Self::UnknownKey { got, required: Some(required), instead, .. } => {
                write!(f, "recipe: {got:?} is not a setting of this recipe, it requires {required}")?;
                instead.as_ref().map_or(Ok(()), |instead| write!(f, " ({instead})"))
            }
            Self::UnknownKey { got, required: None, nearest, .. } => {
                write!(f, "recipe: {got:?} is not a setting")?;
                match nearest {
                    _ if got == "quorum" => write!(f, " (did you mean \"pace=first count=\"?)"),
                    _ if Recipe::preset(got).is_some() => write!(f, ", but a preset, and a preset is the first word"),
                    Some(name) => write!(f, " (did you mean {name:?}?)"),
                    None => Ok(()),
                }
            }
            Self::Several(errors) => {
                for (i, error) in errors.iter().enumerate() {
                    write!(f, "{}{error}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::BadValue { key, expected, got } => {
                write!(f, "{key}: expected {expected}, got {got:?}")?;
                // A list of names, like the list of `Choices`. Other texts describe numbers.
                let names = expected.split(", ").flat_map(|names| names.split(" or "));
                let are_names = !names.clone().any(|name| name.contains(' '));
                // Short names are similar soon, so it takes more than half of one.
                let is_close = |name: &&str| edit_distance(got.as_bytes(), name.as_bytes()) * 2 < name.len();
                if *key == "pace" && got == "quorum" {
                    return write!(f, " (did you mean \"first\"?)");
                }
                if *key == "grace" && is_close(&"adaptive") {
                    return write!(f, " (did you mean \"adaptive\"?)");
                }
                match most_similar(got, names.filter(is_close)).filter(|_| are_names) {
                    Some(name) => write!(f, " (did you mean {name:?}?)"),
                    None => Ok(()),
                }
            }
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for RecipeParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for RecipeParseError {}
