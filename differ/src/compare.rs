// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Comparer`]: holds a prediction against an observation and names the first field that differs.

use std::fmt;

use vmalab_model::{AnonVma, Area, Errno, Hook, HookCall, Object, Outcome, Signal, VmFlags};

use crate::oracle::{Fields, Observation, Sees};
use crate::show;

/// The first field in which a prediction and an observation differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name, as in `area at 0x10000002000: end`.
    pub field: String,
    /// What the model says.
    pub predicted: String,
    /// What the oracle says.
    pub observed: String,
}

impl Difference {
    pub(crate) fn new(
        field: impl Into<String>,
        predicted: impl ToString,
        observed: impl ToString,
    ) -> Option<Self> {
        Some(Self {
            field: field.into(),
            predicted: predicted.to_string(),
            observed: observed.to_string(),
        })
    }

    /// The field without addresses and numbers, as in `area at end`: what a shorter sequence has to have
    /// in common with this one.
    pub fn aspect(&self) -> String {
        let is_name = |word: &&str| !word.starts_with(|c: char| c.is_ascii_digit());
        let words: Vec<_> = self.field.split(' ').filter(is_name).collect();
        words.join(" ")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            predicted,
            observed,
        } = self;
        write!(f, "{field}: predicted {predicted}, observed {observed}")
    }
}

/// Compares the outcomes of one batch, in order.
pub struct Comparer {
    flags: VmFlags,
    /// Which of the model's shared anonymous objects is which of the oracle's.
    shmem: Pairs<u32>,
    /// The same of their `anon_vma`s.
    anon_vmas: Pairs<AnonVma>,
}

/// Which number of the model's is which of the oracle's: the numbers themselves mean nothing.
struct Pairs<T>(Vec<(T, T)>);

impl<T: Copy + PartialEq> Pairs<T> {
    /// Whether both are the same, as they always were if they were seen before.
    fn same(&mut self, predicted: T, observed: T) -> bool {
        let known = |&&(p, o): &&(T, T)| p == predicted || o == observed;
        match self.0.iter().find(known) {
            Some(&pair) => pair == (predicted, observed),
            None => {
                self.0.push((predicted, observed));
                true
            }
        }
    }
}

impl Comparer {
    /// For a new batch on an oracle that sees so much.
    pub fn new(sees: Sees) -> Self {
        Self {
            flags: sees.flags,
            shmem: Pairs(Vec::new()),
            anon_vmas: Pairs(Vec::new()),
        }
    }

    /// The first difference, if any, among the fields that were seen.
    pub fn compare(&mut self, predicted: &Outcome, seen: &Observation) -> Option<Difference> {
        let observed = &seen.outcome;
        let fields = seen.fields;
        if !fields.contains(Fields::ANON_VMAS_LAST) {
            self.anon_vmas.0.clear();
        }
        if fields.contains(Fields::RESULT) && predicted.result != observed.result {
            return Difference::new("result", result(predicted.result), result(observed.result));
        }
        if fields.contains(Fields::SIGNALS) && predicted.signal != observed.signal {
            let [p, o] = [predicted, observed].map(|outcome| signal(outcome.signal));
            return Difference::new("signal", p, o);
        }
        if fields.contains(Fields::RANGES) {
            let looked = &seen.looked;
            let touches = |area: &&Area| area.start < looked.end && area.end > looked.start;
            let predicted = predicted.layout.iter().filter(touches);
            let flags = VmFlags(self.flags.0 & seen.flags.0);
            let observed = observed.layout.iter();
            if let Some(difference) = self.layouts(predicted, observed, fields, flags) {
                return Some(difference);
            }
        }
        let (p, o) = (&predicted.counters, &observed.counters);
        let counters = [
            (Fields::MAP_COUNT, "map_count", p.map_count, o.map_count),
            (Fields::COUNTERS, "total_vm", p.total_vm, o.total_vm),
            (Fields::COUNTERS, "locked_vm", p.locked_vm, o.locked_vm),
            (Fields::COUNTERS, "data_vm", p.data_vm, o.data_vm),
            (Fields::COUNTERS, "stack_vm", p.stack_vm, o.stack_vm),
            (Fields::COUNTERS, "exec_vm", p.exec_vm, o.exec_vm),
            (Fields::PEAK, "peak_vm", predicted.peak_vm, observed.peak_vm),
            (
                Fields::COMMITTED,
                "committed",
                predicted.committed,
                observed.committed,
            ),
        ];
        for (field, name, p, o) in counters {
            if fields.contains(field) && p != o {
                return Difference::new(name, p, o);
            }
        }
        if fields.contains(Fields::DISCARDED) && predicted.discarded != observed.discarded {
            let [p, o] = [predicted, observed].map(|outcome| format!("{:x?}", outcome.discarded));
            return Difference::new("discarded", p, o);
        }
        if fields.contains(Fields::HOOKS) {
            let (p, o) = (&predicted.hooks, &observed.hooks);
            let whole = fields.contains(Fields::HOOK_AREAS);
            let call = |calls: &[HookCall], index| -> Option<HookCall> {
                let call = *calls.get(index)?;
                Some(if whole { call } else { about_part(call) })
            };
            if let Some(index) = (0..p.len().max(o.len())).find(|&i| call(p, i) != call(o, i)) {
                let call = |calls| match call(calls, index) {
                    Some(call) => show::hook_call(&call, &[]),
                    None => "no call".into(),
                };
                return Difference::new(format!("hook call {index}"), call(p), call(o));
            }
        }
        None
    }

    fn layouts<'a>(
        &mut self,
        mut predicted: impl Iterator<Item = &'a Area>,
        mut observed: impl Iterator<Item = &'a Area>,
        fields: Fields,
        flags: VmFlags,
    ) -> Option<Difference> {
        let ends = |area: &Area| format!("{:#x}-{:#x}", area.start, area.end);
        loop {
            let (p, o) = match (predicted.next(), observed.next()) {
                (Some(p), Some(o)) => (p, o),
                (None, None) => return None,
                (Some(p), None) => return Difference::new("area", ends(p), "none"),
                (None, Some(o)) => return Difference::new("area", "none", ends(o)),
            };
            if p.start != o.start {
                return Difference::new("area", ends(p), ends(o));
            }
            let name = |field| format!("area at {:#x}: {field}", p.start);
            if p.end != o.end {
                return Difference::new(name("end"), hex(p.end), hex(o.end));
            }
            let [pf, of] = [p, o].map(|area| VmFlags(area.flags.0 & flags.0));
            if fields.contains(Fields::FLAGS) && pf != of {
                return Difference::new(name("flags"), format!("{pf:?}"), format!("{of:?}"));
            }
            if fields.contains(Fields::OBJECTS) && !self.same_object(p.object, o.object) {
                let [p, o] = [p, o].map(|area| format!("{:?}", area.object));
                return Difference::new(name("object"), p, o);
            }
            if fields.contains(Fields::NAMES) && p.name != o.name {
                let [p, o] = [p, o].map(|area| area.name.map_or("none".into(), show::name));
                return Difference::new(name("name"), p, o);
            }
            if fields.contains(Fields::ANON_VMAS) {
                let same = match (p.anon_vma, o.anon_vma) {
                    (Some(p), Some(o)) => self.anon_vmas.same(p, o),
                    (p, o) => p == o,
                };
                if !same {
                    let [p, o] = [p, o].map(|area| format!("{:?}", area.anon_vma));
                    return Difference::new(name("anon_vma"), p, o);
                }
            }
            let offset = if p.object == Object::Anon {
                Fields::ANON_OFFSETS
            } else {
                Fields::OFFSETS
            };
            if fields.contains(offset) && p.offset != o.offset {
                return Difference::new(name("offset"), hex(p.offset), hex(o.offset));
            }
        }
    }

    /// Shared anonymous objects are the same if they always were; their numbers mean nothing.
    fn same_object(&mut self, predicted: Object, observed: Object) -> bool {
        let (Object::Shmem(p), Object::Shmem(o)) = (predicted, observed) else {
            return predicted == observed;
        };
        self.shmem.same(p, o)
    }
}

/// The call of a hook as one sees it who sees the part of the area alone that it is about.
fn about_part(mut call: HookCall) -> HookCall {
    if let Hook::Mprotect { start, end, .. } = call.hook {
        call.offset += start - call.start;
        (call.start, call.end) = (start, end);
    }
    call
}

/// A result as `strace` prints it.
pub(crate) fn result(result: Result<u64, Errno>) -> String {
    match result {
        Ok(value) => format!("{value:#x}"),
        Err(errno) => errno.to_string(),
    }
}

fn signal(signal: Option<Signal>) -> String {
    signal.map_or("none".into(), |signal| signal.to_string())
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Sees = Sees {
        fields: Fields::all(),
        flags: VmFlags(u64::MAX),
    };

    fn area(start: u64, object: Object) -> Area {
        Area {
            start,
            end: start + 0x1000,
            flags: VmFlags::READ,
            offset: 0,
            object,
            anon_vma: None,
            name: None,
        }
    }

    fn layout(layout: Vec<Area>) -> Outcome {
        Outcome {
            layout,
            ..Outcome::default()
        }
    }

    fn seen(outcome: Outcome, fields: Fields) -> Observation {
        Observation {
            outcome,
            fields,
            ..Observation::default()
        }
    }

    #[test]
    fn the_first_differing_field_is_named() {
        let p = layout(vec![area(0x1000, Object::Anon), area(0x2000, Object::Anon)]);
        let mut o = p.clone();
        o.layout[1].end += 0x1000;
        o.counters.total_vm = 9;
        let mut comparer = Comparer::new(ALL);
        let fields = Fields::all() - Fields::HOOKS;
        let difference = comparer.compare(&p, &seen(o.clone(), fields)).unwrap();
        assert_eq!(difference.field, "area at 0x2000: end");
        assert_eq!(difference.aspect(), "area at end");
        // What was not seen is not compared.
        let counters = comparer
            .compare(&p, &seen(o.clone(), Fields::COUNTERS))
            .unwrap();
        assert_eq!(counters.to_string(), "total_vm: predicted 0, observed 9");
        assert_eq!(comparer.compare(&p, &seen(o, Fields::RESULT)), None);
    }

    #[test]
    fn shared_objects_are_told_apart_by_identity_alone() {
        let with = |a, b| {
            layout(vec![
                area(0x1000, Object::Shmem(a)),
                area(0x2000, Object::Shmem(b)),
            ])
        };
        let mut comparer = Comparer::new(ALL);
        assert_eq!(
            comparer.compare(&with(5, 6), &seen(with(0, 1), Fields::all())),
            None
        );
        let swapped = comparer.compare(&with(5, 6), &seen(with(1, 0), Fields::all()));
        assert_eq!(swapped.unwrap().field, "area at 0x1000: object");
        let one = Comparer::new(ALL).compare(&with(5, 6), &seen(with(0, 0), Fields::all()));
        assert_eq!(one.unwrap().field, "area at 0x2000: object");
    }
}
