// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which edges of mm/vma.c were taken (COUNTED=1 of the script build): the compiler keeps a flag for each, and
 * says where they are when the library is loaded. This file itself is not counted.
 */
#include <stdbool.h>
#include <stdint.h>
#include "vmac.h"

static const bool *vmac_first, *vmac_end;

void __sanitizer_cov_bool_flag_init(const bool *first, const bool *end)
{
	vmac_first = first;
	vmac_end = end;
}

VMAC_API const bool *vmac_reached(uint64_t *count)
{
	*count = vmac_end - vmac_first;
	return vmac_first;
}
