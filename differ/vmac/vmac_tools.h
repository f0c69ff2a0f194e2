/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What all of the kernel's code here is compiled with: the tools' copies of kernel headers, and
 * warnings that are told to the caller instead of printed.
 */
#ifndef VMAC_TOOLS_H
#define VMAC_TOOLS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <assert.h>

#include "generated/bit-length.h"
#include "shared.h"
#include <linux/init.h>
#include <linux/slab.h>

/* A warning of the kernel's: the operation goes on, and is found broken in the end. */
void vmac_warn(const char *what, const char *file, int line);
/* BUG(): the operation ends here. */
void vmac_bug(const char *what, const char *file, int line) __attribute__((noreturn));

#ifdef VMAC_COVERAGE
/* An assertion that never fails is no branch that was not taken. */
void vmac_warn_if(bool hit, const char *what, const char *file, int line);
void vmac_bug_if(bool hit, const char *what, const char *file, int line);
#else
#define vmac_warn_if(hit, what, file, line) do {			\
	if (__builtin_expect(hit, 0))					\
		vmac_warn(what, file, line);				\
} while (0)
#define vmac_bug_if(hit, what, file, line) do {				\
	if (__builtin_expect(!!(hit), 0))				\
		vmac_bug(what, file, line);				\
} while (0)
#endif

#undef WARN_ON
#undef WARN_ON_ONCE
#undef WARN
#undef WARN_ONCE
#undef BUG
#undef BUG_ON
#undef dump_stack
#define WARN_ON(condition) ({						\
	int vmac_hit = !!(condition);					\
	vmac_warn_if(vmac_hit, #condition, __FILE__, __LINE__);	\
	vmac_hit;							\
})
#define WARN_ON_ONCE(condition)		WARN_ON(condition)
#define WARN(condition, ...)		WARN_ON(condition)
#define WARN_ONCE(condition, ...)	WARN_ON(condition)
#define BUG()				vmac_bug("BUG()", __FILE__, __LINE__)
#define BUG_ON(condition)		vmac_bug_if(condition, #condition, __FILE__, __LINE__)
#define dump_stack()			do { } while (0)

/* As in the tools' maple-shared.h, but its debugging code is for the sanitized build alone. */
#define CONFIG_MAPLE_SEARCH
#define MAPLE_32BIT (MAPLE_NODE_SLOTS > 31)
void maple_rcu_cb(struct rcu_head *head);
#define kfree_rcu(object, member)	call_rcu(&(object)->member, maple_rcu_cb)

#ifdef VMAC_SANITIZE
#include <linux/maple_tree.h>
void mt_validate(struct maple_tree *tree);
#endif

#endif
