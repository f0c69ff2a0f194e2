// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a child has seen, in the model's words.

use std::num::{NonZeroU8, NonZeroU32};

use vmalab_model::{AnonVma, Area, Counters, Errno, FileId, Name, Object, Op, Signal, VmFlags};

use super::files::{Open, Segment};
use super::wire::{RawArea, Record, Shared};
use super::{Host, Place, child, device};
use crate::oracle::{Fields, Observation, OracleError};

impl Host {
    /// What is seen of every operation.
    pub(super) fn fields(&self) -> Fields {
        let fields = Fields::RESULT
            | Fields::RANGES
            | Fields::FLAGS
            | Fields::OBJECTS
            | Fields::OFFSETS
            | Fields::CONTENTS
            | Fields::SIGNALS;
        if self.has_devices() {
            fields | Fields::ANON_OFFSETS | Fields::ANON_VMAS | Fields::HOOKS
        } else {
            fields
        }
    }

    /// Puts the records into the model's words.
    pub(super) fn decode(
        &mut self,
        world: usize,
        ops: &[Op],
        seen: &mut [Observation],
    ) -> Result<(), OracleError> {
        self.inodes.clear();
        let fields = self.fields();
        let exact = self.has_devices();
        let place = self.settings[world].place;
        let Place {
            template,
            start,
            filler_pages,
        } = &mut self.places[place];
        let shared = template.shared();
        if shared.n_records == 0 {
            return Ok(());
        }
        let now = areas(shared, &shared.records[0]);
        if !now.iter().map(place_of).eq(start.iter().map(place_of)) {
            return Err(OracleError::Broke {
                index: 0,
                what: "the child did not begin with the areas that all children begin with".into(),
            });
        }
        let world = &self.worlds[world];
        let windows = world.windows();
        let names = world.limits.anon_vma_name;
        for (index, (op, seen)) in ops.iter().zip(seen).enumerate() {
            let record = shared.records[index + 1];
            seen.fields = fields;
            seen.flags = match record.known {
                _ if exact => device::SEEN_FLAGS,
                0 => SEEN_FLAGS,
                known => VmFlags(known),
            };
            if record.has_names != 0 && names {
                seen.fields |= Fields::NAMES;
            }
            seen.looked = record.looked[0]..record.looked[1];
            let outcome = &mut seen.outcome;
            outcome.result = if record.ret >= 0 {
                let touch = matches!(op, Op::Touch { .. });
                Ok(if touch { 0 } else { record.ret as u64 })
            } else {
                let errno = -record.ret as i32;
                Err(Errno::from_number(errno).ok_or_else(|| OracleError::Broke {
                    index,
                    what: format!(
                        "the answer was {}, which no model knows",
                        nix::errno::Errno::from_raw(errno)
                    ),
                })?)
            };
            let signal = signal(record.signal);
            outcome.signal = signal.map_err(|what| OracleError::Broke { index, what })?;
            outcome.hooks.clear();
            outcome.layout.clear();
            for raw in areas(shared, &record) {
                if record.whole != 0
                    && !windows
                        .iter()
                        .any(|w| raw.start < w.end && raw.end > w.start)
                {
                    continue;
                }
                outcome.layout.push(Area {
                    start: raw.start,
                    end: raw.end,
                    flags: if exact {
                        VmFlags(raw.flags & device::SEEN_FLAGS.0)
                    } else if record.known != 0 {
                        VmFlags(raw.exact)
                    } else {
                        vm_flags(raw.flags)
                    },
                    offset: raw.offset,
                    object: object(raw, &self.files, &self.segments, &mut self.inodes),
                    anon_vma: NonZeroU32::new(raw.anon_vma as u32).map(AnonVma),
                    name: NonZeroU8::new(raw.name as u8).map(Name),
                });
            }
            if record.has_counters != 0 {
                seen.fields |= Fields::COUNTERS;
                outcome.counters = counters(&record, *filler_pages);
            }
            if record.peak != 0 {
                seen.fields |= Fields::PEAK;
                outcome.peak_vm = record.peak - *filler_pages;
            }
            if record.map_count != 0 {
                seen.fields |= Fields::MAP_COUNT;
                outcome.counters.map_count = record.map_count;
            }
            seen.contents.clear();
            if record.n_pages > 0 {
                let first = record.first_page as usize;
                let pages = &shared.contents[first..first + record.n_pages as usize];
                seen.contents
                    .extend(pages.iter().map(|&[page, word]| (page, word)));
            }
            let first = record.first_hook as usize;
            let calls = &mut shared.hooks[first..first + record.n_hooks as usize];
            // Each device has a ring of its own.
            calls.sort_by_key(|call| call.time);
            for raw in &*calls {
                let call = device::call(raw);
                let call = call.map_err(|what| OracleError::Broke { index, what })?;
                outcome.hooks.push(call);
            }
        }
        Ok(())
    }
}

/// The flags that `/proc/PID/maps` shows.
const SEEN_FLAGS: VmFlags =
    VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0 | VmFlags::EXEC.0 | VmFlags::MAYSHARE.0);

/// The areas of a record.
pub(super) fn areas<'a>(shared: &'a Shared, record: &Record) -> &'a [RawArea] {
    let first = record.first_area as usize;
    &shared.areas[first..first + record.n_areas as usize]
}

fn vm_flags(shown: u64) -> VmFlags {
    // Read, write and execute have the values of their VM_ flags.
    let shared = if shown & 8 != 0 {
        VmFlags::MAYSHARE
    } else {
        VmFlags::empty()
    };
    VmFlags(shown & 7) | shared
}

/// What an area maps, by device and inode, and for a segment by its name.
fn object(
    raw: &RawArea,
    files: &[Open],
    segments: &[Segment],
    inodes: &mut Vec<(u64, u64)>,
) -> Object {
    // The first segment of a machine has the inode 0.
    if raw.inode == 0 && raw.device == 0 {
        return Object::Anon;
    }
    let file = |index: usize| Object::File(FileId(index as u16));
    if raw.segment != 0 {
        let mut all = segments.iter();
        if let Some(index) = all.position(|segment| segment.id as u64 == raw.inode) {
            return file(files.len() + index);
        }
    }
    let identity = (raw.device, raw.inode);
    if let Some(index) = files.iter().position(|file| file.identity == identity) {
        return file(index);
    }
    // Of shared anonymous memory, or of huge pages.
    let known = inodes.iter().position(|&known| known == identity);
    let number = known.unwrap_or_else(|| {
        inodes.push(identity);
        inodes.len() - 1
    });
    Object::Shmem(number as u32)
}

/// The signal with that number and `si_code`.
fn signal([number, code]: [i32; 2]) -> Result<Option<Signal>, String> {
    if number == 0 {
        return Ok(None);
    }
    let known = [
        (Signal::Unmapped, child::SEGV_MAPERR),
        (Signal::Denied, child::SEGV_ACCERR),
        (Signal::Key, child::SEGV_PKUERR),
        (Signal::NoAddress, child::SI_KERNEL),
        (Signal::BeyondEnd, child::BUS_ADRERR),
    ];
    let mut known = known.into_iter();
    let found = known.find(|(signal, of)| (signal.number(), *of) == (number, code));
    let found = found.ok_or_else(|| {
        format!("a touch raised the signal {number} with the code {code}, which no model knows")
    })?;
    Ok(Some(found.0))
}

/// What all children begin with alike.
fn place_of(area: &RawArea) -> (u64, u64, u64) {
    (area.start, area.end, area.flags)
}

pub(super) fn counters(record: &Record, filler_pages: u64) -> Counters {
    let [size, locked, data, stack, exec] = record.counters;
    Counters {
        map_count: 0,
        total_vm: size - filler_pages,
        locked_vm: locked,
        data_vm: data,
        stack_vm: stack,
        exec_vm: exec,
    }
}
