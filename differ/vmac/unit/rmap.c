// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reverse maps, watched: whoever changes an area's range or offset takes it out first, and puts it in again.
 *
 * The kernel's: the trees themselves, mm/interval_tree.c. Ours: what checks each insertion and removal. The functions
 * of mm/rmap.c are taken as they are, later on.
 */

#define put_anon_vma(anon_vma) do {					\
	if (atomic_dec_and_test(&(anon_vma)->refcount))			\
		__put_anon_vma(anon_vma);				\
} while (0)
#define get_anon_vma(anon_vma)		atomic_inc(&(anon_vma)->refcount)
#define rwsem_is_locked(lock)		false
#define vmac_no_lock(lock)		do { } while (0)

#include "pgoff.h"
#include "interval_tree.c"

#ifndef VMAC_BARE
#define VMAC_ENTERS(node, start, end) do {				\
	WARN_ON((node)->in_tree);					\
	(node)->in_tree = true;						\
	(node)->first = (start);					\
	(node)->last = (end);						\
} while (0)
#define VMAC_LEAVES(node, start, end) ({				\
	bool vmac_there = (node)->in_tree;				\
									\
	WARN_ON(!vmac_there);						\
	WARN_ON(vmac_there && ((node)->first != (start) || (node)->last != (end))); \
	(node)->in_tree = false;					\
	vmac_there;							\
})

static void vmac_area_enters(struct vm_area_struct *vma)
{
	VMAC_ENTERS(vma, vma_start_pgoff(vma), vma_last_pgoff(vma));
}

static bool vmac_area_leaves(struct vm_area_struct *vma)
{
	return VMAC_LEAVES(vma, vma_start_pgoff(vma), vma_last_pgoff(vma));
}

static void vmac_chain_enters(struct anon_vma_chain *avc)
{
	VMAC_ENTERS(avc, vma_start_anon_pgoff(avc->vma), vma_last_anon_pgoff(avc->vma));
}

static bool vmac_chain_leaves(struct anon_vma_chain *avc)
{
	return VMAC_LEAVES(avc, vma_start_anon_pgoff(avc->vma), vma_last_anon_pgoff(avc->vma));
}

#define mapping_rmap_tree_insert(vma, tree)				\
	(vmac_area_enters(vma), mapping_rmap_tree_insert(vma, tree))
#define mapping_rmap_tree_insert_after(vma, prev, tree)			\
	(vmac_area_enters(vma), mapping_rmap_tree_insert_after(vma, prev, tree))
#define mapping_rmap_tree_remove(vma, tree)				\
	(vmac_area_leaves(vma) ? mapping_rmap_tree_remove(vma, tree) : (void)0)
#define anon_rmap_tree_insert(avc, tree)				\
	(vmac_chain_enters(avc), anon_rmap_tree_insert(avc, tree))
#define anon_rmap_tree_remove(avc, tree)				\
	(vmac_chain_leaves(avc) ? anon_rmap_tree_remove(avc, tree) : (void)0)
#endif
