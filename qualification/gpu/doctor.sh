#!/usr/bin/env bash
# What the doctor sees on a GPU host: a recording for tests/entrypoint/machine/recorded, the checks' answers, and the timed
# all-reduce with several NCCL settings, with a rank that stops, and with a /dev/shm that is too small. From the
# repository root: `bash qualification/gpu/doctor.sh [RANKS]`. Needs python3 with torch and nvidia-ml-py; about 2 minutes.
# With OUT set, the recording and the table are left there.
set -euo pipefail
ranks=${1:-2}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=${OUT:-$work}

# Multicast over NVLink can put shared GPUs out of service: off in every library that would use it.
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1

mkdir -p "$work/ns/dsv4_serve"
for folder in deploy entrypoint healthcheck profiles; do ln -sfn "$root/$folder" "$work/ns/dsv4_serve/$folder"; done
export PYTHONPATH=$work/ns:$root${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1

names=$(python3 -c 'from dsv4_serve.entrypoint.machine.nvml import read_driver
d = read_driver(); print(f"{len(d.gpus)} x {d.gpus[0].name}, driver {d.version}")')
time python3 -m tools.record_host "$out/recording.json" "recorded: $names, $(date -u +%F)"
cat "$out/recording.json"

python3 -m qualification.gpu.host_checks "$ranks"

python3 -m qualification.gpu.all_reduce_table --ranks "$ranks" --out "$out/all-reduce.json"
if [ "$(id -u)" = 0 ]; then
    echo "with a /dev/shm of 8 MiB:"
    unshare --mount sh -c "mount -t tmpfs -o size=8m tmpfs /dev/shm &&
        python3 -m qualification.gpu.all_reduce_table --ranks $ranks --only NCCL_P2P_DISABLE=1" || true
fi
