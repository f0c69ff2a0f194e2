// SPDX-License-Identifier: GPL-2.0-only
/*
 * The bodies of helpers.h: what of the kernel is inline in C, or a macro, and
 * has no helper in the kernel's own rust/helpers.
 */
#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/highmem.h>
#include <linux/kdev_t.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/unroll.h>
#include <linux/userfaultfd_k.h>

#include "helpers.h"

void vmalab_release_fault_lock(struct vm_fault *vmf)
{
	release_fault_lock(vmf);
}

/* The kernel has functions for some orders, and none without huge pages. */
/*
 * Not for writing: an entry may be written to if the area's pages may. Else the
 * kernel would warn of what others put there meanwhile.
 */
unsigned int vmalab_insert_folio(struct vm_fault *vmf, struct folio *folio, unsigned int order)
{
	if (folio_order(folio) != order)
		return VM_FAULT_FALLBACK;
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	if (order == PMD_ORDER)
		return vmf_insert_folio_pmd(vmf, folio, false);
#ifdef CONFIG_HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD
	if (order == PUD_ORDER)
		return vmf_insert_folio_pud(vmf, folio, false);
#endif
#endif
	return VM_FAULT_FALLBACK;
}

unsigned int vmalab_insert_pfn(struct vm_fault *vmf, unsigned long pfn, unsigned int order)
{
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	if (order == PMD_ORDER)
		return vmf_insert_pfn_pmd(vmf, pfn, false);
#ifdef CONFIG_HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD
	if (order == PUD_ORDER)
		return vmf_insert_pfn_pud(vmf, pfn, false);
#endif
#endif
	return VM_FAULT_FALLBACK;
}

struct folio *vmalab_page_folio_get(struct page *page)
{
	struct folio *folio = page_folio(page);

	folio_get(folio);
	return folio;
}

/* Whether the running task will not come back to user space. */
bool vmalab_is_dying(void)
{
	return fatal_signal_pending(current) || (current->flags & PF_EXITING);
}

/* Sleeps, unless the task is to die, and no longer than until then. */
void vmalab_delay(u32 us)
{
	ktime_t until = ktime_add_us(ktime_get(), us);

	do {
		if (vmalab_is_dying())
			return;
		set_current_state(TASK_KILLABLE);
	} while (schedule_hrtimeout(&until, HRTIMER_MODE_ABS));
}

bool vmalab_is_admin(void)
{
	return capable(CAP_SYS_ADMIN);
}

struct folio *vmalab_folio_alloc(gfp_t gfp, unsigned int order)
{
	return folio_alloc(gfp, order);
}

struct folio *vmalab_vma_alloc_folio(gfp_t gfp, unsigned int order, struct vm_area_struct *vma,
				     unsigned long addr)
{
	return vma_alloc_folio(gfp, order, vma, addr);
}

gfp_t vmalab_gfp_optional(gfp_t gfp)
{
	return gfp | __GFP_NORETRY | __GFP_NOWARN;
}

unsigned long vmalab_folio_pfn(struct folio *folio)
{
	return folio_pfn(folio);
}

pgoff_t vmalab_folio_index(struct folio *folio)
{
	return folio->index;
}

unsigned long vmalab_folio_nr_pages(struct folio *folio)
{
	return folio_nr_pages(folio);
}

/* As folio_maybe_dma_pinned(), which takes a thousand mappings of a single page for a pin. */
bool vmalab_folio_maybe_dma_pinned(struct folio *folio)
{
	return folio_maybe_dma_pinned(folio) &&
	       (folio_test_large(folio) ||
		folio_ref_count(folio) - folio_expected_ref_count(folio) >= GUP_PIN_COUNTING_BIAS);
}

/*
 * Whether the folio, which is locked, has been written to. What says so in page
 * tables is cleared, and is in the flag of the folio from then on.
 */
bool vmalab_folio_written(struct folio *folio)
{
	if (folio_mkclean(folio))
		folio_mark_dirty(folio);
	return folio_test_dirty(folio);
}

void vmalab_folio_clear_dirty(struct folio *folio)
{
	folio_clear_dirty(folio);
}

/* Whether memory of it has failed: of a large one that could not be split, any. */
bool vmalab_folio_has_failed(struct folio *folio)
{
	return folio_contain_hwpoisoned_page(folio);
}

/* Whether the page at @index has failed, which nobody must look at any more. */
bool vmalab_page_has_failed(struct folio *folio, pgoff_t index)
{
	return PageHWPoison(folio_file_page(folio, index));
}

static bool is_zeros(struct folio *folio)
{
	bool zeros = !folio_contain_hwpoisoned_page(folio);
	unsigned long nr;

	for (nr = 0; zeros && nr < folio_nr_pages(folio); nr++) {
		void *bytes = kmap_local_folio(folio, nr * PAGE_SIZE);

		zeros = !memchr_inv(bytes, 0, PAGE_SIZE);
		kunmap_local(bytes);
	}
	return zeros;
}

/* Whether the folio is as it was allocated, and nobody looks at it now. */
bool vmalab_folio_unused(struct folio *folio)
{
	bool unused;

	if (!folio_trylock(folio))
		return false;
	unused = !folio_test_dirty(folio) && !folio_mapped(folio) && is_zeros(folio);
	folio_unlock(folio);
	return unused;
}

void vmalab_folio_get(struct folio *folio)
{
	folio_get(folio);
}

void vmalab_folio_put(struct folio *folio)
{
	folio_put(folio);
}

void vmalab_folio_lock(struct folio *folio)
{
	folio_lock(folio);
}

/* Only for a folio that nobody else can see yet: the flag is set non-atomically. */
void vmalab_folio_mark_uptodate_new(struct folio *folio)
{
	__folio_mark_uptodate(folio);
}

struct page *vmalab_folio_file_page(struct folio *folio, pgoff_t index)
{
	return folio_file_page(folio, index);
}

unsigned long vmalab_folio_file_pfn(struct folio *folio, pgoff_t index)
{
	return page_to_pfn(folio_file_page(folio, index));
}

/*
 * The file that anon_inode_create_getfile() makes around the inode is not
 * wanted, and lives until the task returns to user space: its owner keeps the
 * module loaded until then.
 */
static const struct file_operations vmalab_anon_fops = {
	.owner = THIS_MODULE,
};

/*
 * A new anonymous inode with a page cache of its own, and one reference to it
 * (iput() gives it back): what alloc_anon_inode() gives to who has a super
 * block. Or an ERR_PTR.
 */
struct inode *vmalab_anon_inode(const struct address_space_operations *aops)
{
	struct inode *inode;
	struct file *file;

	file = anon_inode_create_getfile("[vmalab]", &vmalab_anon_fops, NULL, O_RDWR, NULL);
	if (IS_ERR(file))
		return ERR_CAST(file);

	inode = file_inode(file);
	ihold(inode);
	fput(file);

	inode->i_mapping->a_ops = aops;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER_MOVABLE);
	/* There is no store behind the pages: reclaim has nowhere to put them. */
	mapping_set_unevictable(inode->i_mapping);
	/* ->release_folio() is to be asked. */
	mapping_set_release_always(inode->i_mapping);
	/* It may hold folios of any size; which it does hold is up to who adds them. */
	mapping_set_large_folios(inode->i_mapping);
	return inode;
}

/* The permission bits only. Nobody else writes to them. */
void vmalab_inode_set_mode(struct inode *inode, umode_t mode)
{
	WRITE_ONCE(inode->i_mode, (inode->i_mode & ~0777) | (mode & 0777));
}

int vmalab_inode_permission(struct inode *inode, bool read, bool write)
{
	int mask = (read ? MAY_READ : 0) | (write ? MAY_WRITE : 0);

	return inode_permission(&nop_mnt_idmap, inode, mask);
}

/* Others read it at any time, and may see the old one until the next lock. */
void vmalab_set_a_ops(struct address_space *mapping, const struct address_space_operations *aops)
{
	WRITE_ONCE(mapping->a_ops, aops);
}

bool vmalab_has_a_ops(const struct address_space *mapping,
		      const struct address_space_operations *aops)
{
	return READ_ONCE(mapping->a_ops) == aops;
}

loff_t vmalab_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

unsigned long vmalab_nrpages(const struct address_space *mapping)
{
	return READ_ONCE(mapping->nrpages);
}

gfp_t vmalab_mapping_gfp_mask(struct address_space *mapping)
{
	return mapping_gfp_mask(mapping);
}

struct folio *vmalab_filemap_get_folio(struct address_space *mapping, pgoff_t index)
{
	return filemap_get_folio(mapping, index);
}

/* Of the marks of the index, those that writeback has no use for here. */
#define VMALAB_AHEAD PAGECACHE_TAG_TOWRITE

static struct folio *next_folio(struct address_space *mapping, pgoff_t first, pgoff_t last,
				xa_mark_t mark)
{
	struct folio *folio;

	while (xa_find(&mapping->i_pages, &first, last, mark)) {
		folio = filemap_get_folio(mapping, first);
		if (!IS_ERR(folio))
			return folio;
		/* Removed in between. */
		if (first++ == last)
			break;
	}
	return NULL;
}

/* The first folio from @first to @last, with a reference, or NULL. */
struct folio *vmalab_filemap_next_folio(struct address_space *mapping, pgoff_t first, pgoff_t last)
{
	return next_folio(mapping, first, last, XA_PRESENT);
}

/* The same of those that vmalab_mark_ahead() has marked. */
struct folio *vmalab_filemap_next_ahead(struct address_space *mapping, pgoff_t first)
{
	return next_folio(mapping, first, ULONG_MAX, VMALAB_AHEAD);
}

/* Nothing happens if there is no page. */
void vmalab_mark_ahead(struct address_space *mapping, pgoff_t index, bool ahead)
{
	xa_lock_irq(&mapping->i_pages);
	if (ahead)
		__xa_set_mark(&mapping->i_pages, index, VMALAB_AHEAD);
	else
		__xa_clear_mark(&mapping->i_pages, index, VMALAB_AHEAD);
	xa_unlock_irq(&mapping->i_pages);
}

/*
 * ->release_folio(): whether the folio, which is locked, clean and not mapped,
 * may be removed: by vmalab_invalidate_unused(), which counts it, but by nobody
 * else. A large one is about to be split, which removes nothing.
 */
bool vmalab_release_folio(struct folio *folio, gfp_t gfp)
{
	return folio_test_large(folio) ||
	       (READ_ONCE(folio->mapping->host->i_private) == current &&
		xa_get_mark(&folio->mapping->i_pages, folio->index, VMALAB_AHEAD) &&
		is_zeros(folio));
}

/* Removes the pages that were allocated ahead and not used. The invalidate lock is held. */
void vmalab_invalidate_unused(struct address_space *mapping, pgoff_t first, pgoff_t last)
{
	WRITE_ONCE(mapping->host->i_private, current);
	invalidate_mapping_pages(mapping, first, last);
	WRITE_ONCE(mapping->host->i_private, NULL);
}

struct folio *vmalab_filemap_lock_folio(struct address_space *mapping, pgoff_t index)
{
	return filemap_lock_folio(mapping, index);
}

void vmalab_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

void vmalab_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

bool vmalab_inode_is_locked(struct inode *inode)
{
	return inode_is_locked(inode);
}

void vmalab_filemap_invalidate_lock(struct address_space *mapping)
{
	filemap_invalidate_lock(mapping);
}

bool vmalab_filemap_invalidate_trylock(struct address_space *mapping)
{
	return down_write_trylock(&mapping->invalidate_lock);
}

void vmalab_filemap_invalidate_unlock(struct address_space *mapping)
{
	filemap_invalidate_unlock(mapping);
}

void vmalab_filemap_invalidate_lock_shared(struct address_space *mapping)
{
	filemap_invalidate_lock_shared(mapping);
}

void vmalab_filemap_invalidate_unlock_shared(struct address_space *mapping)
{
	filemap_invalidate_unlock_shared(mapping);
}

int vmalab_mapping_deny_writable(struct address_space *mapping)
{
	return mapping_deny_writable(mapping);
}

/* What was written before is seen by who maps it writable after. */
void vmalab_mapping_allow_writable(struct address_space *mapping)
{
	smp_mb__before_atomic();
	mapping_allow_writable(mapping);
}

/* The folio is locked, and @pos, in bytes of its file, is in it. */
size_t vmalab_write_to_folio(struct folio *folio, loff_t pos, size_t bytes, struct iov_iter *from)
{
	bytes = copy_folio_from_iter_atomic(folio, offset_in_folio(folio, pos), bytes, from);
	flush_dcache_folio(folio);
	if (bytes)
		folio_mark_dirty(folio);
	return bytes;
}

bool vmalab_interrupted(void)
{
	cond_resched();
	return fatal_signal_pending(current);
}

unsigned long vmalab_totalram_pages(void)
{
	return totalram_pages();
}

void vmalab_account_reclaimed(unsigned long pages)
{
	mm_account_reclaimed_pages(pages);
}

/* For ->open(), before anybody else has the file. */
void vmalab_file_atomic_pos(struct file *file)
{
	file->f_mode |= FMODE_ATOMIC_POS;
}

/* What open(2) does once it has found the node. */
struct file *vmalab_open_again(struct file *file, unsigned int flags)
{
	return dentry_open(&file->f_path, flags | O_LARGEFILE, current_cred());
}

bool vmalab_kiocb_append(const struct kiocb *kiocb)
{
	return kiocb->ki_flags & IOCB_APPEND;
}

int vmalab_mmap_write_lock_killable(struct mm_struct *mm)
{
	return mmap_write_lock_killable(mm);
}

void vmalab_mmap_write_unlock(struct mm_struct *mm)
{
	mmap_write_unlock(mm);
}

void vmalab_vma_iter_init(struct vma_iterator *vmi, struct mm_struct *mm, unsigned long addr)
{
	vma_iter_init(vmi, mm, addr);
}

struct vm_area_struct *vmalab_vma_find(struct vma_iterator *vmi, unsigned long max)
{
	return vma_find(vmi, max);
}

unsigned long vmalab_task_size(void)
{
	return TASK_SIZE;
}

/* As munmap has it. The variant for any mm needs no symbol that is not exported. */
unsigned long vmalab_untagged_addr(struct mm_struct *mm, unsigned long addr)
{
	return untagged_addr_remote(mm, addr);
}

s64 vmalab_pinned_vm(struct mm_struct *mm)
{
	return atomic64_read(&mm->pinned_vm);
}

unsigned long vmalab_vma_flags(const struct vm_area_struct *vma)
{
	/* A kernel with more flags would need more words here. */
	BUILD_BUG_ON(sizeof(vma->flags) != sizeof(vma->vm_flags));
	return vma->vm_flags;
}

/*
 * Which counter of the mm the pages of an area are a part of, besides total_vm:
 * none, exec_vm, stack_vm or data_vm. The kernel decides it in mm/vma.h, which
 * is not for modules.
 */
unsigned int vmalab_vma_class(const struct vm_area_struct *vma)
{
	const vm_flags_t flags = vma->vm_flags;

	if ((flags & (VM_EXEC | VM_WRITE | VM_STACK)) == VM_EXEC)
		return 1;
	if ((flags & VM_STACK) || (flags & VM_SHADOW_STACK))
		return 2;
	if ((flags & (VM_WRITE | VM_SHARED)) == VM_WRITE)
		return 3;
	return 0;
}

bool vmalab_vma_is_sealed(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_SEALED;
}

bool vmalab_vma_is_locked(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_LOCKED;
}

/*
 * Whether there is an entry of this order where the fault is, or a table of
 * smaller ones. It may change at any time, but for one: nobody makes an entry for
 * a folio that is locked, or takes it away and puts another in its place.
 */
bool vmalab_fault_has_entry(const struct vm_fault *vmf, unsigned int order)
{
	if (order == PMD_ORDER)
		return !pmd_none(pmdp_get_lockless(vmf->pmd));
	return !pud_none(pudp_get(vmf->pud));
}

/* Whether that is an entry for a huge page, or for one that is being moved. */
bool vmalab_fault_is_huge(const struct vm_fault *vmf)
{
	pmd_t pmd = pmdp_get_lockless(vmf->pmd);

	return !pmd_none(pmd) && (!pmd_present(pmd) || pmd_trans_huge(pmd));
}

/* For a fault where there is no page: what is in the page table is a mark, if anything. */
bool vmalab_fault_has_mark(const struct vm_fault *vmf)
{
	return (vmf->flags & FAULT_FLAG_ORIG_PTE_VALID) && !pte_none(vmf->orig_pte);
}

bool vmalab_userfaultfd_armed(struct vm_area_struct *vma)
{
	return userfaultfd_armed(vma);
}

/*
 * The addresses of the anon_vma and of its root, or 0, to be compared with those
 * of other areas; and whether the area has any other anon_vma than its own, from
 * before a fork. A fault in another thread, which holds the lock of the area
 * alone, may give it one: that is what the spinlock is for.
 */
bool vmalab_vma_anon_vma(struct vm_area_struct *vma, unsigned long *anon_vma,
			 unsigned long *root)
{
	bool others;

	spin_lock(&vma->vm_mm->page_table_lock);
	*anon_vma = (unsigned long)vma->anon_vma;
	*root = vma->anon_vma ? (unsigned long)vma->anon_vma->root : 0;
	others = !list_empty(&vma->anon_vma_chain) && !list_is_singular(&vma->anon_vma_chain);
	spin_unlock(&vma->vm_mm->page_table_lock);
	return others;
}

/* What /proc/PID/maps shows of a file. */
void vmalab_file_inode(const struct file *file, unsigned int *major, unsigned int *minor,
		       u64 *ino)
{
	const struct inode *inode = file_user_inode(file);

	*major = MAJOR(inode->i_sb->s_dev);
	*minor = MINOR(inode->i_sb->s_dev);
	*ino = inode->i_ino;
}

struct file *vmalab_anon_inode_getfile(const char *name, const struct file_operations *fops,
				       void *private_data, int flags)
{
	return anon_inode_getfile(name, fops, private_data, flags);
}

/* Each word as a whole, for who reads them at the same time; in which order, nobody knows. */
void vmalab_write_words(u64 *to, const u64 *from, size_t n)
{
	size_t i;

	unrolled_count(5) for (i = 0; i < n; i++)
		WRITE_ONCE(to[i], from[i]);
}

/* The numbers of the running process and thread in @ns: 0 if it cannot see them. */
void vmalab_current_ids(struct pid_namespace *ns, u32 *pid, u32 *tid)
{
	if (ns == &init_pid_ns) {
		*pid = task_tgid_nr(current);
		*tid = task_pid_nr(current);
	} else {
		*pid = task_tgid_nr_ns(current, ns);
		*tid = task_pid_nr_ns(current, ns);
	}
}
