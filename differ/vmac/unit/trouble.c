// SPDX-License-Identifier: GPL-2.0-only
/*
 * When something is wrong: an assertion of the kernel's fails, its code runs into a signal, or it does not
 * come back.
 *
 * All ours. The first of it is kept for whoever called, and the operation is left there.
 */

static char vmac_broke[256];
/* What is known, and came in this operation. */
static uint64_t vmac_excused;
/* The way out of what runs now, and the thread that it runs in. */
static sigjmp_buf *volatile vmac_escape;
static pthread_t vmac_owner;
/* What is not the kernel's is at work, and may hold a lock: nothing leads out of it. */
static volatile sig_atomic_t vmac_locked;

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

static const int vmac_signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
static struct sigaction vmac_before[ARRAY_SIZE(vmac_signals)];

/* Whether this thread runs something of the kernel's, in this copy of the library. */
static bool vmac_inside(void)
{
	return vmac_escape && pthread_equal(vmac_owner, pthread_self());
}

/* Whether it is where it can be left. */
static bool vmac_can_leave(void)
{
	return vmac_inside() && !vmac_locked;
}

static void vmac_signal(int number, siginfo_t *info, void *context)
{
	if (vmac_can_leave()) {
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

/* How much processor time may pass before it is looked whether anything goes on, in milliseconds. */
static uint32_t vmac_patience = 1000;
/* Raised whenever something goes on; and where it was when it was last looked. */
static volatile uint64_t vmac_turn, vmac_last_turn;
/*
 * By system calls: the C library may have timers in another library, and a sanitizer of the program in between.
 * The kernel's headers for tools lack these numbers of x86-64.
 */
enum { VMAC_TIMER_CREATE = 222, VMAC_TIMER_SETTIME = 223, VMAC_TIMER_DELETE = 226 };
static int vmac_timer;
/* The thread whose time it measures, 0 if it is none. */
static pid_t vmac_timed;

/* AddressSanitizer has found something: it takes its time to say what, and then ends the program. */
static bool vmac_reports(void)
{
#ifdef VMAC_SANITIZE
	return __asan_report_present();
#else
	return false;
#endif
}

/*
 * A whole time of patience without a turn: a loop without end. By processor time, so that a machine that is
 * busy, or stood still, is none.
 */
static void vmac_look_after(void)
{
	static const char heap[] = "the C library does not come back: its heap was written over\n";

	if (vmac_turn != vmac_last_turn || !vmac_inside() || vmac_reports()) {
		vmac_last_turn = vmac_turn;
		return;
	}
	if (vmac_locked) {
		write(STDERR_FILENO, heap, sizeof(heap) - 1);
		abort();
	}
	snprintf(vmac_broke, sizeof(vmac_broke), "it does not come back: a loop without end");
	siglongjmp(*vmac_escape, 1);
}

/* Each copy of this library has a timer, which says whose it is. */
static void vmac_timer_signal(int number, siginfo_t *info, void *context)
{
	void (*look_after)(void) = info->si_value.sival_ptr;

	if (info->si_code == SI_TIMER)
		look_after();
}

static void vmac_set_timer(void)
{
	struct timespec time = { vmac_patience / 1000, vmac_patience % 1000 * 1000000L };
	struct itimerspec every = { .it_interval = time, .it_value = time };

	syscall(VMAC_TIMER_SETTIME, vmac_timer, 0, &every, NULL);
}

/* Looks after this thread from now on. */
static void vmac_watch(void)
{
	struct sigaction action = { .sa_sigaction = vmac_timer_signal, .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER };
	struct sigevent event = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = SIGVTALRM,
		.sigev_value.sival_ptr = vmac_look_after,
	};
	pid_t thread = gettid();

	if (vmac_timed == thread)
		return;
	if (vmac_timed)
		syscall(VMAC_TIMER_DELETE, vmac_timer);
	vmac_timed = 0;
	event._sigev_un._tid = thread;
	sigaction(SIGVTALRM, &action, NULL);
	/* Without a timer a hang is what it is anywhere. */
	if (syscall(VMAC_TIMER_CREATE, CLOCK_THREAD_CPUTIME_ID, &event, &vmac_timer))
		return;
	vmac_timed = thread;
	vmac_set_timer();
}

static struct kmem_cache *anon_vma_cachep;
static struct kmem_cache *anon_vma_chain_cachep;
