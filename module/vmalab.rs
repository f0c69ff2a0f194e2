// SPDX-License-Identifier: GPL-2.0-only

//! `vmalab.ko`: `/dev/vmalab`, a device whose areas can be watched.
//!
//! Each open of the node gives a memory object, which can be mapped, shared and private, as a memfd
//! can. From the outside to the inside:
//!
//! | file | what it is |
//! | --- | --- |
//! | `device.rs` | the nodes: open, mmap |
//! | `ioctl.rs` | the ioctls of `uapi/vmalab.h` |
//! | `area.rs` | what the nodes do at each hook of their areas |
//! | `hook.rs` | a call of a hook, whichever it is |
//! | `object_ioctl.rs` | those about what is in an object |
//! | `object.rs` | the memory object: its size, its pages, its seals, its counts |
//! | `objects.rs` | all live objects, by number and by name |
//! | `look.rs` | what areas the caller has, and what munmap would do to them |
//! | `watch.rs`, `trace.rs` | records of the calls of hooks, for who watches an object or traces all |
//! | `stats.rs`, `debugfs.rs` | the counts, and where they can be read |
//! | `vm_ops.rs`, `vm_ops/` | `vm_operations_struct` in safe Rust, for any driver |
//! | `areas.rs` | an address space to look at, for any driver |
//! | `page_cache.rs`, `folio.rs` | pages by index, and their locks, for any driver |
//! | `shrinker.rs` | giving memory back, for any driver |
//! | `misc.rs` | what `kernel::miscdevice` lacks |
//! | `anon_file.rs`, `ring.rs`, `task.rs` | files without a node, rings that can be mapped, numbers of threads |
//! | `uapi.rs`, `helpers.rs` | C headers, as bindgen reads them |
//!
//! The locks of pages and their order are at the top of `page_cache.rs`, that of an address space at the
//! top of `areas.rs`, that of the list of objects at the top of `objects.rs`; `watch.rs` has one more,
//! inside of all.

mod anon_file;
mod area;
mod areas;
mod debugfs;
mod device;
mod folio;
mod helpers;
mod hook;
mod ioctl;
mod look;
mod misc;
mod object;
mod object_ioctl;
mod objects;
mod page_cache;
mod ring;
mod shrinker;
mod stats;
mod steer;
mod task;
mod trace;
mod uapi;
mod vm_ops;
mod watch;

use kernel::prelude::*;

module! {
    type: Vmalab,
    name: "vmalab",
    authors: ["The vmalab developers"],
    description: "A laboratory for memory mappings: /dev/vmalab",
    license: "GPL",
    params: {
        // 64 MiB
        object_size: u64 {
            default: 67108864,
            description: "Size of a fresh object in bytes; pages are allocated when touched",
        },
        // 1 TiB
        max_object_size: u64 {
            default: 1099511627776,
            description: "The largest size that an object may be given, in bytes",
        },
        max_objects: u64 {
            default: 0,
            description: "How many objects there may be at once; 0: any number",
        },
        max_pages: u64 {
            default: 0,
            description: "How many pages all objects may have together; 0: half of the memory",
        },
        // one page
        folio_size: u64 {
            default: 4096,
            description: "In pieces of how many bytes a fresh object allocates: 4096 to 2097152",
        },
    },
}

/// The loaded module.
// The fields are dropped in this order.
#[pin_data]
struct Vmalab {
    #[pin]
    _node: misc::Registration<device::Node>,
    #[pin]
    _prepare_node: misc::Registration<device::PrepareNode>,
    _debugfs: debugfs::Dir,
    _shrinker: shrinker::Registration<object::Ahead>,
}

impl kernel::InPlaceModule for Vmalab {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _: { check_parameters()? },
            _: { objects::init() },
            _shrinker: shrinker::Registration::register()?,
            _debugfs: debugfs::Dir::new(c"vmalab", &stats::MODULE),
            _node <- misc::Registration::register(),
            _prepare_node <- misc::Registration::register(),
            _: { device::allow_open() },
        })
    }
}

/// Refuses to load with parameters under which no object could be made.
fn check_parameters() -> Result {
    let size = *module_parameters::object_size.value();
    let folio_size = *module_parameters::folio_size.value();
    let max = *module_parameters::max_object_size.value();
    // The kernel counts bytes of a file in a signed number, whole pages of it.
    let largest = i64::MAX as u64 - (kernel::page::PAGE_SIZE as u64 - 1);

    if max > largest {
        pr_err!("max_object_size={max} is too large: at most {largest}\n");
        return Err(EINVAL);
    }
    if size > max {
        pr_err!("object_size={size} is larger than max_object_size={max}\n");
        return Err(EINVAL);
    }
    if object::folio_order(folio_size).is_err() {
        let largest = kernel::page::PAGE_SIZE << folio::Folio::MAX_ORDER;
        pr_err!("folio_size={folio_size} is not a power of two from one page to {largest}\n");
        return Err(EINVAL);
    }
    Ok(())
}
