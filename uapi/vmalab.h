/* SPDX-License-Identifier: MIT OR GPL-2.0-only WITH Linux-syscall-note */
/*
 * The user-space interface of vmalab.ko: the ioctls of /dev/vmalab.
 *
 * This file is the only contract between the module and user space. The module
 * and the shim read it with bindgen; nobody retypes it.
 *
 * Every open of the node makes one memory object: pages by offset, made of
 * zeros when they are first touched. Descriptors and areas keep it alive. It
 * can be mapped, and read and written as a block device: up to its end, which
 * only VMALAB_IOC_SET_SIZE moves.
 *
 * Structures only ever grow at their end, and the size that a caller was built
 * with travels in the ioctl number. The module takes a shorter structure of an
 * older caller as if the rest were zero, and refuses a longer one with E2BIG
 * where what it does not know is not zero.
 *
 * Errors that all share: ENOTTY for a number that is not listed here (in type,
 * number and direction; its size may differ as said above), EINVAL for a
 * structure shorter than its first version, for unknown flags and for reserved
 * fields that are not zero, EFAULT for a bad pointer.
 */
#ifndef _UAPI_VMALAB_H
#define _UAPI_VMALAB_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The node, with the older generation of the mmap handler (.mmap). */
#define VMALAB_PATH "/dev/vmalab"
/*
 * The same with the newer one (.mmap_prepare and vm_operations.mapped), which
 * the kernel asks before it merges areas.
 */
#define VMALAB_PREPARE_PATH "/dev/vmalab-prepare"

/* The ioctl type ("magic") of all requests below. */
#define VMALAB_IOC_TYPE 0xBC

/* What VMALAB_IOC_STATS counts. */
enum vmalab_scope {
	VMALAB_SCOPE_OBJECT = 0,	/* the object behind this descriptor */
	VMALAB_SCOPE_MODULE = 1,	/* everything since the module was loaded */
};

/*
 * The hooks: what the kernel calls for an object and its areas. Masks of hooks
 * have the bit 1 << number.
 */
enum vmalab_hook {
	/*
	 * file_operations.mmap, which is not called for a range that only makes
	 * an area longer; or .mmap_prepare, which always is.
	 */
	VMALAB_HOOK_MMAP = 0,
	VMALAB_HOOK_OPEN = 1,		/* an area was copied: split, fork, move */
	VMALAB_HOOK_CLOSE = 2,		/* an area goes away */
	VMALAB_HOOK_MAPPED = 3,		/* a new area (VMALAB_PREPARE_PATH only) */
	VMALAB_HOOK_MAY_SPLIT = 4,	/* an area is about to be split */
	VMALAB_HOOK_MREMAP = 5,		/* an area was moved */
	VMALAB_HOOK_MPROTECT = 6,	/* a protection is about to change */
	VMALAB_HOOK_FAULT = 7,		/* a page is wanted */
	VMALAB_HOOK_HUGE_FAULT = 8,	/* a huge page is wanted */
	VMALAB_HOOK_MAP_PAGES = 9,	/* pages around one are mapped */
	VMALAB_HOOK_PAGE_MKWRITE = 10,	/* a page becomes writable */
	VMALAB_HOOK_PFN_MKWRITE = 11,	/* so does one without a struct page */
	VMALAB_NR_HOOKS = 12,
};

/* There will never be more hooks than this. */
#define VMALAB_MAX_HOOKS 32

/*
 * Counts of what is alive now, and of the hook calls so far.
 *
 * @scope:     in: enum vmalab_scope
 * @reserved:  in: zero
 * @objects:   live memory objects (the asking descriptor's own included)
 * @areas:     live areas (VMAs) that map them
 * @pages:     pages that they hold
 * @n_calls:   calls of each hook, by enum vmalab_hook
 *
 * The first version ends before @n_calls.
 */
struct vmalab_stats {
	__u32 scope;
	__u32 reserved;
	__u64 objects;
	__u64 areas;
	__u64 pages;
	__u64 n_calls[VMALAB_MAX_HOOKS];
};

/*
 * The size of the object, in bytes. Pages past it raise SIGBUS, as past the
 * end of a file. A fresh object has the size that the module parameter
 * object_size says, 64 MiB if it says nothing.
 *
 * @size:      out for GET_SIZE: bytes, whole pages;
 *             in for SET_SIZE: bytes, rounded up to whole pages
 * @flags:     in: zero
 * @reserved:  in: zero
 */
struct vmalab_size {
	__u64 size;
	__u32 flags;
	__u32 reserved;
};

/*
 * Hooks that are there only if asked for, since the kernel treats an area that
 * has them in another way. All others are always there, or never.
 *
 * PAGE_MKWRITE: pages of shared areas are mapped read-only at first, so that
 * the first write to each is another fault.
 */
#define VMALAB_OPTIONAL_HOOKS	(1ULL << VMALAB_HOOK_PAGE_MKWRITE)

/*
 * @hooks:     in: a mask, within VMALAB_OPTIONAL_HOOKS
 * @reserved:  in: zero
 */
struct vmalab_hooks {
	__u64 hooks;
	__u64 reserved;
};

/* Read the counts. */
#define VMALAB_IOC_STATS	_IOWR(VMALAB_IOC_TYPE, 0x00, struct vmalab_stats)
/* Read the size of the object. */
#define VMALAB_IOC_GET_SIZE	_IOWR(VMALAB_IOC_TYPE, 0x01, struct vmalab_size)
/*
 * Set the size of the object. Pages past the new end are freed and taken out
 * of every area that maps them, and so are the private copies of them, as
 * ftruncate does with a file. EFBIG: larger than the module parameter
 * max_object_size. EBADF: the descriptor is not open for writing.
 */
#define VMALAB_IOC_SET_SIZE	_IOW(VMALAB_IOC_TYPE, 0x02, struct vmalab_size)
/*
 * Set which of these hooks areas of the object have that are mapped from now
 * on. Those that are there keep theirs, and so does what makes one longer.
 * EBADF: the descriptor is not open for writing.
 */
#define VMALAB_IOC_SET_HOOKS	_IOW(VMALAB_IOC_TYPE, 0x03, struct vmalab_hooks)

/*
 * --- Looking: the calling process's own areas, whoever's they are ---
 */

/* What there is to an area besides its numbers. */
enum vmalab_area_is {
	VMALAB_AREA_HAS_OPS = 1,	/* it has a vm_operations_struct */
	VMALAB_AREA_IS_SEALED = 2,	/* mseal */
	VMALAB_AREA_IS_FORKED = 4,	/* of anon_vmas it has others besides, from before a fork */
	VMALAB_AREA_IS_WATCHED = 8,	/* by a userfaultfd */
};

/*
 * An area (VMA).
 *
 * @start:     first byte
 * @end:       one past the last byte
 * @flags:     vm_flags, all of them, as this kernel numbers them
 * @pgoff:     vm_pgoff, in pages: of what is mapped; of private anonymous memory
 *             the number of the page where it was mapped at first
 * @ino:       the inode of its file, on the device @dev_major:@dev_minor, as
 *             in /proc/PID/maps; zero without a file
 * @hooks:     the mask of hooks that it has
 * @anon_vma:  which anon_vma it has; 0: none
 * @anon_root: the root of that, the anon_vma of the first of the processes that
 *             are forks of each other
 * @file:      which open file (struct file) it maps; 0: none
 * @object:    which memory object it maps; 0: none, it is not an area of this
 *             module; 1: the one of the descriptor that asks
 * @is:        enum vmalab_area_is, ored
 *
 * Three kinds of numbers have no meaning but to tell one from another, within
 * one answer: anon_vmas and their roots, files, and objects. They count from 1 in
 * the order in which they appear.
 */
struct vmalab_area {
	__u64 start;
	__u64 end;
	__u64 flags;
	__u64 pgoff;
	__u64 ino;
	__u64 hooks;
	__u32 dev_major;
	__u32 dev_minor;
	__u32 anon_vma;
	__u32 anon_root;
	__u32 file;
	__u32 object;
	__u32 is;
	__u32 reserved;
};

/* No call gives more areas, or steps, than this, whatever the capacity. */
#define VMALAB_MAX_RECORDS	(1U << 20)

/*
 * The areas that overlap [@start, @end), by address, and the counters: all from
 * one moment, while nobody else maps or unmaps.
 *
 * @start:     in: an address
 * @end:       in: an address; ~0 for all
 * @areas:     in: the address of an array of struct vmalab_area
 * @capacity:  in: how many there is room for; 0: @areas and @area_size do not
 *             matter
 * @area_size: in: sizeof(struct vmalab_area) as the caller knows it: what it
 *             does not know is left out, what this module does not know is zero
 * @filled:    out: how many were written to the array
 * @reserved:  in: zero
 * @count:     out: how many there are; if more than @filled, ask again with more
 *             room, or for what is left
 *
 * What follows is out, too, from the mm_struct: the number of areas; counts of
 * pages; flags that new areas get; addresses.
 */
struct vmalab_areas {
	__u64 start;
	__u64 end;
	__u64 areas;
	__u32 capacity;
	__u32 area_size;
	__u32 filled;
	__u32 reserved;
	__u64 count;
	__u64 map_count;
	__u64 total_vm;
	__u64 locked_vm;
	__u64 pinned_vm;
	__u64 data_vm;
	__u64 exec_vm;
	__u64 stack_vm;
	__u64 hiwater_vm;
	__u64 def_flags;
	__u64 task_size;
	__u64 mmap_base;
	__u64 start_brk;
	__u64 brk;
	__u64 start_stack;
};

/* The steps of munmap, of which each is about an area or what splits left of it. */
enum vmalab_step_kind {
	/*
	 * It ends here with @error: the area is sealed (EPERM), or a hole would
	 * be punched, which takes one area more than there may be (ENOMEM).
	 */
	VMALAB_STEP_REFUSE = 0,
	VMALAB_STEP_SPLIT = 1,		/* it is cut in two @at an address */
	VMALAB_STEP_DETACH = 2,		/* it will go away */
	VMALAB_STEP_UNLOCK = 3,		/* its pages are counted as locked no more */
	VMALAB_STEP_ANNOUNCE = 4,	/* the userfaultfd that watches it is told */
	VMALAB_STEP_CLEAR = 5,		/* the pages of the range are unmapped */
	/*
	 * @hook is called. may_split is asked before a split @at an address, and
	 * @error ends it all; open is told of the new piece after it; close is
	 * called when the pages are gone.
	 */
	VMALAB_STEP_HOOK = 6,
};

/*
 * One step.
 *
 * @kind:      enum vmalab_step_kind
 * @hook:      enum vmalab_hook, of a STEP_HOOK
 * @start:     first byte of the area, as it is by then
 * @end:       one past the last byte
 * @at:        where it is, or would be, split
 * @pgoff:     the offset of @start, as in struct vmalab_area
 * @object:    which memory object it maps, as in struct vmalab_area
 * @error:     0, or a positive errno
 * @new_below: of a STEP_SPLIT: 1 if the lower piece is the new area, else 0
 * @reserved:  zero
 */
struct vmalab_step {
	__u32 kind;
	__u32 hook;
	__u64 start;
	__u64 end;
	__u64 at;
	__u64 pgoff;
	__u32 object;
	__u32 error;
	__u32 new_below;
	__u32 reserved;
};

/*
 * What munmap(@addr, @len) would do now.
 *
 * @addr, @len: in: as munmap takes them
 * @max_map_count: in: what /proc/sys/vm/max_map_count says, or what it might
 *             say; modules cannot see it
 * @steps:     in: the address of an array of struct vmalab_step
 * @capacity:  in: how many there is room for
 * @step_size: in: sizeof(struct vmalab_step) as the caller knows it
 * @filled:    out: how many were written to the array
 * @error:     out: 0, or the errno (positive) that munmap would fail with
 * @count:     out: how many steps there are
 *
 * What follows is out, too: by how much the counters would change. After an error
 * only the splits stay, and what was detached is attached again. @accounted are the pages that no longer count against
 * the commit limit.
 *
 * The kernel may also run out of memory in the middle of it, or the task be
 * killed while it waits for the lock, which nobody can know before.
 */
struct vmalab_unmapping {
	__u64 addr;
	__u64 len;
	__u64 max_map_count;
	__u64 steps;
	__u32 capacity;
	__u32 step_size;
	__u32 filled;
	__u32 error;
	__u64 count;
	__s64 map_count;
	__s64 total_vm;
	__s64 locked_vm;
	__s64 data_vm;
	__s64 exec_vm;
	__s64 stack_vm;
	__s64 accounted;
};

/*
 * Read the calling process's areas and counters. EINVAL: @end is below @start, or
 * @area_size is smaller than that of the first version, larger than 4096 or no
 * multiple of 8. ENOMEM: there is no memory for a copy (it counts as the
 * caller's). EINTR: killed. After EFAULT a part of the array may be written.
 */
#define VMALAB_IOC_AREAS	_IOWR(VMALAB_IOC_TYPE, 0x40, struct vmalab_areas)
/*
 * Ask what munmap would do. That munmap would fail is no error of this. Other
 * drivers are asked by means of their hook may_split; the hooks of this module
 * are not called. Errors as of VMALAB_IOC_AREAS.
 */
#define VMALAB_IOC_WOULD_UNMAP _IOWR(VMALAB_IOC_TYPE, 0x41, struct vmalab_unmapping)

#endif /* _UAPI_VMALAB_H */
