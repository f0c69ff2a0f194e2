// SPDX-License-Identifier: GPL-2.0-only
/* Makes the tracepoint of trace.h, and the function by which Rust calls it. */
#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "trace.h"
