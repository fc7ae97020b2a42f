//! The answer as text: a table per number of workers, and a verdict. Lines have at most 80 columns.

use std::fmt::Write as _;

use gradwire::plan::{Forecast, Waits};
use gradwire_examples::units::{bits, bytes, factor, many, three, time};

use super::answer::{Answer, Group, Row, is_exact};
use super::input::{GOODPUT, Input};
use super::simulate::Simulated;

pub(crate) fn text(input: &Input, answer: &Answer) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, input, answer);
    text
}

fn write(out: &mut String, input: &Input, answer: &Answer) -> std::fmt::Result {
    head(out, input)?;
    for group in &answer.groups {
        table(out, input, group)?;
    }
    verdict(out, input, answer)?;
    break_even(out, input, answer)?;
    sensitivity(out, input, answer)?;
    simulated(out, input, answer)
}

/// Bits per second of the line.
fn line(bandwidth: f64) -> String {
    bits(bandwidth * 8.0 / GOODPUT)
}

fn head(out: &mut String, input: &Input) -> std::fmt::Result {
    let case = &input.cases[0];
    let (least, most) = case.steps.iter().fold((f64::INFINITY, 0.0f64), |(a, b), step| (a.min(*step), b.max(*step)));
    let steps = if least == most { time(least) } else { format!("{} to {}", time(least), time(most)) };
    let (link, vector) = (case.link, 4.0 * case.params as f64);
    let port = match link.up == link.down {
        true => line(link.up),
        false => format!("{} up and {} down", line(link.up), line(link.down)),
    };
    writeln!(
        out,
        "{} parameters ({}), a step of {steps}, {port}, {}",
        many(case.params as f64),
        bytes(vector),
        time(link.latency)
    )?;
    let law = case.ring_law();
    let period = |share| law.factor_for(share).ceil().max(1.0);
    writeln!(
        out,
        "R = {}: a step over the time of its vector on the wire. A dense ring of many\n\
         workers computes half of the time from period={} on, 90 % from period={} on.",
        three(2.0 * law.compute / law.exchange),
        period(0.5),
        period(0.9),
    )
}

/// The width of the names of recipes.
fn width(input: &Input) -> usize {
    if input.examples.is_some() { 16 } else { 25 }
}

fn short(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return format!("{name:width$}");
    }
    let cut: String = name.chars().take(width - 1).collect();
    format!("{cut}…")
}

fn table(out: &mut String, input: &Input, group: &Group) -> std::fmt::Result {
    let width = width(input);
    let workers = format!("{} worker{}", group.workers, if group.workers == 1 { "" } else { "s" });
    let starred = if input.penalties.iter().any(Option::is_some) { "speed-up*" } else { "speed-up" };
    let epoch = if input.examples.is_some() { "    epoch" } else { "" };
    writeln!(
        out,
        "\n{workers:width$} {starred:>9} {:>8} {:>5} {:>9} {:>8}  waits for{epoch}",
        "step", "busy", "sent/step", "turns at"
    )?;
    let first = group.rows.first().map_or(1.0, |row| row.gain);
    let mut alone = true;
    for (at, row) in group.rows.iter().enumerate() {
        if alone && row.gain < 1.0 {
            one_worker(out, input, first)?;
            alone = false;
        }
        let turns = if at == 0 { "-".into() } else { factor(first / row.gain) };
        let Forecast { step, busy, bytes: sent, waits, .. } = row.forecast;
        write!(
            out,
            "{} {:>9} {:>8} {:>5} {:>9} {turns:>8}  {}",
            short(&input.recipes[row.recipe].0, width),
            factor(row.gain),
            time(step),
            format!("{:.0}%", 100.0 * busy),
            bytes(sent),
            waiting(waits),
        )?;
        if let Some(epoch) = row.epoch {
            let pad = 9usize.saturating_sub(waiting(waits).len());
            write!(out, "{:pad$} {:>8}", "", time(epoch))?;
        }
        writeln!(out)?;
    }
    if alone {
        one_worker(out, input, first)?;
    }
    for (recipe, reason) in &group.unfit {
        writeln!(out, "{} does not fit: {reason}", short(&input.recipes[*recipe].0, width))?;
    }
    Ok(())
}

/// The row of the fastest worker alone.
fn one_worker(out: &mut String, input: &Input, first: f64) -> std::fmt::Result {
    let width = width(input);
    let alone = 1.0 / input.cases[0].alone();
    let turns = if first > 1.0 { factor(first) } else { "-".into() };
    write!(
        out,
        "{:width$} {:>9} {:>8} {:>5} {:>9} {turns:>8}  -",
        "one worker alone",
        "1.00x",
        time(alone),
        "100%",
        "0 B"
    )?;
    if let (Some(examples), Some(batch)) = (input.examples, input.cases[0].batch) {
        write!(out, "{:8} {:>8}", "", time(examples / f64::from(batch) * alone))?;
    }
    writeln!(out)
}

pub(crate) fn waiting(waits: Waits) -> String {
    match waits {
        Waits::Nothing => "-".into(),
        Waits::Stragglers(None) => "slowest".into(),
        Waits::Stragglers(Some(rank)) => format!("rank {rank}"),
        Waits::Wire => "wire".into(),
        Waits::Server => "server".into(),
        Waits::Inner => "inner".into(),
        Waits::Latency => "latency".into(),
        Waits::Code => "code".into(),
    }
}

/// Writes a sentence of the verdict, in lines of at most 80 columns.
fn say(out: &mut String, sentence: &str) -> std::fmt::Result {
    let mut line = String::from(" ");
    for word in sentence.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 80 {
            writeln!(out, "{line}")?;
            line = String::from("   ");
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(out, "{line}")
}

fn verdict(out: &mut String, input: &Input, answer: &Answer) -> std::fmt::Result {
    let group = &answer.groups[answer.best];
    let (first, workers) = (answer.first(), group.workers);
    let (name, gain) = (&input.recipes[first.recipe].0, factor(first.gain));
    let measured = input.penalties[first.recipe].is_some();
    writeln!(out, "\nVerdict")?;
    if first.gain <= 1.0 {
        say(out, &format!("Do not distribute: {name} on {workers} workers, the fastest, is {gain} one worker."))?;
    } else {
        let condition = if measured { "with its measured penalty" } else { "if a step teaches as much" };
        say(out, &format!("{name} on {workers} workers is first: {gain} one worker, {condition}."))?;
        if !measured {
            say(out, &format!("One worker is as good if {name} needs {gain} the examples."))?;
        }
        if let Some(second) = group.rows.get(1) {
            let (name, turns) = (&input.recipes[second.recipe].0, factor(first.gain / second.gain));
            say(out, &format!("Second is {name}: the ranking turns at {turns} its examples."))?;
        }
    }
    // Every group counts: a recipe that scales badly may be best with few workers.
    let exact = |group: &Group| {
        let row = group.rows.iter().find(|row| is_exact(&input.recipes[row.recipe].1));
        row.map(|row| (row.gain, row.recipe, group.workers))
    };
    let exact = answer.groups.iter().filter_map(exact).max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((gain, recipe, workers)) = exact.filter(|(_, recipe, _)| *recipe != first.recipe) {
        let name = &input.recipes[recipe].0;
        let end = if gain > 1.0 { "" } else { " So without a cost in learning: do not distribute." };
        let gain = factor(gain);
        say(out, &format!("Exact, as one worker with the batch of all: {name} on {workers} workers, {gain}.{end}"))?;
    }
    stragglers(out, input, answer, first)
}

/// The straggler law, where it matters.
fn stragglers(out: &mut String, input: &Input, answer: &Answer, first: &Row) -> std::fmt::Result {
    let case = &input.cases[answer.best];
    let slowest = case.steps.iter().copied().fold(0.0, f64::max);
    let busy = case.steps.iter().map(|step| step / slowest).sum::<f64>() / case.steps.len() as f64;
    let straggle = first.forecast.parts.straggle / first.forecast.step;
    if busy < 1.0 {
        let (slowest, most) = (time(slowest), 100.0 * busy);
        let limit = format!("with equal periods in steps, machines compute at most {most:.0} % of the time");
        say(out, &format!("A step of the slowest worker takes {slowest}: {limit}."))?;
        say(out, "A period in time (averaging period=20s) has no such limit.")?;
    } else if straggle > 0.02 {
        let share = 100.0 * straggle;
        say(out, &format!("Stragglers take {share:.0} % of a step: less with a longer period, by its root."))?;
    }
    Ok(())
}

fn break_even(out: &mut String, input: &Input, answer: &Answer) -> std::fmt::Result {
    let case = &input.cases[answer.best];
    let workers = answer.groups[answer.best].workers;
    writeln!(out, "\nAs fast as one worker")?;
    for row in &answer.breaks {
        let bandwidth = match row.bandwidth {
            Some(0.0) => "at any bandwidth".into(),
            Some(times) => format!("from {} on", line(case.link.slower() * times)),
            None => "at no bandwidth".into(),
        };
        let few = match row.workers {
            Some(fewest) => format!("from {fewest} workers on"),
            None if case.steps.iter().any(|step| *step != case.steps[0]) => String::new(),
            None => "never, here".into(),
        };
        let name = short(&input.recipes[row.recipe].0, 25);
        writeln!(out, "{}", format!("  {name} {workers} workers: {bandwidth:<20} {few}").trim_end())?;
    }
    Ok(())
}

fn sensitivity(out: &mut String, input: &Input, answer: &Answer) -> std::fmt::Result {
    let first = answer.first();
    let name = &input.recipes[first.recipe].0;
    writeln!(out, "\n{} workers, {name}: {}; it would be", answer.groups[answer.best].workers, factor(first.gain))?;
    for variant in &answer.variants {
        let other = match variant.recipe == first.recipe {
            true => String::new(),
            false => format!(" (first: {}, {})", input.recipes[variant.recipe].0, factor(variant.gain)),
        };
        writeln!(out, "  {:>6} with {}{other}", factor(variant.of_best), variant.name)?;
    }
    Ok(())
}

fn simulated(out: &mut String, input: &Input, answer: &Answer) -> std::fmt::Result {
    if answer.simulated.is_empty() {
        return Ok(());
    }
    let workers = format!("{} workers, simulated", answer.groups[answer.best].workers);
    writeln!(out, "\n{workers:25} {:>9} {:>9}", "step", "forecast")?;
    for Simulated { recipe, step, forecast } in &answer.simulated {
        let name = short(&input.recipes[*recipe].0, 25);
        match step {
            Ok(step) => {
                let error = 100.0 * (forecast / step - 1.0);
                writeln!(out, "{name} {:>9} {:>9} {error:>+6.1} %", time(*step), time(*forecast))?;
            }
            Err(reason) => writeln!(out, "{name} not simulated: {reason}")?,
        }
    }
    Ok(())
}
