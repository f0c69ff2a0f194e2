/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What Linux 7.2 and 7.3 call by different names, so that all else here speaks as 7.3 does.
 *
 * Ours. VMAC_7_2 is 1 or 0, as the script build found the tree to be.
 */
#ifndef VMAC_VERSIONS_H
#define VMAC_VERSIONS_H

#if VMAC_7_2
/* Reverse maps. A private page of a file has no place of its own there, but that of the file. */
#define vma_interval_tree_insert	mapping_rmap_tree_insert
#define vma_interval_tree_insert_after	mapping_rmap_tree_insert_after
#define vma_interval_tree_remove	mapping_rmap_tree_remove
#define anon_vma_interval_tree_insert	anon_rmap_tree_insert
#define anon_vma_interval_tree_remove	anon_rmap_tree_remove
#define vma_start_anon_pgoff		vma_start_pgoff
#define vma_last_anon_pgoff		vma_last_pgoff
#define vma_set_anon_pgoff(vma, pgoff)	do { } while (0)
#endif

#endif
