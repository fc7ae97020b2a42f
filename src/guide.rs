//! The guide: how to use gradwire, from the first run to each key of a recipe. Its code is compiled and run by the tests.
//!
//! | page | for |
//! |---|---|
//! | [`first_run`] | a training of four workers in ten minutes, without code of your own |
//! | [`choose`] | the recipe for a network, a task and machines |
//! | [`embed`] | your own training loop |
//! | [`processes`] | processes, machines and GPUs |
//! | [`slow`] | what to do when it is slow, by symptom |
//! | [`broken`] | errors, failures, and running the same run again |
//! | [`watch`] | monitors |
//! | [`simulate`] | training in virtual time, before there is a cluster |
//! | [`recipes`] | what recipes can do beyond their presets |
//! | [`compress`] | codecs and residuals |
//! | [`reference`](mod@reference) | every axis and key of the text form, and every preset |
//! | [`glossary`] | the terms |

macro_rules! pages {
    ($($page:ident: $text:literal,)*) => {$(
        pub mod $page {
            #![doc = include_str!($text)]
        }
    )*};
}

pages! {
    first_run: "guide/first_run.md",
    choose: "guide/choose.md",
    embed: "guide/embed.md",
    processes: "guide/processes.md",
    slow: "guide/slow.md",
    broken: "guide/broken.md",
    watch: "guide/watch.md",
    simulate: "guide/simulate.md",
    recipes: "guide/recipes.md",
    compress: "guide/compress.md",
    reference: "guide/reference.md",
    glossary: "guide/glossary.md",
}
