/* SPDX-License-Identifier: GPL-2.0-only */
/* mm/interval_tree.c includes it; what it needs of it is in vmac.h. */
