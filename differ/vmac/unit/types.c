// SPDX-License-Identifier: GPL-2.0-only
/*
 * Types and small helpers of the kernel, in the place of mm/vma_internal.h.
 *
 * The kernel's: tools/testing/vma/include, in whose dup.h the script build puts the members that are named here.
 * Ours: which of its stubs are left out, because what they stand for is real here or simulated further down; and
 * the allocations of the maple tree, of which one can be made to fail.
 */

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
#define VM_WARN_ON_ONCE_VMA(condition, vma)	VMAC_DEBUG_VM(WARN_ON, condition)
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
	struct {							\
		u16 pkey_allocation_map;				\
		s16 execute_only_pkey;					\
	} context;							\
	int page_table_lock;
#define VMAC_file							\
	unsigned int f_mode;						\
	struct path f_path;						\
	struct inode *f_inode;						\
	/* Ours. */							\
	int number;							\
	long references;						\
	unsigned int seals;						\
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
#define mapping_rmap_tree_insert	stub_mapping_rmap_tree_insert
#define mapping_rmap_tree_remove	stub_mapping_rmap_tree_remove
#define anon_rmap_tree_insert		stub_anon_rmap_tree_insert
#define anon_rmap_tree_remove		stub_anon_rmap_tree_remove
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
#undef mapping_rmap_tree_insert
#undef mapping_rmap_tree_remove
#undef anon_rmap_tree_insert
#undef anon_rmap_tree_remove

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
