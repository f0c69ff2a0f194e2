// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`write()`]: a finding as files: a sequence to replay, a program of C, and a page of HTML with all of it;
//! and it comes on the page of all findings of the directory.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use vmalab_model::Area;

use crate::index;
use crate::oracle::World;
use crate::program::program;
use crate::report::result_text;
use crate::runner::{Case, Differs, What};
use crate::sequence::to_text;
use crate::show;

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The sequence, for `vmalab replay`.
    pub sequence: PathBuf,
    /// The program, or why there is none.
    pub program: Result<PathBuf, String>,
    /// The page with all of it.
    pub page: PathBuf,
    /// The page of all findings that are there.
    pub index: PathBuf,
}

/// Where a finding comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// What its files are called, but for `finding-` before it and the extension.
    pub name: String,
    /// The oracle's name.
    pub oracle: String,
    /// The era's name.
    pub era: String,
    /// In what it was found, for people.
    pub found_in: String,
    /// The command that shows it again.
    pub command: String,
}

/// Writes a finding into a directory, which is made if it is not there.
///
/// # Errors
/// Those of the file system.
pub fn write(
    directory: &Path,
    case: &Case,
    origin: &Origin,
    worlds: &[World],
) -> io::Result<Written> {
    fs::create_dir_all(directory)?;
    let path = |extension| directory.join(format!("finding-{}.{extension}", origin.name));
    let title = format!(
        "{}: {}\n{}, predicted by the rules {}",
        last_op(case, worlds),
        what(case),
        origin.oracle,
        origin.era
    );
    let sequence = to_text(&worlds[case.world], Some(&origin.era), &case.ops, &title);
    let program = program(case, worlds, &title);
    let page = html(case, origin, worlds, &sequence, &program);
    let written = Written {
        sequence: path("ops"),
        program: program.as_ref().map(|_| path("c")).map_err(Clone::clone),
        page: path("html"),
        index: directory.join(index::NAME),
    };
    fs::write(&written.sequence, sequence)?;
    if let (Ok(path), Ok(text)) = (&written.program, &program) {
        fs::write(path, text)?;
    }
    fs::write(&written.page, page)?;
    index::write(&[directory.to_owned()], &written.index)?;
    Ok(written)
}

/// What a case shows, in a line.
pub fn what(case: &Case) -> String {
    match &case.what {
        What::Differs(differs) => differs.difference.to_string(),
        What::Broke(what) => format!("the oracle broke: {what}"),
    }
}

fn last_op(case: &Case, worlds: &[World]) -> String {
    let files = &worlds[case.world].files;
    let last = case.ops.last();
    last.map_or_else(String::new, |op| show::op(op, files))
}

pub(crate) const STYLE: &str = "body { font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.3em } h2 { font-size: 1.1em; margin-top: 2em }
pre { background: #f6f6f6; padding: .7em; overflow-x: auto } table { border-collapse: collapse }
td, th { border: 1px solid #ccc; padding: .2em .6em; text-align: left } .differs { background: #ffe0e0 }";
/// Between these is what the page of all findings takes.
pub(crate) const BODY: &str = "</style>\n";
pub(crate) const END: &str = "</html>\n";

/// The page: nothing in it comes from elsewhere.
fn html(
    case: &Case,
    origin: &Origin,
    worlds: &[World],
    sequence: &str,
    program: &Result<String, String>,
) -> String {
    let world = &worlds[case.world];
    let e = show::escaped;
    let op = last_op(case, worlds);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{}</title>\n<style>{STYLE}{BODY}\
         <h1>{}</h1>\n<p><b>{}</b></p>\n",
        e(&what(case)),
        e(&op),
        e(&what(case))
    );
    let _ = writeln!(
        page,
        "<table><tr><th>oracle<td>{}<tr><th>model<td>rules {}<tr><th>world<td>{}<tr><th>found in<td>{}<tr><th>again<td><code>{}</code></table>",
        e(&origin.oracle),
        e(&origin.era),
        e(&world.name),
        e(&origin.found_in),
        e(&origin.command),
    );
    if let What::Differs(differs) = &case.what {
        outcomes(&mut page, differs, world);
    }
    let _ = writeln!(
        page,
        "<h2>The operations</h2><p>A file for <code>vmalab replay</code>, on any oracle:</p><pre>{}</pre>",
        e(sequence)
    );
    page += "<h2>Without us</h2>\n";
    let _ = match program {
        Ok(text) => writeln!(
            page,
            "<p>A program that shows it on a plain kernel; its exit status is 1 if the kernel does not do \
             what was expected:</p><pre>{}</pre>",
            e(text)
        ),
        Err(why) => writeln!(
            page,
            "<p>No program shows it on a plain kernel: {}.</p>",
            e(why)
        ),
    };
    page += END;
    page
}

/// Drawings, areas, counters and hook calls, beside each other.
fn outcomes(page: &mut String, differs: &Differs, world: &World) {
    let Differs {
        difference,
        before,
        predicted,
        observed,
    } = differs;
    let observed = &observed.outcome;
    let e = show::escaped;
    let rows: [(&str, &[Area]); 3] = [
        ("before", &before.layout),
        ("predicted", &predicted.layout),
        ("observed", &observed.layout),
    ];
    page.push_str("<h2>Areas</h2>\n");
    for window in world.windows() {
        page.push_str(&show::picture(&window, &rows, &world.files));
    }
    page.push_str("<table><tr><th><th>areas and their flags\n");
    for (name, areas) in rows {
        let _ = write!(page, "<tr><th>{name}<td><pre>");
        for area in areas {
            let _ = writeln!(
                page,
                "{} {:?}",
                e(&show::area(area, &world.files)),
                area.flags
            );
        }
        page.push_str("</pre>\n");
    }
    page.push_str("</table>\n<h2>Result, counters, hook calls</h2>\n<table><tr><th><th>predicted<th>observed\n");
    let mut row = |name: &str, predicted: String, observed: String| {
        let class = match difference.field == name {
            true => " class=\"differs\"",
            false => "",
        };
        let _ = writeln!(
            page,
            "<tr{class}><th>{name}<td>{}<td>{}",
            e(&predicted),
            e(&observed)
        );
    };
    row(
        "result",
        result_text(predicted.result),
        result_text(observed.result),
    );
    let (p, o) = (&predicted.counters, &observed.counters);
    for (name, p, o) in [
        ("map_count", p.map_count, o.map_count),
        ("total_vm", p.total_vm, o.total_vm),
        ("locked_vm", p.locked_vm, o.locked_vm),
        ("data_vm", p.data_vm, o.data_vm),
        ("stack_vm", p.stack_vm, o.stack_vm),
        ("exec_vm", p.exec_vm, o.exec_vm),
    ] {
        row(name, p.to_string(), o.to_string());
    }
    for index in 0..predicted.hooks.len().max(observed.hooks.len()) {
        let call = |hooks: &[vmalab_model::HookCall]| {
            let call = hooks.get(index);
            call.map_or_else(String::new, |call| show::hook_call(call, &world.files))
        };
        row(
            &format!("hook call {index}"),
            call(&predicted.hooks),
            call(&observed.hooks),
        );
    }
    page.push_str("</table>\n");
}
