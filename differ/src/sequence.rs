// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Sequence`]: operations in a file, for people as text and for machines as JSON.
//!
//! ```text
//! # An area, and a hole in it.
//! world "plain"
//! era V7_2
//! mmap(arena+0x0, 0x4000, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0x0)
//! munmap(arena+0x1000, 0x1000)
//! ```
//!
//! Addresses are relative to what each oracle has at a place of its own: `arena`, where operations
//! happen; `heap`, from which the break may be moved up; `chosen`, from which the kernel chooses down.
//! The world is one of the oracle's; without that line it is the first one. The era is that of the rules
//! to predict by.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use vmalab_model::Op;

use crate::call::{Call, SIGNATURES, Signature, Value};
use crate::oracle::World;

/// Raised when old files can no longer be read.
const FORMAT: u32 = 1;

/// Operations, and where they are to be played.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// The world's name.
    pub world: Option<String>,
    /// The era's name.
    pub era: Option<String>,
    calls: Vec<Written>,
}

/// An operation as it was written.
#[derive(Clone, Debug)]
struct Written {
    signature: &'static Signature,
    args: Vec<(Value, Place)>,
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Line and column, from 1 on; the column counts characters.
    Text(usize, usize),
    /// The number of the operation, from 0 on.
    Op(usize),
}

/// Why a sequence cannot be read or played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceError {
    place: Option<Place>,
    what: String,
}

impl fmt::Display for SequenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place::Text(line, column)) => write!(f, "line {line}, column {column}: ")?,
            Some(Place::Op(index)) => write!(f, "operation {index}: ")?,
            None => {}
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for SequenceError {}

/// The file for machines.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    world: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    era: Option<String>,
    ops: Vec<JsonCall>,
}

/// One operation in it: `{"op": "munmap", "addr": "arena+0x1000", "len": "0x1000"}`, with the words of
/// the text, or plain numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Json>", into = "Map<String, Json>")]
struct JsonCall {
    signature: &'static Signature,
    args: Vec<Arg>,
}

#[derive(Clone, Debug)]
struct Arg {
    value: Value,
    word: String,
}

impl Sequence {
    /// Reads text or JSON.
    ///
    /// # Errors
    /// Where, and what was expected there.
    pub fn parse(text: &str) -> Result<Self, SequenceError> {
        if text.trim_start().starts_with('{') {
            return Self::parse_json(text);
        }
        let mut sequence = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            sequence.line(&mut Cursor {
                line,
                at: 0,
                number,
            })?;
        }
        Ok(sequence)
    }

    fn parse_json(text: &str) -> Result<Self, SequenceError> {
        let document: Document = serde_json::from_str(text).map_err(|error| {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or(&what).to_owned();
            let place = (error.line() > 0).then(|| Place::Text(error.line(), error.column()));
            SequenceError { place, what }
        })?;
        if document.format != FORMAT {
            return Err(SequenceError {
                place: None,
                what: format!("expected the format {FORMAT}, found {}", document.format),
            });
        }
        let calls = document.ops.into_iter().enumerate().map(|(index, call)| {
            let args = call.args.into_iter();
            Written {
                signature: call.signature,
                args: args.map(|arg| (arg.value, Place::Op(index))).collect(),
            }
        });
        Ok(Self {
            world: document.world,
            era: document.era,
            calls: calls.collect(),
        })
    }

    fn line(&mut self, cursor: &mut Cursor) -> Result<(), SequenceError> {
        cursor.skip_space();
        if cursor.ended() {
            return Ok(());
        }
        let start = cursor.at;
        let word = cursor.take(|c| c.is_ascii_alphanumeric() || c == '_');
        match word {
            "world" | "era" if !self.calls.is_empty() => {
                return Err(cursor.error_at(start, format!("`{word}` after an operation")));
            }
            "world" => {
                cursor.skip_space();
                cursor.expect('"')?;
                self.world = Some(cursor.take(|c| c != '"').to_owned());
                cursor.expect('"')?;
            }
            "era" => {
                cursor.skip_space();
                let era = cursor.take(|c| c.is_ascii_alphanumeric() || c == '_');
                if era.is_empty() {
                    return Err(cursor.expected("the name of an era, as V7_2"));
                }
                self.era = Some(era.to_owned());
            }
            _ => {
                let signature = Call::signature(word).ok_or_else(|| {
                    let names: Vec<_> = SIGNATURES.iter().map(|one| one.name).collect();
                    let found = if word.is_empty() { cursor.rest() } else { word };
                    let what = format!(
                        "expected world, era or an operation ({}), found `{found}`",
                        names.join(", ")
                    );
                    cursor.error_at(start, what)
                })?;
                self.calls.push(cursor.call(signature)?);
            }
        }
        cursor.skip_space();
        if cursor.ended() {
            Ok(())
        } else {
            Err(cursor.expected("the end of the line"))
        }
    }

    /// How many operations.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The world among an oracle's in which it is to be played, by its place.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn world_of(&self, worlds: &[World]) -> Result<usize, SequenceError> {
        let Some(name) = &self.world else {
            return Ok(0);
        };
        let found = worlds.iter().position(|world| world.name == *name);
        found.ok_or_else(|| {
            let names: Vec<_> = worlds
                .iter()
                .map(|world| format!("\"{}\"", world.name))
                .collect();
            SequenceError {
                place: None,
                what: format!(
                    "this oracle has no world \"{name}\"; it has {}",
                    names.join(", ")
                ),
            }
        })
    }

    /// The operations as they are in that world.
    ///
    /// # Errors
    /// Where, and what the world does not have.
    pub fn ops(&self, world: &World) -> Result<Vec<Op>, SequenceError> {
        let resolve = |call: &Written| {
            let mut args = [0; 6];
            for (slot, (value, place)) in args.iter_mut().zip(&call.args) {
                *slot = value.resolve(world).map_err(|what| SequenceError {
                    place: Some(*place),
                    what,
                })?;
            }
            Ok(Op::from(&Call {
                signature: call.signature,
                args,
            }))
        };
        self.calls.iter().map(resolve).collect()
    }
}

/// The file for people; `comment` may have several lines. Without an era it is played by the rules of the
/// kernel that answers.
pub fn to_text(world: &World, era: Option<&str>, ops: &[Op], comment: &str) -> String {
    let mut text = String::new();
    for line in comment.lines() {
        let _ = writeln!(text, "{}", format!("# {line}").trim_end());
    }
    let _ = writeln!(text, "world \"{}\"", world.name);
    if let Some(era) = era {
        let _ = writeln!(text, "era {era}");
    }
    for op in ops {
        let word = |kind: crate::call::Kind, value| kind.word(value, &world.files, Some(world));
        let _ = writeln!(text, "{}", Call::from(op).text(word));
    }
    text
}

/// The file for machines. Without an era, as there.
pub fn to_json(world: &World, era: Option<&str>, ops: &[Op]) -> Json {
    let document = Document {
        format: FORMAT,
        world: Some(world.name.clone()),
        era: era.map(Into::into),
        ops: ops.iter().map(|op| json_call(op, world)).collect(),
    };
    serde_json::to_value(document).expect("there are only strings in it")
}

fn json_call(op: &Op, world: &World) -> JsonCall {
    let call = Call::from(op);
    let args = call.args().map(|(_, kind, value)| Arg {
        value: Value::Number(value),
        word: kind.word(value, &world.files, Some(world)),
    });
    JsonCall {
        signature: call.signature,
        args: args.collect(),
    }
}

impl From<JsonCall> for Map<String, Json> {
    fn from(call: JsonCall) -> Self {
        let mut map = Map::new();
        map.insert("op".into(), call.signature.name.into());
        for ((name, _), arg) in call.signature.args.iter().zip(call.args) {
            map.insert((*name).into(), arg.word.into());
        }
        map
    }
}

impl TryFrom<Map<String, Json>> for JsonCall {
    type Error = String;

    fn try_from(mut map: Map<String, Json>) -> Result<Self, String> {
        let op = map.remove("op").ok_or("expected a member \"op\"")?;
        let signature = op
            .as_str()
            .and_then(Call::signature)
            .ok_or_else(|| format!("expected the name of an operation, found {op}"))?;
        let mut args = Vec::new();
        for (name, kind) in signature.args {
            let value = map
                .remove(*name)
                .ok_or_else(|| format!("{}: expected a member \"{name}\"", signature.name))?;
            let word = match value {
                Json::String(word) => word,
                other => other.to_string(),
            };
            let value = kind
                .read(&word)
                .map_err(|what| format!("{}, {name}: {what}", signature.name))?;
            args.push(Arg { value, word });
        }
        match map.keys().next() {
            Some(other) => Err(format!("{} has no member \"{other}\"", signature.name)),
            None => Ok(Self { signature, args }),
        }
    }
}

/// A place in a line.
struct Cursor<'a> {
    line: &'a str,
    /// In bytes.
    at: usize,
    number: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    /// A comment is no more of the line.
    fn ended(&self) -> bool {
        self.rest().is_empty() || self.rest().starts_with('#')
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_space(&mut self) {
        self.take(char::is_whitespace);
    }

    fn error_at(&self, at: usize, what: String) -> SequenceError {
        let column = self.line[..at].chars().count() + 1;
        SequenceError {
            place: Some(Place::Text(self.number, column)),
            what,
        }
    }

    fn expected(&self, what: &str) -> SequenceError {
        let found = match self.rest() {
            "" => "the end of the line".to_owned(),
            rest => format!("`{rest}`"),
        };
        self.error_at(self.at, format!("expected {what}, found {found}"))
    }

    fn expect(&mut self, c: char) -> Result<(), SequenceError> {
        if !self.rest().starts_with(c) {
            return Err(self.expected(&format!("`{c}`")));
        }
        self.at += c.len_utf8();
        Ok(())
    }

    /// What follows the name of an operation.
    fn call(&mut self, signature: &'static Signature) -> Result<Written, SequenceError> {
        self.expect('(')?;
        let mut args = Vec::new();
        for (index, (name, kind)) in signature.args.iter().enumerate() {
            if index > 0 {
                self.skip_space();
                self.expect(',')?;
            }
            self.skip_space();
            let start = self.at;
            let word = self.take(|c| !matches!(c, ',' | ')' | '#')).trim_end();
            let value = if word.is_empty() {
                Err(format!("expected {name}, found nothing"))
            } else {
                kind.read(word).map_err(|what| format!("{name}: {what}"))
            };
            let value = value.map_err(|what| self.error_at(start, what))?;
            let column = self.line[..start].chars().count() + 1;
            args.push((value, Place::Text(self.number, column)));
        }
        self.skip_space();
        self.expect(')')?;
        Ok(Written { signature, args })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Generator;
    use crate::oracle::Oracle as _;
    use crate::peer::Peer;
    use vmalab_model::{AddressSpace, Outcome, Rules};

    /// Whatever is generated can be written and read, in both forms.
    #[test]
    fn what_is_written_can_be_read() {
        let peer = Peer::new(Rules::V7_2);
        for (index, world) in peer.worlds().iter().enumerate() {
            for batch in 0..40 {
                let mut generator = Generator::new(1, batch, world);
                let mut model: AddressSpace = AddressSpace::new(Rules::V7_2, world.limits);
                for file in &world.files {
                    model.add_file(file.file);
                }
                if let Some(heap) = &world.heap {
                    model.set_break(heap.start);
                }
                let mut outcome = Outcome::default();
                let mut ops = Vec::new();
                for _ in 0..64 {
                    let op = generator.op();
                    model.apply_into(&op, 0..u64::MAX, &mut outcome);
                    outcome.layout.retain(|area| world.observes(area));
                    generator.learn(&outcome);
                    ops.push(op);
                }
                let text = to_text(world, Some("V7_2"), &ops, "two\nlines");
                let json = to_json(world, Some("V7_2"), &ops);
                for written in [text, json.to_string()] {
                    let read = Sequence::parse(&written).unwrap();
                    assert_eq!(read.world_of(peer.worlds()).unwrap(), index);
                    assert_eq!(read.era.as_deref(), Some("V7_2"));
                    assert_eq!(read.ops(world).unwrap(), ops);
                }
            }
        }
    }

    #[test]
    fn errors_say_where_and_what_was_expected() {
        for (text, error) in [
            (
                "munmap(arena, 0x1000)\nfrob()",
                "line 2, column 1: expected world, era or an operation (mmap, ",
            ),
            (
                "munmap(arena+0x1000)",
                "line 1, column 20: expected `,`, found `)`",
            ),
            (
                "  munmap(arena*2, 1)",
                "line 1, column 10: addr: expected arena, arena+NUMBER or arena-NUMBER, found `arena*2`",
            ),
            (
                "mprotect(arena, 1, PROT_RAED)",
                "line 1, column 20: prot: expected a number or one of PROT_READ, PROT_WRITE, ",
            ),
            (
                "munmap(arena, 1) = 0",
                "line 1, column 18: expected the end of the line, found `= 0`",
            ),
            (
                "munmap(, 1)",
                "line 1, column 8: expected addr, found nothing",
            ),
            (
                "fork()\nworld \"x\"",
                "line 2, column 1: `world` after an operation",
            ),
            (
                "world plain",
                "line 1, column 7: expected `\"`, found `plain`",
            ),
            (
                "{\"format\": 2, \"ops\": []}",
                "expected the format 1, found 2",
            ),
            (
                "{\"format\": 1,\n \"ops\": [{\"op\": \"munmap\", \"addr\": \"arena\"}]}",
                "munmap: expected a member \"len\"",
            ),
            (
                "{\"format\": 1, \"ops\": [{\"op\": \"fork\", \"addr\": 1}]}",
                "fork has no member \"addr\"",
            ),
        ] {
            let said = Sequence::parse(text).unwrap_err().to_string();
            assert!(said.contains(error), "{text}: {said}");
        }
        // What depends on the world is told with its place, too.
        let peer = Peer::new(Rules::V7_2);
        let of_a_file = "\nmmap(arena, 1, PROT_READ, MAP_SHARED, nofile, 0)";
        let said = Sequence::parse(of_a_file).unwrap().ops(&peer.worlds()[0]);
        let said = said.unwrap_err().to_string();
        assert!(
            said.starts_with(
                "line 2, column 39: there is no file `nofile` here; there are memfd, "
            ),
            "{said}"
        );
    }
}
