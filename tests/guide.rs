//! The guide's page with the reference of recipes is written from the tables of the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use gradwire::recipe::{KEYS, KeyValues, PRESETS};

const INTRODUCTION: &str = "\
# Reference of the recipe text

<!-- Written by tests/guide.rs from the tables in the code: GRADWIRE_WRITE=1 cargo test --test guide -->

A recipe is a text of words, for instance `ssp bound=5 codec=topk density=0.01`. The first word can be the name of a
*preset*, which is a complete recipe; without one, the text starts from `sync`. Each further word is `key=value`, and
changes the recipe: a *choice* on an axis, or a number that belongs to a choice. A number comes after the choice that it
belongs to. Later words override earlier ones. `Recipe`'s `Display` writes all axes; that text parses to the same recipe.

```
use gradwire::Recipe;

let recipe: Recipe = \"async codec=topk density=0.01 pull=topk pull_density=0.05 overlap=true\".parse()?;
assert_eq!(recipe.to_string().parse(), Ok(recipe));

// An error names every word that is wrong, and the right one.
let error = \"ring-bf16 chunk=big overlap=true\".parse::<Recipe>().unwrap_err().to_string();
assert!(error.contains(\"chunk: expected a whole number\") && error.contains(\"it requires pace=asynchronous\"));
# Ok::<(), gradwire::recipe::RecipeParseError>(())
```

Each axis is a section below, and the numbers that belong to its choices follow it. `after` is the choice that a number
belongs to.
";

fn page() -> String {
    let mut text = String::from(INTRODUCTION);
    let mut in_table = false;
    for key in KEYS {
        let about = key.about.replace('|', "\\|");
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        match key.values {
            KeyValues::Names(names) if !key.name.starts_with("pull_") => {
                let after = if key.of.is_empty() { String::new() } else { format!(" (after `{}`)", key.of) };
                write!(text, "\n## `{}`{after}\n\n{about}.", key.name).unwrap();
                if !default.is_empty() {
                    write!(text, " Default: {default}.").unwrap();
                }
                text += "\n\n| value | meaning |\n|---|---|\n";
                for (name, about) in names {
                    writeln!(text, "| `{name}` | {about} |").unwrap();
                }
                in_table = false;
            }
            values => {
                if !in_table {
                    text += "\n| key | after | values | default | meaning |\n|---|---|---|---|---|\n";
                }
                let values = match values {
                    KeyValues::Text(values) => values.to_string(),
                    KeyValues::Names(names) => {
                        names.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                    }
                };
                let after = if key.of.is_empty() { String::new() } else { format!("`{}`", key.of) };
                writeln!(text, "| `{}` | {after} | {values} | {default} | {about} |", key.name).unwrap();
                in_table = true;
            }
        }
    }
    text += "\n## Presets\n\nA preset is a complete recipe with a name. The text is what it stands for.\n\n";
    text += "| preset | method | text |\n|---|---|---|\n";
    for preset in PRESETS {
        writeln!(text, "| `{}` | {} | `{}` |", preset.name, preset.about, (preset.recipe)()).unwrap();
    }
    text
}

#[test]
fn the_reference_is_written_from_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/reference.md");
    if std::env::var_os("GRADWIRE_WRITE").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(written == page(), "{path} differs from the tables: GRADWIRE_WRITE=1 cargo test --test guide");
    // What newcomers looked for and did not find.
    for key in ["pull_density", "overlap", "chunk", "relay", "control"] {
        assert!(written.contains(&format!("`{key}`")), "{key}");
    }
}

/// A page can be read as a file: each link leads to a file or heading, or to the web, and the documentation has a path of
/// Rust for it.
#[test]
fn links_work_in_files_and_in_the_documentation() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let guide = include_str!("../src/guide.rs");
    let mut found = 0;
    for page in std::fs::read_dir(&root).unwrap() {
        let path = page.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for rust in ["](super::", "](crate::", "](mod@"] {
            assert!(!text.contains(rust), "{}: {rust} is no link in a file", path.display());
        }
        for line in text.lines().filter(|line| line.starts_with('[')) {
            let Some((label, target)) = line.split_once("]: ") else { continue };
            let label = label.trim_start_matches('[');
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let linked = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{target}: {error}"));
            let headings = linked.lines().filter_map(|line| line.strip_prefix("## "));
            let mut anchors = headings.map(|heading| heading.to_lowercase().replace(' ', "-"));
            assert!(heading.is_empty() || anchors.any(|anchor| anchor == heading), "{}: {target}", path.display());
            assert!(guide.contains(&format!("[{label}]: ")), "{label} of {} is not in src/guide.rs", path.display());
            found += 1;
        }
    }
    assert!(found >= 10, "{found}");
}

/// The guide names every page, and every page exists.
#[test]
fn every_page_is_in_the_list_of_pages() {
    let guide = include_str!("../src/guide.rs");
    for page in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide")).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        let page = name.strip_suffix(".md").unwrap();
        assert!(guide.contains(&format!("[`{page}`]")) && guide.contains(&format!("\"guide/{name}\"")), "{name}");
    }
}
