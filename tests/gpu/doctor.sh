#!/usr/bin/env bash
# What the doctor sees on a GPU host: a recording for tests/entrypoint/doctor/recorded, the checks' answers, and the timed
# all-reduce with several NCCL settings, with a rank that stops, and with a /dev/shm that is too small. From the
# repository root: `bash tests/gpu/doctor.sh [RANKS]`. Needs python3 with torch and nvidia-ml-py; about 2 minutes.
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
for folder in entrypoint profiles; do ln -sfn "$root/$folder" "$work/ns/dsv4_serve/$folder"; done
export PYTHONPATH=$work/ns${PYTHONPATH:+:$PYTHONPATH} PYTHONDONTWRITEBYTECODE=1

names=$(python3 -c 'from dsv4_serve.entrypoint.doctor.driver import read_driver
d = read_driver(); print(f"{len(d.gpus)} x {d.gpus[0].name}, driver {d.version}")')
time python3 -m dsv4_serve.entrypoint.doctor.record "$out/recording.json" "recorded: $names, $(date -u +%F)"
cat "$out/recording.json"

python3 - "$ranks" <<'PYTHON'
import os, sys, time
from dsv4_serve.entrypoint.doctor import driver_checks, gpu_checks, host_checks, limit_checks, topology_checks
from dsv4_serve.entrypoint.doctor.asked import Asked
from dsv4_serve.entrypoint.doctor.host import read_host
from dsv4_serve.entrypoint.doctor.topology import choose_set, closest, read_topology
size = int(sys.argv[1])
asked = Asked(gpus=size, group=size, capability="9.0", hardware="h200", interconnect="nvlink", env=dict(os.environ))
began = time.perf_counter()
host = read_host(asked)
topology = read_topology(host.driver, host.visible.indexes)
took = time.perf_counter() - began
for facts, checks in (
    (host, driver_checks.CHECKS + gpu_checks.CHECKS + limit_checks.CHECKS + host_checks.CHECKS), (topology, topology_checks.CHECKS)
):
    for check in checks:
        if problem := check(facts, asked):
            print(check.__name__, problem)
group = closest(topology, size)
print(f"host and topology read in {took * 1000:.0f} ms; group {group}; NCCL set {choose_set(topology, group)}")
PYTHON

python3 "$root/tests/gpu/all_reduce_table.py" --ranks "$ranks" --out "$out/all-reduce.json"
if [ "$(id -u)" = 0 ]; then
    echo "with a /dev/shm of 8 MiB:"
    unshare --mount sh -c "mount -t tmpfs -o size=8m tmpfs /dev/shm &&
        python3 '$root/tests/gpu/all_reduce_table.py' --ranks $ranks --only NCCL_P2P_DISABLE=1" || true
fi
