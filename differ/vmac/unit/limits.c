// SPDX-License-Identifier: GPL-2.0-only
/*
 * Limits: what is charged against the commit limit, as mm/util.c and security/ have it, and the lowest address.
 *
 * All ours. It also keeps what vmac_expected_loss needs.
 */

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

/* Of calls.h, unmap_source_vma alone takes VM_ACCOUNT away, and calls vm_acct_memory. */
#define VMAC_CLEARING(vma, clears) do {					\
	bool vmac_accounted = (vma)->vm_flags & VM_ACCOUNT;		\
									\
	clears;								\
	if (vmac_accounted && !((vma)->vm_flags & VM_ACCOUNT))		\
		vmac_ledger.unaccounted = vma_pages(vma);		\
} while (0)

static void vmac_charge_source(long pages)
{
	vmac_ledger.kept += vmac_ledger.unaccounted ?: pages;
	vm_acct_memory(pages);
}

static int security_mmap_addr(unsigned long addr)
{
	return addr < dac_mmap_min_addr && !vmac_limits.cap_sys_rawio ? -EPERM : 0;
}
