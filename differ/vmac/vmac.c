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
 * Ours, below: page faults without pages, which know of guard pages alone; policies; files and their drivers, shared memory objects, the commit
 * limit, an allocator that can fail. From the kernel's test build of mm/vma.c (tools/testing/vma): types
 * and small helpers (dup.h), and what does nothing here (stubs.h): locks, page tables, huge pages,
 * userfaultfd, KSM, uprobes.
 */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>

#include "vmac_tools.h"
#include "vmac.h"

/* ---- As tools/testing/vma/vma_internal.h, so that mm/vma_internal.h is left out. ---- */

#define __MM_VMA_INTERNAL_H

#define CONFIG_MMU
#define CONFIG_PER_VMA_LOCK
#define CONFIG_ANON_VMA_NAME

#ifdef __CONCAT
#undef __CONCAT
#endif

#include <linux/args.h>
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/list.h>
#include <linux/maple_tree.h>
#include <linux/mm.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/sizes.h>
#include <linux/mman.h>
#include <sys/stat.h>

#define __private
typedef struct {
	DECLARE_BITMAP(__mm_flags, NUM_MM_FLAG_BITS);
} mm_flags_t;
typedef struct {
	DECLARE_BITMAP(__vma_flags, NUM_VMA_FLAG_BITS);
} vma_flags_t;
typedef unsigned long vm_flags_t;
#define pgoff_t unsigned long
typedef unsigned long pgprotval_t;
typedef struct pgprot { pgprotval_t pgprot; } pgprot_t;
typedef unsigned int vm_fault_t;

#ifdef VMAC_BARE
/* As without CONFIG_DEBUG_VM: compiled, and not run. */
#define VMAC_DEBUG_VM(check, condition)		((void)sizeof(condition))
#else
#define VMAC_DEBUG_VM(check, condition)		check(condition)
#endif
#define VM_WARN_ON(condition)			VMAC_DEBUG_VM(WARN_ON, condition)
#define VM_WARN_ON_ONCE(condition)		VMAC_DEBUG_VM(WARN_ON, condition)
#define VM_WARN_ON_ONCE_MM(condition, mm)	VMAC_DEBUG_VM(WARN_ON, condition)
#define VM_WARN_ON_VMG(condition, vmg)		VMAC_DEBUG_VM(WARN_ON, condition)
#define VM_BUG_ON(condition)			VMAC_DEBUG_VM(BUG_ON, condition)
#define VM_BUG_ON_VMA(condition, vma)		VMAC_DEBUG_VM(BUG_ON, condition)
#define VM_BUG_ON_MM(condition, mm)		VMAC_DEBUG_VM(BUG_ON, condition)

/* ---- Members that dup.h leaves out; the script build puts these names in. ---- */

#ifdef VMAC_BARE
#define VMAC_WATCHED_MEMBERS
#else
/* Ours: whether and how it is in the interval tree. */
#define VMAC_WATCHED_MEMBERS						\
	bool in_tree;							\
	unsigned long first, last;
#endif

struct inode {
	unsigned int i_mode;
};
struct path {
	bool noexec;
};
struct percpu_dummy;

#define VMAC_mm_struct							\
	unsigned long mmap_base, mmap_legacy_base, hiwater_vm;		\
	unsigned long start_data, end_data, start_brk, brk;		\
	int page_table_lock;
#define VMAC_file							\
	unsigned int f_mode;						\
	struct path f_path;						\
	struct inode *f_inode;						\
	/* Ours. */							\
	int number;							\
	long references;						\
	const struct vm_operations_struct *vm_ops;			\
	struct vmac_file is;						\
	struct {							\
		uint32_t hook;						\
		uint32_t nth;	/* calls from now on; 0: never */	\
		uint32_t error;						\
	} steered;	/* that hook, at that call, fails once */
#define VMAC_file_operations						\
	unsigned int fop_flags;						\
	unsigned long (*get_unmapped_area)(struct file *, unsigned long, \
			unsigned long, unsigned long, unsigned long);
#define VMAC_address_space						\
	struct inode *host;
#define VMAC_anon_vma_chain						\
	struct vm_area_struct *vma;					\
	struct rb_node rb;						\
	unsigned long rb_subtree_last;					\
	unsigned long cached_vma_start, cached_vma_last;		\
	VMAC_WATCHED_MEMBERS
#define VMAC_task_struct						\
	unsigned int flags;
#define VMAC_vm_area_struct						\
	struct mempolicy *vm_policy;					\
	/* Ours: fork copied the page tables. */			\
	bool copied;							\
	VMAC_WATCHED_MEMBERS

#ifndef atomic_dec
#define atomic_dec(counter)	((void)atomic_dec_and_test(counter))
#endif

/* ---- Stubs and types, without what is real here. ---- */

#define mempolicy			stub_mempolicy
#define mpol_equal			stub_mpol_equal
#define mpol_put			stub_mpol_put
#define vma_dup_policy			stub_vma_dup_policy
#define anon_vma_name			stub_anon_vma_name
#define anon_vma_name_eq		stub_anon_vma_name_eq
#define dup_anon_vma_name		stub_dup_anon_vma_name
#define unmap_vmas			stub_unmap_vmas
#define may_expand_vm			stub_may_expand_vm
#define security_vm_enough_memory_mm	stub_security_vm_enough_memory_mm
#define vm_acct_memory			stub_vm_acct_memory
#define mmap_file			stub_mmap_file
#define vma_close			stub_vma_close
#define vma_supports_mlock		stub_vma_supports_mlock
#define shmem_zero_setup		stub_shmem_zero_setup
#define get_file			stub_get_file
#define fput				stub_fput
#define capable				stub_capable
#define free_pgtables			stub_free_pgtables
#define do_munmap			stub_do_munmap
#define mmap_action_complete		stub_mmap_action_complete
#define mapping_unmap_writable		stub_mapping_unmap_writable
#define vma_interval_tree_insert	stub_vma_interval_tree_insert
#define vma_interval_tree_remove	stub_vma_interval_tree_remove
#define anon_vma_interval_tree_insert	stub_anon_vma_interval_tree_insert
#define anon_vma_interval_tree_remove	stub_anon_vma_interval_tree_remove
#include "stubs.h"
#undef mempolicy
#undef mpol_equal
#undef mpol_put
#undef vma_dup_policy
#undef anon_vma_name
#undef anon_vma_name_eq
#undef dup_anon_vma_name
#undef unmap_vmas
#undef vma_policy
#undef may_expand_vm
#undef security_vm_enough_memory_mm
#undef vm_acct_memory
#undef mmap_file
#undef vma_close
#undef vma_supports_mlock
#undef shmem_zero_setup
#undef get_file
#undef fput
#undef capable
#undef free_pgtables
#undef do_munmap
#undef mmap_action_complete
#undef mapping_unmap_writable
#undef vma_interval_tree_insert
#undef vma_interval_tree_remove
#undef anon_vma_interval_tree_insert
#undef anon_vma_interval_tree_remove

static int security_vm_enough_memory_mm(struct mm_struct *mm, long pages);
static void vm_acct_memory(long pages);
static int shmem_zero_setup(struct vm_area_struct *vma);
static struct file *get_file(struct file *file);
static void unmap_vmas(struct mmu_gather *tlb, struct unmap_desc *unmap);
static void fput(struct file *file);
static bool capable(int cap);
int do_munmap(struct mm_struct *mm, unsigned long start, size_t len, struct list_head *uf);
static int mmap_action_complete(struct vm_area_struct *vma, struct mmap_action *action, bool is_compat);
static void mapping_unmap_writable(struct address_space *mapping);
void unlink_anon_vmas(struct vm_area_struct *vma);
static inline void vma_assert_write_locked(struct vm_area_struct *vma);

/* ---- Of the allocations that an operation makes, one can be made to fail. ---- */

/* What of, and so manieth of those from now on; 0: none. */
static uint32_t vmac_fail_what, vmac_fail_at;
/* Whether it came to that. */
static bool vmac_failed;
/* What ties an area to an anon_vma is being made, and there is no memory for it. */
static bool vmac_starved;

static bool vmac_fails(uint32_t what)
{
	if (what != vmac_fail_what || !vmac_fail_at || --vmac_fail_at)
		return false;
	vmac_failed = true;
	return true;
}

/* The tree asks for memory here, whether or not it is such that it needs some. */
static int vmac_preallocate(struct ma_state *mas, void *entry, gfp_t gfp)
{
	if (!vmac_fails(VMAC_FAIL_TREE))
		return mas_preallocate(mas, entry, gfp);
	mas_reset(mas);
	return -ENOMEM;
}

static int vmac_store_gfp(struct ma_state *mas, void *entry, gfp_t gfp)
{
	if (gfp & __GFP_NOFAIL || !vmac_fails(VMAC_FAIL_TREE))
		return mas_store_gfp(mas, entry, gfp);
	mas->node = MA_ERROR(-ENOMEM);
	mas->status = ma_error;
	return -ENOMEM;
}

#define mas_preallocate vmac_preallocate
#define mas_store_gfp vmac_store_gfp

/* Under this name dup.h has an older one, which never refuses. */
#define mlock_future_ok			dup_mlock_future_ok
#include "dup.h"
#undef mlock_future_ok

/* As arch/x86 has it, for a program whose data is not executable. */
#undef VMA_DATA_DEFAULT_FLAGS
#define VMA_DATA_DEFAULT_FLAGS		VMA_DATA_FLAGS_NON_EXEC

/* ---- Policies and names: some of each that stay for ever, so that pointers can be compared. ---- */

#define vma_policy(vma)		((vma)->vm_policy)
#define mpol_equal(a, b)	((a) == (b))
#define mpol_put(policy)	do { } while (0)
#define vma_dup_policy(from, to)	((to)->vm_policy = (from)->vm_policy, 0)

struct mempolicy {
	bool used;
};

/* The first of each kind is none. */
#define VMAC_NAMES 8
static char vmac_names[VMAC_NAMES][64] __attribute__((aligned(64)));

static uint32_t vmac_name_number(struct anon_vma_name *name)
{
	return name ? ((char *)name - vmac_names[0]) / sizeof(vmac_names[0]) : 0;
}

static struct anon_vma_name *anon_vma_name(struct vm_area_struct *vma)
{
	return vma->anon_name;
}

static bool anon_vma_name_eq(struct anon_vma_name *a, struct anon_vma_name *b)
{
	return a == b;
}

static void dup_anon_vma_name(struct vm_area_struct *orig, struct vm_area_struct *new)
{
	new->anon_name = orig->anon_name;
}

/* ---- Instead of custom.h. ---- */

static struct vmac_limits vmac_limits;
static struct task_struct vmac_current;
/* The address space, and before it those of the processes from which it was forked: each operation may be one. */
#define VMAC_GENERATIONS 257
static struct mm_struct vmac_mms[VMAC_GENERATIONS];
static unsigned int vmac_generation;
#define vmac_mm (vmac_mms[vmac_generation])
/* Pages of the older ones that count against the commit limit. */
static unsigned long vmac_accounted_before;

/* By what the charge that an operation loses is told (vmac_expected_loss), all in pages. */
static struct {
	unsigned long accounted;	/* of all areas, when they were last looked at */
	/* Of this operation. */
	unsigned long asked;		/* what it was last charged */
	unsigned long grown;		/* by how much a stack grew that does not count */
	unsigned long unaccounted;	/* the area from which mremap took VM_ACCOUNT, to unmap it */
	unsigned long kept;		/* what that came to where it could not be unmapped */
	bool sent_back;			/* a driver refused a move */
} vmac_ledger;
int sysctl_max_map_count;
unsigned long mmap_min_addr;
unsigned long dac_mmap_min_addr;
unsigned long stack_guard_gap;
const struct vm_operations_struct vma_dummy_vm_ops;

struct task_struct *get_current(void)
{
	return &vmac_current;
}

#undef TASK_SIZE
#define TASK_SIZE		(vmac_limits.task_size)
#define pr_warn_once(...)	do { } while (0)
#define pr_emerg(...)		do { } while (0)
#define pr_warn(...)		do { } while (0)
#define anon_vma_lock_read(anon_vma)	do { } while (0)
#define anon_vma_unlock_read(anon_vma)	do { } while (0)
#define dump_vma(vma)		do { } while (0)
#define vma_iter_dump_tree(vmi)	do { } while (0)
#define RLIMIT_DATA		2
#define RLIMIT_AS		9
#define ignore_rlimit_data	0
#define rlimit_max(limit)	rlimit(limit)

unsigned long rlimit(unsigned int limit)
{
	switch (limit) {
	case RLIMIT_AS:
		return vmac_limits.address_space;
	case RLIMIT_DATA:
		return vmac_limits.data;
	case RLIMIT_STACK:
		return vmac_limits.stack;
	case RLIMIT_MEMLOCK:
		return vmac_limits.memlock;
	default:
		BUG();
	}
}

static bool capable(int cap)
{
	return cap == CAP_IPC_LOCK && vmac_limits.cap_ipc_lock;
}

struct anon_vma {
	struct anon_vma *root;
	atomic_t refcount;
	unsigned long num_children;
	unsigned long num_active_vmas;
	struct anon_vma *parent;
	struct rb_root_cached rb_root;
	/* Ours. */
	uint32_t number;
};

static inline void vma_start_write(struct vm_area_struct *vma)
{
	vma->vm_lock_seq++;
}

static inline int vma_start_write_killable(struct vm_area_struct *vma)
{
	vma->vm_lock_seq++;
	return 0;
}

static inline void vma_lock_init(struct vm_area_struct *vma, bool reset_refcnt)
{
	if (reset_refcnt)
		refcount_set(&vma->vm_refcnt, 0);
#ifndef VMAC_BARE
	/* A duplicate is in no tree. */
	vma->in_tree = false;
#endif
	vma->copied = false;
}

static inline bool vma_is_attached(struct vm_area_struct *vma)
{
	return refcount_read(&vma->vm_refcnt) != 0;
}

static inline unsigned long vma_kernel_pagesize(struct vm_area_struct *vma)
{
	return PAGE_SIZE;
}

#include "vma.h"

/* ---- When something is wrong. ---- */

static char vmac_broke[256];
/* What is known, and came in this operation. */
static uint64_t vmac_excused;
static __thread sigjmp_buf *vmac_escape;

void vmac_warn(const char *what, const char *file, int line)
{
	const char *name = strrchr(file, '/');

	/*
	 * Known of 7.2: when the tree has no memory for a merge, __mmap_region goes on to make an area
	 * of its own, with the iterator still at the area before, and __mas_set_range() objects. What
	 * becomes of it is in order all the same: nothing else here ever objected.
	 */
	if (vmac_failed && strstr(what, "mas_is_active(mas)")) {
		vmac_excused |= VMAC_EXCUSED_TREE;
		return;
	}
	/* The first one says most. */
	if (!vmac_broke[0])
		snprintf(vmac_broke, sizeof(vmac_broke), "%s:%d: %s",
			 name ? name + 1 : file, line, what);
}

void vmac_bug(const char *what, const char *file, int line)
{
	vmac_warn(what, file, line);
	if (vmac_escape)
		siglongjmp(*vmac_escape, 1);
	abort();
}

#ifdef VMAC_COVERAGE
void vmac_warn_if(bool hit, const char *what, const char *file, int line)
{
	if (hit)
		vmac_warn(what, file, line);
}

void vmac_bug_if(bool hit, const char *what, const char *file, int line)
{
	if (hit)
		vmac_bug(what, file, line);
}
#endif

static const int vmac_signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE };
static struct sigaction vmac_before[ARRAY_SIZE(vmac_signals)];

static void vmac_signal(int number, siginfo_t *info, void *context)
{
	if (vmac_escape) {
		if (!vmac_broke[0])
			snprintf(vmac_broke, sizeof(vmac_broke), "signal %d: %s",
				 number, strsignal(number));
		siglongjmp(*vmac_escape, 1);
	}
	/* Not ours: another copy of this library's, or a real crash. */
	for (size_t i = 0; i < ARRAY_SIZE(vmac_signals); i++) {
		if (vmac_signals[i] != number)
			continue;
		if (vmac_before[i].sa_flags & SA_SIGINFO)
			vmac_before[i].sa_sigaction(number, info, context);
		else
			sigaction(number, &vmac_before[i], NULL);
	}
}

static struct kmem_cache *anon_vma_cachep;
static struct kmem_cache *anon_vma_chain_cachep;

/* ---- Memory: caches that count, reuse what was freed last, and fail when told to. ---- */

struct vmac_cache {
	struct kmem_cache base;
	size_t room;			/* bytes between two objects */
	void *free;			/* a list through the objects' ends */
	long live;
	const char *name;
};

static struct vmac_cache vmac_caches[8];
static unsigned int vmac_n_caches;
static struct kmem_cache *vmac_maple_cache, *vmac_area_cache;

#ifdef VMAC_SANITIZE
/* So that the sanitizer sees each object. */
static void *vmac_chunk(struct vmac_cache *cache)
{
	return malloc(cache->room);
}

static void vmac_forget(void)
{
	/* What a broken operation left behind is lost. */
}
#else
/* Bytes are handed out in order, and all come back at once, when an address space is forgotten. */
#define VMAC_BLOCK (1UL << 20)

struct vmac_block {
	struct vmac_block *next;
	char bytes[VMAC_BLOCK];
};

static struct vmac_block *vmac_blocks, *vmac_block;
static size_t vmac_used;

static void *vmac_chunk(struct vmac_cache *cache)
{
	if (!vmac_block || vmac_used + cache->room > VMAC_BLOCK) {
		struct vmac_block *next = vmac_block ? vmac_block->next : vmac_blocks;

		if (!next) {
			next = aligned_alloc(4096, (sizeof(*next) + 4095) & ~4095UL);
			if (!next)
				abort();
			next->next = NULL;
			if (vmac_block)
				vmac_block->next = next;
			else
				vmac_blocks = next;
		}
		vmac_block = next;
		/* Objects are aligned to their size, rounded up; so are maple nodes to 256 bytes. */
		vmac_used = (-(uintptr_t)next->bytes) & 255;
	}
	void *chunk = vmac_block->bytes + vmac_used;

	vmac_used += cache->room;
	return chunk;
}

static void vmac_forget(void)
{
	vmac_block = NULL;
}
#endif

static void **vmac_link(struct vmac_cache *cache, void *object)
{
	return (void **)((char *)object + cache->room - sizeof(void *));
}

static bool vmac_lacks(struct kmem_cache *cache, gfp_t gfp)
{
	if (gfp & __GFP_NOFAIL)
		return false;
	if (vmac_starved && (cache == anon_vma_cachep || cache == anon_vma_chain_cachep)) {
		vmac_starved = false;
		return true;
	}
	return vmac_fails(VMAC_FAIL_ANY) || (cache == vmac_area_cache && vmac_fails(VMAC_FAIL_AREA));
}

static void *vmac_alloc(struct kmem_cache *base, gfp_t gfp)
{
	struct vmac_cache *cache = (struct vmac_cache *)base;
	void *object = cache->free;

	if (object) {
		cache->free = *vmac_link(cache, object);
	} else {
#ifdef VMAC_SANITIZE
		object = aligned_alloc(256, cache->room);
#else
		object = vmac_chunk(cache);
#endif
		if (base->ctor)
			base->ctor(object);
	}
	cache->live++;
	if (!base->ctor && gfp & __GFP_ZERO)
		memset(object, 0, base->size);
	return object;
}

void *kmem_cache_alloc_lru(struct kmem_cache *base, struct list_lru *lru, int gfp)
{
	return vmac_lacks(base, gfp) ? NULL : vmac_alloc(base, gfp);
}

void kmem_cache_free(struct kmem_cache *base, void *object)
{
	struct vmac_cache *cache = (struct vmac_cache *)base;

	cache->live--;
#ifdef VMAC_SANITIZE
	free(object);
#else
#ifndef VMAC_BARE
	/* Who still reads it is to find nonsense. A constructed object keeps what its constructor made. */
	if (!base->ctor)
		memset(object, 0x6b, min_t(size_t, base->size, 64));
#endif
	if (base == anon_vma_cachep)
		((struct anon_vma *)object)->number = 0;
	*vmac_link(cache, object) = cache->free;
	cache->free = object;
#endif
}

struct kmem_cache *__kmem_cache_create_args(const char *name, unsigned int size,
		struct kmem_cache_args *args, unsigned int flags)
{
	struct vmac_cache *cache = &vmac_caches[vmac_n_caches++];

	BUG_ON(vmac_n_caches > ARRAY_SIZE(vmac_caches));
	memset(cache, 0, sizeof(*cache));
	cache->base.size = size;
	cache->base.ctor = args->ctor;
	cache->name = name;
	if (!strcmp(name, "maple_node"))
		vmac_maple_cache = &cache->base;
	if (!strcmp(name, "vm_area_struct"))
		vmac_area_cache = &cache->base;
	/* A maple node is aligned to 256 bytes, with no room to spare: its link lies in the next 256. */
	cache->room = (size + sizeof(void *) + 255) & ~255UL;
#ifdef VMAC_BARE
	/* As the kernel's allocator does where there is no constructor: the link lies in what is free. */
	if (!args->ctor)
		cache->room = (size + 255) & ~255UL;
#endif
	return &cache->base;
}

void kmem_cache_free_bulk(struct kmem_cache *cache, size_t size, void **list)
{
	for (size_t i = 0; i < size; i++)
		kmem_cache_free(cache, list[i]);
}

/* Sheaves: a few, that are used again. */
#define VMAC_SHEAF 64
static struct slab_sheaf *vmac_sheaf;

struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *cache, gfp_t gfp, unsigned int size)
{
	struct slab_sheaf *sheaf = vmac_sheaf;

	if (vmac_lacks(cache, gfp))
		return NULL;
	BUG_ON(size > VMAC_SHEAF);
	if (sheaf)
		vmac_sheaf = NULL;
	else
		sheaf = malloc(sizeof(*sheaf) + VMAC_SHEAF * sizeof(void *));
	if (!sheaf)
		return NULL;
	sheaf->cache = cache;
	sheaf->capacity = VMAC_SHEAF;
	for (sheaf->size = 0; sheaf->size < size; sheaf->size++)
		sheaf->objects[sheaf->size] = vmac_alloc(cache, gfp);
	return sheaf;
}

int kmem_cache_refill_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf **sheaf, unsigned int size)
{
	if ((*sheaf)->size >= size)
		return 0;
	BUG_ON(size > VMAC_SHEAF);
	if (vmac_lacks(cache, gfp))
		return -ENOMEM;
	for (; (*sheaf)->size < size; (*sheaf)->size++)
		(*sheaf)->objects[(*sheaf)->size] = vmac_alloc(cache, gfp);
	return 0;
}

void kmem_cache_return_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf *sheaf)
{
	kmem_cache_free_bulk(cache, sheaf->size, sheaf->objects);
	if (vmac_sheaf)
		free(sheaf);
	else
		vmac_sheaf = sheaf;
}

void *kmem_cache_alloc_from_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf *sheaf)
{
	BUG_ON(!sheaf->size);
	return sheaf->objects[--sheaf->size];
}

/* The maple tree's single nodes come from the cache, and go by kfree. */
void kfree(void *object)
{
	if (object)
		kmem_cache_free(vmac_maple_cache, object);
}

#ifdef CONFIG_DEBUG_MAPLE_TREE
/* The maple tree's debugging code would steer the tools' allocator by these. Nobody calls it. */
void kmem_cache_set_non_kernel(struct kmem_cache *cache, unsigned int value) { }
void kmem_cache_set_callback(struct kmem_cache *cache, void (*callback)(void *)) { }
void kmem_cache_set_private(struct kmem_cache *cache, void *private) { }
void kmem_cache_zero_nr_tallocated(struct kmem_cache *cache) { }
void kmem_cache_shrink(struct kmem_cache *cache) { }
unsigned long kmem_cache_get_alloc(struct kmem_cache *cache) { return 0; }
unsigned int kmem_cache_nr_tallocated(struct kmem_cache *cache) { return 0; }
unsigned int kmem_cache_nr_allocated(struct kmem_cache *cache) { return 0; }
#endif

static struct rcu_head *vmac_rcu;

void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head))
{
	head->func = func;
	head->next = vmac_rcu;
	vmac_rcu = head;
}

static void vmac_rcu_drain(void)
{
	while (vmac_rcu) {
		struct rcu_head *head = vmac_rcu;

		vmac_rcu = head->next;
		head->func(head);
	}
}

void maple_rcu_cb(struct rcu_head *head)
{
	kfree(container_of(head, struct maple_node, rcu));
}

/* ---- Reverse maps: the kernel's interval trees, watched. ---- */

#define put_anon_vma(anon_vma) do {					\
	if (atomic_dec_and_test(&(anon_vma)->refcount))			\
		__put_anon_vma(anon_vma);				\
} while (0)
#define get_anon_vma(anon_vma)		atomic_inc(&(anon_vma)->refcount)
#define rwsem_is_locked(lock)		false
#define vmac_no_lock(lock)		do { } while (0)

static unsigned long vma_last_pgoff(struct vm_area_struct *vma);
#ifdef VMAC_BARE
#include "interval_tree.c"
#else
#define vma_interval_tree_insert	real_vma_interval_tree_insert
#define vma_interval_tree_insert_after	real_vma_interval_tree_insert_after
#define vma_interval_tree_remove	real_vma_interval_tree_remove
#define anon_vma_interval_tree_insert	real_anon_vma_interval_tree_insert
#define anon_vma_interval_tree_remove	real_anon_vma_interval_tree_remove
#define vma_interval_tree		real_vma_interval_tree
#include "interval_tree.c"
#undef vma_interval_tree
#undef vma_interval_tree_insert
#undef vma_interval_tree_insert_after
#undef vma_interval_tree_remove
#undef anon_vma_interval_tree_insert
#undef anon_vma_interval_tree_remove

/* Whoever changes an area's range or offset takes it out first, and puts it in again. */
#define VMAC_WATCHED(type, name, vma)					\
static void name##_insert(type *node, struct rb_root_cached *root)	\
{									\
	WARN_ON(node->in_tree);						\
	node->in_tree = true;						\
	node->first = vma_start_pgoff(vma);				\
	node->last = vma_last_pgoff(vma);				\
	real_##name##_insert(node, root);				\
}									\
static void name##_remove(type *node, struct rb_root_cached *root)	\
{									\
	if (WARN_ON(!node->in_tree))					\
		return;							\
	WARN_ON(node->first != vma_start_pgoff(vma) ||			\
		node->last != vma_last_pgoff(vma));			\
	node->in_tree = false;						\
	real_##name##_remove(node, root);				\
}
VMAC_WATCHED(struct vm_area_struct, vma_interval_tree, node)
VMAC_WATCHED(struct anon_vma_chain, anon_vma_interval_tree, node->vma)

static void vma_interval_tree_insert_after(struct vm_area_struct *node, struct vm_area_struct *prev,
					   struct rb_root_cached *root)
{
	WARN_ON(node->in_tree);
	node->in_tree = true;
	node->first = vma_start_pgoff(node);
	node->last = vma_last_pgoff(node);
	real_vma_interval_tree_insert_after(node, prev, root);
}
#endif

/* ---- Page tables, of which there are guard pages, and what was discarded. ---- */

#define VMAC_RANGES 8192

static struct vmac_range vmac_discarded[VMAC_RANGES];
static uint32_t vmac_n_discarded;
/* What moved in this operation, so that it is not lost when it is unmapped. */
static struct vmac_range vmac_moved[VMAC_RANGES];
static uint32_t vmac_n_moved;
static uint64_t vmac_guards[VMAC_RANGES];
static uint32_t vmac_n_guards;

static void vmac_discard(unsigned long start, unsigned long end)
{
#ifndef VMAC_BARE
	if (vmac_n_discarded && vmac_discarded[vmac_n_discarded - 1].end == start)
		vmac_discarded[vmac_n_discarded - 1].end = end;
	else if (!WARN_ON(vmac_n_discarded == VMAC_RANGES))
		vmac_discarded[vmac_n_discarded++] = (struct vmac_range) { start, end };
#endif
}

static bool vmac_guarded(unsigned long start, unsigned long end)
{
	for (uint32_t i = 0; i < vmac_n_guards; i++)
		if (vmac_guards[i] >= start && vmac_guards[i] < end)
			return true;
	return false;
}

static void vmac_guard_remove(unsigned long start, unsigned long end)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < vmac_n_guards; i++)
		if (vmac_guards[i] < start || vmac_guards[i] >= end)
			vmac_guards[left++] = vmac_guards[i];
	vmac_n_guards = left;
}

/* Instead of the walks of madvise_guard_install and _remove. */
static int vmac_guard_install(unsigned long start, unsigned long end, unsigned long *pages)
{
	vmac_guard_remove(start, end);
	for (unsigned long page = start; page < end; page += PAGE_SIZE) {
		if (WARN_ON(vmac_n_guards == VMAC_RANGES))
			break;
		vmac_guards[vmac_n_guards++] = page;
	}
	vmac_discard(start, end);
	*pages = (end - start) / PAGE_SIZE;
	return 0;
}

static unsigned long vmac_move(unsigned long from, unsigned long to, unsigned long len)
{
	vmac_ledger.unaccounted = 0;
	/* On the way back, what moved has not. */
	if (vmac_n_moved && vmac_moved[vmac_n_moved - 1].start == to)
		vmac_n_moved--;
	if (!WARN_ON(vmac_n_moved == VMAC_RANGES))
		vmac_moved[vmac_n_moved++] = (struct vmac_range) { from, from + len };
	for (uint32_t i = 0; i < vmac_n_guards; i++)
		if (vmac_guards[i] >= from && vmac_guards[i] < from + len)
			vmac_guards[i] += to - from;
	return len;
}

static void unmap_vmas(struct mmu_gather *tlb, struct unmap_desc *unmap)
{
	struct vm_area_struct *vma = unmap->first;

	do {
		unsigned long start = max(vma->vm_start, unmap->vma_start);
		unsigned long end = min(vma->vm_end, unmap->vma_end);

		if (vma->vm_mm == current->mm) {
			vmac_guard_remove(start, end);
			for (uint32_t i = 0; i < vmac_n_moved; i++)
				if (start >= vmac_moved[i].start && start < vmac_moved[i].end)
					start = vmac_moved[i].end;
			if (start < end)
				vmac_discard(start, end);
		}
		vma = mas_find(unmap->mas, unmap->tree_end - 1);
	} while (vma);
}

/* ---- Files, their drivers, and shared memory objects. ---- */

#define FMODE_READ		1
#define FMODE_WRITE		2
#define FOP_MMAP_SYNC		1
#define FOP_UNSIGNED_OFFSET	2
#define MAX_LFS_FILESIZE	LONG_MAX
#define file_inode(file)	((file)->f_inode)
#define path_noexec(path)	((path)->noexec)
#define IS_SWAPFILE(inode)	false
#define IS_APPEND(inode)	false
#define memfd_check_seals_mmap(file, flags)	0

#define VMAC_FILES 24
#define VMAC_HOOKS 1024

static struct {
	struct file file;
	struct inode inode;
	struct address_space mapping;
	struct file_operations f_op;
	struct vm_operations_struct vm_ops;
} vmac_files[VMAC_FILES];
static uint32_t vmac_n_files;

struct vmac_shmem {
	struct file file;
	struct inode inode;
	struct address_space mapping;
	unsigned long pages;
	unsigned long charged;
};
static struct kmem_cache *vmac_shmem_cache;
static int vmac_next_shmem;
static uint32_t vmac_next_anon_vma;
static unsigned long vmac_committed;
static unsigned long vmac_shmem_committed;
static unsigned long vmac_lost_before;

static struct vmac_hook vmac_hooks[VMAC_HOOKS];
static uint32_t vmac_n_hooks;

static void vmac_record(uint32_t kind, struct file *file, unsigned long start, unsigned long end,
			unsigned long pgoff, unsigned long addr)
{
	if (WARN_ON(vmac_n_hooks == VMAC_HOOKS))
		return;
	vmac_hooks[vmac_n_hooks++] = (struct vmac_hook) {
		.kind = kind,
		.file = file->number,
		.start = start,
		.end = end,
		.pgoff = pgoff,
		.addr = addr,
	};
}

/* The same of a hook that can refuse: what it answers. */
static int vmac_ask(uint32_t kind, struct file *file, unsigned long start, unsigned long end,
		    unsigned long pgoff, unsigned long addr, uint32_t error)
{
	vmac_record(kind, file, start, end, pgoff, addr);
	if (file->steered.nth && file->steered.hook == kind && !--file->steered.nth)
		error = file->steered.error;
	vmac_hooks[vmac_n_hooks - 1].error = error;
	return -(int)error;
}

static void vmac_open(struct vm_area_struct *vma)
{
	if (vma->vm_file->is.hook_open)
		vmac_record(VMAC_HOOK_OPEN, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, 0);
}

static void vmac_close(struct vm_area_struct *vma)
{
	vmac_record(VMAC_HOOK_CLOSE, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, 0);
}

static int vmac_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	struct vmac_file *is = &vma->vm_file->is;
	uint32_t error = 0;

	if (is->may_split == VMAC_ALIGNED && addr % is->may_split_arg)
		error = EINVAL;
	if (is->may_split == VMAC_NEVER)
		error = is->may_split_arg;
	if (!is->hook_may_split)
		return -(int)error;
	return vmac_ask(VMAC_HOOK_MAY_SPLIT, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, addr, error);
}

static int vmac_mremap(struct vm_area_struct *vma)
{
	struct vmac_file *is = &vma->vm_file->is;

	int answer;

	if (is->hook_mremap)
		answer = vmac_ask(VMAC_HOOK_MREMAP, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, 0,
				  is->mremap_error);
	else
		answer = -(int)is->mremap_error;
	vmac_ledger.sent_back |= answer != 0;
	return answer;
}

static int vmac_mprotect(struct vm_area_struct *vma, unsigned long start, unsigned long end,
			 unsigned long newflags)
{
	struct vmac_file *is = &vma->vm_file->is;
	int answer;

	if (!is->hook_mprotect)
		return -(int)is->mprotect_error;
	answer = vmac_ask(VMAC_HOOK_MPROTECT, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, start,
			  is->mprotect_error);
	vmac_hooks[vmac_n_hooks - 1].to = end;
	vmac_hooks[vmac_n_hooks - 1].flags = newflags;
	return answer;
}

static int vmac_mapped(unsigned long start, unsigned long end, pgoff_t pgoff, const struct file *file,
		       void **vm_private_data)
{
	return vmac_ask(VMAC_HOOK_MAPPED, (struct file *)file, start, end, pgoff, 0, 0);
}

/* As in mm/util.c, where it also maps pages for the driver: none here asks for that. */
static int mmap_action_complete(struct vm_area_struct *vma, struct mmap_action *action, bool is_compat)
{
	VMA_ITERATOR(vmi, &vmac_mm, vma->vm_start);
	void *private = NULL;
	int error;

	if (!vma->vm_ops || !vma->vm_ops->mapped)
		return 0;
	error = vma->vm_ops->mapped(vma->vm_start, vma->vm_end, vma->vm_pgoff, vma->vm_file, &private);
	if (error)
		do_vmi_munmap(&vmi, &vmac_mm, vma->vm_start, vma->vm_end - vma->vm_start, NULL, false);
	return error;
}

static int vmac_mmap(struct file *file, struct vm_area_struct *vma)
{
	vm_flags_set(vma, file->is.sets);
	vma->vm_ops = file->vm_ops;
	if (!file->is.hook_mmap)
		return -(int)file->is.mmap_error;
	return vmac_ask(VMAC_HOOK_MMAP, file, vma->vm_start, vma->vm_end, vma->vm_pgoff, 0, file->is.mmap_error);
}

static int vmac_mmap_prepare(struct vm_area_desc *desc)
{
	struct file *file = desc->file;

	vma_flags_set_word(&desc->vma_flags, file->is.sets);
	desc->vm_ops = file->vm_ops;
	if (!file->is.hook_mmap)
		return -(int)file->is.mmap_error;
	return vmac_ask(VMAC_HOOK_MMAP, file, desc->start, desc->end, desc->pgoff, 0, file->is.mmap_error);
}

static struct file *get_file(struct file *file)
{
	WARN_ON(file->references <= 0);
	file->references++;
	return file;
}

static void fput(struct file *file)
{
	WARN_ON(file->references <= 0);
	if (--file->references)
		return;
	/* The files that operations name are held by the process. */
	if (!WARN_ON(file->number >= 0)) {
		struct vmac_shmem *shmem = container_of(file, struct vmac_shmem, file);

		WARN_ON(!RB_EMPTY_ROOT(&shmem->mapping.i_mmap.rb_root));
		WARN_ON(atomic_read(&shmem->mapping.i_mmap_writable));
		vm_acct_memory(-(long)shmem->charged);
		vmac_shmem_committed -= shmem->charged;
		kmem_cache_free(vmac_shmem_cache, shmem);
	}
}

static void mapping_unmap_writable(struct address_space *mapping)
{
	WARN_ON(atomic_read(&mapping->i_mmap_writable) <= 0);
	atomic_dec(&mapping->i_mmap_writable);
}

static const struct file_operations vmac_shmem_f_op = { .mmap_prepare = vmac_mmap_prepare };
static const struct vm_operations_struct vmac_shmem_vm_ops;

/* As in mm/shmem.c: each shared anonymous mapping has a file of its own. */
static int shmem_zero_setup(struct vm_area_struct *vma)
{
	unsigned long pages = vma_pages(vma);
	unsigned long charged = vma->vm_flags & VM_NORESERVE ? 0 : pages;
	struct vmac_shmem *shmem;

	if (charged && security_vm_enough_memory_mm(vma->vm_mm, charged))
		return -ENOMEM;
	shmem = kmem_cache_alloc(vmac_shmem_cache, GFP_KERNEL);
	if (!shmem) {
		vm_acct_memory(-(long)charged);
		return -ENOMEM;
	}
	memset(shmem, 0, sizeof(*shmem));
	vmac_shmem_committed += charged;
	shmem->pages = pages;
	shmem->charged = charged;
	shmem->file.number = VMAC_SHMEM - vmac_next_shmem++;
	shmem->file.references = 1;
	shmem->file.f_mode = FMODE_READ | FMODE_WRITE;
	shmem->file.f_mapping = &shmem->mapping;
	shmem->file.f_op = &vmac_shmem_f_op;
	shmem->file.f_inode = &shmem->inode;
	shmem->file.vm_ops = &vmac_shmem_vm_ops;
	shmem->inode.i_mode = S_IFREG;
	shmem->mapping.host = &shmem->inode;
	shmem->mapping.i_mmap = RB_ROOT_CACHED;
	vma->vm_file = &shmem->file;
	vma->vm_ops = &vmac_shmem_vm_ops;
	return 0;
}

/* ---- Limits. ---- */

static void vm_acct_memory(long pages)
{
	vmac_committed += pages;
}

static int security_vm_enough_memory_mm(struct mm_struct *mm, long pages)
{
	WARN_ON(pages < 0);
	if ((unsigned long)pages > vmac_limits.commit)
		return -ENOMEM;
	if (vmac_limits.commit_limit != UINT64_MAX) {
		unsigned long kept = min_t(unsigned long, mm->total_vm / 32, vmac_limits.user_reserve);

		if (vmac_committed + vmac_lost_before + pages + kept >= vmac_limits.commit_limit)
			return -ENOMEM;
	}
	vm_acct_memory(pages);
	vmac_ledger.asked = pages;
	return 0;
}

/* Of calls.h, unmap_source_vma alone calls these two. */
static void vmac_clear_flags(struct vm_area_struct *vma, vm_flags_t flags)
{
	if (flags & VM_ACCOUNT)
		vmac_ledger.unaccounted = vma_pages(vma);
	vm_flags_clear(vma, flags);
}

static void vmac_charge_source(long pages)
{
	vmac_ledger.kept += vmac_ledger.unaccounted ?: pages;
	vm_acct_memory(pages);
}

static int security_mmap_addr(unsigned long addr)
{
	return addr < dac_mmap_min_addr && !vmac_limits.cap_sys_rawio ? -EPERM : 0;
}

/* ---- The kernel's functions from elsewhere, and what they lack. ---- */

#ifndef smp_store_release
#define smp_store_release(to, value)	(*(to) = (value))
#endif
#define IS_ERR_VALUE(x)			((unsigned long)(x) >= (unsigned long)-4095)
#define fallthrough			__attribute__((__fallthrough__))
#define spin_lock(lock)			do { } while (0)
#define spin_unlock(lock)		do { } while (0)
#define execute_only_pkey(mm)		0
#define arch_calc_vm_prot_bits(prot, pkey)	0
#define arch_calc_vm_flag_bits(file, flags)	0
#define OVERCOMMIT_NEVER		2
#define sysctl_overcommit_memory	(vmac_limits.commit_limit == UINT64_MAX ? 0 : OVERCOMMIT_NEVER)
#define arch_mmap_check(addr, len, flags)	0
#define in_32bit_syscall()		false
#define in_compat_syscall()		false
#define PF_RANDOMIZE			0
#define randomize_page(start, range)	(start)
#define task_size_32bit()		0
#define task_size_64bit(full)		(full ? TASK_SIZE_MAX : DEFAULT_MAP_WINDOW)
#define huge_page_mask_align(file)	0
#define get_align_mask(file)		0
#define get_align_bits(file)		0
#define stack_guard_placement(flags)	0
#define trace_vm_unmapped_area(addr, info)	do { } while (0)
#define MMF_TOPDOWN			24
#define PMD_SIZE			(2UL << 20)
#define shmem_get_unmapped_area		vmac_shmem_get_unmapped_area
#define VMA_DROPPABLE			mk_vma_flags(VMA_DROPPABLE_BIT)
#define tlb_free_vmas(tlb)		do { } while (0)
#define mmu_notifier_release(mm)	do { } while (0)
#define mmap_read_lock(mm)		do { } while (0)
#define arch_exit_mmap(mm)		do { } while (0)
#define flush_cache_mm(mm)		do { } while (0)
#define tlb_gather_mmu_fullmm(tlb, mm)	do { } while (0)
#define mm_flags_set(flag, mm)		__set_bit(flag, (mm)->flags.__mm_flags)
#define trace_exit_mmap(mm)		do { } while (0)
#define mmap_write_lock(mm)		do { } while (0)
#define cond_resched()			do { } while (0)
#define mt_clear_in_rcu(tree)		do { } while (0)
#undef KMEM_CACHE

unsigned long mm_get_unmapped_area_vmflags(struct file *file, unsigned long addr, unsigned long len,
					   unsigned long pgoff, unsigned long flags, vm_flags_t vm_flags);
unsigned long arch_get_unmapped_area(struct file *file, unsigned long addr, unsigned long len,
				     unsigned long pgoff, unsigned long flags, vm_flags_t vm_flags);
unsigned long arch_get_unmapped_area_topdown(struct file *file, unsigned long addr, unsigned long len,
					     unsigned long pgoff, unsigned long flags, vm_flags_t vm_flags);
unsigned long thp_get_unmapped_area_vmflags(struct file *file, unsigned long addr, unsigned long len,
					    unsigned long pgoff, unsigned long flags, vm_flags_t vm_flags);

/* Without huge pages in shared memory. */
static unsigned long vmac_shmem_get_unmapped_area(struct file *file, unsigned long addr, unsigned long len,
						  unsigned long pgoff, unsigned long flags)
{
	return mm_get_unmapped_area_vmflags(file, addr, len, pgoff, flags, 0);
}

/* A driver's own, which takes what it would have got anyway. */
static unsigned long vmac_get_unmapped_area(struct file *file, unsigned long addr, unsigned long len,
					    unsigned long pgoff, unsigned long flags)
{
	return mm_get_unmapped_area_vmflags(file, addr, len, pgoff, flags, 0);
}

static inline void anon_vma_free(struct anon_vma *anon_vma);
static void cleanup_partial_anon_vmas(struct vm_area_struct *vma);

static void __put_anon_vma(struct anon_vma *anon_vma)
{
	struct anon_vma *root = anon_vma->root;

	anon_vma_free(anon_vma);
	if (root != anon_vma && atomic_dec_and_test(&root->refcount))
		anon_vma_free(root);
}

void free_pgtables(struct mmu_gather *tlb, struct unmap_desc *unmap);
static int anon_vma_clone(struct vm_area_struct *dst, struct vm_area_struct *src, enum vma_operation operation);
static int __anon_vma_prepare(struct vm_area_struct *vma);
/* Each call counts once, however much it allocates: the first of that fails. */
#define vmac_tying(has, call) ({					\
	vmac_starved = (has) && vmac_fails(VMAC_FAIL_ANON_VMA);	\
	int vmac_result = (call);					\
	vmac_starved = false;						\
	vmac_result;							\
})

static inline int anon_vma_prepare(struct vm_area_struct *vma)
{
	return vma->anon_vma ? 0 : vmac_tying(true, __anon_vma_prepare(vma));
}

static void anon_vma_ctor(void *object)
{
	struct anon_vma *anon_vma = object;

	atomic_set(&anon_vma->refcount, 0);
	anon_vma->rb_root = RB_ROOT_CACHED;
	anon_vma->number = 0;
}

static void anon_vma_chain_ctor(void *object)
{
#ifndef VMAC_BARE
	((struct anon_vma_chain *)object)->in_tree = false;
#endif
}

/* Of mremap. */
#define move_page_tables(pmc)		vmac_move((pmc)->old_addr, (pmc)->new_addr, (pmc)->len_in)
#define mremap_userfaultfd_prep(vma, ctx)	do { } while (0)
#define mremap_userfaultfd_fail(ctx)	do { } while (0)
#define mremap_userfaultfd_complete(ctx, from, to, len)	do { } while (0)
#define userfaultfd_armed(vma)		false
#define hstate_vma(vma)			NULL
#define huge_page_size(hstate)		PMD_SIZE
#define huge_page_mask(hstate)		(~(PMD_SIZE - 1))
#define vma_is_shmem(vma)		(!(vma)->vm_ops || (vma)->vm_ops == &vmac_shmem_vm_ops || \
					 (vma)->vm_file->is.kind == VMAC_MEMFD)
#define thp_get_unmapped_area		NULL
#define vma_assert_stabilised(vma)	do { } while (0)
#ifndef abs_diff
#define abs_diff(a, b)			((a) > (b) ? (a) - (b) : (b) - (a))
#endif
#ifndef ALIGN_DOWN
#define ALIGN_DOWN(value, to)		((value) & ~((to) - 1))
#endif

#define mm_populate(start, len)		vmac_populate(start, (start) + (len), true)

/* Of brk, remap_file_pages, mlockall, mseal and prctl. */
#define SYSCALL_DEFINE0(name)		static long sys_##name(void)
#define SYSCALL_DEFINE1(name, t1, a1)	static long sys_##name(t1 a1)
#define SYSCALL_DEFINE5(name, t1, a1, t2, a2, t3, a3, t4, a4, t5, a5)	\
	static long sys_##name(t1 a1, t2 a2, t3 a3, t4 a4, t5 a5)
#ifndef RLIM_INFINITY
#define RLIM_INFINITY			(~0UL)
#endif
#define mmap_read_lock_killable(mm)	0
#define security_mmap_file(file, prot, flags)	0
#define MCL_CURRENT			1
#define MCL_FUTURE			2
#define MCL_ONFAULT			4
#define MMF_HAS_MDWE_NO_INHERIT		29
#define PR_MDWE_REFUSE_EXEC_GAIN	1
#define PR_MDWE_NO_INHERIT		2
#define arch_memory_deny_write_exec_supported()	true
#ifndef mm_flags_clear
#define mm_flags_clear(flag, mm)	__clear_bit(flag, (mm)->flags.__mm_flags)
#endif

/* Of madvise. */
#ifndef PAGE_ALIGNED
#define PAGE_ALIGNED(addr)		(!offset_in_page(addr))
#endif
#define MMF_VM_MERGEABLE		16
#define __ksm_enter(mm)			0
#define break_ksm(vma, start, end, lock)	0
#define vma_is_dax(vma)			false
#define file_is_dax(file)		false
#define khugepaged_enter_vma(vma, flags)	do { } while (0)
#define anon_vma_name_put(name)		do { } while (0)
#define anon_vma_name_reuse(name)	(name)
#define vma_is_anon_shmem(vma)		((vma)->vm_ops == &vmac_shmem_vm_ops)
#define arch_vma_access_permitted(...)	true
#define userfaultfd_remove(vma, start, end)	true
#define madvise_dontneed_single_vma(behavior)	\
	(vmac_discard((behavior)->range.start, (behavior)->range.end), 0)
#define madvise_free_single_vma(behavior)	(!vma_is_anonymous((behavior)->vma) ? -EINVAL :	\
	(vmac_discard((behavior)->range.start, (behavior)->range.end), 0))
#define madvise_willneed(behavior)	0
#define madvise_cold(behavior)		(can_madv_lru_vma((behavior)->vma) ? 0 : -EINVAL)
#define madvise_pageout(behavior)	madvise_cold(behavior)
/* Of pages nothing is known here: where there is room for a huge one, there is one. */
#define madvise_collapse(vma, start, end, dropped)	(!(vma)->anon_vma ||		\
	(vma)->vm_flags & (VM_SPECIAL | VM_HUGETLB | VM_NOHUGEPAGE) ||			\
	ALIGN((vma)->vm_start, PMD_SIZE) + PMD_SIZE > (vma)->vm_end ? -EINVAL : 0)
#define walk_page_range_vma_unsafe(vma, start, end, ops, pages)	vmac_guard_install(start, end, pages)
#define walk_page_range_mm_unsafe(mm, start, end, ops, pages)	vmac_guard_install(start, end, pages)
#define walk_page_range_vma(vma, start, end, ops, private)	(vmac_guard_remove(start, end), 0)
#define get_walk_lock(mode)		0
#define vma_set_atomic_flag(vma, bit)	vm_flags_set(vma, 1UL << (bit))
#define madvise_lock(behavior)		((behavior)->lock_mode = MADVISE_MMAP_WRITE_LOCK, 0)
#define madvise_unlock(behavior)	do { } while (0)
#define zap_vma_range(vma, start, len)	do { } while (0)
#define restart_syscall()		(-EINTR)
struct mm_walk_ops {
	void *pud_entry, *pmd_entry, *pte_entry, *install_pte;
	int walk_lock;
};
#define guard_install_pud_entry		NULL
#define guard_install_pmd_entry		NULL
#define guard_install_pte_entry		NULL
#define guard_install_set_pte		NULL
#define guard_remove_pud_entry		NULL
#define guard_remove_pmd_entry		NULL
#define guard_remove_pte_entry		NULL
#define try_vma_read_lock(behavior)	false
#define vma_end_read(vma)		do { } while (0)
#define __MADV_SET_ANON_VMA_NAME	(-1)
#define FALLOC_FL_KEEP_SIZE		1
#define FALLOC_FL_PUNCH_HOLE		2
/* Files can have holes, devices not. */
#define vfs_fallocate(file, mode, offset, len)	((file)->f_inode->i_mode == S_IFCHR ? -ENODEV :	\
	(vmac_discard(madv_behavior->range.start, madv_behavior->range.end), 0))

/* Of fork. */
#define __latent_entropy
#define flush_cache_dup_mm(mm)		do { } while (0)
#define flush_tlb_mm(mm)		do { } while (0)
#define uprobe_dup_mmap(oldmm, mm)	do { } while (0)
#define mmap_write_lock_nested(mm, subclass)	do { } while (0)
#define dup_mm_exe_file(mm, oldmm)	do { } while (0)
#define dup_userfaultfd(vma, list)	0
#define dup_userfaultfd_complete(list)	do { } while (0)
#define dup_userfaultfd_fail(list)	do { } while (0)
#define hugetlb_dup_vma_private(vma)	do { } while (0)
#define flush_dcache_mmap_lock(mapping)	do { } while (0)
#define flush_dcache_mmap_unlock(mapping)	do { } while (0)
#define copy_page_range(dst, src)	((dst)->copied = true, 0)
#define arch_dup_mmap(oldmm, mm)	0
#define mt_set_in_rcu(tree)		do { } while (0)
#define ksm_fork(mm, oldmm)		do { } while (0)
#define khugepaged_fork(mm, oldmm)	do { } while (0)
#define MMF_OOM_SKIP			21
#define MMF_UNSTABLE			22

/* Of mprotect and mlock. */
static int vmac_populate(unsigned long start, unsigned long end, bool ignore);
static int vmac_populate_area(struct vm_area_struct *vma, unsigned long start, unsigned long end);
#define untagged_addr(addr)		(addr)
#define arch_validate_prot(prot, addr)	(((prot) & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM)) == 0)
#define PROT_SEM			0x8
#define VM_FLAGS_CLEAR			0
#define MM_CP_TRY_CHANGE_WRITABLE	1
/* A processor without protection keys. */
#define mm_pkey_is_allocated(mm, pkey)	false
#define arch_override_mprotect_pkey(vma, prot, pkey)	0
#define security_file_mprotect(vma, reqprot, prot)	0
#define arch_has_pfn_modify_check()	false
#define walk_page_range(...)		0
#define change_protection(...)		do { } while (0)
#define populate_vma_page_range(vma, start, end, locked)	vmac_populate_area(vma, start, end)
#define __mm_populate(start, len, ignore)	vmac_populate(start, (start) + (len), ignore)
#define vma_is_secretmem(vma)		false
#define mlock_vma_pages_range(vma, start, end, flags)	vma_flags_reset_once(vma, flags)
#ifndef IS_ERR
#include <linux/err.h>
#endif

/* Of mbind, with policies that are compared by their address. */
typedef unsigned long nodemask_t;
struct mm_walk {
	struct vm_area_struct *vma;
	void *private;
};
#define range_in_vma(vma, from, to)	((vma) && (vma)->vm_start <= (from) && (to) <= (vma)->vm_end)
#define vma_migratable(vma)		true
#define MPOL_MF_STRICT			1
#define MPOL_MF_MOVE			2
#define MPOL_MF_MOVE_ALL		4
#define MPOL_MF_DISCONTIG_OK		(1 << 4)
#define MPOL_F_STATIC_NODES		(1 << 15)
#define MPOL_F_RELATIVE_NODES		(1 << 14)
enum { MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED_MANY,
       MPOL_WEIGHTED_INTERLEAVE, MPOL_MAX };
#define vma_replace_policy(vma, policy)	((vma)->vm_policy = (policy), 0)

#include "taken.h"
#define anon_vma_clone(dst, src, operation) vmac_tying((src)->anon_vma, anon_vma_clone(dst, src, operation))
#define anon_vma_fork(vma, pvma) vmac_tying((pvma)->anon_vma, anon_vma_fork(vma, pvma))
#define __mt_dup(from, to, gfp) (vmac_fails(VMAC_FAIL_TREE) ? -ENOMEM : __mt_dup(from, to, gfp))
#include "vma_init.c"
#include VMA_C
/* Advice that depends on the configuration is known. */
#define CONFIG_KSM
#define vm_flags_clear			vmac_clear_flags
#define vm_acct_memory			vmac_charge_source
#include "calls.h"
#undef vm_flags_clear
#undef vm_acct_memory

/* ---- Page faults without pages. ---- */

static unsigned long vmac_object_pages(struct vm_area_struct *vma)
{
	if (!vma->vm_file)
		return ULONG_MAX;
	if (vma->vm_file->number >= 0)
		return vma->vm_file->is.pages;
	return container_of(vma->vm_file, struct vmac_shmem, file)->pages;
}

/* One byte is read or written by a system call: lock_mm_and_find_vma, access_error, handle_mm_fault. */
static int vmac_touch(unsigned long addr, bool write)
{
	unsigned long page = addr & PAGE_MASK;
	struct vm_area_struct *vma;

	if (addr >= TASK_SIZE)
		return -EFAULT;
	vma = find_vma(&vmac_mm, page);
	if (!vma)
		return -EFAULT;
	if (vma->vm_start > page) {
		unsigned long start = vma->vm_start;

		if (!(vma->vm_flags & VM_GROWSDOWN) || expand_downwards(vma, page))
			return -EFAULT;
		if (!(vma->vm_flags & VM_ACCOUNT))
			vmac_ledger.grown = PHYS_PFN(start - vma->vm_start);
	}
	if (!(vma->vm_flags & (write ? VM_WRITE : VM_READ | VM_WRITE | VM_EXEC)) ||
	    vmac_guarded(page, page + 1))
		return -EFAULT;
	/* A copy of a page needs it, even where there turns out to be none to copy from. */
	if (write && !(vma->vm_flags & VM_SHARED) && anon_vma_prepare(vma))
		return -EFAULT;
	if (vma->vm_pgoff + PHYS_PFN(page - vma->vm_start) >= vmac_object_pages(vma))
		return -EFAULT;
	return 0;
}

/* populate_vma_page_range: writable private pages are written to, all others read. */
static int vmac_populate_area(struct vm_area_struct *vma, unsigned long start, unsigned long end)
{
	bool write = (vma->vm_flags & (VM_WRITE | VM_SHARED)) == VM_WRITE;

	if (vma->vm_flags & VM_LOCKONFAULT)
		return 0;
	if (!vma_is_accessible(vma) || (!write && !(vma->vm_flags & VM_MAYREAD)))
		return -EFAULT;
	if (write && !vmac_guarded(start, start + 1) && anon_vma_prepare(vma))
		return -ENOMEM;
	if (vmac_guarded(start, end) ||
	    vma->vm_pgoff + PHYS_PFN(end - vma->vm_start) > vmac_object_pages(vma))
		return -EFAULT;
	return 0;
}

/* The pages of a range are faulted in, up to one that cannot be: __mm_populate. */
static int vmac_populate(unsigned long start, unsigned long end, bool ignore)
{
	struct vm_area_struct *vma;

	for (; start < end && (vma = find_vma(&vmac_mm, start)) && vma->vm_start < end; start = vma->vm_end) {
		int error;

		if (vma->vm_flags & (VM_IO | VM_PFNMAP))
			continue;
		error = vmac_populate_area(vma, max(start, vma->vm_start), min(end, vma->vm_end));
		if (error && !ignore)
			return error;
	}
	return 0;
}

/* ---- Operations. ---- */

/* ksys_mmap_pgoff, and vm_mmap_pgoff, which populates after the lock is dropped. */
static long vmac_do_mmap(const struct vmac_op *op)
{
	struct file *file = NULL;
	unsigned long populate;
	long result;

	if (offset_in_page(op->offset))
		return -EINVAL;
	if (!(op->flags & MAP_ANONYMOUS)) {
		if (op->file < 0 || (uint32_t)op->file >= vmac_n_files)
			return -EBADF;
		file = get_file(&vmac_files[op->file].file);
		if (op->flags & MAP_HUGETLB) {
			fput(file);
			return -EINVAL;
		}
	} else if (op->flags & MAP_HUGETLB) {
		/* The pool of huge pages is empty. */
		return -ENOMEM;
	}
	result = do_mmap(file, op->addr, op->len, op->prot, op->flags, 0, op->offset >> PAGE_SHIFT,
			 &populate, NULL);
	if (!IS_ERR_VALUE(result) && populate)
		vmac_populate(result, result + populate, true);
	if (file)
		fput(file);
	return result;
}

/* The system call fills this in. */
static long vmac_do_mremap(const struct vmac_op *op)
{
	struct vm_userfaultfd_ctx uf = {};
	LIST_HEAD(uf_unmap_early);
	LIST_HEAD(uf_unmap);
	struct vma_remap_struct vrm = {
		.addr = op->addr,
		.old_len = op->len,
		.new_len = op->new_len,
		.flags = op->flags,
		.new_addr = op->new_addr,
		.uf = &uf,
		.uf_unmap_early = &uf_unmap_early,
		.uf_unmap = &uf_unmap,
		.remap_type = MREMAP_INVALID,
	};

	return do_mremap(&vrm);
}

/* madvise_populate and faultin_page_range. */
static long vmac_madvise_populate(unsigned long start, unsigned long end, bool write)
{
	while (start < end) {
		struct vm_area_struct *vma = vma_lookup(&vmac_mm, start);
		unsigned long to;

		if (!vma)
			return -ENOMEM;
		if (vma->vm_flags & (VM_IO | VM_PFNMAP) || !(vma->vm_flags & (write ? VM_WRITE : VM_READ)))
			return -EINVAL;
		to = min(end, vma->vm_end);
		if (write && !(vma->vm_flags & VM_SHARED) && !vmac_guarded(start, start + 1) &&
		    anon_vma_prepare(vma))
			return -ENOMEM;
		if (vmac_guarded(start, to) || vma->vm_pgoff + PHYS_PFN(to - vma->vm_start) > vmac_object_pages(vma))
			return -EFAULT;
		start = to;
	}
	return 0;
}

/* do_madvise, without its locks. */
static long vmac_do_madvise(const struct vmac_op *op)
{
	struct madvise_behavior behavior = {
		.mm = &vmac_mm,
		.behavior = op->flags,
		.lock_mode = op->flags == MADV_GUARD_INSTALL ? MADVISE_MMAP_READ_LOCK : MADVISE_MMAP_WRITE_LOCK,
		.range = { op->addr, op->addr + PAGE_ALIGN(op->len) },
	};
	int error;

	if (!madvise_behavior_valid(op->flags))
		return -EINVAL;
	error = check_input_range(op->addr, op->len);
	if (error || !op->len)
		return error;
	if (is_madvise_populate(&behavior))
		return vmac_madvise_populate(behavior.range.start, behavior.range.end,
					     op->flags == MADV_POPULATE_WRITE);
	return madvise_walk_vmas(&behavior);
}

static void vmac_init(struct mm_struct *mm)
{
	memset(mm, 0, sizeof(*mm));
	mt_init_flags(&mm->mm_mt, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_LOCK_EXTERN | MT_FLAGS_USE_RCU);
	mm->mmap_base = vmac_limits.mmap_base;
	mm->mmap_legacy_base = vmac_limits.mmap_legacy_base;
	mm->end_data = vmac_limits.program_data;
	mm->start_brk = vmac_limits.start_brk;
	mm->brk = vmac_limits.brk;
	__set_bit(MMF_TOPDOWN, mm->flags.__mm_flags);
}

/* dup_mm. What follows is done by the child; the older processes stay as they are. */
static long vmac_fork(void)
{
	struct mm_struct *old = &vmac_mm, *mm = old + 1;
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, old, 0);
	int error;

	if (vmac_generation == VMAC_GENERATIONS - 1)
		vmac_bug("more forks than there is room for", __FILE__, __LINE__);
	vmac_init(mm);
	mm->brk = old->brk;
	/* mmf_init_legacy_flags */
	if (mm_flags_test(MMF_HAS_MDWE, old) && !mm_flags_test(MMF_HAS_MDWE_NO_INHERIT, old))
		mm_flags_set(MMF_HAS_MDWE, mm);
	error = dup_mmap(mm, old);
	if (error)
		return error;
	for_each_vma(vmi, vma) {
		if (vma->vm_flags & VM_ACCOUNT)
			vmac_accounted_before += vma_pages(vma);
		if (vma->vm_flags & VM_DONTCOPY)
			vmac_guard_remove(vma->vm_start, vma->vm_end);
	}
	vma_iter_init(&vmi, mm, 0);
	for_each_vma(vmi, vma) {
		if (vma->copied)
			continue;
		vmac_guard_remove(vma->vm_start, vma->vm_end);
		vmac_discard(vma->vm_start, vma->vm_end);
	}
	vmac_generation++;
	vmac_current.mm = mm;
	return 0;
}

/* prctl_set_vma, set_anon_vma_name. */
static long vmac_set_name(const struct vmac_op *op)
{
	struct anon_vma_name *name = NULL;

	if (op->offset >= VMAC_NAMES)
		return -EINVAL;
	if (op->offset)
		name = (struct anon_vma_name *)vmac_names[op->offset];
	return madvise_set_anon_name(&vmac_mm, op->addr, op->len, name);
}

/*
 * kernel_mbind, do_mbind, mpol_new and mpol_set_nodemask, on a machine with node 0 alone: where all pages
 * are, so that none has to move.
 */
static long vmac_mbind(const struct vmac_op *op)
{
	static struct mempolicy policies[MPOL_MAX][4][4];
	unsigned int how = op->prot & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES);
	unsigned int mode = op->prot & ~how;
	unsigned long end = op->addr + PAGE_ALIGN(op->len), nodes = op->offset & 3;
	struct queue_pages qp = { .start = op->addr, .end = end, .flags = op->flags };
	struct mempolicy *policy;
	struct vm_area_struct *vma, *prev;
	VMA_ITERATOR(vmi, &vmac_mm, op->addr);
	int error;

	if (mode >= MPOL_MAX || how == (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES))
		return -EINVAL;
	if (op->flags & ~(MPOL_MF_STRICT | MPOL_MF_MOVE) || op->addr & ~PAGE_MASK || end < op->addr)
		return -EINVAL;
	if (end == op->addr)
		return 0;
	switch (mode) {
	case MPOL_DEFAULT:
		if (nodes)
			return -EINVAL;
		policy = NULL;
		qp.flags |= MPOL_MF_DISCONTIG_OK;
		break;
	case MPOL_LOCAL:
		if (nodes || how)
			return -EINVAL;
		policy = &policies[MPOL_LOCAL][0][0];
		break;
	case MPOL_PREFERRED:
		if (!nodes) {
			if (how)
				return -EINVAL;
			policy = &policies[MPOL_LOCAL][0][0];
			break;
		}
		fallthrough;
	default:
		/* Relative to the nodes that are allowed, each is node 0. */
		if (!nodes || (!(nodes & 1) && how != MPOL_F_RELATIVE_NODES))
			return -EINVAL;
		policy = &policies[mode][how >> 14][how ? nodes : 0];
	}
	for_each_vma_range(vmi, vma, end) {
		struct mm_walk walk = { .vma = vma, .private = &qp };

		error = queue_pages_test_walk(max(vma->vm_start, qp.start), min(vma->vm_end, end), &walk);
		if (error < 0)
			return error;
	}
	if (!qp.first)
		return -EFAULT;
	vma_iter_init(&vmi, &vmac_mm, op->addr);
	prev = vma_prev(&vmi);
	for_each_vma_range(vmi, vma, end) {
		error = mbind_range(&vmi, vma, &prev, op->addr, end, policy);
		if (error)
			return error;
	}
	return 0;
}

static long vmac_steer(const struct vmac_op *op)
{
	struct file *file;

	if (op->file < 0 || (uint32_t)op->file >= vmac_n_files)
		return -EBADF;
	file = &vmac_files[op->file].file;
	if (file->is.kind != VMAC_DEVICE)
		return -ENOTTY;
	file->steered.hook = op->prot;
	file->steered.nth = op->len;
	file->steered.error = op->flags;
	return 0;
}

static long vmac_do(const struct vmac_op *op)
{
	switch (op->kind) {
	case VMAC_MREMAP:
		return vmac_do_mremap(op);
	case VMAC_MADVISE:
		return vmac_do_madvise(op);
	case VMAC_FORK:
		return vmac_fork();
	case VMAC_BRK:
		return sys_brk(op->addr);
	case VMAC_MLOCKALL:
		return sys_mlockall(op->flags);
	case VMAC_MUNLOCKALL:
		return sys_munlockall();
	case VMAC_MSEAL:
		return do_mseal(op->addr, op->len, op->offset);
	case VMAC_REMAP_FILE_PAGES:
		return sys_remap_file_pages(op->addr, op->len, op->prot, op->offset, op->flags);
	case VMAC_PKEY_MPROTECT:
		return do_mprotect_pkey(op->addr, op->len, op->prot, op->file);
	case VMAC_MDWE:
		return prctl_set_mdwe(op->offset, 0, 0, 0);
	case VMAC_SET_NAME:
		return vmac_set_name(op);
	case VMAC_MBIND:
		return vmac_mbind(op);
	case VMAC_STEER:
		return vmac_steer(op);
	case VMAC_MMAP:
		return vmac_do_mmap(op);
	case VMAC_MUNMAP:
		return __vm_munmap(op->addr, op->len, true);
	case VMAC_TOUCH:
		return vmac_touch(op->addr, op->flags & 1);
	case VMAC_MPROTECT:
		return do_mprotect_pkey(op->addr, op->len, op->prot, -1);
	case VMAC_MLOCK:
		/* As the system call mlock2 does. */
		if (op->flags & ~MLOCK_ONFAULT)
			return -EINVAL;
		return do_mlock(op->addr, op->len, VM_LOCKED | (op->flags & MLOCK_ONFAULT ? VM_LOCKONFAULT : 0));
	case VMAC_MUNLOCK:
		/* The system call is no more than this. */
		return apply_vma_lock_flags(op->addr & PAGE_MASK, PAGE_ALIGN(op->len + offset_in_page(op->addr)), 0);
	case VMAC_FAIL:
		vmac_fail_what = op->flags;
		vmac_fail_at = op->offset;
		return 0;
	default:
		return -ENOSYS;
	}
}

/* ---- What there is to see. ---- */

#define VMAC_AREAS 4096

static struct vmac_area vmac_areas[VMAC_AREAS];

static uint32_t vmac_number(struct anon_vma *anon_vma)
{
	if (!anon_vma)
		return 0;
	if (!anon_vma->number)
		anon_vma->number = ++vmac_next_anon_vma;
	return anon_vma->number;
}

/*
 * Four defects of Linux are known, by which the commit charge of the whole machine grows for ever. What each
 * of them loses is known to the page, too: that much is set right, and counted. Any other difference is a
 * finding.
 *
 * An mmap with MAP_FIXED that fails after the old areas went does not give back what they were charged
 * (seen on 6.18 too): __mmap_setup sets vms->nr_accounted to 0, because the new area takes the charge
 * over, and the error path gives back map->charged alone, which is the difference. It loses all of their
 * charge, or, if the new area has none of its own, nothing.
 *
 * An mremap to another place that shrinks is charged for what it gives up (seen on 6.18 too), and one
 * that grows and is sent back by its driver keeps the charge: vrm_calc_charge takes the difference that
 * was there before the tail was unmapped, and unmap_source_vma leaves the charge of the copy alone.
 *
 * With failing allocations, and with drivers that refuse a cut, a source that cannot be unmapped is
 * charged once more, and the whole area stays without VM_ACCOUNT (unmap_source_vma).
 *
 * A stack that grows is charged for it, even if it does not count against the limit (MAP_NORESERVE, or
 * not writable), so that unmapping it gives nothing back: acct_stack_growth does not ask for VM_ACCOUNT.
 */
static unsigned long vmac_expected_loss(const struct vmac_op *op, long result, unsigned long accounted)
{
	unsigned long lost = vmac_committed - vmac_shmem_committed - accounted;
	unsigned long len, new_len;

	switch (op ? op->kind : VMAC_FAIL) {
	case VMAC_MMAP:
		return lost && result < 0 ? vmac_ledger.accounted - accounted : 0;
	case VMAC_TOUCH:
		return vmac_ledger.grown;
	case VMAC_MREMAP:
		len = PAGE_ALIGN(op->len);
		new_len = PAGE_ALIGN(op->new_len);
		if (len != new_len && (vmac_ledger.sent_back || (len > new_len && result >= 0)))
			return vmac_ledger.kept + vmac_ledger.asked;
		return vmac_ledger.kept;
	default:
		return 0;
	}
}

/* Whether it hangs in them with the range it has. */
static void vmac_check_reverse_maps(struct vm_area_struct *vma)
{
#ifndef VMAC_BARE
	struct anon_vma_chain *avc;

	if (vma->vm_file)
		WARN_ON(!vma->in_tree || vma->first != vma->vm_pgoff ||
			vma->last != vma_last_pgoff(vma));
	WARN_ON(!vma->anon_vma != list_empty(&vma->anon_vma_chain));
	list_for_each_entry(avc, &vma->anon_vma_chain, same_vma)
		WARN_ON(avc->vma != vma || !avc->in_tree || avc->first != vma->vm_pgoff ||
			avc->last != vma_last_pgoff(vma));
#endif
}

static void vmac_count(struct vmac_seen *seen)
{
	struct mm_struct *mm = &vmac_mm;

	seen->areas = vmac_areas;
	seen->hooks = vmac_hooks;
	seen->n_hooks = vmac_n_hooks;
	seen->counters = (struct vmac_counters) {
		.map_count = mm->map_count,
		.total_vm = mm->total_vm,
		.locked_vm = mm->locked_vm,
		.data_vm = mm->data_vm,
		.stack_vm = mm->stack_vm,
		.exec_vm = mm->exec_vm,
		.committed = vmac_committed + vmac_lost_before,
	};
}

/* The areas, and whether all that is counted or linked elsewhere agrees with them. */
static void vmac_see(const struct vmac_op *op, struct vmac_seen *seen)
{
	unsigned long total = 0, locked = 0, data = 0, stack = 0, exec = 0, accounted = 0, end = 0;
	struct mm_struct *mm = &vmac_mm;
	struct vm_area_struct *vma;
	struct vmac_area *area = vmac_areas;
	VMA_ITERATOR(vmi, mm, 0);

	for_each_vma(vmi, vma) {
		unsigned long pages = vma_pages(vma);

		WARN_ON(vma->vm_start != vma_iter_addr(&vmi) || vma->vm_end != vma_iter_end(&vmi));
		WARN_ON(vma->vm_start < end || vma->vm_start >= vma->vm_end);
		end = vma->vm_end;
		WARN_ON(vma->vm_mm != mm || !vma_is_attached(vma));
		total += pages;
		if (is_exec_mapping(vma->vm_flags))
			exec += pages;
		else if (is_stack_mapping(vma->vm_flags))
			stack += pages;
		else if (is_data_mapping(vma->vm_flags))
			data += pages;
		if (vma->vm_flags & VM_LOCKED)
			locked += pages;
		if (vma->vm_flags & VM_ACCOUNT)
			accounted += pages;
		vmac_check_reverse_maps(vma);
		if (area == vmac_areas + VMAC_AREAS)
			vmac_bug("more areas than there is room for", __FILE__, __LINE__);
		*area++ = (struct vmac_area) {
			.start = vma->vm_start,
			.end = vma->vm_end,
			.flags = vma->vm_flags,
			.pgoff = vma->vm_pgoff,
			.object = vma->vm_file ? vma->vm_file->number : VMAC_ANON,
			.anon_vma = vmac_number(vma->anon_vma),
			.name = vmac_name_number(vma->anon_name),
		};
	}
	WARN_ON(area - vmac_areas != mm->map_count);
	WARN_ON(total != mm->total_vm);
	/* mlock_fixup() counts in an int: known, and seen on a running 6.18. */
	if (locked != mm->locked_vm)
		vmac_excused |= VMAC_EXCUSED_LOCKED;
	WARN_ON((uint32_t)locked != (uint32_t)mm->locked_vm);
	WARN_ON(data != mm->data_vm);
	WARN_ON(stack != mm->stack_vm);
	WARN_ON(exec != mm->exec_vm);
	accounted += vmac_accounted_before;
	seen->lost = vmac_committed - vmac_shmem_committed - accounted;
	WARN_ON(seen->lost != vmac_expected_loss(op, seen->result, accounted));
	vmac_committed -= seen->lost;
	vmac_lost_before += seen->lost;
	vmac_ledger.accounted = accounted;
	seen->n_areas = area - vmac_areas;
	seen->discarded = vmac_discarded;
	seen->n_discarded = vmac_n_discarded;
	vmac_count(seen);
}

/* Runs something of the kernel's, out of which a bug or a signal leads back here. */
#define VMAC_GUARDED(seen, what) do {					\
	sigjmp_buf escape;						\
									\
	memset(seen, 0, sizeof(*(seen)));				\
	vmac_broke[0] = 0;						\
	vmac_excused = 0;						\
	vmac_n_hooks = 0;						\
	vmac_n_discarded = 0;						\
	vmac_n_moved = 0;						\
	vmac_escape = &escape;						\
	if (!sigsetjmp(escape, 0)) {					\
		what;							\
	}								\
	vmac_escape = NULL;						\
	(seen)->broke = vmac_broke[0] ? vmac_broke : NULL;		\
	(seen)->excused = vmac_excused;					\
} while (0)

VMAC_API uint32_t vmac_abi(void)
{
	return VMAC_ABI;
}

VMAC_API const char *vmac_kernel(void)
{
	return VMAC_KERNEL;
}

VMAC_API int vmac_apply(const struct vmac_op *op, struct vmac_seen *seen)
{
	vmac_failed = false;
	vmac_ledger = (typeof(vmac_ledger)) { .accounted = vmac_ledger.accounted };
	VMAC_GUARDED(seen, {
		seen->result = vmac_do(op);
		vmac_rcu_drain();
		vmac_see(op, seen);
	});
	return vmac_failed;
}

VMAC_API void vmac_perform(const struct vmac_op *ops, uint32_t n_ops, struct vmac_seen *seen)
{
	VMAC_GUARDED(seen, {
		for (uint32_t i = 0; i < n_ops; i++) {
			vmac_n_hooks = 0;
			vmac_n_moved = 0;
			if (IS_ERR_VALUE(vmac_do(&ops[i])))
				seen->result++;
			vmac_rcu_drain();
		}
		vmac_count(seen);
	});
}

VMAC_API void vmac_find(const uint64_t *addrs, uint32_t n_addrs, struct vmac_seen *seen)
{
	VMAC_GUARDED(seen, {
		for (uint32_t i = 0; i < n_addrs; i++) {
			struct vm_area_struct *vma = find_vma(&vmac_mm, addrs[i]);

			seen->result += vma ? vma->vm_start : 0;
		}
		vmac_count(seen);
	});
}

VMAC_API uint64_t vmac_memory(void)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < vmac_n_caches; i++)
		bytes += vmac_caches[i].live * vmac_caches[i].base.size;
	return bytes;
}

static void vmac_do_restore(const struct vmac_area *area)
{
	struct file *file = area->object >= 0 ? &vmac_files[area->object].file : NULL;
	unsigned long pages = (area->end - area->start) >> PAGE_SHIFT;
	struct vm_area_struct *vma = vm_area_alloc(&vmac_mm);

	vma_set_range(vma, area->start, area->end, area->pgoff);
	vm_flags_init(vma, area->flags);
	vma->vm_ops = file ? file->vm_ops : NULL;
	vma->vm_file = file ? get_file(file) : NULL;
	BUG_ON(vma_link(&vmac_mm, vma));
	vm_stat_account(&vmac_mm, area->flags, pages);
	if (area->flags & VM_LOCKED)
		vmac_mm.locked_vm += pages;
	if (area->flags & VM_ACCOUNT)
		vm_acct_memory(pages);
}

VMAC_API void vmac_restore(const struct vmac_area *area, struct vmac_seen *seen)
{
	VMAC_GUARDED(seen, {
		vmac_do_restore(area);
		vmac_rcu_drain();
		vmac_see(NULL, seen);
	});
}

static void vmac_do_exit(void)
{
	for (;; vmac_generation--) {
		vmac_current.mm = &vmac_mm;
		exit_mmap(&vmac_mm);
		vmac_rcu_drain();
		if (!vmac_generation)
			break;
	}
	for (unsigned int i = 0; i < vmac_n_caches; i++) {
		if (vmac_caches[i].live)
			vmac_warn(vmac_caches[i].name, "memory leaked", 0);
	}
	WARN_ON(vmac_committed);
	for (uint32_t i = 0; i < vmac_n_files; i++) {
		WARN_ON(vmac_files[i].file.references != 1);
		WARN_ON(!RB_EMPTY_ROOT(&vmac_files[i].mapping.i_mmap.rb_root));
		WARN_ON(atomic_read(&vmac_files[i].mapping.i_mmap_writable));
	}
}

VMAC_API void vmac_exit(struct vmac_seen *seen)
{
	vmac_fail_at = 0;
	VMAC_GUARDED(seen, vmac_do_exit());
}

VMAC_API void vmac_reset(const struct vmac_limits *limits, const struct vmac_file *files, uint32_t n_files)
{
	static bool ready;

	if (!ready) {
		struct sigaction action = { .sa_sigaction = vmac_signal, .sa_flags = SA_SIGINFO | SA_NODEFER };

		maple_tree_init();
		vma_state_init();
		anon_vma_cachep = kmem_cache_create("anon_vma", sizeof(struct anon_vma), 0, 0, anon_vma_ctor);
		anon_vma_chain_cachep = kmem_cache_create("anon_vma_chain", sizeof(struct anon_vma_chain), 0, 0,
							  anon_vma_chain_ctor);
		vmac_shmem_cache = kmem_cache_create("shmem", sizeof(struct vmac_shmem), 0, 0, NULL);
		for (size_t i = 0; i < ARRAY_SIZE(vmac_signals); i++)
			sigaction(vmac_signals[i], &action, &vmac_before[i]);
		ready = true;
	}
	vmac_fail_at = 0;
	vmac_forget();
	for (unsigned int i = 0; i < vmac_n_caches; i++) {
		vmac_caches[i].free = NULL;
		vmac_caches[i].live = 0;
	}
	vmac_rcu = NULL;
	vmac_next_shmem = 0;
	vmac_next_anon_vma = 0;
	vmac_n_guards = 0;
	vmac_committed = 0;
	vmac_shmem_committed = 0;
	vmac_ledger = (typeof(vmac_ledger)) {};
	vmac_lost_before = 0;

	vmac_limits = *limits;
	sysctl_max_map_count = min_t(uint64_t, limits->max_map_count, INT_MAX);
	mmap_min_addr = dac_mmap_min_addr = limits->mmap_min_addr;
	stack_guard_gap = limits->stack_guard_gap;

	vmac_generation = 0;
	vmac_accounted_before = 0;
	vmac_init(&vmac_mm);
	vmac_current.mm = &vmac_mm;

	vmac_n_files = min_t(uint32_t, n_files, VMAC_FILES);
	memset(vmac_files, 0, sizeof(vmac_files));
	for (uint32_t i = 0; i < vmac_n_files; i++) {
		const struct vmac_file *is = &files[i];
		struct file *file = &vmac_files[i].file;

		vmac_files[i].inode.i_mode = is->kind == VMAC_REGULAR || is->kind == VMAC_MEMFD ? S_IFREG : S_IFCHR;
		vmac_files[i].mapping.i_mmap = RB_ROOT_CACHED;
		vmac_files[i].mapping.host = &vmac_files[i].inode;
		if (is->kind != VMAC_UNMAPPABLE) {
			if (is->prepares)
				vmac_files[i].f_op.mmap_prepare = vmac_mmap_prepare;
			else
				vmac_files[i].f_op.mmap = vmac_mmap;
		}
		if (is->kind == VMAC_MEMFD)
			vmac_files[i].f_op.get_unmapped_area = vmac_shmem_get_unmapped_area;
		if (is->chooses_address)
			vmac_files[i].f_op.get_unmapped_area = vmac_get_unmapped_area;
		if (is->hook_open)
			vmac_files[i].vm_ops.open = vmac_open;
		if (is->hook_close)
			vmac_files[i].vm_ops.close = vmac_close;
		if (is->hook_may_split || is->may_split != VMAC_ANYWHERE)
			vmac_files[i].vm_ops.may_split = vmac_may_split;
		if (is->hook_mremap || is->mremap_error)
			vmac_files[i].vm_ops.mremap = vmac_mremap;
		if (is->hook_mprotect || is->mprotect_error)
			vmac_files[i].vm_ops.mprotect = vmac_mprotect;
		if (is->hook_mapped && is->prepares)
			vmac_files[i].vm_ops.mapped = vmac_mapped;
		file->is = *is;
		file->number = i;
		file->references = 1;
		file->f_mode = (is->read ? FMODE_READ : 0) | (is->write ? FMODE_WRITE : 0);
		file->f_path.noexec = is->noexec;
		file->f_inode = &vmac_files[i].inode;
		file->f_mapping = &vmac_files[i].mapping;
		file->f_op = &vmac_files[i].f_op;
		file->vm_ops = &vmac_files[i].vm_ops;
	}
}
