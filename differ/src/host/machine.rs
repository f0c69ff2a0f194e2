// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the machine, its administrator and this process's limits allow, for the model.

use std::fs;
use std::io::IoSliceMut;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use vmalab_model::PAGE_SIZE;
use vmalab_model::limits::{Limits, Overcommit, Thp};

use crate::oracle::OracleError;

/// Capabilities, as bits of `CapEff`.
const CAP_IPC_LOCK: u32 = linux_raw_sys::general::CAP_IPC_LOCK;
const CAP_SYS_RAWIO: u32 = linux_raw_sys::general::CAP_SYS_RAWIO;
const CAP_SYS_NICE: u32 = linux_raw_sys::general::CAP_SYS_NICE;

/// The kernel's release.
pub(super) fn release() -> Result<String, OracleError> {
    let uname = uname().map_err(|errno| OracleError::system("uname", errno))?;
    Ok(uname.release().to_string_lossy().into_owned())
}

/// The limits, all but where addresses are chosen.
pub(super) fn limits() -> Result<Limits, OracleError> {
    let capabilities = text("/proc/self/status")?
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .ok_or_else(|| OracleError::Environment("/proc/self/status has no CapEff".into()))?;
    let has = |capability: u32| capabilities & (1 << capability) != 0;
    let huge = "/sys/kernel/mm/transparent_hugepage";
    Ok(Limits {
        mmap_min_addr: number("/proc/sys/vm/mmap_min_addr")?,
        max_map_count: number("/proc/sys/vm/max_map_count")?,
        overcommit: match number("/proc/sys/vm/overcommit_memory")? {
            0 => Overcommit::Guess {
                total: memory()? / PAGE_SIZE,
            },
            1 => Overcommit::Always,
            _ => {
                return Err(OracleError::Environment(
                    "vm.overcommit_memory is 2: what is refused then depends on all processes of \
                     the machine; set it to 0 or 1"
                        .into(),
                ));
            }
        },
        address_space: rlimit(Resource::RLIMIT_AS)?,
        data: rlimit(Resource::RLIMIT_DATA)?,
        data_max: hard_limit(Resource::RLIMIT_DATA)?,
        stack: rlimit(Resource::RLIMIT_STACK)?,
        memlock: rlimit(Resource::RLIMIT_MEMLOCK)?,
        cap_ipc_lock: has(CAP_IPC_LOCK),
        cap_sys_rawio: has(CAP_SYS_RAWIO),
        cap_sys_nice: has(CAP_SYS_NICE),
        pkeys: text("/proc/cpuinfo")?
            .split_whitespace()
            .any(|word| word == "ospke"),
        // A kernel without huge pages has no such file.
        thp: match chosen(&format!("{huge}/enabled")).as_deref() {
            Some("always") => Thp::Always,
            Some("madvise") => Thp::Madvise,
            _ => Thp::Never,
        },
        shmem_huge: chosen(&format!("{huge}/shmem_enabled"))
            .is_some_and(|choice| choice != "never" && choice != "deny"),
        anon_vma_name: names(),
        legacy_layout: is_legacy()?,
        ..Limits::default()
    })
}

/// Whether anonymous memory can have names: to name none of it succeeds then.
fn names() -> bool {
    let null: *const libc::c_char = std::ptr::null();
    // SAFETY: it is about no memory at all.
    unsafe { libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, 0, 0, null) == 0 }
}

/// Whether this program was started with the legacy layout (`mmap_is_legacy`), if nothing of that was changed
/// since.
pub(super) fn is_legacy() -> Result<bool, OracleError> {
    Ok(personality() & libc::ADDR_COMPAT_LAYOUT != 0
        || rlimit(Resource::RLIMIT_STACK)? == libc::RLIM_INFINITY
        || number("/proc/sys/vm/legacy_va_layout").is_ok_and(|legacy| legacy != 0))
}

fn personality() -> libc::c_int {
    const QUERY: libc::c_ulong = 0xffff_ffff;
    // SAFETY: it changes nothing.
    unsafe { libc::personality(QUERY) }
}

/// Whether this program was started with address randomisation (`PF_RANDOMIZE`), so that even the lowest
/// address of all is a random one.
pub(super) fn is_randomized() -> bool {
    personality() & libc::ADDR_NO_RANDOMIZE == 0
        && number("/proc/sys/kernel/randomize_va_space").is_ok_and(|how| how != 0)
}

/// Whether the machine has one memory node, and a kernel with memory policies.
pub(super) fn one_node() -> bool {
    fs::read_to_string("/sys/devices/system/node/online").is_ok_and(|online| online.trim() == "0")
}

/// Whether there are huge pages of 2 MiB by default, and none in the pool: what becomes of those that are
/// there depends on all processes of the machine.
pub(super) fn huge_pool_is_empty() -> bool {
    let pool = |name| number(&format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}"));
    let default = text("/proc/meminfo").is_ok_and(|text| {
        text.lines()
            .any(|line| line.starts_with("Hugepagesize:") && line.contains(" 2048 kB"))
    });
    default
        && ["nr_hugepages", "nr_overcommit_hugepages"]
            .into_iter()
            .all(|name| pool(name).is_ok_and(|pages| pages == 0))
}

/// Memory and swap in bytes.
fn memory() -> Result<u64, OracleError> {
    let text = text("/proc/meminfo")?;
    let kib = |key: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(key)?
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .ok()
        })
    };
    match (kib("MemTotal:"), kib("SwapTotal:")) {
        (Some(memory), Some(swap)) => Ok((memory + swap) << 10),
        _ => Err(OracleError::Environment(
            "/proc/meminfo has no MemTotal or SwapTotal".into(),
        )),
    }
}

fn rlimit(resource: Resource) -> Result<u64, OracleError> {
    let (soft, _) = getrlimit(resource).map_err(|errno| OracleError::system("getrlimit", errno))?;
    Ok(soft)
}

fn hard_limit(resource: Resource) -> Result<u64, OracleError> {
    let (_, hard) = getrlimit(resource).map_err(|errno| OracleError::system("getrlimit", errno))?;
    Ok(hard)
}

fn text(path: &str) -> Result<String, OracleError> {
    fs::read_to_string(path).map_err(|error| OracleError::system(path, error))
}

fn number(path: &str) -> Result<u64, OracleError> {
    let text = text(path)?;
    text.trim()
        .parse()
        .map_err(|error| OracleError::system(path, error))
}

/// Where the program's data begins and ends, and where its heap begins (`/proc/self/stat`).
pub(super) fn program_and_heap() -> Result<[u64; 4], OracleError> {
    let stat = text("/proc/self/stat")?;
    // The name of the program may hold anything; the third field follows it.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse().ok());
    match (field(27), field(45), field(46), field(47)) {
        (Some(code), Some(start), Some(end), Some(heap)) => Ok([code, start, end, heap]),
        _ => Err(OracleError::Environment(
            "/proc/self/stat does not say where the heap is".into(),
        )),
    }
}

/// The word in brackets.
fn chosen(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.into())
}

/// Whether this process may read memory by `process_vm_readv`, if only its own.
pub(super) fn reads_memory() -> bool {
    let (from, mut to) = ([1u8], [0u8]);
    let mut local = [IoSliceMut::new(&mut to)];
    let remote = [RemoteIoVec {
        base: from.as_ptr() as usize,
        len: 1,
    }];
    process_vm_readv(Pid::this(), &mut local, &remote) == Ok(1)
}
