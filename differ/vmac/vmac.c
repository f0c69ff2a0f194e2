// SPDX-License-Identifier: GPL-2.0-only
/*
 * One address space of user space, run by the kernel's own code.
 *
 * Real, from the kernel tree that it is built from: mm/vma.c and mm/vma_init.c, the maple tree, the
 * interval trees of reverse maps, and the functions that the script build takes from other files: do_mmap
 * and the choice of an address, the limits, anon_vma from mm/rmap.c, free_pgtables, exit_mmap; mremap,
 * mprotect, mlock and mlockall, madvise, mseal, brk, remap_file_pages, fork (dup_mmap), PR_SET_MDWE,
 * PR_SET_VMA_ANON_NAME, and of mbind what changes areas.
 *
 * Ours, in unit/: page faults without pages, which know of guard pages alone; policies; files and their drivers,
 * shared memory objects, the commit limit, an allocator that can fail. From the kernel's test build of mm/vma.c
 * (tools/testing/vma): types and small helpers (dup.h), and what does nothing here (stubs.h): locks, page tables,
 * huge pages, userfaultfd, KSM, uprobes.
 *
 * All is one unit of the compiler, in this order, since each part stands on those before it.
 */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#ifdef VMAC_SANITIZE
#include <sanitizer/asan_interface.h>
#endif

#include "vmac_tools.h"
#include "vmac.h"

#include "unit/versions.h"
#include "unit/types.c"
#include "unit/process.c"
#include "vma.h"
#include "unit/trouble.c"
#include "unit/memory.c"
#include "unit/rmap.c"
#include "unit/pages.c"
#include "unit/files.c"
#include "unit/limits.c"
#include "unit/elsewhere.c"

/* The kernel's own code. */
#include "taken.h"
#define anon_vma_clone(dst, src, operation) vmac_tying((src)->anon_vma, anon_vma_clone(dst, src, operation))
#define anon_vma_fork(vma, pvma) vmac_tying((pvma)->anon_vma, anon_vma_fork(vma, pvma))
#define __mt_dup(from, to, gfp) (vmac_fails(VMAC_FAIL_TREE) ? -ENOMEM : __mt_dup(from, to, gfp))
#include "vma_init.c"
#include VMA_C
/* Advice that depends on the configuration is known. */
#define CONFIG_KSM
#define vm_flags_clear(vma, flags)	VMAC_CLEARING(vma, vm_flags_clear(vma, flags))
#define vma_clear_flags_mask(vma, mask)	VMAC_CLEARING(vma, vma_clear_flags_mask(vma, mask))
#define vm_acct_memory			vmac_charge_source
#include "calls.h"
#undef vm_flags_clear
#undef vma_clear_flags_mask
#undef vm_acct_memory

#include "unit/faults.c"
#include "unit/operations.c"
#include "unit/seen.c"
#include "unit/interface.c"
