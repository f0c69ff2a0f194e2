// SPDX-License-Identifier: GPL-2.0-only
/*
 * The functions of vmac.h.
 *
 * All ours: each runs something of the kernel's, and comes back even from a bug or a loop without end.
 */

/* Runs something of the kernel's, out of which a bug, a signal or the timer leads back here. */
#define VMAC_GUARDED(seen, what) do {					\
	sigjmp_buf escape;						\
									\
	memset(seen, 0, sizeof(*(seen)));				\
	vmac_broke[0] = 0;						\
	vmac_excused = 0;						\
	vmac_n_hooks = 0;						\
	vmac_n_discarded = 0;						\
	vmac_n_moved = 0;						\
	vmac_locked = 0;						\
	vmac_turn++;							\
	vmac_owner = pthread_self();					\
	vmac_escape = &escape;						\
	if (!sigsetjmp(escape, 0)) {					\
		what;							\
	}								\
	vmac_escape = NULL;						\
	(seen)->broke = vmac_broke[0] ? vmac_broke : NULL;		\
	(seen)->excused = vmac_excused;					\
} while (0)

VMAC_API uint32_t vmac_abi(void)
{
	return VMAC_ABI;
}

VMAC_API const char *vmac_kernel(void)
{
	return VMAC_KERNEL;
}

VMAC_API int vmac_apply(const struct vmac_op *op, struct vmac_seen *seen)
{
	vmac_failed = false;
	vmac_ledger = (typeof(vmac_ledger)) { .accounted = vmac_ledger.accounted };
	VMAC_GUARDED(seen, {
		seen->result = vmac_do(op);
		vmac_rcu_drain();
		vmac_see(op, seen);
	});
	return vmac_failed;
}

VMAC_API void vmac_perform(const struct vmac_op *ops, uint32_t n_ops, struct vmac_seen *seen)
{
	VMAC_GUARDED(seen, {
		for (uint32_t i = 0; i < n_ops; i++) {
			vmac_turn++;
			vmac_n_hooks = 0;
			vmac_n_moved = 0;
			if (IS_ERR_VALUE(vmac_do(&ops[i])))
				seen->result++;
			vmac_rcu_drain();
		}
		vmac_count(seen);
	});
}

VMAC_API void vmac_find(const uint64_t *addrs, uint32_t n_addrs, struct vmac_seen *seen)
{
	VMAC_GUARDED(seen, {
		for (uint32_t i = 0; i < n_addrs; i++) {
			struct vm_area_struct *vma = find_vma(&vmac_mm, addrs[i]);

			vmac_turn++;
			seen->result += vma ? vma->vm_start : 0;
		}
		vmac_count(seen);
	});
}

VMAC_API uint64_t vmac_memory(void)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < vmac_n_caches; i++)
		bytes += vmac_caches[i].live * vmac_caches[i].base.size;
	return bytes;
}

static void vmac_do_restore(const struct vmac_area *area)
{
	struct file *file = area->object >= 0 ? &vmac_files[area->object].file : NULL;
	unsigned long pages = (area->end - area->start) >> PAGE_SHIFT;
	struct vm_area_struct *vma = vm_area_alloc(&vmac_mm);

	vma->vm_start = area->start;
	vma->vm_end = area->end;
	vma->vm_pgoff = area->pgoff;
	vma_set_anon_pgoff(vma, PHYS_PFN(area->start));
	vm_flags_init(vma, area->flags);
	vma->vm_ops = file ? file->vm_ops : NULL;
	vma->vm_file = file ? get_file(file) : NULL;
	BUG_ON(vma_link(&vmac_mm, vma));
	vm_stat_account(&vmac_mm, area->flags, pages);
	if (area->flags & VM_LOCKED)
		vmac_mm.locked_vm += pages;
	if (area->flags & VM_ACCOUNT)
		vm_acct_memory(pages);
}

VMAC_API void vmac_restore(const struct vmac_area *area, struct vmac_seen *seen)
{
	VMAC_GUARDED(seen, {
		vmac_do_restore(area);
		vmac_rcu_drain();
		vmac_see(NULL, seen);
	});
}

/* mapping_deny_writable, of a seal: how many writable mappings there are less than none. */
static int vmac_denied(const struct file *file)
{
	return file->seals & F_SEAL_WRITE ? -1 : 0;
}

static void vmac_do_exit(void)
{
	for (;; vmac_generation--) {
		vmac_current.mm = &vmac_mm;
		exit_mmap(&vmac_mm);
		vmac_rcu_drain();
		if (!vmac_generation)
			break;
	}
	for (unsigned int i = 0; i < vmac_n_caches; i++) {
		if (vmac_caches[i].live)
			vmac_warn(vmac_caches[i].name, "memory leaked", 0);
	}
	WARN_ON(vmac_committed);
	for (uint32_t i = 0; i < vmac_n_files; i++) {
		WARN_ON(vmac_files[i].file.references != 1);
		WARN_ON(!RB_EMPTY_ROOT(&vmac_files[i].mapping.i_mmap.rb_root));
		WARN_ON(atomic_read(&vmac_files[i].mapping.i_mmap_writable) != vmac_denied(&vmac_files[i].file));
	}
}

VMAC_API void vmac_exit(struct vmac_seen *seen)
{
	vmac_fail_at = 0;
	VMAC_GUARDED(seen, vmac_do_exit());
}

VMAC_API void vmac_set_patience(uint32_t milliseconds)
{
	vmac_patience = milliseconds;
	if (vmac_timed)
		vmac_set_timer();
}

VMAC_API void vmac_reset(const struct vmac_limits *limits, const struct vmac_file *files, uint32_t n_files)
{
	static bool ready;

	if (!ready) {
		struct sigaction action = { .sa_sigaction = vmac_signal, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };

		maple_tree_init();
		vma_state_init();
		anon_vma_cachep = kmem_cache_create("anon_vma", sizeof(struct anon_vma), 0, 0, anon_vma_ctor);
		anon_vma_chain_cachep = kmem_cache_create("anon_vma_chain", sizeof(struct anon_vma_chain), 0, 0,
							  anon_vma_chain_ctor);
		vmac_shmem_cache = kmem_cache_create("shmem", sizeof(struct vmac_shmem), 0, 0, NULL);
		for (size_t i = 0; i < ARRAY_SIZE(vmac_signals); i++)
			sigaction(vmac_signals[i], &action, &vmac_before[i]);
		ready = true;
	}
	vmac_watch();
	vmac_fail_at = 0;
	vmac_forget();
	for (unsigned int i = 0; i < vmac_n_caches; i++) {
		vmac_caches[i].free = NULL;
		vmac_caches[i].live = 0;
	}
	vmac_rcu = NULL;
	vmac_next_shmem = 0;
	vmac_next_anon_vma = 0;
	vmac_n_guards = 0;
	vmac_committed = 0;
	vmac_shmem_committed = 0;
	vmac_ledger = (typeof(vmac_ledger)) {};
	vmac_lost_before = 0;

	vmac_limits = *limits;
	sysctl_max_map_count = min_t(uint64_t, limits->max_map_count, INT_MAX);
	mmap_min_addr = dac_mmap_min_addr = limits->mmap_min_addr;
	stack_guard_gap = limits->stack_guard_gap;

	/* init_pkru_value: all keys but the first are denied. */
	vmac_pkru = 0x55555554;
	vmac_generation = 0;
	vmac_accounted_before = 0;
	vmac_init(&vmac_mm);
	vmac_current.mm = &vmac_mm;

	vmac_n_files = min_t(uint32_t, n_files, VMAC_FILES);
	memset(vmac_files, 0, sizeof(vmac_files));
	for (uint32_t i = 0; i < vmac_n_files; i++) {
		const struct vmac_file *is = &files[i];
		struct file *file = &vmac_files[i].file;

		vmac_files[i].inode.i_mode = is->kind == VMAC_REGULAR || is->kind == VMAC_MEMFD ? S_IFREG : S_IFCHR;
		vmac_files[i].mapping.i_mmap = RB_ROOT_CACHED;
		vmac_files[i].mapping.host = &vmac_files[i].inode;
		if (is->kind != VMAC_UNMAPPABLE) {
			if (is->prepares)
				vmac_files[i].f_op.mmap_prepare = vmac_mmap_prepare;
			else
				vmac_files[i].f_op.mmap = vmac_mmap;
		}
		if (is->kind == VMAC_MEMFD)
			vmac_files[i].f_op.get_unmapped_area = vmac_shmem_get_unmapped_area;
		if (is->chooses_address)
			vmac_files[i].f_op.get_unmapped_area = vmac_get_unmapped_area;
		if (is->hook_open)
			vmac_files[i].vm_ops.open = vmac_open;
		if (is->hook_close)
			vmac_files[i].vm_ops.close = vmac_close;
		if (is->hook_may_split || is->may_split != VMAC_ANYWHERE)
			vmac_files[i].vm_ops.may_split = vmac_may_split;
		if (is->hook_mremap || is->mremap_error)
			vmac_files[i].vm_ops.mremap = vmac_mremap;
		if (is->hook_mprotect || is->mprotect_error)
			vmac_files[i].vm_ops.mprotect = vmac_mprotect;
		if (is->hook_mapped && is->prepares)
			vmac_files[i].vm_ops.mapped = vmac_mapped;
		file->is = *is;
		file->number = i;
		file->references = 1;
		file->seals = is->seals;
		atomic_set(&vmac_files[i].mapping.i_mmap_writable, vmac_denied(file));
		file->f_mode = (is->read ? FMODE_READ : 0) | (is->write ? FMODE_WRITE : 0);
		file->f_path.noexec = is->noexec;
		file->f_inode = &vmac_files[i].inode;
		file->f_mapping = &vmac_files[i].mapping;
		file->f_op = &vmac_files[i].f_op;
		file->vm_ops = &vmac_files[i].vm_ops;
	}
}
