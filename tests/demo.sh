#!/bin/sh
# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# The guest's part of `make run`. The module is loaded when it begins. Each step leaves a line
# in $VMALAB_OUT/lines, which tests/report reads.

failed=0

# step NAME CMD…
step() {
	name=$1
	shift
	echo "== $name: $*"
	if "$@"; then
		printf 'pass\t%s\n' "$name" >>"$VMALAB_OUT/lines"
	else
		printf 'fail\t%s\tstatus %s\n' "$name" $? >>"$VMALAB_OUT/lines"
		failed=1
	fi
}

loaded() { grep -q '^vmalab ' /proc/modules && [ -c /dev/vmalab ]; }
unloaded() { rmmod vmalab && ! grep -q '^vmalab ' /proc/modules && [ ! -e /dev/vmalab ]; }

# All counts of what is alive are 0.
nothing_left() {
	./vmalab stats >counts && cat counts && [ "$(awk '$1 ~ /^(objects|areas|pages)$/ && $2 == 0' counts | wc -l)" = 3 ]
}

step "insmod: the node is there" loaded
step "the C example" ./example-c
step "the Rust example" ./example-rust
step "10,000 operations against the model" \
	./vmalab diff --ops 10000 --seed 1 --device /dev/vmalab --report "$VMALAB_OUT/diff.json"
step "no object, area or page is left" nothing_left
step "rmmod: the node is gone" unloaded
exit $failed
