/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tracepoint vmalab:vmalab_hook: each call of a hook, of all objects, for
 * perf, trace-cmd and BPF. What is in a call is said at struct vmalab_event.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vmalab

#if !defined(_VMALAB_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VMALAB_TRACE_H

#include <linux/mm.h>
#include <linux/tracepoint.h>
#include <trace/events/mmflags.h>

#include "../uapi/vmalab.h"

/* perf and trace-cmd are told the numbers, not the names. */
TRACE_DEFINE_ENUM(VMALAB_HOOK_MMAP);
TRACE_DEFINE_ENUM(VMALAB_HOOK_OPEN);
TRACE_DEFINE_ENUM(VMALAB_HOOK_CLOSE);
TRACE_DEFINE_ENUM(VMALAB_HOOK_MAPPED);
TRACE_DEFINE_ENUM(VMALAB_HOOK_MAY_SPLIT);
TRACE_DEFINE_ENUM(VMALAB_HOOK_MREMAP);
TRACE_DEFINE_ENUM(VMALAB_HOOK_MPROTECT);
TRACE_DEFINE_ENUM(VMALAB_HOOK_FAULT);
TRACE_DEFINE_ENUM(VMALAB_HOOK_HUGE_FAULT);
TRACE_DEFINE_ENUM(VMALAB_HOOK_MAP_PAGES);
TRACE_DEFINE_ENUM(VMALAB_HOOK_PAGE_MKWRITE);
TRACE_DEFINE_ENUM(VMALAB_HOOK_PFN_MKWRITE);
/* Those that show_vma_flags() is made of. */
TRACE_DEFINE_ENUM(VMA_READ_BIT);
TRACE_DEFINE_ENUM(VMA_WRITE_BIT);
TRACE_DEFINE_ENUM(VMA_EXEC_BIT);
TRACE_DEFINE_ENUM(VMA_SHARED_BIT);
TRACE_DEFINE_ENUM(VMA_MAYREAD_BIT);
TRACE_DEFINE_ENUM(VMA_MAYWRITE_BIT);
TRACE_DEFINE_ENUM(VMA_MAYEXEC_BIT);
TRACE_DEFINE_ENUM(VMA_MAYSHARE_BIT);
TRACE_DEFINE_ENUM(VMA_GROWSDOWN_BIT);
TRACE_DEFINE_ENUM(VMA_UFFD_MISSING_BIT);
TRACE_DEFINE_ENUM(VMA_UFFD_MINOR_BIT);
TRACE_DEFINE_ENUM(VMA_PFNMAP_BIT);
TRACE_DEFINE_ENUM(VMA_MAYBE_GUARD_BIT);
TRACE_DEFINE_ENUM(VMA_UFFD_WP_BIT);
TRACE_DEFINE_ENUM(VMA_LOCKED_BIT);
TRACE_DEFINE_ENUM(VMA_IO_BIT);
TRACE_DEFINE_ENUM(VMA_SEQ_READ_BIT);
TRACE_DEFINE_ENUM(VMA_RAND_READ_BIT);
TRACE_DEFINE_ENUM(VMA_DONTCOPY_BIT);
TRACE_DEFINE_ENUM(VMA_DONTEXPAND_BIT);
TRACE_DEFINE_ENUM(VMA_LOCKONFAULT_BIT);
TRACE_DEFINE_ENUM(VMA_ACCOUNT_BIT);
TRACE_DEFINE_ENUM(VMA_NORESERVE_BIT);
TRACE_DEFINE_ENUM(VMA_HUGETLB_BIT);
TRACE_DEFINE_ENUM(VMA_SYNC_BIT);
TRACE_DEFINE_ENUM(VMA_ARCH_1_BIT);
TRACE_DEFINE_ENUM(VMA_WIPEONFORK_BIT);
TRACE_DEFINE_ENUM(VMA_DONTDUMP_BIT);
TRACE_DEFINE_ENUM(VMA_SOFTDIRTY_BIT);
TRACE_DEFINE_ENUM(VMA_MIXEDMAP_BIT);
TRACE_DEFINE_ENUM(VMA_HUGEPAGE_BIT);
TRACE_DEFINE_ENUM(VMA_NOHUGEPAGE_BIT);
TRACE_DEFINE_ENUM(VMA_DROPPABLE_BIT);
TRACE_DEFINE_ENUM(VMA_MERGEABLE_BIT);

/*
 * @object: which object, as struct vmalab_watch_state tells it
 * @event:  the call; its sequence, time, pid and tid are not set, since a trace
 *          has its own
 */
TRACE_EVENT(vmalab_hook,
	TP_PROTO(u64 object, const struct vmalab_event *event),
	TP_ARGS(object, event),
	TP_STRUCT__entry(
		__field(u64, object)
		__field(u32, hook)
		__field(s32, result)
		__field(u64, start)
		__field(u64, end)
		__field(u64, offset)
		__field(unsigned long, flags)
		__field(u64, argument)
	),
	TP_fast_assign(
		__entry->object = object;
		__entry->hook = event->hook;
		__entry->result = event->result;
		__entry->start = event->start;
		__entry->end = event->end;
		__entry->offset = event->offset;
		__entry->flags = event->flags;
		__entry->argument = event->argument;
	),
	TP_printk("%s object=%llu range=0x%llx-0x%llx offset=0x%llx argument=0x%llx result=%d flags=%s",
		__print_symbolic(__entry->hook,
			{ VMALAB_HOOK_MMAP, "mmap" },
			{ VMALAB_HOOK_OPEN, "open" },
			{ VMALAB_HOOK_CLOSE, "close" },
			{ VMALAB_HOOK_MAPPED, "mapped" },
			{ VMALAB_HOOK_MAY_SPLIT, "may_split" },
			{ VMALAB_HOOK_MREMAP, "mremap" },
			{ VMALAB_HOOK_MPROTECT, "mprotect" },
			{ VMALAB_HOOK_FAULT, "fault" },
			{ VMALAB_HOOK_HUGE_FAULT, "huge_fault" },
			{ VMALAB_HOOK_MAP_PAGES, "map_pages" },
			{ VMALAB_HOOK_PAGE_MKWRITE, "page_mkwrite" },
			{ VMALAB_HOOK_PFN_MKWRITE, "pfn_mkwrite" }),
		__entry->object, __entry->start, __entry->end, __entry->offset,
		__entry->argument, __entry->result, show_vma_flags(__entry->flags))
);

#endif /* _VMALAB_TRACE_H */

/* The rest makes the tracepoint of it, where trace.c wants that. */
#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
