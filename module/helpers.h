/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The inline functions and macros of the kernel that Rust cannot call, each
 * under its own name with `vmalab_` before it. helpers.c has the bodies; bindgen
 * reads this file, so it stays light: types are only named here.
 */
#ifndef _VMALAB_HELPERS_H
#define _VMALAB_HELPERS_H

#include <linux/types.h>

struct address_space;
struct address_space_operations;
struct file;
struct file_operations;
struct folio;
struct inode;
struct iov_iter;
struct kiocb;
struct mm_struct;
struct page;
struct pid_namespace;
struct vm_area_struct;
struct vm_fault;
struct vma_iterator;

/* vm_ops: <linux/mm.h>; unsigned int is vm_fault_t */
void vmalab_release_fault_lock(struct vm_fault *vmf);
unsigned int vmalab_insert_folio(struct vm_fault *vmf, struct folio *folio, unsigned int order);
unsigned int vmalab_insert_pfn(struct vm_fault *vmf, unsigned long pfn, unsigned int order);
struct folio *vmalab_page_folio_get(struct page *page);

/* steer: <linux/sched/signal.h>, <linux/hrtimer.h>, <linux/capability.h> */
bool vmalab_is_dying(void);
void vmalab_delay(u32 us);
bool vmalab_is_admin(void);

/* folio: <linux/mm.h>, <linux/pagemap.h>, <linux/gfp.h> */
struct folio *vmalab_folio_alloc(gfp_t gfp, unsigned int order);
struct folio *vmalab_vma_alloc_folio(gfp_t gfp, unsigned int order, struct vm_area_struct *vma,
				     unsigned long addr);
gfp_t vmalab_gfp_optional(gfp_t gfp);
unsigned long vmalab_folio_pfn(struct folio *folio);
pgoff_t vmalab_folio_index(struct folio *folio);
unsigned long vmalab_folio_nr_pages(struct folio *folio);
bool vmalab_folio_maybe_dma_pinned(struct folio *folio);
bool vmalab_folio_written(struct folio *folio);
void vmalab_folio_clear_dirty(struct folio *folio);
bool vmalab_folio_has_failed(struct folio *folio);
bool vmalab_page_has_failed(struct folio *folio, pgoff_t index);
bool vmalab_folio_unused(struct folio *folio);
bool vmalab_release_folio(struct folio *folio, gfp_t gfp);
void vmalab_invalidate_unused(struct address_space *mapping, pgoff_t first, pgoff_t last);
void vmalab_folio_get(struct folio *folio);
void vmalab_folio_put(struct folio *folio);
void vmalab_folio_lock(struct folio *folio);
void vmalab_folio_mark_uptodate_new(struct folio *folio);
struct page *vmalab_folio_file_page(struct folio *folio, pgoff_t index);
unsigned long vmalab_folio_file_pfn(struct folio *folio, pgoff_t index);

/* page_cache: <linux/fs.h>, <linux/pagemap.h>, <linux/anon_inodes.h> */
struct inode *vmalab_anon_inode(const struct address_space_operations *aops);
void vmalab_inode_set_mode(struct inode *inode, umode_t mode);
int vmalab_inode_permission(struct inode *inode, bool read, bool write);
void vmalab_set_a_ops(struct address_space *mapping, const struct address_space_operations *aops);
bool vmalab_has_a_ops(const struct address_space *mapping,
		      const struct address_space_operations *aops);
loff_t vmalab_i_size_read(const struct inode *inode);
unsigned long vmalab_nrpages(const struct address_space *mapping);
gfp_t vmalab_mapping_gfp_mask(struct address_space *mapping);
struct folio *vmalab_filemap_get_folio(struct address_space *mapping, pgoff_t index);
struct folio *vmalab_filemap_next_folio(struct address_space *mapping, pgoff_t first, pgoff_t last);
struct folio *vmalab_filemap_next_ahead(struct address_space *mapping, pgoff_t first);
void vmalab_mark_ahead(struct address_space *mapping, pgoff_t index, bool ahead);
struct folio *vmalab_filemap_lock_folio(struct address_space *mapping, pgoff_t index);
void vmalab_inode_lock(struct inode *inode);
void vmalab_inode_unlock(struct inode *inode);
bool vmalab_inode_is_locked(struct inode *inode);
void vmalab_filemap_invalidate_lock(struct address_space *mapping);
bool vmalab_filemap_invalidate_trylock(struct address_space *mapping);
void vmalab_filemap_invalidate_unlock(struct address_space *mapping);
void vmalab_filemap_invalidate_lock_shared(struct address_space *mapping);
void vmalab_filemap_invalidate_unlock_shared(struct address_space *mapping);
int vmalab_mapping_deny_writable(struct address_space *mapping);
void vmalab_mapping_allow_writable(struct address_space *mapping);
size_t vmalab_write_to_folio(struct folio *folio, loff_t pos, size_t bytes, struct iov_iter *from);
bool vmalab_interrupted(void);

/* shrinker: <linux/swap.h> */
unsigned long vmalab_totalram_pages(void);
void vmalab_account_reclaimed(unsigned long pages);

/* misc: <linux/fs.h> */
void vmalab_file_atomic_pos(struct file *file);
struct file *vmalab_open_again(struct file *file, unsigned int flags);
bool vmalab_kiocb_append(const struct kiocb *kiocb);

/* areas: <linux/mm.h>, <linux/mmap_lock.h>, <linux/rmap.h>, <linux/userfaultfd_k.h> */
int vmalab_mmap_write_lock_killable(struct mm_struct *mm);
void vmalab_mmap_write_unlock(struct mm_struct *mm);
void vmalab_vma_iter_init(struct vma_iterator *vmi, struct mm_struct *mm, unsigned long addr);
struct vm_area_struct *vmalab_vma_find(struct vma_iterator *vmi, unsigned long max);
unsigned long vmalab_task_size(void);
unsigned long vmalab_untagged_addr(struct mm_struct *mm, unsigned long addr);
s64 vmalab_pinned_vm(struct mm_struct *mm);
unsigned long vmalab_vma_flags(const struct vm_area_struct *vma);
unsigned int vmalab_vma_class(const struct vm_area_struct *vma);
bool vmalab_vma_is_sealed(const struct vm_area_struct *vma);
bool vmalab_vma_is_locked(const struct vm_area_struct *vma);
bool vmalab_fault_has_entry(const struct vm_fault *vmf, unsigned int order);
bool vmalab_fault_is_huge(const struct vm_fault *vmf);
bool vmalab_fault_has_mark(const struct vm_fault *vmf);
bool vmalab_userfaultfd_armed(struct vm_area_struct *vma);
bool vmalab_vma_anon_vma(struct vm_area_struct *vma, unsigned long *anon_vma,
			 unsigned long *root);
void vmalab_file_inode(const struct file *file, unsigned int *major, unsigned int *minor,
		       u64 *ino);

/* ring, task */
void vmalab_write_words(u64 *to, const u64 *from, size_t n);
void vmalab_current_ids(struct pid_namespace *ns, u32 *pid, u32 *tid);

/* anon_file: <linux/anon_inodes.h> */
struct file *vmalab_anon_inode_getfile(const char *name, const struct file_operations *fops,
				       void *private_data, int flags);

/* misc: <linux/mm.h>, <linux/sched/mm.h> */

#endif /* _VMALAB_HELPERS_H */
