// SPDX-License-Identifier: GPL-2.0-only
/*
 * When something is wrong: an assertion of the kernel's fails, or its code runs into a signal.
 *
 * All ours. The first of it is kept for whoever called, and the operation is left there.
 */

static char vmac_broke[256];
/* What is known, and came in this operation. */
static uint64_t vmac_excused;
static __thread sigjmp_buf *vmac_escape;

void vmac_warn(const char *what, const char *file, int line)
{
	const char *name = strrchr(file, '/');

	/*
	 * Known of 7.2: when the tree has no memory for a merge, __mmap_region goes on to make an area
	 * of its own, with the iterator still at the area before, and __mas_set_range() objects. What
	 * becomes of it is in order all the same: nothing else here ever objected.
	 */
	if (vmac_failed && strstr(what, "mas_is_active(mas)")) {
		vmac_excused |= VMAC_EXCUSED_TREE;
		return;
	}
	/* The first one says most. */
	if (!vmac_broke[0])
		snprintf(vmac_broke, sizeof(vmac_broke), "%s:%d: %s",
			 name ? name + 1 : file, line, what);
}

void vmac_bug(const char *what, const char *file, int line)
{
	vmac_warn(what, file, line);
	if (vmac_escape)
		siglongjmp(*vmac_escape, 1);
	abort();
}

#ifdef VMAC_COVERAGE
void vmac_warn_if(bool hit, const char *what, const char *file, int line)
{
	if (hit)
		vmac_warn(what, file, line);
}

void vmac_bug_if(bool hit, const char *what, const char *file, int line)
{
	if (hit)
		vmac_bug(what, file, line);
}
#endif

static const int vmac_signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE };
static struct sigaction vmac_before[ARRAY_SIZE(vmac_signals)];

static void vmac_signal(int number, siginfo_t *info, void *context)
{
	if (vmac_escape) {
		if (!vmac_broke[0])
			snprintf(vmac_broke, sizeof(vmac_broke), "signal %d: %s",
				 number, strsignal(number));
		siglongjmp(*vmac_escape, 1);
	}
	/* Not ours: another copy of this library's, or a real crash. */
	for (size_t i = 0; i < ARRAY_SIZE(vmac_signals); i++) {
		if (vmac_signals[i] != number)
			continue;
		if (vmac_before[i].sa_flags & SA_SIGINFO)
			vmac_before[i].sa_sigaction(number, info, context);
		else
			sigaction(number, &vmac_before[i], NULL);
	}
}

static struct kmem_cache *anon_vma_cachep;
static struct kmem_cache *anon_vma_chain_cachep;
