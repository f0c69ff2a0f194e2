// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's maple tree, for one thread. */

#include "vmac_tools.h"

#ifdef VMAC_SANITIZE
/*
 * Its own checks, for validate_mm(). The header is there already, and without debugging: what they find is
 * told as any warning is, where it would be printed and forgotten.
 */
#define CONFIG_DEBUG_MAPLE_TREE
enum mt_dump_format { mt_dump_dec, mt_dump_hex };
void mt_dump(const struct maple_tree *tree, enum mt_dump_format format);
#endif

#include "maple_tree.c"
