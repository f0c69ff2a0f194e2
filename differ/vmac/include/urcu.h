/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Instead of liburcu: RCU for one thread. There are no readers but the writer itself, so a grace
 * period is over when the operation is over: what was given to call_rcu is freed by vmac_rcu_drain().
 */
#ifndef VMAC_URCU_H
#define VMAC_URCU_H

struct rcu_head {
	struct rcu_head *next;
	void (*func)(struct rcu_head *head);
};

void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head));

#define rcu_read_lock()			do { } while (0)
#define rcu_read_unlock()		do { } while (0)
#define rcu_dereference(p)		(p)
#define rcu_assign_pointer(p, v)	((p) = (v))
#define synchronize_rcu()		do { } while (0)

#endif
