// SPDX-License-Identifier: GPL-2.0-only
/*
 * What there is to see after an operation, and whether all that is counted or linked elsewhere agrees with it.
 *
 * All ours: it reads what the kernel's code has made.
 */

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
 * Defects of Linux are known, by which the commit charge of the whole machine grows for ever. What each
 * of them loses is known to the page, too: that much is set right, and counted. Any other difference is a
 * finding.
 *
 * In all that can be built:
 *
 * With failing allocations, and with drivers that refuse a cut, a source that cannot be unmapped is
 * charged once more, and the whole area stays without VM_ACCOUNT (unmap_source_vma).
 *
 * A stack that grows is charged for it, even if it does not count against the limit (MAP_NORESERVE, or
 * not writable), so that unmapping it gives nothing back: acct_stack_growth does not ask for VM_ACCOUNT.
 *
 * Until 7.3.3, so that the model, which knows when, tells whether it may be:
 *
 * An mmap with MAP_FIXED that fails after the old areas went does not give back what they were charged
 * (seen on 6.18 too): __mmap_setup sets vms->nr_accounted to 0, because the new area takes the charge
 * over, and the error path gives back map->charged alone, which is the difference. It loses all of their
 * charge, or, if the new area has none of its own, nothing.
 *
 * An mremap to another place that shrinks is charged for what it gives up (seen on 6.18 too), and one
 * that grows and is sent back by its driver keeps the charge: vrm_calc_charge takes the difference that
 * was there before the tail was unmapped, and unmap_source_vma leaves the charge of the copy alone.
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
		if (lost != vmac_ledger.kept && len != new_len &&
		    (vmac_ledger.sent_back || (len > new_len && result >= 0)))
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
		WARN_ON(avc->vma != vma || !avc->in_tree || avc->first != vma_start_anon_pgoff(vma) ||
			avc->last != vma_last_anon_pgoff(vma));
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
	/* Until 7.3.3 mlock_fixup() counts in an int: known, and seen on a running 6.18. */
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
