// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Each answer that each hook can be steered to give: what becomes of the call, and what a watch records of it.
//!
//! Which hook has which answer is asked of the module: an answer that it gains, and that has no line here, fails.
//! Not here: `huge_fault`, which needs memory in pieces of 2 MiB.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use vmalab::{AreaFlags, Device, Hook, HookSet, Watch, sys};

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("answers::errors", errors),
    Test::device("answers::signals", signals).logs(),
    Test::device("answers::tried_again", tried_again).logs(),
    Test::device("answers::delays", delays),
    Test::device("answers::no_others", no_others),
];

/// `VM_FAULT_*` of the kernel.
const OOM: i32 = 1;
const SIGBUS: i32 = 2;
const HWPOISON: i32 = 0x10;
const SIGSEGV: i32 = 0x40;
const NOPAGE: i32 = 0x100;
const RETRY: i32 = 0x400;
/// Those that are errors.
const ANY_ERROR: i32 = OOM | SIGBUS | HWPOISON | SIGSEGV;

/// The memory has failed, as in asm-generic/siginfo.h; libc has no name for it.
const BUS_MCEERR_AR: i32 = 4;

const PAGES: usize = 8;

/// The hooks that a system call comes to.
const OF_CALLS: [Hook; 5] = [
    Hook::Mmap,
    Hook::Mapped,
    Hook::MaySplit,
    Hook::Mremap,
    Hook::Mprotect,
];
/// Those that an access comes to.
const OF_FAULTS: [Hook; 4] = [
    Hook::Fault,
    Hook::MapPages,
    Hook::PageMkwrite,
    Hook::PfnMkwrite,
];

/// An object and an area of it, of which one step calls the hook; and who watches that hook.
struct Scene {
    hook: Hook,
    object: Device,
    addr: usize,
    watch: Watch,
}

impl Scene {
    fn new(lab: &Lab, hook: Hook) -> Self {
        let object = match hook {
            Hook::Mapped => Device::open_at(sys::VMALAB_PREPARE_PATH.to_str().unwrap()).unwrap(),
            _ => Device::open().unwrap(),
        };
        lab.resize(&object, PAGES);
        match hook {
            Hook::PageMkwrite => object.set_hooks(HookSet::PageMkwrite).unwrap(),
            Hook::PfnMkwrite => {
                object.set_hooks(HookSet::PageMkwrite).unwrap();
                object.set_area_flags(AreaFlags::PFNMAP).unwrap();
            }
            // There are pages to be mapped.
            Hook::MapPages => object.allocate(0..(PAGES * PAGE) as u64).unwrap(),
            _ => {}
        }
        let addr = map(&object, SHARED, 0, PAGES);
        let watch = object.watch().hooks(hook).open().unwrap();
        Self {
            hook,
            object,
            addr,
            watch,
        }
    }

    /// How the processor comes to the hook.
    fn access(&self) -> Access {
        match self.hook {
            Hook::MapPages => Access::Read,
            _ => Access::Write,
        }
    }

    /// Has the kernel call the hook, for a system call.
    fn step(&self) -> Result<(), Errno> {
        let Self { object, addr, .. } = self;
        let addr = *addr;
        match self.hook {
            Hook::Mmap | Hook::Mapped => {
                try_map(object, 0, 2, RW, SHARED, 0).map(|addr| unmap(addr, 2))
            }
            Hook::MaySplit | Hook::Open => try_unmap(addr, PAGE),
            Hook::Close => try_unmap(addr, PAGES * PAGE),
            Hook::Mremap => {
                let to = map_anonymous(0, PAGES, libc::PROT_NONE, 0).unwrap();
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                remap(addr, PAGES, PAGES, flags, to).map(drop)
            }
            Hook::Mprotect => protect(addr, PAGES, RO),
            Hook::MapPages => read_by_kernel(addr, 1).map(drop),
            _ => write_from_kernel(addr, b"w"),
        }
    }

    /// The answers that were recorded.
    fn results(&self) -> Vec<i32> {
        let events = self.watch.take().unwrap();
        assert!(events.iter().all(|event| event.hook == self.hook));
        events.iter().map(|event| event.result).collect()
    }

    /// Adds the rule that is only told by its numbers.
    fn rule(&self, answer: u32, error: i32, times: u64) -> Result<(), Errno> {
        let mut rule = sys::vmalab_rule {
            hook: self.hook as u32,
            answer,
            error: error as u32,
            nth: 1,
            times,
            ..Default::default()
        };
        let added = self.object.add_rule(&mut rule);
        added
            .map(drop)
            .map_err(|error| Errno::from_raw(error.errno()))
    }
}

fn errors(lab: &Lab) -> Verdict {
    for hook in OF_CALLS {
        for errno in [Errno::ENOMEM, Errno::EDOM] {
            let scene = Scene::new(lab, hook);
            scene
                .rule(sys::VMALAB_ANSWER_ERRNO, errno as i32, 1)
                .unwrap();
            assert_eq!(scene.step(), Err(errno), "{hook:?}");
            assert_eq!(scene.results(), [-(errno as i32)], "{hook:?}");
            assert_eq!(scene.step(), Ok(()), "{hook:?}, afterwards");
            let results = scene.results();
            assert!(
                !results.is_empty() && results.iter().all(|result| *result == 0),
                "{hook:?}, afterwards: {results:?}"
            );
        }
    }
    Ok(())
}

/// `mm_fault_error` and `do_sigbus` of arch/x86/mm/fault.c; what the kernel accesses for a system call is
/// EFAULT.
fn signals(lab: &Lab) -> Verdict {
    for hook in OF_FAULTS {
        for (answer, result, signal) in [
            (
                sys::VMALAB_ANSWER_SIGBUS,
                SIGBUS,
                (libc::SIGBUS, BUS_ADRERR),
            ),
            (
                sys::VMALAB_ANSWER_SIGSEGV,
                SIGSEGV,
                (libc::SIGSEGV, SEGV_MAPERR),
            ),
            (
                sys::VMALAB_ANSWER_HWPOISON,
                HWPOISON,
                (libc::SIGBUS, BUS_MCEERR_AR),
            ),
        ] {
            let scene = Scene::new(lab, hook);
            scene.rule(answer, 0, 2).unwrap();
            let (number, code) = signal;
            let expected = Some((number, code, true));
            assert_eq!(fault(scene.addr, scene.access()), expected, "{hook:?}");
            assert_eq!(scene.step(), Err(Errno::EFAULT), "{hook:?}");
            assert_eq!(scene.results(), [result; 2], "{hook:?}");
            assert_eq!(scene.step(), Ok(()), "{hook:?}, afterwards");
            let results = scene.results();
            assert!(
                results.iter().all(|result| result & ANY_ERROR == 0),
                "{hook:?}, afterwards: {results:?}"
            );
        }
    }
    Ok(())
}

/// The processor tries again; so does the kernel, but where it is told that there is no memory.
fn tried_again(lab: &Lab) -> Verdict {
    for hook in OF_FAULTS {
        for (answer, result, times) in [
            (sys::VMALAB_ANSWER_OOM, OOM, 3),
            (sys::VMALAB_ANSWER_NOPAGE, NOPAGE, 3),
            (sys::VMALAB_ANSWER_RETRY, RETRY, 1),
            (sys::VMALAB_ANSWER_NOTHING, 0, 1),
        ] {
            let scene = Scene::new(lab, hook);
            match scene.rule(answer, 0, times as u64) {
                Ok(()) => {}
                Err(Errno::EINVAL) if result == RETRY || result == 0 => continue,
                Err(errno) => panic!("{hook:?}, answer {answer}: {errno}"),
            }
            assert_eq!(fault(scene.addr, scene.access()), None, "{hook:?}");
            let results = scene.results();
            assert_eq!(results[..times], vec![result; times], "{hook:?}");
            assert!(
                results[times..]
                    .iter()
                    .all(|result| result & ANY_ERROR == 0),
                "{hook:?}, afterwards: {results:?}"
            );

            let scene = Scene::new(lab, hook);
            scene.rule(answer, 0, times as u64).unwrap();
            let expected = match result {
                OOM => Err(Errno::EFAULT),
                _ => Ok(()),
            };
            assert_eq!(scene.step(), expected, "{hook:?}, answer {answer}");
            assert_eq!(scene.results()[0], result, "{hook:?}");
        }
    }
    Ok(())
}

fn delays(lab: &Lab) -> Verdict {
    const DELAY: Duration = Duration::from_millis(30);
    let may_wait = |hook: &Hook| ![Hook::MapPages, Hook::HugeFault].contains(hook);
    for hook in Hook::ALL.iter().copied().filter(may_wait) {
        let scene = Scene::new(lab, hook);
        let rule = scene.object.steer(hook).delay(DELAY).once().unwrap();
        let begin = Instant::now();
        assert_eq!(scene.step(), Ok(()), "{hook:?}");
        let took = begin.elapsed();
        assert!(took >= DELAY, "{hook:?} took {took:?}");
        assert_eq!(scene.object.rule_counts(rule).unwrap().fired, 1, "{hook:?}");
        let results = scene.results();
        assert!(
            !results.is_empty() && results.iter().all(|result| result & ANY_ERROR == 0),
            "{hook:?}: {results:?}"
        );
    }
    Ok(())
}

/// The answers of the tests above are all that there are.
fn no_others(lab: &Lab) -> Verdict {
    use sys::*;
    const OF_ANY_FAULT: [u32; 5] = [
        VMALAB_ANSWER_SIGBUS,
        VMALAB_ANSWER_SIGSEGV,
        VMALAB_ANSWER_OOM,
        VMALAB_ANSWER_HWPOISON,
        VMALAB_ANSWER_NOPAGE,
    ];
    for hook in Hook::ALL.iter().copied() {
        let scene = Scene::new(lab, hook);
        for answer in 0..64 {
            let error = match answer {
                VMALAB_ANSWER_ERRNO => libc::EDOM,
                _ => 0,
            };
            let expected = match answer {
                VMALAB_ANSWER_ERRNO => OF_CALLS.contains(&hook),
                VMALAB_ANSWER_RETRY => hook == Hook::Fault,
                VMALAB_ANSWER_NOTHING => [Hook::MapPages, Hook::HugeFault].contains(&hook),
                answer if OF_ANY_FAULT.contains(&answer) => {
                    OF_FAULTS.contains(&hook) || hook == Hook::HugeFault
                }
                _ => false,
            };
            let added = scene.rule(answer, error, 1);
            let expected = expected.then_some(()).ok_or(Errno::EINVAL);
            assert_eq!(added, expected, "{hook:?}, answer {answer}");
        }
    }
    Ok(())
}
