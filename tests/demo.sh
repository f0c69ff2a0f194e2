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

hooks_shown() { ./watch-c >watch-c.out && ./watch-rust >watch-rust.out && cat watch-c.out && cmp watch-c.out watch-rust.out; }
watched() { ./vmalab watch -- ./watch-c >watched && cat watched && grep -q ' may_split object=' watched && grep -q ' close object=' watched; }

# mistaken MISTAKE FIELD: a model that errs so is found out, by the device alone, in that field.
mistaken() {
	./vmalab diff --device /dev/vmalab --limit never --mistake "$1" --ops 20000 --seed 1 --json >mistaken
	[ $? -eq 1 ] && grep "\"field\": \"$2" mistaken
}

# All counts of what is alive are 0.
nothing_left() {
	./vmalab stats >counts && cat counts && [ "$(awk '$1 ~ /^(objects|areas|pages)$/ && $2 == 0' counts | wc -l)" = 3 ]
}

step "insmod: the node is there" loaded
step "the C example" ./example-c
step "the Rust example" ./example-rust
step "the hooks of an munmap, in C and in Rust" hooks_shown
step "the hooks of a command" watched
step "10,000 operations against the model" \
	./vmalab diff --ops 10000 --seed 1 --device /dev/vmalab --device /dev/vmalab-prepare --limit sysctl --report "$VMALAB_OUT/diff.json"
step "a hook that is not called is seen" mistaken SplitForgetsOpen "hook call"
step "hooks in another order are seen" mistaken CloseBackwards "hook call"
step "no object, area or page is left" nothing_left
step "rmmod: the node is gone" unloaded
exit $failed
