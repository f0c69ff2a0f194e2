// SPDX-License-Identifier: GPL-2.0-only
/*
 * The process whose address space it is: its limits and capabilities, its memory policies, the names of its areas.
 *
 * All ours, in the place of custom.h of the kernel's test build: what mm/vma.c asks of a task and of an area's
 * locks, for one thread.
 */

/* ---- Policies and names: some of each that stay for ever, so that pointers can be compared. ---- */

#define vma_policy(vma)		((vma)->vm_policy)
#define mpol_equal(a, b)	((a) == (b))
#define mpol_put(policy)	do { } while (0)
#define vma_dup_policy(from, to)	((to)->vm_policy = (from)->vm_policy, 0)

struct mempolicy {
	bool used;
};

/* The first of each kind is none. */
#define VMAC_NAMES 8
static char vmac_names[VMAC_NAMES][64] __attribute__((aligned(64)));

static uint32_t vmac_name_number(struct anon_vma_name *name)
{
	return name ? ((char *)name - vmac_names[0]) / sizeof(vmac_names[0]) : 0;
}

static struct anon_vma_name *anon_vma_name(struct vm_area_struct *vma)
{
	return vma->anon_name;
}

static bool anon_vma_name_eq(struct anon_vma_name *a, struct anon_vma_name *b)
{
	return a == b;
}

static void dup_anon_vma_name(struct vm_area_struct *orig, struct vm_area_struct *new)
{
	new->anon_name = orig->anon_name;
}

/* ---- Instead of custom.h. ---- */

static struct vmac_limits vmac_limits;
static struct task_struct vmac_current;
/* The address space, and before it those of the processes from which it was forked: each operation may be one. */
#define VMAC_GENERATIONS 257
static struct mm_struct vmac_mms[VMAC_GENERATIONS];
static unsigned int vmac_generation;
#define vmac_mm (vmac_mms[vmac_generation])
/* Pages of the older ones that count against the commit limit. */
static unsigned long vmac_accounted_before;

/* By what the charge that an operation loses is told (vmac_expected_loss), all in pages. */
static struct {
	unsigned long accounted;	/* of all areas, when they were last looked at */
	/* Of this operation. */
	unsigned long asked;		/* what it was last charged */
	unsigned long grown;		/* by how much a stack grew that does not count */
	unsigned long unaccounted;	/* the area from which mremap took VM_ACCOUNT, to unmap it */
	unsigned long kept;		/* what that came to where it could not be unmapped */
	bool sent_back;			/* a driver refused a move */
} vmac_ledger;
int sysctl_max_map_count;
unsigned long mmap_min_addr;
unsigned long dac_mmap_min_addr;
unsigned long stack_guard_gap;
const struct vm_operations_struct vma_dummy_vm_ops;

struct task_struct *get_current(void)
{
	return &vmac_current;
}

#undef TASK_SIZE
#define TASK_SIZE		(vmac_limits.task_size)
#define pr_warn_once(...)	do { } while (0)
#define pr_emerg(...)		do { } while (0)
#define pr_warn(...)		do { } while (0)
#define anon_vma_lock_read(anon_vma)	do { } while (0)
#define anon_vma_unlock_read(anon_vma)	do { } while (0)
#define dump_vma(vma)		do { } while (0)
#define vma_iter_dump_tree(vmi)	do { } while (0)
#define RLIMIT_DATA		2
#define RLIMIT_AS		9
#define ignore_rlimit_data	0
#define rlimit_max(limit)	rlimit(limit)

unsigned long rlimit(unsigned int limit)
{
	switch (limit) {
	case RLIMIT_AS:
		return vmac_limits.address_space;
	case RLIMIT_DATA:
		return vmac_limits.data;
	case RLIMIT_STACK:
		return vmac_limits.stack;
	case RLIMIT_MEMLOCK:
		return vmac_limits.memlock;
	default:
		BUG();
	}
}

#define CAP_SYS_NICE		23

static bool capable(int cap)
{
	return (cap == CAP_IPC_LOCK && vmac_limits.cap_ipc_lock) ||
	       (cap == CAP_SYS_NICE && vmac_limits.cap_sys_nice);
}

struct anon_vma {
	struct anon_vma *root;
	atomic_t refcount;
	unsigned long num_children;
	unsigned long num_active_vmas;
	struct anon_vma *parent;
	struct rb_root_cached rb_root;
	/* Ours. */
	uint32_t number;
};

static inline void vma_start_write(struct vm_area_struct *vma)
{
	vma->vm_lock_seq++;
}

static inline int vma_start_write_killable(struct vm_area_struct *vma)
{
	vma->vm_lock_seq++;
	return 0;
}

static inline void vma_lock_init(struct vm_area_struct *vma, bool reset_refcnt)
{
	if (reset_refcnt)
		refcount_set(&vma->vm_refcnt, 0);
#ifndef VMAC_BARE
	/* A duplicate is in no tree. */
	vma->in_tree = false;
#endif
	vma->copied = false;
}

#define vma_is_attached(vma)	(refcount_read(&(vma)->vm_refcnt) != 0)

static inline unsigned long vma_kernel_pagesize(struct vm_area_struct *vma)
{
	return PAGE_SIZE;
}
