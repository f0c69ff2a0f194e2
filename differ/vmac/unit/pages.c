// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page tables, of which there are guard pages, and what was discarded.
 *
 * All ours: where the kernel would walk page tables, this takes notes.
 */

#define VMAC_RANGES 8192

static struct vmac_range vmac_discarded[VMAC_RANGES];
static uint32_t vmac_n_discarded;
/* What moved in this operation, so that it is not lost when it is unmapped. */
static struct vmac_range vmac_moved[VMAC_RANGES];
static uint32_t vmac_n_moved;
/* Guard pages: ranges, in no order, of which none overlap. */
static struct vmac_range vmac_guards[VMAC_RANGES];
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
		if (vmac_guards[i].start < end && vmac_guards[i].end > start)
			return true;
	return false;
}

static void vmac_guard_add(unsigned long start, unsigned long end)
{
	if (!WARN_ON(vmac_n_guards == VMAC_RANGES))
		vmac_guards[vmac_n_guards++] = (struct vmac_range) { start, end };
}

/* Afterwards no range goes across that address. */
static void vmac_guard_cut(unsigned long at)
{
	for (uint32_t i = 0; i < vmac_n_guards; i++) {
		if (vmac_guards[i].start < at && vmac_guards[i].end > at) {
			vmac_guard_add(at, vmac_guards[i].end);
			vmac_guards[i].end = at;
			return;
		}
	}
}

static void vmac_guard_remove(unsigned long start, unsigned long end)
{
	uint32_t left = 0;

	vmac_guard_cut(start);
	vmac_guard_cut(end);
	for (uint32_t i = 0; i < vmac_n_guards; i++)
		if (vmac_guards[i].start < start || vmac_guards[i].start >= end)
			vmac_guards[left++] = vmac_guards[i];
	vmac_n_guards = left;
}

/* Instead of the walks of madvise_guard_install and _remove. */
static int vmac_guard_install(unsigned long start, unsigned long end, unsigned long *pages)
{
	vmac_guard_remove(start, end);
	if (start < end)
		vmac_guard_add(start, end);
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
	vmac_guard_cut(from);
	vmac_guard_cut(from + len);
	for (uint32_t i = 0; i < vmac_n_guards; i++) {
		if (vmac_guards[i].start >= from && vmac_guards[i].start < from + len) {
			vmac_guards[i].start += to - from;
			vmac_guards[i].end += to - from;
		}
	}
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
