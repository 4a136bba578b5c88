"""The tables of environment.md: the variables that are read, and those that are set for vLLM."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from dsv4_serve.entrypoint import supervision_settings
from dsv4_serve.entrypoint.bench import routing
from dsv4_serve.entrypoint.catalog.catalog import SHIPPED
from dsv4_serve.entrypoint.plan import TUNED_KERNELS
from dsv4_serve.entrypoint.resolve.environment import FLAGS, Variables
from dsv4_serve.entrypoint.resolve.expert_input import BF16, GROUPS
from dsv4_serve.entrypoint.resolve.expert_input import VARIABLE as EXPERT_INPUTS
from dsv4_serve.entrypoint.secret import is_secret
from dsv4_serve.entrypoint.supervisor import kernel_cache
from tools.reference.attributes import described
from tools.reference.markdown import code, prose, table

COMMANDS = {
    "DSV4_HEALTH_PORT": ("The port of the health server; `serve` takes any free one for 0.", "8001"),
    "DSV4_HEALTH_HOST": ("The address that the health server listens on.", "0.0.0.0"),  # noqa: S104 - text
    "DSV4_EVAL_PYTHON": ("A Python that has lm-eval, for `dsv4 eval`.", "the one that runs `dsv4`"),
    "DSV4_IMAGE": ("The image of the replicas, for `dsv4 up`, `dsv4 bundle` and compose.", "dsv4-serve"),
    "DSV4_CPU_IMAGE": ("The image of the profile `demo`, for `dsv4 up` and compose.", "dsv4-serve:cpu"),
    "BALANCER_IMAGE": ("The image of HAProxy, for `dsv4 up`, `dsv4 bundle` and compose.", "HAProxy 3.0 by digest"),
    "CANARY_KEY_FILE": ("The file of the key that sets the candidates' share, for `dsv4 canary`.", ""),
    "VLLM_API_KEY": ("The bearer key itself; `docker inspect` shows it, unlike a key in API_KEY_FILE.", ""),
}
"""Variables of ours that `Variables` does not hold: what each is, and its default."""

OTHERS = {
    "VLLM_* and NCCL_* and PYTORCH_* and TORCH* and CUDA_* and TRITON_* and FLASHINFER_*": (
        "Settings of the plan, above those of profile files; names in VLLM_* have to be vLLM's. CUDA_VERSION is none."
    ),
    "DG_* and TILELANG_* and CUBLAS_* and CUDNN_* and LD_PRELOAD and NVIDIA_TF32_OVERRIDE and MAX_JOBS": (
        "Settings of the plan too: they change what kernels compute, which code runs, or how it is compiled."
    ),
    "CUDA_VISIBLE_DEVICES": "The GPUs that may be used; its order is kept.",
    "CUDA_HOME": "The CUDA toolkit that the doctor looks for compilers in.",
    "HF_TOKEN": "The token of the Hub for gated and private repositories.",
    "HF_HOME": "The folder of Hugging Face's files, in which the Hub's cache is `hub`.",
    "HF_HUB_CACHE": "The Hub's cache.",
    "HUGGINGFACE_HUB_CACHE": "The former name of HF_HUB_CACHE.",
    "HF_ENDPOINT": "The address of the Hub.",
    "HF_HUB_OFFLINE": "1 forbids requests to the Hub.",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1 lets `max-model-len` be larger than the positions of the model.",
    "VLLM_ENABLE_STARTUP_PLAN": "1 lets vLLM keep the memory that it measured; the kernel cache is the same with it.",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0, the default of numerics, keeps vLLM's engine in the process that compares.",
    "VLLM_USE_SIMPLE_KV_OFFLOAD": "1 is refused with `kv-offloading-size`: it takes a connector that is not counted.",
    "VLLM_USE_MODELSCOPE": "True lets vLLM download from ModelScope; `serve` then fetches nothing.",
    "HTTPS_PROXY": "The proxy for requests to the Hub.",
    "CC": "The C compiler that the doctor looks for.",
    "LD_LIBRARY_PATH": "Where the doctor looks for a CUDA compatibility package.",
    "PYTHONPATH": "Kept by `make demo`, which puts a patched copy of vLLM before it.",
    "DOCKER_HOST": "The container engine of `dsv4 up`, `down`, `status`, `logs` and `bundle`.",
    "DOCKER_CONFIG": "The folder of config.json, which holds the credentials of registries for `dsv4 kernels`.",
    "OTEL_*": "Settings of vLLM's traces, which `dsv4 up` passes on, but for headers: they hold secrets.",
    "TERM": "A terminal that is `dumb` gets whole lines in place of an updating one.",
    "NO_COLOR": "Any text leaves the colours of `dsv4 top` out.",
    "HOSTNAME": "The name of the pod in the advice for a GPU that failed.",
    "USER": "What `--share` leaves out of a published result.",
    "LOGNAME": "What `--share` leaves out of a published result.",
    "XDG_CACHE_HOME": "The user's cache, in place of `~/.cache`.",
    "XDG_STATE_HOME": "The user's state, in place of `~/.local/state`; the run directory is in it.",
    "XDG_RUNTIME_DIR": "Where podman's socket is looked for.",
    "HOME": "The home folder, from which the defaults of caches and state follow.",
    "PATH": "Where `vllm` and other programs are looked for.",
    "NCCL_GRAPH_FILE": "The doctor checks that the file exists.",
    "NCCL_TOPO_FILE": "The doctor checks that the file exists.",
}
"""Variables of other programs that are read as those programs read them."""

COMPOSE = {
    "COMPOSE_PROFILES": "The services that start: `tp2`, `tp4`, `demo`, `monitoring`.",
    "DSV4_IMAGE": "The image of the replicas.",
    "DSV4_CPU_IMAGE": "The image of the replicas of `demo`.",
    "MODELS": "The folder of weights, mounted at `/models`.",
    "API_KEY_FILE": "The file of the keys; in a container, where it is mounted.",
    "METRICS_KEY_FILE": "A file with one bare key, for Prometheus.",
    "GRAFANA_PASSWORD_FILE": "The file with the password of Grafana's `admin`.",
    "GPU_0": "The first GPU of replica 0.",
    "GPU_1": "The second GPU of replica 0.",
    "GPU_2": "The first GPU of replica 1, or the third of the one replica of `tp4`.",
    "GPU_3": "The second GPU of replica 1, or the fourth of the one replica of `tp4`.",
    "PORT": "The port of the API on this host.",
    "STATUS_PORT": "The port of HAProxy's status page on this host.",
    "BALANCER_IMAGE": "The image of HAProxy.",
    "PROMETHEUS_IMAGE": "The image of Prometheus.",
    "PROMETHEUS_PORT": "The port of Prometheus on this host.",
    "GRAFANA_IMAGE": "The image of Grafana.",
    "GRAFANA_PORT": "The port of Grafana on this host.",
    "REPLICA_MAXCONN": "Requests that one replica gets at once; the others wait in the balancer.",
    "REPLICA_MEMORY": "The memory limit of a replica's container.",
    "REPLICA_SHM": "The shared memory of a replica's container.",
    "REPLICA_PIDS": "The most processes and threads of a replica's container.",
    "PROMETHEUS_MEMORY": "The memory limit of Prometheus.",
    "REPLICA_TIMEOUT": "The longest wait for the next byte of a replica.",
    "QUEUE_TIMEOUT": "The longest wait of a request for a replica.",
    "REPLICA_DNS": "The name server that knows the replicas, as `ADDRESS:PORT`; that of the container if not set.",
    "REPLICA_NAME": "The name that stands for all replicas.",
    "REPLICA_PLACES": "The most replicas that are found.",
    "REPLICA_PORT": "The port of the replicas' API.",
    "REPLICA_HEALTH_PORT": "The port of the replicas' health servers.",
    "BALANCER_MAXCONN": "Connections of clients at once, at most 4700; further ones wait to be accepted.",
    "BALANCER_SOURCE_MAXCONN": "Connections from one address at once; further ones are closed.",
    "CANDIDATE_NAME": "The name that stands for all candidates of `dsv4 canary`; without it there is no canary route.",
    "CANARY_KEY_FILE": "The file of the key that sets their share.",
    "BALANCER_MAX_BODY": "The largest body of a request, in bytes; a larger one is answered 413.",
    "BALANCER_CERTIFICATE": "The certificate of the API, with its key in it or in `.key`; plain HTTP if not set.",
    "CORS_ORIGINS": "Origins of web pages that may read answers, separated by blanks; none if not set.",
    "CERTIFICATES": "The folder of the certificate on this host.",
    "ACME_DOMAIN": "The name in the certificate that lego gets.",
    "ACME_EMAIL": "The address that the CA may write to.",
    "ACME_PORT": "The port of this host on which lego answers the CA.",
    "ACME_SERVER": "The directory of the CA.",
    "LEGO_IMAGE": "The image of lego, by digest.",
    "BALANCER_PORT": "The port that HAProxy listens on.",
    "BALANCER_STATUS_PORT": "The port of HAProxy's status page.",
    "BALANCER_SOCKET": "HAProxy's admin socket.",
}
"""Variables of compose and of the balancer."""
COMPOSE_FILES = (
    ".env",
    "docker-compose.yml",
    "deploy/haproxy/haproxy.cfg",
    "deploy/tls/compose.yml",
    "deploy/tls/acme.yml",
)
"""Where they stand with their defaults, relative to the top of the repository."""

_CACHE = "A folder in DSV4_CACHE, unless it is set already."
SET = {
    **dict.fromkeys(kernel_cache.VARIABLES, ("`serve`", _CACHE)),
    "VLLM_API_KEY": (
        "`serve`",
        "A key of its own, with API_KEY_FILE; vLLM gets it for each request with a key of the file.",
    ),
    "VLLM_RPC_BASE_PATH": ("`serve`", "The folder of this start's temporary files, removed at its end."),
    "TMPDIR": ("`serve`", "The same."),
    "VLLM_TRITON_JIT_WARMUP_NUM_THREADS": (
        "`serve`",
        "On a first start, the node's cores divided by its ranks, 5 to 16; vLLM's own is 4.",
    ),
    "VLLM_SPARE_PROCESSES": (
        "`serve`",
        "With `supervise.spare-processes`: processes that vLLM launches before its imports, and each of them.",
    ),
    "VLLM_USE_BREAKABLE_CUDAGRAPH": (
        "`serve`",
        "1 with `supervise.spare-processes`, as vLLM sets it for DeepSeek-V4, but before the imports.",
    ),
    EXPERT_INPUTS: (
        "the plan",
        f"`{GROUPS}` for DeepSeek's layouts on H200 SXM, without tables slower for one request; `{BF16}` undoes it.",
    ),
    TUNED_KERNELS: (
        "the plan",
        "The folder `tuned-kernels` of the hardware's file, where one of its tables may fit; an empty one undoes it.",
    ),
    "CUDA_DEVICE_ORDER": ("the topology", "PCI_BUS_ID, where GPUs are chosen by topology."),
    "CUDA_VISIBLE_DEVICES": ("the topology", "The GPUs with the closest ones first, unless it is set."),
    routing.VARIABLE: (
        "`--without-weights`",
        f"`{routing.SPREAD}`, or `{routing.RANDOM}` without the patch: each token goes to random experts.",
    ),
    "HF_ALLOW_CODE_EVAL": ("`eval`", "1 with `--confirm-run-unsafe-code`."),
    "TOKENIZERS_PARALLELISM": ("`eval`", "false."),
    "DSV4_EVAL_KEY": ("`eval`", "The bearer key, for the process that runs lm-eval."),
}
"""Variables that the code sets for the processes that it starts: who does, and the value."""


def tables() -> dict[str, str]:
    """Return the variables of plans, of the supervisor, of commands, of others, of compose, and what is set."""
    about = described(Variables)
    plan = (
        (code(name), prose(about[name]), code(FLAGS[name]) if name in FLAGS else "", secret(name))
        for name in Variables.model_fields
    )
    supervisor = ((code(variable), code(name)) for variable, name in supervisor_variables().items())
    commands = ((code(name), text, default, secret(name)) for name, (text, default) in COMMANDS.items())
    others = ((code(*name.split(" and ")), text, secret(name)) for name, text in OTHERS.items())
    files = ((code(name), code(value), code(f"profiles/{file}")) for name, value, file in of_profile_files())
    ours = ((code(name), by, prose(text), secret(name)) for name, (by, text) in SET.items())
    return {
        "plan": table(("variable", "what it is", "vLLM's flag", "secret"), plan),
        "supervisor": table(("variable", "setting"), supervisor),
        "commands": table(("variable", "what it is", "default", "secret"), commands),
        "others": table(("variable", "what it is", "secret"), others),
        "compose": table(("variable", "what it is", "default", "file"), _compose()),
        "set by profile files": table(("variable", "value", "file"), files),
        "set by dsv4": table(("variable", "set by", "value", "secret"), ours),
    }


def of_compose() -> dict[str, tuple[str, str]]:
    """Return the variables of compose and of the balancer: the default, and the first file that has it."""
    found: dict[str, tuple[str, str]] = {}
    for file in COMPOSE_FILES:
        text = (SHIPPED.parent / file).read_text(encoding="utf-8")
        pattern = r"^([A-Z_]+)=(.*)$" if file == ".env" else r"\$\{([A-Z][A-Z0-9_]*)(?::?-([^}@]*))?"
        for name, default in re.findall(pattern, text, re.MULTILINE):
            found.setdefault(name, (default, file))
    return found


def _compose() -> Iterator[tuple[str, ...]]:
    found = of_compose()
    for name, text in COMPOSE.items():
        default, file = found[name]
        yield code(name), text, code(default) if default else "", code(file)


def supervisor_variables() -> dict[str, str]:
    """Return every variable of the supervisor with its setting."""
    return {supervision_settings.variable_of(name): name for name in sorted(supervision_settings.names())}


def of_profile_files() -> Iterator[tuple[str, Any, str]]:
    """Yield each variable that a shipped profile file sets, with its value and the file."""
    found = set()
    for path in sorted(SHIPPED.rglob("*.toml")):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for block in (content, *content.get("when", ())):
            env: Mapping[str, Any] = block.get("env", {})
            found |= {(name, str(value), path.relative_to(SHIPPED).as_posix()) for name, value in env.items()}
    yield from sorted(found)


def secret(name: str) -> str:
    """Return whether a variable holds a secret, which no output shows."""
    return "yes" if is_secret(name) else ""
