/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The interface of libvmac.so: one address space, whose operations are the kernel's own code.
 * One thread at a time. differ/src/vmac/ffi.rs has the same in Rust.
 */
#ifndef VMAC_H
#define VMAC_H

#include <stdbool.h>
#include <stdint.h>

/* Raise it with every change of what follows. */
#define VMAC_ABI 12

enum vmac_op_kind {
	VMAC_MMAP,	/* addr, len, prot, flags, file, offset */
	VMAC_MUNMAP,	/* addr, len */
	VMAC_TOUCH,	/* addr; flags: 1 to write */
	VMAC_MPROTECT,	/* addr, len, prot */
	VMAC_MLOCK,	/* addr, len, flags */
	VMAC_MUNLOCK,	/* addr, len */
	VMAC_MREMAP,	/* addr, len, new_len, flags, new_addr */
	VMAC_MADVISE,	/* addr, len; flags: the advice */
	VMAC_FORK,
	VMAC_BRK,	/* addr */
	VMAC_MLOCKALL,	/* flags */
	VMAC_MUNLOCKALL,
	VMAC_MSEAL,	/* addr, len; offset: the flags */
	VMAC_REMAP_FILE_PAGES,	/* addr, len, prot, flags; offset: the page */
	VMAC_PKEY_MPROTECT,	/* addr, len, prot; file: the key */
	VMAC_MDWE,	/* offset: the bits */
	VMAC_SET_NAME,	/* addr, len; offset: which name, 0: none, ~0: one that is refused */
	VMAC_MBIND,	/* addr, len, flags; prot: the mode; offset: the nodes */
	VMAC_FAIL,	/* flags: VMAC_FAIL_; offset: so manieth from now on, 1 the first; 0: none */
	VMAC_STEER,	/* file; prot: enum vmac_hook_kind; len: at which call, 0: none; flags: the error */
	VMAC_PKEY_ALLOC,	/* offset: the flags; len: the rights */
	VMAC_PKEY_FREE,	/* file: the key */
};

/* Which allocations count. */
enum {
	VMAC_FAIL_ANY,		/* each of the kernel's */
	VMAC_FAIL_AREA,		/* a vm_area_struct */
	VMAC_FAIL_TREE,		/* a call by which the tree may get memory, whether or not it takes some */
	VMAC_FAIL_ANON_VMA,	/* a call that ties an area to an anon_vma */
};

struct vmac_op {
	uint32_t kind;
	uint32_t prot;
	uint32_t flags;
	int32_t file;		/* by its place among the files; -1: a bad descriptor */
	uint64_t addr;
	uint64_t len;
	uint64_t offset;
	uint64_t new_len;
	uint64_t new_addr;
};

enum vmac_hook_kind {
	VMAC_HOOK_MMAP,
	VMAC_HOOK_OPEN,
	VMAC_HOOK_CLOSE,
	VMAC_HOOK_MAY_SPLIT,
	VMAC_HOOK_MAPPED,
	VMAC_HOOK_MREMAP,
	VMAC_HOOK_MPROTECT,
};

/* A call of a driver's hook, with the area as the hook saw it. */
struct vmac_hook {
	uint32_t kind;
	int32_t file;
	uint64_t start;
	uint64_t end;
	uint64_t pgoff;
	uint64_t addr;		/* of VMAC_HOOK_MAY_SPLIT; the begin of VMAC_HOOK_MPROTECT */
	uint64_t to;		/* the end of VMAC_HOOK_MPROTECT */
	uint64_t flags;		/* of VMAC_HOOK_MPROTECT: VM_* */
	uint32_t error;		/* what it answered, 0: none */
	uint32_t unused;
};

enum vmac_object {
	VMAC_ANON = -1,
	VMAC_SHMEM = -2,	/* and down: one number per object */
};

struct vmac_area {
	uint64_t start;
	uint64_t end;
	uint64_t flags;		/* VM_* */
	uint64_t pgoff;
	int32_t object;		/* a file by its place, or enum vmac_object */
	uint32_t anon_vma;	/* a number per anon_vma, 0: none */
	uint32_t name;		/* 0: none */
	uint32_t unused;
};

struct vmac_counters {
	uint64_t map_count;
	uint64_t total_vm;
	uint64_t locked_vm;
	uint64_t data_vm;
	uint64_t stack_vm;
	uint64_t exec_vm;
	uint64_t committed;	/* pages that count against the commit limit, with those that were lost */
};

struct vmac_range {
	uint64_t start;
	uint64_t end;
};

/* What there is to see after an operation; it holds until the next one. */
struct vmac_seen {
	int64_t result;		/* the value, or the negative error */
	const struct vmac_area *areas;
	const struct vmac_hook *hooks;
	const char *broke;	/* what a kernel never does: a warning, a leak, a count that is wrong */
	uint32_t n_areas;
	uint32_t n_hooks;
	struct vmac_counters counters;
	uint64_t lost;		/* pages of commit charge that were lost, in a way that is known */
	const struct vmac_range *discarded;	/* whose pages were taken out of the page tables, in order */
	uint64_t n_discarded;
	uint64_t excused;	/* what else is known of the kernel: VMAC_EXCUSED_… */
};

enum {
	VMAC_EXCUSED_TREE = 1,		/* the maple tree's assertion after a merge without memory */
	VMAC_EXCUSED_LOCKED = 2,	/* locked_vm is right in its lower 32 bits alone */
};

enum {
	VMAC_REGULAR,
	VMAC_MEMFD,
	VMAC_DEVICE,
	VMAC_UNMAPPABLE,
};

enum {
	VMAC_ANYWHERE,
	VMAC_ALIGNED,		/* may_split_arg: at multiples of so many bytes, else EINVAL */
	VMAC_NEVER,		/* may_split_arg: the error */
};

struct vmac_file {
	uint32_t kind;
	uint8_t read;
	uint8_t write;
	uint8_t noexec;
	uint8_t prepares;	/* mmap_prepare, else mmap */
	uint8_t hook_mmap;
	uint8_t hook_open;
	uint8_t hook_close;
	uint8_t hook_may_split;
	uint8_t hook_mapped;
	uint8_t hook_mremap;
	uint8_t hook_mprotect;
	uint8_t chooses_address;	/* it has a get_unmapped_area of its own */
	uint8_t seals;		/* F_SEAL_* */
	uint8_t unused[3];
	uint32_t mmap_error;	/* 0: none */
	uint32_t mremap_error;
	uint32_t mprotect_error;
	uint32_t may_split;
	uint64_t may_split_arg;
	uint64_t pages;
	uint64_t sets;		/* VM_* that its mmap handler sets */
};

struct vmac_limits {
	uint64_t task_size;
	uint64_t mmap_min_addr;
	uint64_t mmap_base;
	uint64_t mmap_legacy_base;
	uint64_t stack_guard_gap;
	uint64_t max_map_count;
	uint64_t commit;	/* a request may not be larger, in pages */
	uint64_t commit_limit;	/* what is promised has to be less, in pages; UINT64_MAX: no mode 2 */
	uint64_t user_reserve;	/* what a large process leaves of it at most, in pages */
	uint64_t address_space;
	uint64_t data;
	uint64_t stack;
	uint64_t memlock;
	uint64_t start_brk;	/* where the heap begins */
	uint64_t brk;		/* where it ends at the start */
	uint64_t program_data;	/* bytes that count as if they were of the heap */
	uint8_t cap_ipc_lock;
	uint8_t cap_sys_rawio;
	uint8_t cap_sys_nice;
	uint8_t pkeys;		/* the processor has protection keys */
	uint8_t unused[4];
};

#define VMAC_API __attribute__((visibility("default")))

VMAC_API uint32_t vmac_abi(void);
/* Only with COUNTED=1: a flag for each edge of mm/vma.c, which is set when it is taken. */
VMAC_API const bool *vmac_reached(uint64_t *count);

/* The version of the kernel tree, as in 7.2.12. */
VMAC_API const char *vmac_kernel(void);

/* An empty address space with these files, up to 24. What was there before is forgotten. */
VMAC_API void vmac_reset(const struct vmac_limits *limits, const struct vmac_file *files, uint32_t n_files);

/*
 * An operation that has taken so much processor time, and at most twice that, does not come back: seen->broke
 * says so. At the start it is 1000.
 */
VMAC_API void vmac_set_patience(uint32_t milliseconds);

/* Puts an area where there is none: of a file or private anonymous memory. */
VMAC_API void vmac_restore(const struct vmac_area *area, struct vmac_seen *seen);

/* Gives whether an allocation failed. */
VMAC_API int vmac_apply(const struct vmac_op *op, struct vmac_seen *seen);

/* Unmaps everything, and says in seen->broke if something is left over. */
VMAC_API void vmac_exit(struct vmac_seen *seen);

/*
 * To be measured: operations one after the other, and nothing is looked at in between. The result is how
 * many failed. Of what can be seen there are the counters, and the hook calls of the last operation.
 */
VMAC_API void vmac_perform(const struct vmac_op *ops, uint32_t n_ops, struct vmac_seen *seen);

/* To be measured: find_vma of each address. The result is the sum of where the areas start. */
VMAC_API void vmac_find(const uint64_t *addrs, uint32_t n_addrs, struct vmac_seen *seen);

/* How many bytes all areas, nodes of the maple tree, anon_vmas and so on take that there are. */
VMAC_API uint64_t vmac_memory(void);

#endif
