#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# The fuzz targets as one archive, which a libFuzzer job of ClusterFuzz takes as its build:
#
#   VMALAB_LINUX_SRC=~/linux docs/campaigns/clusterfuzz.sh vmalab-fuzz.zip
#
# For a job with AddressSanitizer, which takes a nightly Rust, and clang with its runtime libraries:
#
#   export SANITIZE=1 RUSTFLAGS=-Zsanitizer=address CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu
#
# The corpora of this checkout (build/fuzz) go with it, as the first inputs. It takes Rust, clang and python3.

set -euo pipefail
archive=$(realpath -m "${1:?which archive}")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
differ/fuzz/run build "$work"
rm -f "$archive"
python3 -m zipfile -c "$archive" "$work"/*
