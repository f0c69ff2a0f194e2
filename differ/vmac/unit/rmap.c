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
