#!/bin/sh
# Checks and times tensor parallelism on the GPUs of this host, within 250 s:
#
#   sh scripts/bench-ranks.sh [RANKS] [PYTHON]
#
# From a checkout. Where that is not built, APP is the app/ that scripts/gpu-kit.mjs unpacked, with
# its bin/ on the PATH. Each part has a limit, and the next one is run whatever becomes of it. Python
# needs numpy and torch, and each rank a GPU.
ranks=${1:-2}
python=${2:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)

case $ranks in
  -h | --help) sed -n '2,/^[^#]/s/^#$\|^# //p' "$0"; exit ;;
  [2-8]) ;;
  *) echo "bench-ranks: $ranks is no number of ranks from 2 to 8" >&2; exit 64 ;;
esac
command -v "$python" >/dev/null || { echo "bench-ranks: there is no $python" >&2; exit 1; }
"$python" "$root/scripts/needs.py" bench-ranks numpy torch || exit 1
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ')
if [ "$gpus" -lt "$ranks" ]; then
  echo "bench-ranks: $ranks GPUs are needed, nvidia-smi lists $gpus" >&2
  exit 1
fi
app=${APP:-$root}
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1
export NVSHMEM_DISABLE_NVLS=1 PYTHONUNBUFFERED=1
library=$(ls "$app"/build/*/libvt_cuda.so "$app"/prebuilds/*/libvt_cuda.so 2>/dev/null | head -1)
failed=

part() {
  name=$1 limit=$2
  shift 2
  echo "== $name"
  begin=$(date +%s)
  timeout -k 5 "$limit" "$@" || failed="$failed $name"
  echo "== $name: $(($(date +%s) - begin)) s"
}

check() {
  part "$1" "$2" "$python" "$root/test/kernels/cuda/check_collective.py" "$library" \
    --ranks "$ranks" --parts "$1" --limit "$(($2 - 5))"
}

cd "$app" || exit 1
[ -n "$library" ] || { echo "bench-ranks: libvt_cuda.so is not built"; exit 1; }
nvidia-smi topo -m 2>/dev/null | head -8
check bits+sample+best+stress+sent+fault+sentfault 60
check chain+splits+sampling+logprobs+head 60
part parity-demo 60 node dist/scripts/bench-gpu/parity.js --ranks "$ranks" --models demo
rows=8b-1,8b-256,8b-256-top-k
[ "$ranks" -ge 4 ] && rows="$rows,70b-1,70b-64"
part engine 120 node dist/scripts/bench-gpu-engine.js --tensor-parallel-size "$ranks" --repeats 2 \
  --rows "$rows"
check times 60
part faults 60 node dist/scripts/bench-gpu/faults.js --ranks "$ranks"
part parity-8b 120 node dist/scripts/bench-gpu/parity.js --ranks "$ranks" --models llama-8b
part engine-one 90 node dist/scripts/bench-gpu-engine.js --repeats 2 \
  --rows 8b-1,8b-256,8b-256-top-k
part nccl 40 "$python" "$root/test/kernels/cuda/check_nccl.py" "$library" --ranks "$ranks" \
  --parts search,sample,best --limit 35
part engine-nccl 60 env VLLM_TS_CUDA_COLLECTIVES=nccl node dist/scripts/bench-gpu-engine.js \
  --tensor-parallel-size "$ranks" --repeats 1 --rows 8b-256,8b-256-top-p
part start 120 node dist/scripts/bench-gpu-engine.js --tensor-parallel-size "$ranks" --repeats 3 \
  --rows start,start-8b-dummy,start-8b
echo "failed:${failed:- none}"
[ -z "$failed" ]
