//! The answer as a JSON object.

use std::fmt::Write as _;

use gradwire::Cluster;

use super::answer::{Answer, Group, is_exact};
use super::input::Input;
use super::simulate::Simulated;
use super::table::waiting;

pub(crate) fn text(input: &Input, answer: &Answer) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, input, answer);
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn number(x: Option<f64>) -> String {
    x.filter(|x| x.is_finite()).map_or_else(|| "null".into(), |x| format!("{x:e}"))
}

fn write(out: &mut String, input: &Input, answer: &Answer) -> std::fmt::Result {
    let case = &input.cases[0];
    let link = case.link;
    let steps: Vec<String> = case.steps.iter().map(|step| format!("{step:e}")).collect();
    write!(
        out,
        "{{\"parameters\":{},\"steps\":[{}],\"spread\":{},\"bytes_per_second\":{{\"up\":{},\"down\":{}}},\
         \"latency\":{:e},\"groups\":[",
        case.params,
        steps.join(","),
        case.spread,
        link.up,
        link.down,
        link.latency,
    )?;
    for (at, one) in answer.groups.iter().enumerate() {
        out.push_str(if at > 0 { "," } else { "" });
        group(out, input, one)?;
    }
    let first = answer.first();
    let verdict = if first.gain > 1.0 { "distribute" } else { "do not distribute" };
    write!(
        out,
        "],\"verdict\":{},\"best\":{{\"recipe\":{},\"workers\":{},\"gain\":{:e}}},\"break_even\":[",
        quoted(verdict),
        quoted(&input.recipes[first.recipe].0),
        answer.groups[answer.best].workers,
        first.gain,
    )?;
    for (at, row) in answer.breaks.iter().enumerate() {
        let slower = input.cases[answer.best].link.slower();
        write!(
            out,
            "{}{{\"recipe\":{},\"bytes_per_second\":{},\"workers\":{}}}",
            if at > 0 { "," } else { "" },
            quoted(&input.recipes[row.recipe].0),
            number(row.bandwidth.map(|times| times * slower)),
            row.workers.map_or_else(|| "null".into(), |workers| workers.to_string()),
        )?;
    }
    out.push_str("],\"sensitivity\":[");
    for (at, variant) in answer.variants.iter().enumerate() {
        write!(
            out,
            "{}{{\"with\":{},\"recipe\":{},\"gain\":{:e},\"gain_of_best\":{:e}}}",
            if at > 0 { "," } else { "" },
            quoted(variant.name),
            quoted(&input.recipes[variant.recipe].0),
            variant.gain,
            variant.of_best,
        )?;
    }
    out.push(']');
    for (at, Simulated { recipe, step, forecast }) in answer.simulated.iter().enumerate() {
        out.push_str(if at > 0 { "," } else { ",\"simulated\":[" });
        let (name, step) = (quoted(&input.recipes[*recipe].0), step.as_ref());
        let reason = step.err().map_or_else(|| "null".into(), |reason| quoted(reason));
        let step = number(step.ok().copied());
        write!(out, "{{\"recipe\":{name},\"step\":{step},\"forecast\":{forecast:e},\"reason\":{reason}}}")?;
        out.push_str(if at + 1 == answer.simulated.len() { "]" } else { "" });
    }
    out.push_str("}\n");
    Ok(())
}

fn group(out: &mut String, input: &Input, group: &Group) -> std::fmt::Result {
    write!(out, "{{\"workers\":{},\"rows\":[", group.workers)?;
    let cluster = Cluster { workers: group.workers as u32, servers: 0 };
    let first = group.rows.first().map_or(1.0, |row| row.gain);
    for (at, row) in group.rows.iter().enumerate() {
        let (name, recipe) = &input.recipes[row.recipe];
        let (forecast, parts) = (&row.forecast, row.forecast.parts);
        write!(
            out,
            "{}{{\"recipe\":{},\"recipe_in_full\":{},\"exact\":{},\"speed_up\":{:e},\"penalty\":{},\"gain\":{:e},\
             \"turns_at\":{:e},\"step\":{:e},\"busy\":{:e},\"bytes\":{:e},\"busiest_port\":{:e},\"staleness\":{:e},\
             \"servers\":{},\"waits_for\":{},\"parts\":{{\"compute\":{:e},\"straggle\":{:e},\"wire\":{:e},\
             \"latency\":{:e},\"code\":{:e}}},\"epoch\":{}}}",
            if at > 0 { "," } else { "" },
            quoted(name),
            quoted(&recipe.fitted(cluster, input.cases[0].params).to_string()),
            is_exact(recipe),
            forecast.speed_up,
            number(input.penalties[row.recipe]),
            row.gain,
            first / row.gain,
            forecast.step,
            forecast.busy,
            forecast.bytes,
            forecast.busiest,
            forecast.staleness,
            forecast.servers,
            quoted(&waiting(forecast.waits)),
            parts.compute,
            parts.straggle,
            parts.wire,
            parts.latency,
            parts.code,
            number(row.epoch),
        )?;
    }
    out.push_str("],\"do_not_fit\":[");
    for (at, (recipe, reason)) in group.unfit.iter().enumerate() {
        let name = quoted(&input.recipes[*recipe].0);
        write!(out, "{}{{\"recipe\":{name},\"reason\":{}}}", if at > 0 { "," } else { "" }, quoted(reason))?;
    }
    out.push_str("]}");
    Ok(())
}
