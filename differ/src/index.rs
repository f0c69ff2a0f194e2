// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`write()`]: all findings of a campaign on one page: what stands on the [`page`](crate::page) of each, one
//! after the other, with a list of them at the top.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::page::{BODY, END, STYLE};

/// What the page is called in a directory of findings.
pub const NAME: &str = "index.html";

/// What it takes from the page of one finding.
struct Entry {
    title: String,
    body: String,
}

/// Puts the findings of these directories on one page, and gives how many there are. Of several processes that
/// write to one directory the last one has them all.
///
/// # Errors
/// Those of the file system; `InvalidData` for a page that is not one of [`page`](crate::page).
pub fn write(directories: &[PathBuf], out: &Path) -> io::Result<usize> {
    let directory = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let locked = Flock::lock(File::open(directory)?, FlockArg::LockExclusive);
    let _locked = locked.map_err(|(_, errno)| io::Error::from(errno))?;
    let mut entries = Vec::new();
    for directory in directories {
        for path in pages(directory)? {
            let text = fs::read_to_string(&path)?;
            entries.push(entry(&text).ok_or_else(|| {
                let what = format!("{} is not the page of a finding", path.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?);
        }
    }
    let new = out.with_extension("new");
    fs::write(&new, html(&entries))?;
    fs::rename(new, out)?;
    Ok(entries.len())
}

/// The pages of the findings in a directory, by name.
fn pages(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("finding-") && name.ends_with(".html")) {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(pages)
}

fn entry(text: &str) -> Option<Entry> {
    let (_, rest) = text.split_once("<title>")?;
    let (title, rest) = rest.split_once("</title>")?;
    let (_, body) = rest.split_once(BODY)?;
    let (body, _) = body.rsplit_once(END)?;
    Some(Entry {
        title: title.into(),
        body: body.into(),
    })
}

fn html(entries: &[Entry]) -> String {
    let title = match entries.len() {
        1 => "1 finding".into(),
        count => format!("{count} findings"),
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n<ol>\n"
    );
    for (number, entry) in (1..).zip(entries) {
        let _ = writeln!(page, "<li><a href=\"#{number}\">{}</a>", entry.title);
    }
    page += "</ol>\n";
    for (number, entry) in (1..).zip(entries) {
        let _ = write!(
            page,
            "<hr>\n<article id=\"{number}\">\n{}</article>\n",
            entry.body
        );
    }
    page += END;
    page
}
