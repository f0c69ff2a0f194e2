#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# The fuzz targets as one archive, which a libFuzzer job of ClusterFuzz takes as its build:
#
#   VMALAB_LINUX_SRC=~/linux docs/campaigns/clusterfuzz.sh vmalab-fuzz.zip
#
# The corpora of this checkout (build/fuzz) go with it, as the first inputs. It takes Rust, clang and python3.

set -euo pipefail
archive=$(realpath -m "${1:?which archive}")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
differ/fuzz/run build "$work"
for target in differ/fuzz/fuzz_targets/*.rs; do
	target=$(basename "$target" .rs)
	printf '[libfuzzer]\nmax_len = 4096\n' >"$work/$target.options"
	if [[ -n $(ls "build/fuzz/$target" 2>/dev/null) ]]; then
		python3 -m zipfile -c "$work/${target}_seed_corpus.zip" "build/fuzz/$target"
	fi
done
rm -f "$archive" "$work"/*.made "$work"/*.lock
python3 -m zipfile -c "$archive" "$work"/*
