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

#endif /* _UAPI_VMALAB_H */
