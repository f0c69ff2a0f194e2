#!/bin/bash -eu
# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# OSS-Fuzz runs it to have the targets in $OUT.

# mm/vma.c alone tells what is reached, and libFuzzer comes with the targets: flags for all code are in the way.
unset CFLAGS CXXFLAGS RUSTFLAGS
cd "$SRC/vmalab"
VMALAB_LINUX_SRC=${VMALAB_LINUX_SRC:-$SRC/linux} differ/fuzz/run build "$OUT"
