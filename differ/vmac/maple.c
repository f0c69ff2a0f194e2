// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's maple tree, for one thread. */

#include "vmac_tools.h"

#include "maple_tree.c"
