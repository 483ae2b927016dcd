#!/usr/bin/env bash
# One model over two hosts, two ranks on each, as a Slurm job:
#   MODEL=/shared/models/llama sbatch examples/deploy/slurm.sh
#SBATCH --job-name=vllm-ts
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=08:00:00
set -euo pipefail

: "${MODEL:?names the folder of the model, the same on every host}"
: "${TENSOR_PARALLEL_SIZE:=4}"
: "${PORT:=8000}"

# Node 0 of the job is the head. Its name may mean a loopback address there: MASTER_ADDR overrides.
# sed reads to the end; a head that leaves early could end scontrol, and with it this script.
head_host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
if [ -z "${MASTER_ADDR:-}" ]; then
  MASTER_ADDR=$(srun --nodes=1 --ntasks=1 --nodelist="$head_host" hostname -I | cut -d ' ' -f 1)
fi
# Jobs that share a host do not share ports.
: "${MASTER_PORT:=$((20000 + SLURM_JOB_ID % 20000))}"

# The nodes of this job know each other by it, and those of other jobs not.
VLLM_TS_NODE_KEY=$(openssl rand -hex 32)
export MODEL TENSOR_PARALLEL_SIZE PORT MASTER_ADDR MASTER_PORT VLLM_TS_NODE_KEY

echo "http://$head_host:$PORT"
# shellcheck disable=SC2016 # expanded by each task, which has a SLURM_NODEID of its own
exec srun --kill-on-bad-exit=1 bash -c '
  flags=()
  if [ "$SLURM_NODEID" = 0 ]; then
    flags+=(--host "${HOST:-127.0.0.1}" --port "$PORT")
  else
    flags+=(--headless)
  fi
  exec "${VLLM_TS:-vllm-ts}" serve "$MODEL" --device cpu \
    --tensor-parallel-size "$TENSOR_PARALLEL_SIZE" --nnodes "$SLURM_JOB_NUM_NODES" \
    --node-rank "$SLURM_NODEID" --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" \
    "${flags[@]}"
'
