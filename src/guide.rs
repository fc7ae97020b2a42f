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
            // The first definition of a link counts: here a path of Rust. A page that is read as a file has its own
            // definitions, of files, at its end.
            #![doc = "[Builder::caller_driven]: crate::Builder::caller_driven\n\
            [Builder::monitor]: crate::Builder::monitor\n\
            [Builder::serve]: crate::Builder::serve\n\
            [Error]: crate::Error\n\
            [Session]: crate::Session\n\
            [Session::expect_silence]: crate::Session::expect_silence\n\
            [Session::pump]: crate::Session::pump\n\
            [broken]: super::broken\n\
            [choose]: super::choose\n\
            [embed]: super::embed\n\
            [embed#a-dev-build-is-slow]: super::embed#a-dev-build-is-slow\n\
            [monitor::Board]: crate::monitor::Board\n\
            [recipe::Hint::OptimizerKept]: crate::recipe::Hint::OptimizerKept\n\
            [recipes]: super::recipes\n\
            [recipes#the-learning-rate]: super::recipes#the-learning-rate\n\
            [reference]: mod@super::reference\n"]
            #![doc = ""]
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
