#!/usr/bin/env bash
# Run the known-answer layouts on a GPU host without network. From the repository root, in this order:
#
#   on_host.sh stage               keep the pieces of the packed vLLM that lie in .gpu/ now (once per delivery), and those of SGLang
#                                  that lie in .gpu-sglang/
#   on_host.sh unpack              unpack them, patch a copy of vllm/, restore compiled kernels from pieces named kernels.*
#   on_host.sh unpack-sglang       unpack SGLang, restore its kernels from pieces named sglang.*, and compile FlashInfer's experts for
#                                  SM 9.0 in the background, with all cores but $SPARE (4); sglang-prebuild.log
#   on_host.sh faults TP JOB...    qualification/gpu/run_faults.py; faults.json, logs and kernels go to $OUT
#   on_host.sh pair TP GPUS [LAYOUT]
#                                  qualification/gpu/run_pair.py: replicas of TP of GPUS (0,1,2,3) each behind HAProxy, with a known-answer
#                                  checkpoint; pair.json, logs and kernels go to $OUT. .gpu-tools/haproxy/ holds HAProxy and its libraries;
#                                  $PATIENCE (300) seconds for a start; $STEPS (start,kill,after kill,hang) for some of its steps
#   on_host.sh caches TP           qualification/gpu/run_caches.py; caches.json and logs go to $OUT
#   on_host.sh pack [OPTION...]    qualification/gpu/run_packs.py: a first start without a kernel pack and with one; packs.json, logs and
#                                  the pack, in pieces pack.*, go to $OUT. Pieces pack.* of a delivery are taken for a pack of another host,
#                                  and no cold start is made. One GPU's share: CUDA_VISIBLE_DEVICES=0 on_host.sh pack --share 2 --export-only.
#                                  PACKS=NAME takes another folder than packs, for a second run beside it
#   on_host.sh restart [OPTION...] VARIANT...
#                                  qualification/gpu/run_restarts.py with the caches of `pack`; restart.jsonl and logs go to $OUT. The startup
#                                  plan of vLLM, its fallback where 2 GiB less are free, and a killed engine: restart --share 2 - kill
#                                  VLLM_ENABLE_STARTUP_PLAN=1 VLLM_ENABLE_STARTUP_PLAN=1 TAKE_GIB=2,VLLM_ENABLE_STARTUP_PLAN=1
#                                  Both go on when a call has to end: after $WAIT seconds (530) it returns, and the same line again waits on
#   on_host.sh gemms [OPTION...]   qualification/gpu/run_gemms.py: DeepGEMM's kernels in many processes and in one; gemms.json goes to $OUT
#   on_host.sh experts [LAYER...]  qualification/gpu/expert_kernels: schedules of Humming's experts (mxfp4-fp8,w13,2; those of plans at TP=2) on one GPU
#                                  in $DEADLINE (250) seconds; experts.jsonl and tables/ for VLLM_TUNED_CONFIG_FOLDER go to $OUT. Pieces
#                                  experts.* of $PIECES (those of the delivery) hold kernels of `compile`. Run again, it continues
#   on_host.sh loaders FOLDER [GB] qualification/gpu/weight_loaders.py on the disk of FOLDER; loaders-NAME.json goes to $OUT; $DEADLINE
#   on_host.sh speed FILE[:NAME,...]@GPUS...
#                                  qualification/gpu/speed.py for each FILE.toml on its GPUs (0,1), or for the variants that are named,
#                                  side by side; $DEADLINE seconds. KERNELS=shared takes and fills the cache of the known-answer layouts;
#                                  KERNELS=sglang brings back SGLang's kernels instead of ours
#   on_host.sh tune OPTION...      `dsv4 tune` with these options; $MODEL, $PROFILE (64k), $HOURS (0.14). tune.tar.xz (result, starts,
#                                  profile, logs) and kernels go to $OUT. Run again on the host, it continues
#   on_host.sh splits              qualification/gpu/splits.py; splits.json goes to $OUT
#   on_host.sh watch               qualification/gpu/gpu_watch.py: which faults of these GPUs can be noticed; watch.json goes to $OUT
#   on_host.sh memory [NAME...]    qualification/gpu/kv_lines.py; kv-lines.jsonl, logs and kernels go to $OUT; $DEADLINE, $LIMIT
#   on_host.sh strict [LAYOUT]     qualification/gpu/tool_strict.py on the first GPU; tool-strict.jsonl, the log and kernels go to $OUT; $DEADLINE
#   on_host.sh numerics [JOB...]   qualification/gpu/run_numerics.py; numerics.jsonl, numerics.zip (answers, logs) and kernels go to $OUT;
#                                  $DEADLINE, $PARALLEL, $GPUS
#   on_host.sh qualify TP MODEL... `dsv4 qualify` for each model of profiles/models at $PROFILE (64k), $MINUTES (8) each, with $OPTIONS;
#                                  results, pages, qualify-logs.tar.xz and kernels go to $OUT. Run again on the host, it continues
#   on_host.sh run TP JOB...       qualification/gpu/run_layouts.py; results, logs and kernels go to $OUT, each result at once;
#                                  `python -m qualification.gpu.unfold FILE.jsonl` makes a file of each, where they are kept
#
# DSV4_HOST (default $HOME/dsv4-host) is the place for all of it. SERVE_CMD replaces the product's command by another
# one, `{model}` standing for the checkpoint and `{name}` for the name of its layout in profiles/models. KERNELS=no
# leaves kernels out of $OUT, which holds 8 files; two jobs can run side by side, each with its own $OUT. DEADLINE,
# TIMEOUT, PARALLEL, PORT and GPUS go to run_layouts.py.
set -euo pipefail
base=${DSV4_HOST:-$HOME/dsv4-host}
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$base/pieces" "$base/home"

# Multicast over NVLink can put shared GPUs out of service: off in every library that would use it.
no_multicast="NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1"
export $no_multicast
export VLLM_ALLREDUCE_USE_SYMM_MEM=0 VLLM_ALLREDUCE_USE_FLASHINFER=0
export VLLM_DEEP_GEMM_WARMUP=skip HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export HOME=$base/home XDG_CACHE_HOME=$base/home/.cache VLLM_CACHE_ROOT=$base/home/.cache/vllm

package() {  # the repository's folders as the package dsv4_serve
    mkdir -p "$base/ns/dsv4_serve"
    local folder
    for folder in demo entrypoint healthcheck patcher profiles; do
        [ ! -d "$root/$folder" ] || ln -sfn "$root/$folder" "$base/ns/dsv4_serve/$folder"
    done
}

engine() {  # what a pip installation has as bin/vllm
    mkdir -p "$base/bin"
    printf '#!/bin/sh\nexec python3 -m vllm.entrypoints.cli.main "$@"\n' > "$base/bin/vllm"
    chmod +x "$base/bin/vllm"
    export DSV4_VLLM=$base/bin/vllm
}

sglang() {  # what a pip installation has as bin/sglang, and its Python; caches in a HOME of its own, so that save_kernels can tell them apart
    mkdir -p "$base/bin" "$base/home-sglang"
    local site=$base/site-sglang
    printf '#!/bin/sh\nunset XDG_CACHE_HOME VLLM_CACHE_ROOT FLASHINFER_WORKSPACE_BASE TRITON_CACHE_DIR TILELANG_CACHE_DIR TORCHINDUCTOR_CACHE_DIR\n%s\nexec python3 "$@"\n' \
        "unset HUMMING_CACHE_DIR CUDA_CACHE_PATH; export HOME=$base/home-sglang CUTE_DSL_CACHE_DIR=$base/home-sglang/.cache/cute-dsl $no_multicast PYTHONPATH=$site:$site/nvidia_cutlass_dsl/dsl_packages" \
        > "$base/bin/sglang-python"
    printf 'if __name__ == "__main__":\n    from sglang.cli.main import main\n\n    main()\n' > "$base/bin/sglang-main.py"
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$base/bin/sglang-python" "$base/bin/sglang-main.py" > "$base/bin/sglang"
    chmod +x "$base/bin/sglang" "$base/bin/sglang-python"
    export PATH=$base/bin:$PATH
}

zstd() {  # the one that came with the pieces
    local pieces=$base/pieces
    [ -x "$pieces/zstd" ] || pieces=$base/pieces-sglang
    LD_LIBRARY_PATH=$pieces "$pieces/zstd" --long=27 "$@"
}

save_kernels() {  # compiled kernels, in pieces that a later delivery can carry; KERNELS=no leaves the room to other files
    [ "${KERNELS:-}" != no ] || return 0
    local name=kernels home=$base/home
    if [ "${KERNELS:-}" = sglang ]; then name=sglang home=$base/home-sglang; fi
    tar -C "$home" -cf - . | zstd -T0 -10 -c | split -b 15000000 - "$OUT/$name." || true
    ls -1 "$OUT/$name".* | tail -n +5 | xargs -r rm -f
}

share_caches() {  # one cache for all layouts, so that none compiles what another has
    local caches=$base/home/kernels
    export VLLM_CACHE_ROOT=$caches/vllm FLASHINFER_WORKSPACE_BASE=$caches/flashinfer TILELANG_CACHE_DIR=$caches/tilelang
    export HUMMING_CACHE_DIR=$caches/humming TRITON_CACHE_DIR=$caches/triton TORCHINDUCTOR_CACHE_DIR=$caches/inductor
    export CUTE_DSL_CACHE_DIR=$caches/cute-dsl CUDA_CACHE_PATH=$caches/cuda
}

balancer() {  # HAProxy, if the host has none
    local tools=$root/.gpu-tools/haproxy
    [ -x "$tools/haproxy" ] || return 0
    mkdir -p "$base/bin"
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/haproxy "$@"\n' "$tools" "$tools" > "$base/bin/haproxy"
    chmod +x "$base/bin/haproxy"
    export HAPROXY=$base/bin/haproxy
}

detached() {  # FOLDER LOG COMMAND...: run it in a session of its own; wait $WAIT seconds, and go on waiting at the next call
    local folder=$1 log=$1/$2 pid until=$((SECONDS + ${WAIT:-530}))
    shift 2
    if [ ! -f "$folder/pid" ]; then
        rm -f "$folder/rc"
        folder=$folder setsid nohup bash -c '"$@"; echo $? > "$folder/rc"' detached "$@" > "$log" 2>&1 < /dev/null &
        echo $! > "$folder/pid"
    fi
    pid=$(cat "$folder/pid")
    while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $until ]; do sleep 1; done
    tail -n 40 "$log" | cut -c1-1500
    if kill -0 "$pid" 2>/dev/null; then
        echo "it goes on as process $pid; the same line again waits for it"
        return 0
    fi
    rm "$folder/pid"
    return "$(cat "$folder/rc" || echo 1)"
}

site() {  # PYTHONPATH: the stock tree, `patched` before it when named; then the repository
    local stock=$base/site
    echo "${1:+$base/$1:}$stock:$stock/nvidia_cutlass_dsl/dsl_packages:$base/ns:$root"
}

gather_tune() {  # into one file at $OUT, whatever ends the run
    [ -z "${OUT:-}" ] || tar -C "$out" -cJf "$OUT/tune.tar.xz" --ignore-failed-read tune.txt $(cd "$out" && ls -d tune profiles tmp/dsv4-tune-logs-*/*/log 2>/dev/null) 2>/dev/null || true
}

gather_qualify() {  # what is not in a result yet
    [ -z "${OUT:-}" ] || tar -C "$out" -cJf "$OUT/qualify-logs.tar.xz" --ignore-failed-read $(cd "$out" && ls -d ./*.txt unfinished-*.json tmp/dsv4-*/log 2>/dev/null) 2>/dev/null || true
}

case ${1:-} in
stage)
    for one in "" -sglang; do
        mkdir -p "$base/pieces$one"
        compgen -G "$root/.gpu$one/d*/*" >/dev/null || continue
        cp -lf "$root/.gpu$one"/d*/* "$base/pieces$one/" 2>/dev/null || cp -f "$root/.gpu$one"/d*/* "$base/pieces$one/"
        ls "$base/pieces$one" | wc -l
    done
    ;;
unpack-sglang)
    bash "$base/pieces-sglang/unpack.sh" "$base/site-sglang"
    if compgen -G "$base/pieces-sglang/sglang.*" >/dev/null; then
        cat "$base"/pieces-sglang/sglang.* | zstd -d -c | tar -C "$base/home-sglang" -xf - || echo "SGLang's kernel archive is cut short"
    fi
    sglang
    "$base/bin/sglang" version
    setsid nice -n 19 env MAX_JOBS=$(($(nproc) - ${SPARE:-4})) "$base/bin/sglang-python" -c '
import time
began = time.monotonic()
import sglang  # names the folder of FlashInfer
from flashinfer.jit.fused_moe import gen_cutlass_fused_moe_sm90_module
gen_cutlass_fused_moe_sm90_module().build_and_load()
print(f"compiled after {time.monotonic() - began:.0f} s")' > "$base/sglang-prebuild.log" 2>&1 < /dev/null &
    ;;
unpack)
    package
    bash "$base/pieces/unpack.sh" "$base/site"
    for more in "$base"/pieces/*.tar; do  # packages that neither the host nor the pieces have
        [ ! -f "$more" ] || tar -C "$base/site" -xf "$more"
    done
    mkdir -p "$base/patched"
    cp -a "$base/site/vllm" "$base"/site/vllm-*.dist-info "$base/patched/"
    for step in apply verify "report --out $base/patches.json"; do
        PYTHONPATH=$base/ns python3 -m dsv4_serve.patcher ${step%% *} --tree "$base/patched" --series 0.32.0 \
            $(case $step in report*) echo "${step#report }" ;; esac)
    done
    if compgen -G "$base/pieces/kernels.*" >/dev/null; then
        cat "$base"/pieces/kernels.* | zstd -d -c | tar -C "$base/home" -xf - || echo "the kernel archive is cut short; the rest compiles again"
    fi
    # Bytecode once, not in each of many processes that start at the same time.
    python3 -m compileall -q -j 0 "$base"/site/{vllm,torch,transformers,flashinfer,tilelang,triton} "$base/patched" >/dev/null || true
    PYTHONPATH=$(site patched) python3 -c 'import vllm, torch; print(vllm.__version__, vllm.__file__, torch.cuda.device_count())'
    ;;
faults)
    shift
    package
    engine
    tp=$1
    shift
    out=$base/faults-tp$tp
    rm -rf "$out"
    mkdir -p "$out"
    status=0
    if [ -x "$root/.gpu-tools/py-spy" ]; then export PATH="$root/.gpu-tools:$PATH"; fi
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.run_faults --out "$out" --work "$base/checkpoints" \
        --tp "$tp" --jobs "$@" || status=$?
    if [ -n "${OUT:-}" ]; then
        cp "$out/faults.json" "$OUT/faults-tp$tp.json" || true
        (cd "$out" && for log in */log; do tail -c 200000 "$log" > "${log%/log}.log.tail"; done)
        tar -C "$out" -cJf "$OUT/fault-logs-tp$tp.tar.xz" $(cd "$out" && ls | grep 'log.tail$' || true)
        save_kernels
    fi
    exit $status
    ;;
pair)
    package
    engine
    balancer
    share_caches
    out=$base/pair
    rm -rf "$out"
    mkdir -p "$out"
    status=0
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.run_pair --out "$out" --work "$base/checkpoints-pair" \
        --tp "$2" --gpus "$3" --layout "${4:-w4a16}" --patience "${PATIENCE:-300}" ${STEPS:+--steps "$STEPS"} || status=$?
    if [ -n "${OUT:-}" ]; then
        cp "$out/pair.json" "$OUT/" || true
        (cd "$out" && for log in */log; do tail -c 200000 "$log" > "${log%/log}.log.tail"; done) || true
        tar -C "$out" -cJf "$OUT/pair-logs.tar.xz" --ignore-failed-read $(cd "$out" && ls -d ./*.log.tail balancer/haproxy.log) || true
        save_kernels
    fi
    exit $status
    ;;
caches)
    package
    engine
    out=$base/caches
    rm -rf "$out"
    mkdir -p "$out"
    status=0
    if [ -x "$root/.gpu-tools/py-spy" ]; then export PATH="$root/.gpu-tools:$PATH"; fi
    PYTHONPATH=$(site patched) env -u VLLM_CACHE_ROOT python3 -m qualification.gpu.run_caches \
        --out "$out" --work "$base/checkpoints" --tp "${2:-2}" || status=$?
    echo "kept outside of the cache:" && find "$base/home" -newer "$out" -type f | sed "s|$base/home||" | cut -d/ -f1-4 | sort | uniq -c
    if [ -n "${OUT:-}" ]; then
        cp "$out/caches.json" "$OUT/" || true
        for name in cold warm; do tail -c 200000 "$out/$name/log" > "$OUT/$name.log" || true; done
    fi
    exit $status
    ;;
pack)
    shift
    package
    engine
    out=$base/${PACKS:-packs}
    mkdir -p "$out"
    unset VLLM_CACHE_ROOT VLLM_DEEP_GEMM_WARMUP
    options=(--deadline "${DEADLINE:-1500}" "$@")
    if compgen -G "$base/pieces/pack.*" >/dev/null && [[ " $* " != *" --export-only "* ]]; then
        cat "$base"/pieces/pack.* > "$out/other.tar.xz"
        options+=(--pack "$out/other.tar.xz")
    fi
    status=0
    PYTHONPATH=$(site patched) detached "$out" packs.txt python3 -m qualification.gpu.run_packs --out "$out" "${options[@]}" || status=$?
    if [ -n "${OUT:-}" ]; then
        cp "$out"/packs.json "$OUT/" || true
        [ ! -f "$out/kernels.tar.xz" ] || split -b 15000000 "$out/kernels.tar.xz" "$OUT/pack."
        (cd "$out" && tar -cJf "$OUT/pack-logs.tar.xz" *.txt *.log */log) 2>/dev/null || true
    fi
    exit $status
    ;;
speed)
    shift
    package
    engine
    sglang
    balancer
    out=$base/speed
    mkdir -p "$out"
    export DSV4_CACHE=$base/home/dsv4 PYTHONPATH=$(site patched)  # below HOME, so that save_kernels takes it along
    unset VLLM_CACHE_ROOT
    [ "${KERNELS:-}" != shared ] || share_caches
    running=()
    for one in "$@"; do
        IFS=: read -r file only <<< "${one%@*}"
        name=$(basename "$file" .toml)${only:+-${only//,/-}}
        rm -rf "${out:?}/$name" "$out/$name.txt"
        python3 -m qualification.gpu.speed --variants "$file" ${only:+--only ${only//,/ }} --gpus "${one#*@}" --out "$out/$name" \
            --deadline "${DEADLINE:-500}" > "$out/$name.txt" 2>&1 &
        running+=($!)
    done
    status=0
    for one in "${running[@]}"; do wait "$one" || status=$?; done
    if [ -n "${OUT:-}" ]; then
        (cd "$out" && cp -r --parents ./*.txt ./*/*.json "$OUT/") || true
        (cd "$out" && for log in */*/log; do tail -c 100000 "$log" > "$log.tail"; done; tar -cJf "$OUT/speed-logs.tar.xz" */*/log.tail) || true
        save_kernels
    fi
    for text in "$out"/*.txt; do echo "== $text"; tail -n 60 "$text" | cut -c1-700; done
    exit $status
    ;;
tune)
    shift
    package
    engine
    share_caches
    out=$base/tune
    mkdir -p "$out/profiles" "$out/tmp"
    export DSV4_CACHE=$base/tune-cache PYTHONPATH=$(site patched) DSV4_PROFILES=$out/profiles TMPDIR=$out/tmp
    (while sleep 10; do gather_tune; done) & gatherer=$!
    status=0
    python3 -m dsv4_serve.entrypoint tune ${MODEL:+--model "$MODEL"} --profile "${PROFILE:-64k}" --hours "${HOURS:-0.14}" --out "$out" \
        --skip busy-gpu "$@" 2>&1 | tee "$out/tune.txt" || status=$?
    kill "$gatherer" || true
    gather_tune
    if [ -n "${OUT:-}" ]; then save_kernels; fi
    exit $status
    ;;
numerics)
    shift
    package
    engine
    share_caches
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.run_numerics --out "${OUT:-$base/numerics}" --work "$base/checkpoints" \
        --patches "$base/patches.json" --deadline "${DEADLINE:-540}" --parallel "${PARALLEL:-4}" ${GPUS:+--gpus "$GPUS"} ${1:+--jobs "$@"}
    if [ -n "${OUT:-}" ]; then save_kernels; fi
    ;;
restart)
    shift
    package
    engine
    out=$base/restart
    mkdir -p "$out"
    unset VLLM_CACHE_ROOT VLLM_DEEP_GEMM_WARMUP
    status=0
    PYTHONPATH=$(site patched) detached "$out" restart.txt python3 -m qualification.gpu.run_restarts --out "$out" \
        --home "$base/packs/home" --deadline "${DEADLINE:-1500}" "$@" || status=$?
    if [ -n "${OUT:-}" ]; then
        cp "$out"/restart.jsonl "$OUT/" || true
        (cd "$out" && tar -cJf "$OUT/restart-logs.tar.xz" *.txt */log) 2>/dev/null || true
    fi
    exit $status
    ;;
gemms)
    shift
    package
    engine
    unset VLLM_CACHE_ROOT VLLM_DEEP_GEMM_WARMUP
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.run_gemms --out "$base/gemms" --deadline "${DEADLINE:-300}" "$@" || status=$?
    [ -z "${OUT:-}" ] || cp "$base/gemms/gemms.json" "$OUT/"
    exit ${status:-0}
    ;;
experts)
    shift
    package
    share_caches
    pieces=${PIECES:-$base/pieces} kernels=$base/experts status=0
    (
        flock 9  # another GPU's job may have begun at the same time
        if [ ! -d "$kernels" ] && compgen -G "$pieces/experts.*" >/dev/null; then
            mkdir -p "$kernels.part"
            cat "$pieces"/experts.* | zstd -d -c | tar -C "$kernels.part" -xf - || echo "the archive of kernels is cut short; the rest compiles"
            mv "$kernels.part" "$kernels"
        fi
    ) 9> "$kernels.lock"
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.expert_kernels measure --kernels "$kernels" \
        --out "${OUT:-$kernels}/experts.jsonl" --seconds "${DEADLINE:-250}" "$@" || status=$?
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.expert_kernels choose "${OUT:-$kernels}/experts.jsonl" \
        --tables "${OUT:-$kernels}/tables" || status=$?
    exit $status
    ;;
loaders)
    package
    PYTHONPATH=$(site) python3 -m qualification.gpu.weight_loaders "$2" --gb "${3:-79}" --device cuda --deadline "${DEADLINE:-500}" \
        --out "${OUT:-$base}/loaders-$(basename "$2").json"
    ;;
splits)
    package
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.splits
    ;;
watch)
    package
    PYTHONPATH=$(site) python3 -m qualification.gpu.gpu_watch
    ;;
memory)
    shift
    package
    out=$base/memory
    rm -rf "$out"
    mkdir -p "$out"
    share_caches
    status=0
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.kv_lines --work "$out" --record "${OUT:-$out}/kv-lines.jsonl" \
        --deadline "${DEADLINE:-540}" --limit "${LIMIT:-180}" ${1:+--only "$@"} || status=$?
    if [ -n "${OUT:-}" ]; then
        (cd "$out" && for log in *.log; do tail -c 300000 "$log" > "$log.tail"; done; tar -cJf "$OUT/memory-logs.tar.xz" *.log.tail) || true
        save_kernels
    fi
    exit $status
    ;;
strict)
    package
    engine
    share_caches
    status=0
    export FLASHINFER_CUDA_ARCH_LIST=9.0a CUDA_VISIBLE_DEVICES=0
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.tool_strict --work "$base/strict" \
        --layout "${2:-native}" --deadline "${DEADLINE:-230}" --record "${OUT:-$base}/tool-strict.jsonl" || status=$?
    if [ -n "${OUT:-}" ]; then
        tail -c 200000 "$base/strict"/*.log > "$OUT/tool-strict.log" || true
        save_kernels
    fi
    exit $status
    ;;
qualify)
    shift
    package
    engine
    share_caches
    tp=$1
    shift
    out=$base/qualify
    mkdir -p "$out/tmp"
    export DSV4_CACHE=$base/qualify-cache PYTHONPATH=$(site patched) TMPDIR=$out/tmp  # kept, so that a second call goes on
    (while sleep 10; do cp "$DSV4_CACHE"/qualify/unfinished-*.json "$out/" 2>/dev/null || true; gather_qualify; done) & gatherer=$!
    status=0
    for model in "$@"; do
        python3 -m dsv4_serve.entrypoint qualify --profile "${PROFILE:-64k}" --model "$model" --tp "$tp" --minutes "${MINUTES:-8}" \
            --out "${OUT:-$out}" ${OPTIONS:-} 2>&1 | tee "$out/$model.txt" || status=$?
    done
    kill "$gatherer" || true
    gather_qualify
    if [ -n "${OUT:-}" ]; then save_kernels; fi
    exit $status
    ;;
run)
    shift
    package
    engine
    tp=$1
    shift
    out=$base/out-tp$tp
    rm -rf "$out"
    mkdir -p "$out"
    gpus=${GPUS:-$(nvidia-smi -L | wc -l)}
    share_caches
    status=0
    PYTHONPATH=$(site patched) python3 -m qualification.gpu.run_layouts --out "$out" --work "$base/checkpoints" \
        --tp "$tp" --gpus "$gpus" --patches "$base/patches.json" \
        --deadline "${DEADLINE:-520}" --timeout "${TIMEOUT:-420}" --parallel "${PARALLEL:-6}" \
        ${PORT:+--port "$PORT"} ${SERVE_CMD:+--serve-cmd "$SERVE_CMD"} \
        --stock-cmd "env PYTHONPATH=$(site) python3 -m vllm.entrypoints.cli.main serve {model}" \
        ${OUT:+--record "$OUT/results-tp$tp.jsonl"} --jobs "$@" || status=$?
    if [ -n "${OUT:-}" ]; then
        (cd "$out" && for log in *.log; do [ ! -f "$log" ] || tail -c 200000 "$log" > "$log.tail"; done)
        tar -C "$out" -cJf "$OUT/logs-tp$tp.tar.xz" $(cd "$out" && ls | grep 'log.tail$' || true)
        save_kernels
    fi
    exit $status
    ;;
*)
    sed -n "2,/^set /{/^#/p}" "$0"
    exit 64
    ;;
esac
