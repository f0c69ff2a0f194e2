#!/bin/bash
# SPDX-License-Identifier: MIT OR GPL-2.0-only
#
# A campaign as a job array, one shard for each task:
#
#   sbatch --array=0-63 docs/campaigns/slurm.sh
#
# SEED, TIME and LIBRARY (made by differ/vmac/build) can be set in the environment. A task that is
# preempted or requeued goes on where it was.
#SBATCH --job-name=vmalab
#SBATCH --cpus-per-task=4
#SBATCH --mem=1G
#SBATCH --time=09:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# To the shell of the batch, which becomes vmalab: there are no job steps.
#SBATCH --signal=B:TERM@60

set -eu
shard=${SLURM_ARRAY_TASK_ID:?start it by sbatch --array=0-N}
shards=${SLURM_ARRAY_TASK_COUNT:?}
out=${OUT:-campaign}
mkdir -p "$out"
exec "${VMALAB:-vmalab}" diff --oracle vmac --library "${LIBRARY:-libvmac.so}" \
	--seed "${SEED:-1}" --time "${TIME:-8h}" --jobs "${SLURM_CPUS_PER_TASK:-1}" --shard "$shard/$shards" \
	--resume "$out/state-$shard.json" --report "$out/report-$shard.json" --out "$out"
