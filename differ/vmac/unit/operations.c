// SPDX-License-Identifier: GPL-2.0-only
/*
 * Operations: what the system calls do around the kernel's functions.
 *
 * Ours is what a system call does before and after; what it calls in between is the kernel's.
 */

/* ksys_mmap_pgoff. */
static long vmac_do_mmap(const struct vmac_op *op)
{
	struct file *file = NULL;
	long result;

	if (offset_in_page(op->offset))
		return -EINVAL;
	if (!(op->flags & MAP_ANONYMOUS)) {
		if (op->file < 0 || (uint32_t)op->file >= vmac_n_files)
			return -EBADF;
		file = get_file(&vmac_files[op->file].file);
		if (op->flags & MAP_HUGETLB) {
			fput(file);
			return -EINVAL;
		}
	} else if (op->flags & MAP_HUGETLB) {
		/* The pool of huge pages is empty. */
		return -ENOMEM;
	}
	result = vm_mmap_pgoff(file, op->addr, op->len, op->prot, op->flags, op->offset >> PAGE_SHIFT);
	if (file)
		fput(file);
	return result;
}

/* The system call fills this in. */
static long vmac_do_mremap(const struct vmac_op *op)
{
	struct vm_userfaultfd_ctx uf = {};
	LIST_HEAD(uf_unmap_early);
	LIST_HEAD(uf_unmap);
	struct vma_remap_struct vrm = {
		.addr = op->addr,
		.old_len = op->len,
		.new_len = op->new_len,
		.flags = op->flags,
		.new_addr = op->new_addr,
		.uf = &uf,
		.uf_unmap_early = &uf_unmap_early,
		.uf_unmap = &uf_unmap,
		.remap_type = MREMAP_INVALID,
	};

	return do_mremap(&vrm);
}

/* madvise_populate and faultin_page_range. */
static long vmac_madvise_populate(unsigned long start, unsigned long end, bool write)
{
	while (start < end) {
		struct vm_area_struct *vma = vma_lookup(&vmac_mm, start);
		unsigned long to;

		if (!vma)
			return -ENOMEM;
		if (vma->vm_flags & (VM_IO | VM_PFNMAP) || !(vma->vm_flags & (write ? VM_WRITE : VM_READ)) ||
		    !arch_vma_access_permitted(vma, write, false, false))
			return -EINVAL;
		to = min(end, vma->vm_end);
		if (write && !(vma->vm_flags & VM_SHARED) && !vmac_guarded(start, start + 1) &&
		    anon_vma_prepare(vma))
			return -ENOMEM;
		if (vmac_guarded(start, to) || vma->vm_pgoff + PHYS_PFN(to - vma->vm_start) > vmac_object_pages(vma))
			return -EFAULT;
		start = to;
	}
	return 0;
}

/* do_madvise, without its locks. */
static long vmac_do_madvise(const struct vmac_op *op)
{
	struct madvise_behavior behavior = {
		.mm = &vmac_mm,
		.behavior = op->flags,
		.lock_mode = op->flags == MADV_GUARD_INSTALL ? MADVISE_MMAP_READ_LOCK : MADVISE_MMAP_WRITE_LOCK,
		.range = { op->addr, op->addr + PAGE_ALIGN(op->len) },
	};
	int error;

	if (!madvise_behavior_valid(op->flags))
		return -EINVAL;
	error = check_input_range(op->addr, op->len);
	if (error || !op->len)
		return error;
	if (is_madvise_populate(&behavior))
		return vmac_madvise_populate(behavior.range.start, behavior.range.end,
					     op->flags == MADV_POPULATE_WRITE);
	return madvise_walk_vmas(&behavior);
}

static void vmac_init(struct mm_struct *mm)
{
	memset(mm, 0, sizeof(*mm));
	mt_init_flags(&mm->mm_mt, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_LOCK_EXTERN | MT_FLAGS_USE_RCU);
	mm->mmap_base = vmac_limits.mmap_base;
	mm->mmap_legacy_base = vmac_limits.mmap_legacy_base;
	mm->end_data = vmac_limits.program_data;
	mm->start_brk = vmac_limits.start_brk;
	mm->brk = vmac_limits.brk;
	__set_bit(MMF_TOPDOWN, mm->flags.__mm_flags);
	/* init_new_context */
	if (cpu_feature_enabled(X86_FEATURE_OSPKE)) {
		mm->context.pkey_allocation_map = 1;
		mm->context.execute_only_pkey = -1;
	}
}

/* dup_mm. What follows is done by the child; the older processes stay as they are. */
static long vmac_fork(void)
{
	struct mm_struct *old = &vmac_mm, *mm = old + 1;
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, old, 0);
	int error;

	if (vmac_generation == VMAC_GENERATIONS - 1)
		vmac_bug("more forks than there is room for", __FILE__, __LINE__);
	vmac_init(mm);
	mm->brk = old->brk;
	/* mmf_init_legacy_flags */
	if (mm_flags_test(MMF_HAS_MDWE, old) && !mm_flags_test(MMF_HAS_MDWE_NO_INHERIT, old))
		mm_flags_set(MMF_HAS_MDWE, mm);
	error = dup_mmap(mm, old);
	if (error)
		return error;
	for_each_vma(vmi, vma) {
		if (vma->vm_flags & VM_ACCOUNT)
			vmac_accounted_before += vma_pages(vma);
		if (vma->vm_flags & VM_DONTCOPY)
			vmac_guard_remove(vma->vm_start, vma->vm_end);
	}
	vma_iter_init(&vmi, mm, 0);
	for_each_vma(vmi, vma) {
		if (vma->copied)
			continue;
		vmac_guard_remove(vma->vm_start, vma->vm_end);
		vmac_discard(vma->vm_start, vma->vm_end);
	}
	vmac_generation++;
	vmac_current.mm = mm;
	return 0;
}

/* prctl_set_vma, set_anon_vma_name. */
static long vmac_set_name(const struct vmac_op *op)
{
	struct anon_vma_name *name = NULL;

	if (op->offset >= VMAC_NAMES)
		return -EINVAL;
	if (op->offset)
		name = (struct anon_vma_name *)vmac_names[op->offset];
	return madvise_set_anon_name(&vmac_mm, op->addr, op->len, name);
}

/*
 * kernel_mbind, do_mbind, mpol_new and mpol_set_nodemask, on a machine with node 0 alone: where all pages
 * are, so that none has to move.
 */
static long vmac_mbind(const struct vmac_op *op)
{
	static struct mempolicy policies[MPOL_MAX][4][4];
	unsigned int how = op->prot & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES);
	unsigned int mode = op->prot & ~how;
	unsigned long end = op->addr + PAGE_ALIGN(op->len), nodes = op->offset & 3;
	struct queue_pages qp = { .start = op->addr, .end = end, .flags = op->flags };
	struct mempolicy *policy;
	struct vm_area_struct *vma, *prev;
	VMA_ITERATOR(vmi, &vmac_mm, op->addr);
	int error;

	if (mode >= MPOL_MAX || how == (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES))
		return -EINVAL;
	if (op->flags & ~(MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL))
		return -EINVAL;
	if (op->flags & MPOL_MF_MOVE_ALL && !capable(CAP_SYS_NICE))
		return -EPERM;
	if (op->addr & ~PAGE_MASK || end < op->addr)
		return -EINVAL;
	if (end == op->addr)
		return 0;
	switch (mode) {
	case MPOL_DEFAULT:
		if (nodes)
			return -EINVAL;
		policy = NULL;
		qp.flags |= MPOL_MF_DISCONTIG_OK;
		break;
	case MPOL_LOCAL:
		if (nodes || how)
			return -EINVAL;
		policy = &policies[MPOL_LOCAL][0][0];
		break;
	case MPOL_PREFERRED:
		if (!nodes) {
			if (how)
				return -EINVAL;
			policy = &policies[MPOL_LOCAL][0][0];
			break;
		}
		fallthrough;
	default:
		/* Relative to the nodes that are allowed, each is node 0. */
		if (!nodes || (!(nodes & 1) && how != MPOL_F_RELATIVE_NODES))
			return -EINVAL;
		policy = &policies[mode][how >> 14][how ? nodes : 0];
	}
	for_each_vma_range(vmi, vma, end) {
		struct mm_walk walk = { .vma = vma, .private = &qp };

		error = queue_pages_test_walk(max(vma->vm_start, qp.start), min(vma->vm_end, end), &walk);
		if (error < 0)
			return error;
	}
	if (!qp.first)
		return -EFAULT;
	vma_iter_init(&vmi, &vmac_mm, op->addr);
	prev = vma_prev(&vmi);
	for_each_vma_range(vmi, vma, end) {
		error = mbind_range(&vmi, vma, &prev, op->addr, end, policy);
		if (error)
			return error;
	}
	return 0;
}

static long vmac_steer(const struct vmac_op *op)
{
	struct file *file;

	if (op->file < 0 || (uint32_t)op->file >= vmac_n_files)
		return -EBADF;
	file = &vmac_files[op->file].file;
	if (file->is.kind != VMAC_DEVICE)
		return -ENOTTY;
	file->steered.hook = op->prot;
	file->steered.nth = op->len;
	file->steered.error = op->flags;
	return 0;
}

static long vmac_do(const struct vmac_op *op)
{
	switch (op->kind) {
	case VMAC_MREMAP:
		return vmac_do_mremap(op);
	case VMAC_MADVISE:
		return vmac_do_madvise(op);
	case VMAC_FORK:
		return vmac_fork();
	case VMAC_BRK:
		return sys_brk(op->addr);
	case VMAC_MLOCKALL:
		return sys_mlockall(op->flags);
	case VMAC_MUNLOCKALL:
		return sys_munlockall();
	case VMAC_MSEAL:
		return sys_mseal(op->addr, op->len, op->offset);
	case VMAC_REMAP_FILE_PAGES:
		return sys_remap_file_pages(op->addr, op->len, op->prot, op->offset, op->flags);
	case VMAC_PKEY_MPROTECT:
		return do_mprotect_pkey(op->addr, op->len, op->prot, op->file);
	case VMAC_PKEY_ALLOC:
		return sys_pkey_alloc(op->offset, op->len);
	case VMAC_PKEY_FREE:
		return sys_pkey_free(op->file);
	case VMAC_MDWE:
		return prctl_set_mdwe(op->offset, 0, 0, 0);
	case VMAC_SET_NAME:
		return vmac_set_name(op);
	case VMAC_MBIND:
		return vmac_mbind(op);
	case VMAC_STEER:
		return vmac_steer(op);
	case VMAC_MMAP:
		return vmac_do_mmap(op);
	case VMAC_MUNMAP:
		return __vm_munmap(op->addr, op->len, true);
	case VMAC_TOUCH:
		return vmac_touch(op->addr, op->flags & 1);
	case VMAC_MPROTECT:
		return do_mprotect_pkey(op->addr, op->len, op->prot, -1);
	case VMAC_MLOCK:
		return sys_mlock2(op->addr, op->len, op->flags);
	case VMAC_MUNLOCK:
		return sys_munlock(op->addr, op->len);
	case VMAC_FAIL:
		vmac_fail_what = op->flags;
		vmac_fail_at = op->offset;
		return 0;
	default:
		return -ENOSYS;
	}
}
