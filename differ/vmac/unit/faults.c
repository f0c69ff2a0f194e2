// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page faults without pages: as far as they change areas, or fail.
 *
 * All ours, as lock_mm_and_find_vma, handle_mm_fault and __mm_populate have it.
 */

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
	if (!arch_vma_access_permitted(vma, write, false, false) ||
	    !(vma->vm_flags & (write ? VM_WRITE : VM_READ | VM_WRITE | VM_EXEC)) ||
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
	if (!vma_is_accessible(vma) || (!write && !(vma->vm_flags & VM_MAYREAD)) ||
	    !arch_vma_access_permitted(vma, write, false, false))
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
