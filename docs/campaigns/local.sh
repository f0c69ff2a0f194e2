#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# A campaign without a batch system: so many shards as processes of this machine.
#
#   docs/campaigns/local.sh 4 --oracle vmac --library libvmac.so --seed 1 --ops 100000000
#
# With HOSTS="a b c" they are started there in turn, by ssh, in the current directory, which is taken to be
# the same everywhere. Exit status 1 if any of them found something.

set -eu
shards=${1:?how many shards}
shift
out=${OUT:-campaign}
vmalab=${VMALAB:-vmalab}
read -ra hosts <<<"${HOSTS:-}"
mkdir -p "$out"
started=()
for ((shard = 0; shard < shards; shard++)); do
	command=("$vmalab" diff "$@" --shard "$shard/$shards" --resume "$out/state-$shard.json"
		--report "$out/report-$shard.json" --out "$out")
	if ((${#hosts[@]})); then
		printf -v line '%q ' "${command[@]}"
		ssh "${hosts[shard % ${#hosts[@]}]}" "cd $(printf %q "$PWD") && $line" >"$out/log-$shard" 2>&1 &
	else
		"${command[@]}" >"$out/log-$shard" 2>&1 &
	fi
	started+=($!)
done
status=0
for pid in "${started[@]}"; do
	wait "$pid" || status=1
done
exit "$status"
