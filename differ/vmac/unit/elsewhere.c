// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel's functions from other files than mm/vma.c lack, in order of the system calls that need it.
 *
 * All ours: macros in the place of locks, hooks of architectures and of security modules, page tables, huge pages,
 * userfaultfd, KSM. The functions themselves are included after it.
 */

#ifndef smp_store_release
#define smp_store_release(to, value)	(*(to) = (value))
#endif
#define IS_ERR_VALUE(x)			((unsigned long)(x) >= (unsigned long)-4095)
#define fallthrough			__attribute__((__fallthrough__))
#define spin_lock(lock)			do { } while (0)
#define spin_unlock(lock)		do { } while (0)
#define arch_calc_vm_flag_bits(file, flags)	0
#define OVERCOMMIT_NEVER		2
#define sysctl_overcommit_memory	(vmac_limits.commit_limit == UINT64_MAX ? 0 : OVERCOMMIT_NEVER)
#define arch_mmap_check(addr, len, flags)	0
#define in_32bit_syscall()		false
#define in_compat_syscall()		false
#define PF_RANDOMIZE			0
#define randomize_page(start, range)	(start)
#define task_size_32bit()		0
#define task_size_64bit(full)		(full ? TASK_SIZE_MAX : DEFAULT_MAP_WINDOW)
#define huge_page_mask_align(file)	0
#define get_align_mask(file)		0
#define get_align_bits(file)		0
#define stack_guard_placement(flags)	0
#define trace_vm_unmapped_area(addr, info)	do { } while (0)
#define MMF_TOPDOWN			24
#define PMD_SIZE			(2UL << 20)
#define shmem_get_unmapped_area		vmac_shmem_get_unmapped_area
#define VMA_DROPPABLE			mk_vma_flags(VMA_DROPPABLE_BIT)
#define tlb_free_vmas(tlb)		do { } while (0)
#define mmu_notifier_release(mm)	do { } while (0)
#define mmap_read_lock(mm)		do { } while (0)
#define arch_exit_mmap(mm)		do { } while (0)
#define flush_cache_mm(mm)		do { } while (0)
#define tlb_gather_mmu_fullmm(tlb, mm)	do { } while (0)
#define mm_flags_set(flag, mm)		__set_bit(flag, (mm)->flags.__mm_flags)
#define trace_exit_mmap(mm)		do { } while (0)
#define mmap_write_lock(mm)		do { } while (0)
#define cond_resched()			do { } while (0)
#define mt_clear_in_rcu(tree)		do { } while (0)
#undef KMEM_CACHE

/* Of protection keys, with the register of a thread. */
#define CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS
#define ARCH_DEFAULT_PKEY		0
#ifndef PKEY_ACCESS_MASK
#define PKEY_DISABLE_ACCESS		1
#define PKEY_DISABLE_WRITE		2
#define PKEY_ACCESS_MASK		(PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE)
#endif
#define cpu_feature_enabled(feature)	(vmac_limits.pkeys)
#define vma_is_foreign(vma)		false
#define ffz(word)			__builtin_ctzl(~(unsigned long)(word))
#define read_pkru()			vmac_pkru
#define write_pkru(value)		(vmac_pkru = (value))
#define SYSCALL_DEFINE2(name, t1, a1, t2, a2)	static long sys_##name(t1 a1, t2 a2)
static u32 vmac_pkru;
int __execute_only_pkey(struct mm_struct *mm);
int __arch_override_mprotect_pkey(struct vm_area_struct *vma, int prot, int pkey);

unsigned long mm_get_unmapped_area(struct file *file, unsigned long addr, unsigned long len,
				   unsigned long pgoff, unsigned long flags);

/* Without huge pages in shared memory. */
static unsigned long vmac_shmem_get_unmapped_area(struct file *file, unsigned long addr, unsigned long len,
						  unsigned long pgoff, unsigned long flags)
{
	return mm_get_unmapped_area(file, addr, len, pgoff, flags);
}

/* A driver's own, which takes what it would have got anyway. */
static unsigned long vmac_get_unmapped_area(struct file *file, unsigned long addr, unsigned long len,
					    unsigned long pgoff, unsigned long flags)
{
	return mm_get_unmapped_area(file, addr, len, pgoff, flags);
}

static inline void anon_vma_free(struct anon_vma *anon_vma);
static void cleanup_partial_anon_vmas(struct vm_area_struct *vma);

static void __put_anon_vma(struct anon_vma *anon_vma)
{
	struct anon_vma *root = anon_vma->root;

	anon_vma_free(anon_vma);
	if (root != anon_vma && atomic_dec_and_test(&root->refcount))
		anon_vma_free(root);
}

void free_pgtables(struct mmu_gather *tlb, struct unmap_desc *unmap);
static int anon_vma_clone(struct vm_area_struct *dst, struct vm_area_struct *src, enum vma_operation operation);
static int __anon_vma_prepare(struct vm_area_struct *vma);
/* Each call counts once, however much it allocates: the first of that fails. */
#define vmac_tying(has, call) ({					\
	vmac_starved = (has) && vmac_fails(VMAC_FAIL_ANON_VMA);	\
	int vmac_result = (call);					\
	vmac_starved = false;						\
	vmac_result;							\
})

static inline int anon_vma_prepare(struct vm_area_struct *vma)
{
	return vma->anon_vma ? 0 : vmac_tying(true, __anon_vma_prepare(vma));
}

static void anon_vma_ctor(void *object)
{
	struct anon_vma *anon_vma = object;

	atomic_set(&anon_vma->refcount, 0);
	anon_vma->rb_root = RB_ROOT_CACHED;
	anon_vma->number = 0;
}

static void anon_vma_chain_ctor(void *object)
{
#ifndef VMAC_BARE
	((struct anon_vma_chain *)object)->in_tree = false;
#endif
}

/* Of mremap. */
#define move_page_tables(pmc)		vmac_move((pmc)->old_addr, (pmc)->new_addr, (pmc)->len_in)
#define mremap_userfaultfd_prep(vma, ctx)	do { } while (0)
#define mremap_userfaultfd_fail(ctx)	do { } while (0)
#define mremap_userfaultfd_complete(ctx, from, to, len)	do { } while (0)
#define userfaultfd_armed(vma)		false
#define hstate_vma(vma)			NULL
#define huge_page_size(hstate)		PMD_SIZE
#define huge_page_mask(hstate)		(~(PMD_SIZE - 1))
#define vma_is_shmem(vma)		(!(vma)->vm_ops || (vma)->vm_ops == &vmac_shmem_vm_ops || \
					 (vma)->vm_file->is.kind == VMAC_MEMFD)
#define thp_get_unmapped_area		NULL
#define vma_assert_stabilised(vma)	do { } while (0)
#ifndef abs_diff
#define abs_diff(a, b)			((a) > (b) ? (a) - (b) : (b) - (a))
#endif
#ifndef ALIGN_DOWN
#define ALIGN_DOWN(value, to)		((value) & ~((to) - 1))
#endif


/* Of mmap, brk, remap_file_pages, mlockall, mseal and prctl. */
#define SYSCALL_DEFINE0(name)		static long sys_##name(void)
#define SYSCALL_DEFINE1(name, t1, a1)	static long sys_##name(t1 a1)
#define SYSCALL_DEFINE3(name, t1, a1, t2, a2, t3, a3)	static long sys_##name(t1 a1, t2 a2, t3 a3)
#define SYSCALL_DEFINE5(name, t1, a1, t2, a2, t3, a3, t4, a4, t5, a5)	\
	static long sys_##name(t1 a1, t2 a2, t3 a3, t4 a4, t5 a5)
#ifndef RLIM_INFINITY
#define RLIM_INFINITY			(~0UL)
#endif
#define mmap_read_lock_killable(mm)	0
#define security_mmap_file(file, prot, flags)	0
#define fsnotify_mmap_perm(file, prot, offset, len)	0
#define mm_populate(start, len)		vmac_populate(start, (start) + (len), true)
#define MCL_CURRENT			1
#define MCL_FUTURE			2
#define MCL_ONFAULT			4
#define MMF_HAS_MDWE_NO_INHERIT		29
#define PR_MDWE_REFUSE_EXEC_GAIN	1
#define PR_MDWE_NO_INHERIT		2
#define arch_memory_deny_write_exec_supported()	true
#ifndef mm_flags_clear
#define mm_flags_clear(flag, mm)	__clear_bit(flag, (mm)->flags.__mm_flags)
#endif

/* Of madvise. */
#ifndef PAGE_ALIGNED
#define PAGE_ALIGNED(addr)		(!offset_in_page(addr))
#endif
#define MMF_VM_MERGEABLE		16
#define __ksm_enter(mm)			0
#define break_ksm(vma, start, end, lock)	0
#define vma_is_dax(vma)			false
#define file_is_dax(file)		false
#define khugepaged_enter_vma(vma, flags)	do { } while (0)
#define anon_vma_name_put(name)		do { } while (0)
#define anon_vma_name_reuse(name)	(name)
#define vma_is_anon_shmem(vma)		((vma)->vm_ops == &vmac_shmem_vm_ops)
#define userfaultfd_remove(vma, start, end)	true
#define madvise_dontneed_single_vma(behavior)	\
	(vmac_discard((behavior)->range.start, (behavior)->range.end), 0)
#define madvise_free_single_vma(behavior)	(!vma_is_anonymous((behavior)->vma) ? -EINVAL :	\
	(vmac_discard((behavior)->range.start, (behavior)->range.end), 0))
#define madvise_willneed(behavior)	0
#define madvise_cold(behavior)		(can_madv_lru_vma((behavior)->vma) ? 0 : -EINVAL)
#define madvise_pageout(behavior)	madvise_cold(behavior)
/* Of pages nothing is known here: where there is room for a huge one, there is one. */
#define madvise_collapse(vma, start, end, dropped)	(!(vma)->anon_vma ||		\
	(vma)->vm_flags & (VM_SPECIAL | VM_HUGETLB | VM_NOHUGEPAGE) ||			\
	ALIGN((vma)->vm_start, PMD_SIZE) + PMD_SIZE > (vma)->vm_end ? -EINVAL : 0)
#define walk_page_range_vma_unsafe(vma, start, end, ops, pages)	vmac_guard_install(start, end, pages)
#define walk_page_range_mm_unsafe(mm, start, end, ops, pages)	vmac_guard_install(start, end, pages)
#define walk_page_range_vma(vma, start, end, ops, private)	(vmac_guard_remove(start, end), 0)
#define get_walk_lock(mode)		0
#define vma_set_atomic_flag(vma, bit)	vm_flags_set(vma, 1UL << (bit))
#define madvise_lock(behavior)		((behavior)->lock_mode = MADVISE_MMAP_WRITE_LOCK, 0)
#define madvise_unlock(behavior)	do { } while (0)
#define zap_vma_range(vma, start, len)	do { } while (0)
#define restart_syscall()		(-EINTR)
struct mm_walk_ops {
	void *pud_entry, *pmd_entry, *pte_entry, *install_pte;
	int walk_lock;
};
#define guard_install_pud_entry		NULL
#define guard_install_pmd_entry		NULL
#define guard_install_pte_entry		NULL
#define guard_install_set_pte		NULL
#define guard_remove_pud_entry		NULL
#define guard_remove_pmd_entry		NULL
#define guard_remove_pte_entry		NULL
#define try_vma_read_lock(behavior)	false
#define vma_end_read(vma)		do { } while (0)
#define __MADV_SET_ANON_VMA_NAME	(-1)
#define FALLOC_FL_KEEP_SIZE		1
#define FALLOC_FL_PUNCH_HOLE		2
/* Files can have holes, devices not. */
#define vfs_fallocate(file, mode, offset, len)	((offset) < 0 ? -EINVAL :			\
	(file)->f_inode->i_mode == S_IFCHR ? -ENODEV :						\
	(vmac_discard(madv_behavior->range.start, madv_behavior->range.end), 0))

/* Of fork. */
#define __latent_entropy
#define flush_cache_dup_mm(mm)		do { } while (0)
#define flush_tlb_mm(mm)		do { } while (0)
#define uprobe_dup_mmap(oldmm, mm)	do { } while (0)
#define mmap_write_lock_nested(mm, subclass)	do { } while (0)
#define dup_mm_exe_file(mm, oldmm)	do { } while (0)
#define dup_userfaultfd(vma, list)	0
#define dup_userfaultfd_complete(list)	do { } while (0)
#define dup_userfaultfd_fail(list)	do { } while (0)
#define hugetlb_dup_vma_private(vma)	do { } while (0)
#define flush_dcache_mmap_lock(mapping)	do { } while (0)
#define flush_dcache_mmap_unlock(mapping)	do { } while (0)
#define copy_page_range(dst, src)	((dst)->copied = true, 0)
#define arch_dup_mmap(oldmm, mm)	(arch_dup_pkeys(oldmm, mm), 0)
#define mt_set_in_rcu(tree)		do { } while (0)
#define ksm_fork(mm, oldmm)		do { } while (0)
#define khugepaged_fork(mm, oldmm)	do { } while (0)
#define MMF_OOM_SKIP			21
#define MMF_UNSTABLE			22

/* Of mprotect and mlock. */
static int vmac_populate(unsigned long start, unsigned long end, bool ignore);
static int vmac_populate_area(struct vm_area_struct *vma, unsigned long start, unsigned long end);
#define untagged_addr(addr)		(addr)
#define arch_validate_prot(prot, addr)	(((prot) & ~(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM)) == 0)
#define PROT_SEM			0x8
#define VM_FLAGS_CLEAR			ARCH_VM_PKEY_FLAGS
#define VMA_GROWSUP			EMPTY_VMA_FLAGS
#define MM_CP_TRY_CHANGE_WRITABLE	1
#define security_file_mprotect(vma, reqprot, prot)	0
#define arch_has_pfn_modify_check()	false
#define walk_page_range(...)		0
#define change_protection(...)		do { } while (0)
#define populate_vma_page_range(vma, start, end, locked)	vmac_populate_area(vma, start, end)
#define __mm_populate(start, len, ignore)	vmac_populate(start, (start) + (len), ignore)
#define vma_is_secretmem(vma)		false
#define mlock_vma_pages_range(vma, start, end, flags)	vma_flags_reset_once(vma, flags)
#ifndef IS_ERR
#include <linux/err.h>
#endif

/* Of mbind, with policies that are compared by their address. */
typedef unsigned long nodemask_t;
struct mm_walk {
	struct vm_area_struct *vma;
	void *private;
};
#define range_in_vma(vma, from, to)	((vma) && (vma)->vm_start <= (from) && (to) <= (vma)->vm_end)
#define vma_migratable(vma)		true
#define MPOL_MF_STRICT			1
#define MPOL_MF_MOVE			2
#define MPOL_MF_MOVE_ALL		4
#define MPOL_MF_DISCONTIG_OK		(1 << 4)
#define MPOL_F_STATIC_NODES		(1 << 15)
#define MPOL_F_RELATIVE_NODES		(1 << 14)
enum { MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED_MANY,
       MPOL_WEIGHTED_INTERLEAVE, MPOL_MAX };
#define vma_replace_policy(vma, policy)	((vma)->vm_policy = (policy), 0)
