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

#include <linux/falloc.h>
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
 * HUGE_FAULT: it is asked before FAULT wherever the page table has room for a
 * huge page, and gives one if VMALAB_IOC_SET_FOLIO_SIZE says so. Without it,
 * FAULT may give one, too, and the kernel maps it.
 */
#define VMALAB_OPTIONAL_HOOKS \
	(1ULL << VMALAB_HOOK_PAGE_MKWRITE | 1ULL << VMALAB_HOOK_HUGE_FAULT)

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
 * max_object_size. EBUSY: see SET_FOLIO_SIZE. EBADF: the descriptor is not open
 * for writing.
 */
#define VMALAB_IOC_SET_SIZE	_IOW(VMALAB_IOC_TYPE, 0x02, struct vmalab_size)
/*
 * Set which of these hooks areas of the object have that are mapped from now
 * on. Those that are there keep theirs, and so does what makes one longer.
 * EBADF: the descriptor is not open for writing.
 */
#define VMALAB_IOC_SET_HOOKS	_IOW(VMALAB_IOC_TYPE, 0x03, struct vmalab_hooks)

/*
 * --- The object: what is in it, and its name ---
 */

/*
 * What VMALAB_IOC_FALLOCATE does, as in <linux/falloc.h>. (The kernel does not
 * let fallocate(2) and MADV_REMOVE through to any character device: ENODEV.)
 */
enum vmalab_fallocate_mode {
	/* Allocate what is not there, and grow if the range ends past the end. */
	VMALAB_FALLOCATE_ALLOCATE = 0,
	/* Allocate what is not there, up to the end. */
	VMALAB_FALLOCATE_KEEP_SIZE = FALLOC_FL_KEEP_SIZE,
	/*
	 * Free whole pages, and fill the rest of the range with zeros. Private
	 * copies stay.
	 */
	VMALAB_FALLOCATE_PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
};

/*
 * @offset:    in: bytes
 * @length:    in: bytes, more than 0
 * @mode:      in: enum vmalab_fallocate_mode
 * @reserved:  in: zero
 */
struct vmalab_fallocate {
	__u64 offset;
	__u64 length;
	__u32 mode;
	__u32 reserved;
};

/*
 * What can no longer be done with the object, by anyone: the numbers are those
 * of F_ADD_SEALS, which the kernel does not let through to a device.
 *
 * They bind size and contents. Rules (VMALAB_IOC_ADD_RULE) and what new areas get
 * stay in the hands of whoever has a descriptor for writing: who must not be
 * delayed or get a signal maps no object that others may steer.
 */
enum vmalab_seal {
	VMALAB_SEAL_SEAL = 0x01,	/* adding seals */
	VMALAB_SEAL_SHRINK = 0x02,	/* making it smaller */
	VMALAB_SEAL_GROW = 0x04,	/* making it larger */
	VMALAB_SEAL_WRITE = 0x08,	/* writing to it, in whatever way */
	VMALAB_SEAL_FUTURE_WRITE = 0x10, /* the same, but through areas that are there */
};

/*
 * @seals:     in for ADD_SEALS, out for GET_SEALS: enum vmalab_seal, ored
 * @reserved:  in: zero
 */
struct vmalab_seals {
	__u32 seals;
	__u32 reserved;
};

/* Bytes of the object. */
struct vmalab_range {
	__u64 offset;
	__u64 length;
};

/* Flags of VMALAB_IOC_WRITTEN. */
enum vmalab_written_flag {
	/* From now on, these pages have not been written to. */
	VMALAB_WRITTEN_CLEAR = 1,
};

/*
 * @offset:    in: where to look, in bytes, a multiple of the page size;
 *             out: where to go on, if there was no space for more ranges
 * @length:    in: how much to look at, in bytes, a multiple of the page size;
 *             out: what is left of it, 0 if all was looked at
 * @ranges:    in: a pointer to an array of struct vmalab_range, which is filled
 *             with pages that have been written to, in order
 * @n_ranges:  in: how many it can hold, at least 1; out: how many were filled
 * @flags:     in: enum vmalab_written_flag, ored
 */
struct vmalab_written {
	__u64 offset;
	__u64 length;
	__u64 ranges;
	__u32 n_ranges;
	__u32 flags;
};

/* The longest name has one character less. */
#define VMALAB_NAME_SIZE 64

/*
 * @name:      in: printable characters of ASCII, and zeros behind them
 * @mode:      in for SET_NAME: who may open the object by this name, as the mode
 *             of a file, within 0666; the owner is who has made the object;
 *             in for OPEN_NAME: zero
 * @flags:     in for OPEN_NAME: O_RDONLY, O_WRONLY or O_RDWR of open(2), ored with
 *             O_CLOEXEC or not; in for SET_NAME: zero
 */
struct vmalab_name {
	__u8 name[VMALAB_NAME_SIZE];
	__u32 mode;
	__u32 flags;
};

/*
 * Allocate pages, or free them. Pages that are allocated and never written may
 * be freed again if the system needs memory. They come one by one, whatever
 * VMALAB_IOC_SET_FOLIO_SIZE says. Of a larger piece that somebody holds for input
 * or output, a hole becomes zeros, and stays allocated.
 *
 * EINVAL: an empty range. EOPNOTSUPP: another mode. EFBIG: the range ends past
 * the module parameter max_object_size. ENOSPC: the module parameter max_pages.
 * EPERM: a seal. EBADF: the descriptor is not open for writing. ENOMEM, EINTR.
 * After ENOSPC, ENOMEM and EINTR what was allocated before the end stays, and the
 * size is as it was.
 */
#define VMALAB_IOC_FALLOCATE	_IOW(VMALAB_IOC_TYPE, 0x10, struct vmalab_fallocate)
/*
 * Add seals. None can ever be taken away.
 *
 * EPERM: VMALAB_SEAL_SEAL is set, or the descriptor is not open for writing.
 * EBUSY for VMALAB_SEAL_WRITE: there is a shared area that is writable or can
 * be made so by mprotect, or direct I/O into one is under way.
 */
#define VMALAB_IOC_ADD_SEALS	_IOW(VMALAB_IOC_TYPE, 0x11, struct vmalab_seals)
/* Read the seals. */
#define VMALAB_IOC_GET_SEALS	_IOWR(VMALAB_IOC_TYPE, 0x12, struct vmalab_seals)
/*
 * Which pages have been written to, through shared areas and with write(2),
 * since the last call with VMALAB_WRITTEN_CLEAR; no write is ever missed. With
 * that flag, the pages are write-protected again. A page may be told that was
 * only read, unless it was mapped with VMALAB_HOOK_PAGE_MKWRITE; and one that
 * was written while the call was running, twice. Of a larger piece
 * (VMALAB_IOC_SET_FOLIO_SIZE), all pages are told if one was written, or if it was
 * split. Pages that have become zeros
 * because a hole was punched or the end was moved are not told.
 *
 * EINVAL: no multiples of the page size, or no space for a range. EBADF: the
 * descriptor is not open for writing; also without the flag, pages are
 * write-protected to learn it, and who writes to them faults again. ENOMEM. After
 * EFAULT nothing has been cleared.
 */
#define VMALAB_IOC_WRITTEN	_IOWR(VMALAB_IOC_TYPE, 0x13, struct vmalab_written)
/*
 * Give the object a name, or take it away if @name is empty. The name is gone
 * with the last descriptor and the last area of the object.
 *
 * EEXIST: another object has this name. EBUSY: the object has a name. EBADF: the
 * descriptor is not open for writing.
 */
#define VMALAB_IOC_SET_NAME	_IOW(VMALAB_IOC_TYPE, 0x14, struct vmalab_name)
/*
 * Open the object that has this name. The value is a new descriptor of it, for
 * the same node as the asking one, the object of which does not matter.
 *
 * ENOENT: no object has this name. EACCES: its mode does not allow it, or the
 * asking descriptor does not have this access itself. EMFILE, ENFILE, ENOMEM.
 */
#define VMALAB_IOC_OPEN_NAME	_IOW(VMALAB_IOC_TYPE, 0x15, struct vmalab_name)
/*
 * Read, and set, in pieces of which size the object allocates memory from now
 * on, in bytes: a power of two, one page to 2 MiB (EINVAL if not); 0 for what
 * a fresh object has, which the module parameter folio_size says: one page, if
 * it says nothing.
 *
 * With more than a page, the first touch of a page brings the whole piece that
 * it is in, and maps what of it is inside the area. That makes touching memory
 * several times cheaper, and removing it; but the object then holds, and who
 * touched is charged for, pages that nobody has touched. Pieces begin at a
 * multiple of their size. Where a part of one is past the end, or there already,
 * or where there is no free memory in one piece, smaller ones come.
 *
 * A piece is split where the object comes to end within it; while somebody holds
 * a page of it for input or output, SET_SIZE fails with EBUSY. A mapping of 2 MiB
 * or more begins at an address where one entry of the page table can stand for a
 * piece of 2 MiB, if it is not told where to begin.
 * EBADF for SET: the descriptor is not open for writing.
 */
#define VMALAB_IOC_GET_FOLIO_SIZE	_IOWR(VMALAB_IOC_TYPE, 0x18, struct vmalab_size)
#define VMALAB_IOC_SET_FOLIO_SIZE	_IOW(VMALAB_IOC_TYPE, 0x19, struct vmalab_size)

/*
 * --- Watching: what the kernel calls, as it happens ---
 */

/*
 * A record: one of these for each call of a hook.
 *
 * @sequence:  the number of the call among those that this watch was to
 *             record, from 0 on; where one is missing, it was lost
 * @time:      CLOCK_MONOTONIC, in nanoseconds; it never goes back
 * @hook:      enum vmalab_hook
 * @result:    what the kernel was answered: 0 or a negative errno; for the
 *             hooks of a fault, what the kernel calls VM_FAULT_*
 * @pid, @tid: the process and the thread that called, as they are seen in the
 *             pid namespace in which VMALAB_IOC_WATCH was called; 0 if they
 *             are not. A copy that a fork makes is the parent's call.
 * @start,
 * @end:       the addresses that it is about: of the area; of the part of it
 *             (MPROTECT); of the page (FAULT, HUGE_FAULT, PAGE_MKWRITE,
 *             PFN_MKWRITE); of the pages that may be mapped (MAP_PAGES)
 * @offset:    where @start is in the object, in bytes
 * @flags:     the flags of the area, the kernel's VM_*, before the call; 0 in
 *             MAPPED
 * @argument:  MAY_SPLIT: the address at which; MPROTECT: the flags that the
 *             part will have; the hooks of a fault: FAULT_FLAG_* in the lower
 *             32 bits, and in the upper ones, of HUGE_FAULT, how many pages the
 *             entry would stand for, as a power of two; else 0
 */
struct vmalab_event {
	__u64 sequence;
	__u64 time;
	__u32 hook;
	__s32 result;
	__u32 pid;
	__u32 tid;
	__u64 start;
	__u64 end;
	__u64 offset;
	__u64 flags;
	__u64 argument;
};

/*
 * What to watch.
 *
 * @hooks:     in: a mask of the hooks to record; perhaps none for now
 * @records:   in: for how many records that nobody has read yet there is room:
 *             a power of two, at most VMALAB_WATCH_MAX_RECORDS
 * @flags:     in: VMALAB_WATCH_*
 */
struct vmalab_watch {
	__u64 hooks;
	__u32 records;
	__u32 flags;
};

#define VMALAB_WATCH_NONBLOCK		1	/* O_NONBLOCK for the new descriptor */

#define VMALAB_WATCH_MAX_RECORDS	65536
/* No object is watched by more than this many at a time. */
#define VMALAB_MAX_WATCHES		8

/*
 * How a watch is.
 *
 * @hooks:     out: the mask of the hooks that it records
 * @object:    out: the number of the object, by which the tracepoint
 *             vmalab:vmalab_hook knows it, too
 * @recorded:  out: the records so far
 * @lost:      out: the calls for which there was no room
 * @records:   out: for how many there is room
 * @record_size: out: the size of a record in bytes
 */
struct vmalab_watch_state {
	__u64 hooks;
	__u64 object;
	__u64 recorded;
	__u64 lost;
	__u32 records;
	__u32 record_size;
};

/*
 * The ring of a watch, for who reads it without system calls: mmap(2) of the
 * watch's descriptor, MAP_SHARED.
 *
 * At VMALAB_WATCH_MMAP_TAIL, one page, to be mapped read-write: the reader's
 * position, the only thing that a reader writes. At VMALAB_WATCH_MMAP_RING, to
 * be mapped read-only (else EACCES): struct vmalab_ring in a page, and the
 * records from data_offset on. One read-only mapping of all is possible, too.
 * EINVAL past the end, or MAP_PRIVATE.
 *
 * Positions count records and never wrap: record n is in place n % records.
 * The kernel writes a record and then, with release order, head; but only if
 * head - tail < records, with tail read in acquire order; otherwise the record
 * is lost, and counted. So a reader does this:
 *
 *	head = load_acquire(&ring->head);
 *	while (tail != head) {
 *		use(records[tail % ring->records]);
 *		tail++;
 *	}
 *	store_release(&control->tail, tail);
 *
 * and sleeps in poll(2) when there is nothing more. read(2) does the same in
 * the kernel, with the same tail: use one of them at a time. A tail that is not
 * between head - records and head is the reader's mistake: until it is put
 * right all records are lost, read(2) answers EIO, and poll(2) POLLERR.
 *
 * @head:      how many records were written
 * @lost:      how many were lost; stored before the next head
 * @records:   for how many there is room
 * @record_size: of one, in bytes: sizeof(struct vmalab_event), or more in a
 *             later version, which has more at the end
 * @data_offset: where the first one is, in bytes from this structure
 * @reserved:  zero
 */
struct vmalab_ring {
	__u64 head;
	__u64 lost;
	__u32 records;
	__u32 record_size;
	__u32 data_offset;
	__u32 reserved;
};

struct vmalab_ring_tail {
	__u64 tail;
};

#define VMALAB_WATCH_MMAP_TAIL	0x0000
#define VMALAB_WATCH_MMAP_RING	0x1000

/*
 * Record the calls of some hooks of the object from now on. The value is a new
 * descriptor, with close-on-exec:
 *
 * read(2) gives whole records, as many as there are and fit, and waits for one
 * if there is none. EAGAIN: none now, and O_NONBLOCK; EINVAL: shorter than a
 * record. 0: the object is gone with its areas, there will be no more. poll(2)
 * tells POLLIN, and then POLLHUP. mmap(2): see struct vmalab_ring. The next two
 * requests below.
 *
 * It keeps neither the object nor its pages alive. When it is closed, recording
 * ends. The ring is charged to the memory cgroup of the caller.
 *
 * EINVAL: no such hook, flag or number of records. EBUSY: VMALAB_MAX_WATCHES.
 * EBADF: the descriptor is not open for writing; for who may only read must
 * not learn the addresses of others. ENOMEM, EMFILE, ENFILE.
 */
#define VMALAB_IOC_WATCH	_IOW(VMALAB_IOC_TYPE, 0x20, struct vmalab_watch)
/*
 * On the descriptor of a watch: record these hooks, and no others, from now on.
 * Records that are there stay.
 */
#define VMALAB_IOC_WATCH_SET	_IOW(VMALAB_IOC_TYPE, 0x21, struct vmalab_hooks)
/* On the descriptor of a watch: how it is. */
#define VMALAB_IOC_WATCH_STATE	_IOWR(VMALAB_IOC_TYPE, 0x22, struct vmalab_watch_state)

/*
 * --- Steering ---
 */

/*
 * Flags that the areas of an object get when they are mapped: what a driver can
 * say about memory of its own. Areas that are there keep theirs.
 *
 * MIXEDMAP: pages are put into the page table by the driver (vm_insert_page).
 * PFNMAP: frame numbers are: memory of which the kernel takes no notice, and
 * which it lends to nobody (get_user_pages: EFAULT). Not together with MIXEDMAP,
 * and EINVAL for a private mapping that may become writable. Such areas have the
 * hook PFN_MKWRITE where others have PAGE_MKWRITE. An object is mapped so or in
 * the other ways, not both: the first mmap decides, for as long as it lives, and
 * mmap fails with EBUSY if the flags say otherwise then. Pages of pieces larger
 * than a page, which were there before, are not mapped so: SIGBUS.
 * IO: memory that must not be looked at: not dumped, not lent.
 * DONTEXPAND: mremap makes it no longer (EFAULT).
 * DONTCOPY: a child does not have it.
 * DONTDUMP: it is not in a core dump.
 * NEVER_…: it can never be made readable, writable or executable (EACCES), and
 * mmap with that protection fails with EPERM.
 *
 * With one of the first four, areas are never merged. PFNMAP and IO are not
 * locked or populated either.
 */
enum vmalab_area_flags {
	VMALAB_AREA_MIXEDMAP = 1 << 0,
	VMALAB_AREA_PFNMAP = 1 << 1,
	VMALAB_AREA_IO = 1 << 2,
	VMALAB_AREA_DONTEXPAND = 1 << 3,
	VMALAB_AREA_DONTCOPY = 1 << 4,
	VMALAB_AREA_DONTDUMP = 1 << 5,
	VMALAB_AREA_NEVER_READ = 1 << 6,
	VMALAB_AREA_NEVER_WRITE = 1 << 7,
	VMALAB_AREA_NEVER_EXEC = 1 << 8,
};

/*
 * @flags:     of enum vmalab_area_flags; a fresh object has none
 * @reserved:  zero
 */
struct vmalab_new_areas {
	__u64 flags;
	__u64 reserved;
};

/*
 * Set, and read, the flags of new areas. EBADF for SET: the descriptor is not
 * open for writing.
 */
#define VMALAB_IOC_SET_NEW_AREAS	_IOW(VMALAB_IOC_TYPE, 0x30, struct vmalab_new_areas)
#define VMALAB_IOC_GET_NEW_AREAS	_IOWR(VMALAB_IOC_TYPE, 0x34, struct vmalab_new_areas)

/* What a rule has a hook answer. */
enum vmalab_answer {
	VMALAB_ANSWER_USUAL = 0,	/* as without the rule, but after the delay */
	/* MMAP, MAPPED, MAY_SPLIT, MREMAP, MPROTECT: it fails with @error */
	VMALAB_ANSWER_ERRNO = 1,
	/* FAULT, HUGE_FAULT, MAP_PAGES, PAGE_MKWRITE, PFN_MKWRITE: */
	VMALAB_ANSWER_SIGBUS = 2,
	VMALAB_ANSWER_SIGSEGV = 3,
	/* the access is tried again; if the kernel made it, it fails: ENOMEM, EFAULT */
	VMALAB_ANSWER_OOM = 4,
	/* SIGBUS with BUS_MCEERR_AR, EHWPOISON; EPERM without CAP_SYS_ADMIN */
	VMALAB_ANSWER_HWPOISON = 5,
	VMALAB_ANSWER_NOPAGE = 6,	/* the access is tried again */
	/* FAULT: and its lock is let go of; not if this is the second try */
	VMALAB_ANSWER_RETRY = 7,
	/* MAP_PAGES: FAULT is asked; HUGE_FAULT: smaller pages are tried */
	VMALAB_ANSWER_NOTHING = 8,
};

/* The longest delay, and the longest that all delays of a rule may come to, in microseconds. */
#define VMALAB_MAX_DELAY_US	1000000
#define VMALAB_MAX_DELAYS_US	10000000
/* How often a rule may have something tried again: OOM, NOPAGE, RETRY. */
#define VMALAB_MAX_REPEATS	1000
/* How many rules an object may have. */
#define VMALAB_MAX_RULES	64

/*
 * A rule: the @nth call of a hook that is about a range of the object, and those
 * after it, @times of them, get another answer.
 *
 * A call is about the pages of its area that it is about: the whole area for
 * MMAP, OPEN, CLOSE, MAPPED and MREMAP, the part for MPROTECT, the first page
 * after the split for MAY_SPLIT, the page for a fault, and for MAP_PAGES those
 * around it. Each rule counts for itself; of several that are due, the one that
 * was added first answers.
 *
 * Who waits for a delay does so with the locks that the hook is called with: for
 * most, nobody else changes or looks at the address space meanwhile. A task that
 * is being killed waits for no delay, and gets none of the answers that have
 * something tried again.
 *
 * @hook:      enum vmalab_hook
 * @answer:    enum vmalab_answer, one of those that the hook has
 * @error:     with ERRNO: an errno, 1 to EHWPOISON; else 0
 * @delay_us:  so many microseconds before the answer, not in MAP_PAGES; the
 *             only thing that OPEN and CLOSE can be told. At most
 *             VMALAB_MAX_DELAY_US, and @times of them VMALAB_MAX_DELAYS_US
 * @offset:    of the range in the object, in bytes: a multiple of the page size
 * @length:    of the range, likewise; 0: all from @offset on
 * @nth:       from 1
 * @times:     0: from then on for ever, not for OOM, NOPAGE and RETRY, nor
 *             with a delay
 * @n_calls:   zero for ADD; out: calls that the rule was about
 * @n_fired:   zero for ADD; out: those that it answered, or delayed
 * @id:        zero for ADD; out: by which the other requests know it; no
 *             other rule of the object ever has it
 * @reserved:  zero
 */
struct vmalab_rule {
	__u32 hook;
	__u32 answer;
	__u32 error;
	__u32 delay_us;
	__u64 offset;
	__u64 length;
	__u64 nth;
	__u64 times;
	__u64 n_calls;
	__u64 n_fired;
	__u32 id;
	__u32 reserved;
};

/*
 * Add a rule to the object. EINVAL: the hook has no such answer, or a number is
 * not as said above. ENOSPC: there are VMALAB_MAX_RULES, or there have been as
 * many as there are numbers. EBADF: the descriptor is
 * not open for writing.
 */
#define VMALAB_IOC_ADD_RULE	_IOWR(VMALAB_IOC_TYPE, 0x31, struct vmalab_rule)
/*
 * Remove the rule of @id, or all if that is 0; the other fields do not matter.
 * ENOENT: there is none of that @id. EBADF: as above.
 */
#define VMALAB_IOC_CLEAR_RULES	_IOW(VMALAB_IOC_TYPE, 0x32, struct vmalab_rule)
/* Read the rule of @id. ENOENT: there is none. */
#define VMALAB_IOC_GET_RULE	_IOWR(VMALAB_IOC_TYPE, 0x33, struct vmalab_rule)

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
 * are not called, so that a rule by which one of them would answer otherwise
 * (VMALAB_IOC_ADD_RULE) is not foretold. Errors as of VMALAB_IOC_AREAS.
 */
#define VMALAB_IOC_WOULD_UNMAP _IOWR(VMALAB_IOC_TYPE, 0x41, struct vmalab_unmapping)

#endif /* _UAPI_VMALAB_H */
