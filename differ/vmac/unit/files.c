// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files, their drivers, and shared memory objects.
 *
 * All ours: drivers whose hooks are recorded and can refuse, and what mm/shmem.c would do.
 */

#define FMODE_READ		1
#define FMODE_WRITE		2
#define FOP_MMAP_SYNC		1
#define FOP_UNSIGNED_OFFSET	2
#define MAX_LFS_FILESIZE	LONG_MAX
#define file_inode(file)	((file)->f_inode)
#define path_noexec(path)	((path)->noexec)
#define IS_SWAPFILE(inode)	false
#define IS_APPEND(inode)	false
#define F_SEAL_WRITE		0x8
#define F_SEAL_FUTURE_WRITE	0x10
/* They are there from the start. */
#define memfd_file_seals_ptr(file)	(&(file)->seals)

#define VMAC_FILES 24
/* In one operation. When all is unmapped in the end, each area of each fork is closed. */
#define VMAC_HOOKS 32768

static struct {
	struct file file;
	struct inode inode;
	struct address_space mapping;
	struct file_operations f_op;
	struct vm_operations_struct vm_ops;
} vmac_files[VMAC_FILES];
static uint32_t vmac_n_files;

struct vmac_shmem {
	struct file file;
	struct inode inode;
	struct address_space mapping;
	unsigned long pages;
	unsigned long charged;
};
static struct kmem_cache *vmac_shmem_cache;
static int vmac_next_shmem;
static uint32_t vmac_next_anon_vma;
static unsigned long vmac_committed;
static unsigned long vmac_shmem_committed;
static unsigned long vmac_lost_before;

static struct vmac_hook vmac_hooks[VMAC_HOOKS];
static uint32_t vmac_n_hooks;

static void vmac_record(uint32_t kind, struct file *file, unsigned long start, unsigned long end,
			unsigned long pgoff, unsigned long addr)
{
	if (WARN_ON(vmac_n_hooks == VMAC_HOOKS))
		return;
	vmac_hooks[vmac_n_hooks++] = (struct vmac_hook) {
		.kind = kind,
		.file = file->number,
		.start = start,
		.end = end,
		.pgoff = pgoff,
		.addr = addr,
	};
}

/* The same of a hook that can refuse: what it answers. */
static int vmac_ask(uint32_t kind, struct file *file, unsigned long start, unsigned long end,
		    unsigned long pgoff, unsigned long addr, uint32_t error)
{
	vmac_record(kind, file, start, end, pgoff, addr);
	if (file->steered.nth && file->steered.hook == kind && !--file->steered.nth)
		error = file->steered.error;
	vmac_hooks[vmac_n_hooks - 1].error = error;
	return -(int)error;
}

static void vmac_open(struct vm_area_struct *vma)
{
	if (vma->vm_file->is.hook_open)
		vmac_record(VMAC_HOOK_OPEN, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, 0);
}

static void vmac_close(struct vm_area_struct *vma)
{
	vmac_record(VMAC_HOOK_CLOSE, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, 0);
}

static int vmac_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	struct vmac_file *is = &vma->vm_file->is;
	uint32_t error = 0;

	if (is->may_split == VMAC_ALIGNED && addr % is->may_split_arg)
		error = EINVAL;
	if (is->may_split == VMAC_NEVER)
		error = is->may_split_arg;
	if (!is->hook_may_split)
		return -(int)error;
	return vmac_ask(VMAC_HOOK_MAY_SPLIT, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, addr, error);
}

static int vmac_mremap(struct vm_area_struct *vma)
{
	struct vmac_file *is = &vma->vm_file->is;

	int answer;

	if (is->hook_mremap)
		answer = vmac_ask(VMAC_HOOK_MREMAP, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, 0,
				  is->mremap_error);
	else
		answer = -(int)is->mremap_error;
	vmac_ledger.sent_back |= answer != 0;
	return answer;
}

static int vmac_mprotect(struct vm_area_struct *vma, unsigned long start, unsigned long end,
			 unsigned long newflags)
{
	struct vmac_file *is = &vma->vm_file->is;
	int answer;

	if (!is->hook_mprotect)
		return -(int)is->mprotect_error;
	answer = vmac_ask(VMAC_HOOK_MPROTECT, vma->vm_file, vma->vm_start, vma->vm_end, vma->vm_pgoff, start,
			  is->mprotect_error);
	vmac_hooks[vmac_n_hooks - 1].to = end;
	vmac_hooks[vmac_n_hooks - 1].flags = newflags;
	return answer;
}

static int vmac_mapped(unsigned long start, unsigned long end, pgoff_t pgoff, const struct file *file,
		       void **vm_private_data)
{
	return vmac_ask(VMAC_HOOK_MAPPED, (struct file *)file, start, end, pgoff, 0, 0);
}

/* As in mm/util.c, where it also maps pages for the driver: none here asks for that. */
static int mmap_action_complete(struct vm_area_struct *vma, struct mmap_action *action, bool is_compat)
{
	VMA_ITERATOR(vmi, &vmac_mm, vma->vm_start);
	void *private = NULL;
	int error;

	if (!vma->vm_ops || !vma->vm_ops->mapped)
		return 0;
	error = vma->vm_ops->mapped(vma->vm_start, vma->vm_end, vma->vm_pgoff, vma->vm_file, &private);
	if (error)
		do_vmi_munmap(&vmi, &vmac_mm, vma->vm_start, vma->vm_end - vma->vm_start, NULL, false);
	return error;
}

static int vmac_mmap(struct file *file, struct vm_area_struct *vma)
{
	vm_flags_set(vma, file->is.sets);
	vma->vm_ops = file->vm_ops;
	if (!file->is.hook_mmap)
		return -(int)file->is.mmap_error;
	return vmac_ask(VMAC_HOOK_MMAP, file, vma->vm_start, vma->vm_end, vma->vm_pgoff, 0, file->is.mmap_error);
}

static int vmac_mmap_prepare(struct vm_area_desc *desc)
{
	struct file *file = desc->file;

	vma_flags_set_word(&desc->vma_flags, file->is.sets);
	desc->vm_ops = file->vm_ops;
	if (!file->is.hook_mmap)
		return -(int)file->is.mmap_error;
	return vmac_ask(VMAC_HOOK_MMAP, file, desc->start, desc->end, desc->pgoff, 0, file->is.mmap_error);
}

static struct file *get_file(struct file *file)
{
	WARN_ON(file->references <= 0);
	file->references++;
	return file;
}

static void fput(struct file *file)
{
	WARN_ON(file->references <= 0);
	if (--file->references)
		return;
	/* The files that operations name are held by the process. */
	if (!WARN_ON(file->number >= 0)) {
		struct vmac_shmem *shmem = container_of(file, struct vmac_shmem, file);

		WARN_ON(!RB_EMPTY_ROOT(&shmem->mapping.i_mmap.rb_root));
		WARN_ON(atomic_read(&shmem->mapping.i_mmap_writable));
		vm_acct_memory(-(long)shmem->charged);
		vmac_shmem_committed -= shmem->charged;
		kmem_cache_free(vmac_shmem_cache, shmem);
	}
}

static void mapping_unmap_writable(struct address_space *mapping)
{
	WARN_ON(atomic_read(&mapping->i_mmap_writable) <= 0);
	atomic_dec(&mapping->i_mmap_writable);
}

static const struct file_operations vmac_shmem_f_op = { .mmap_prepare = vmac_mmap_prepare };
static const struct vm_operations_struct vmac_shmem_vm_ops;

/* As in mm/shmem.c: each shared anonymous mapping has a file of its own. */
static int shmem_zero_setup(struct vm_area_struct *vma)
{
	unsigned long pages = vma_pages(vma);
	unsigned long charged = vma->vm_flags & VM_NORESERVE ? 0 : pages;
	struct vmac_shmem *shmem;

	if (charged && security_vm_enough_memory_mm(vma->vm_mm, charged))
		return -ENOMEM;
	shmem = kmem_cache_alloc(vmac_shmem_cache, GFP_KERNEL);
	if (!shmem) {
		vm_acct_memory(-(long)charged);
		return -ENOMEM;
	}
	memset(shmem, 0, sizeof(*shmem));
	vmac_shmem_committed += charged;
	shmem->pages = pages;
	shmem->charged = charged;
	shmem->file.number = VMAC_SHMEM - vmac_next_shmem++;
	shmem->file.references = 1;
	shmem->file.f_mode = FMODE_READ | FMODE_WRITE;
	shmem->file.f_mapping = &shmem->mapping;
	shmem->file.f_op = &vmac_shmem_f_op;
	shmem->file.f_inode = &shmem->inode;
	shmem->file.vm_ops = &vmac_shmem_vm_ops;
	shmem->inode.i_mode = S_IFREG;
	shmem->mapping.host = &shmem->inode;
	shmem->mapping.i_mmap = RB_ROOT_CACHED;
	vma->vm_file = &shmem->file;
	vma->vm_ops = &vmac_shmem_vm_ops;
	return 0;
}
