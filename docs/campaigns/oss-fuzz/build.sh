#!/bin/bash -eu
# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# OSS-Fuzz runs it to have the targets in $OUT, with a sanitizer (SANITIZER=address), with none, or counted (coverage).

# RUSTFLAGS says it to rustc: with a target named, not for what cargo runs while it builds.
export CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu
[[ $SANITIZER != address ]] || export SANITIZE=1
cd "$SRC/vmalab"
VMALAB_LINUX_SRC=${VMALAB_LINUX_SRC:-$SRC/linux} differ/fuzz/run build "$OUT"
