"""The environment layer: the variables that `docker run -e` and a compose file set."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .. import listen, supervision_settings
from ..api_key import key_in
from ..errors import ConfigError, SeveralProblems, gathered
from ..machine import container
from ..plan import DRAFT_TOKENS, TENSOR_PARALLEL_SIZE, Setting
from ..request import Layer, Request, agreed
from ..validation import reason
from ..vllm_schema import schema
from ..vllm_schema import settings as flatten

FLAGS = {
    "TP": TENSOR_PARALLEL_SIZE,
    "MAX_MODEL_LEN": "max-model-len",
    "MAX_NUM_SEQS": "max-num-seqs",
    "MAX_NUM_BATCHED_TOKENS": "max-num-batched-tokens",
    "GPU_MEMORY_UTILIZATION": "gpu-memory-utilization",
    "GPU_MEM_UTIL": "gpu-memory-utilization",
    "NUM_SPECULATIVE_TOKENS": DRAFT_TOKENS,
    "SERVED_MODEL_NAME": "served-model-name",
    "PORT": "port",
}
"""Variables that set a flag of vLLM."""

_OF_THE_PLAN = (
    *("VLLM_", "NCCL_", "PYTORCH_", "TORCH", "CUDA_", "TRITON_", "FLASHINFER_"),
    *("DG_", "TILELANG_", "CUBLAS_", "CUDNN_", "LD_PRELOAD", "NVIDIA_TF32_OVERRIDE", "MAX_JOBS"),
)
"""How the names of variables begin that change the engine."""
_CHANGES_NOTHING = frozenset({"CUDA_VERSION"})  # a label of CUDA's images


class Variables(BaseSettings):
    """Our variables; an empty one counts as unset, because compose files write `${PROFILE:-}`."""

    model_config = SettingsConfigDict(case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True)

    PROFILE: str | None = None
    """The profile to serve, or `auto`, `auto:context`, `auto:throughput`."""
    MODEL: str | None = None
    """A model, a Hub repository, a folder, or NAME=FOLDER."""
    HARDWARE: str | None = None
    """The kind of GPU; read through NVML if not set."""
    TP: str | None = None
    """Tensor parallel size: the number of GPUs that the model is split over."""
    MAX_MODEL_LEN: str | None = None
    """The context, in tokens."""
    MAX_NUM_SEQS: str | None = None
    """The most sequences in one step."""
    MAX_NUM_BATCHED_TOKENS: str | None = None
    """The most tokens in one step."""
    GPU_MEMORY_UTILIZATION: str | None = None
    """The share of a GPU's memory that vLLM may use, above 0 and up to 1."""
    GPU_MEM_UTIL: str | None = None
    """Another spelling of GPU_MEMORY_UTILIZATION."""
    NUM_SPECULATIVE_TOKENS: str | None = None
    """Draft tokens in each step; 0 switches speculation off."""
    SERVED_MODEL_NAME: str | None = None
    """The model's name in the API, or several, separated by spaces or commas."""
    PORT: str | None = None
    """The port of vLLM's API."""
    API_KEY_FILE: Path | None = None
    """A file with the keys of the API: lines of NAME KEY [requests/min] [concurrent], or one bare key."""
    DSV4_KEY_LIMITS: Literal["on", "off"] | None = None
    """`off` where a balancer enforces the limits of the key file; `on` if not set. Usage is counted either way."""
    DSV4_OPEN_ROUTES: str | None = None
    """Routes of vLLM that need no key, separated by commas; `/health,/ping` if not set."""
    DSV4_PROFILES: str | None = None
    """Folders of your own profile files, separated by colons; a file there replaces the shipped one of its name."""
    DSV4_NCCL: str | None = None
    """A set of NCCL variables, or `none`."""
    DSV4_SKIP: str | None = None
    """Names of checks and constraints to override, separated by commas."""
    DSV4_VLLM: str | None = None
    """The program `vllm` to start; the one next to `dsv4` if not set, else the one on PATH."""
    DSV4_CACHE: Path | None = None
    """The folder of compiled kernels; `dsv4` in the user's cache if not set."""
    DSV4_KERNELS: str | None = None
    """Kernel packs that a start imports: folders, and oci://HOST/REPOSITORY@sha256:…, separated by commas."""
    DSV4_RUN_DIR: Path | None = None
    """The folder of what outlives a restart: record of failures, plan, last exit, stacks."""
    DSV4_LOG_FORMAT: Literal["text", "json"] = "text"
    """How `serve` logs: `text`, or `json` with one object a line; text if not set."""
    DSV4_TERMINATION_LOG: Path = Path("/dev/termination-log")
    """The file that gets the cause of the end if it exists, for Kubernetes; /dev/termination-log if not set."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment alone: each other source takes as long, and finds nothing."""
        return (env_settings,)


def read() -> Request:
    """Return the request of the environment; raise ConfigError for what it may not hold."""
    request = read_all()
    if request.problems:
        raise SeveralProblems(request.problems)
    return request


def read_all() -> Request:
    """Return the request of the environment, with every problem of it."""
    given = {name: value for name, value in variables().model_dump().items() if value is not None}
    choices = {
        key: Setting(str(given[name]), f"environment {name}")
        for key, name in (("profile", "PROFILE"), ("model", "MODEL"), ("hardware", "HARDWARE"), ("nccl", "DSV4_NCCL"))
        if name in given
    }
    problems: list[str] = []
    layer = Layer(
        _flags(given, problems),
        gathered(problems, lambda: _key(given), {}),
        gathered(problems, lambda: supervision_settings.from_environment(os.environ), {}),
    )
    skip = tuple(part.strip() for part in given.get("DSV4_SKIP", "").split(",") if part.strip())
    return Request(
        choices,
        skip=skip,
        environment=layer,
        operator=dict(os.environ),
        in_container=container.inside(os.environ),
        problems=tuple(problems),
    )


def variables() -> Variables:
    """Return our variables; raise ConfigError for one of the wrong type."""
    listen.health_address(os.environ)  # every command rejects an invalid one at once
    try:
        return _variables(frozenset((name, os.environ[name]) for name in Variables.model_fields if name in os.environ))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(
            f"environment {first['loc'][0]} = {first['input']!r} is not valid: {reason(first['msg'])}."
        ) from None


@functools.lru_cache(maxsize=1)
def _variables(_given: frozenset[tuple[str, str]]) -> Variables:
    """Read them; a command asks twice, and each reading takes a millisecond."""
    return Variables()


def folders() -> list[Path]:
    """Return the folders that DSV4_PROFILES names."""
    return [Path(part) for part in (variables().DSV4_PROFILES or "").split(":") if part]


def _flags(given: Mapping[str, object], problems: list[str]) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    for name, flag in FLAGS.items():
        if name in given:
            before = settings.get(flag)
            found = gathered(problems, lambda: agreed(flag, before, _flag(name, flag, str(given[name]))), before)  # noqa: B023
            settings |= {flag: found} if found else {}
    return settings


def _flag(name: str, flag: str, text: str) -> Setting:
    origin, text = f"environment {name}", text.strip()
    value = text.replace(",", " ").split() if name == "SERVED_MODEL_NAME" else text
    return Setting(schema.check_value(flag, value, origin), origin)


def _key(given: Mapping[str, object]) -> dict[str, Setting]:
    if "API_KEY_FILE" not in given:
        return {}
    path = given["API_KEY_FILE"]
    origin = f"environment API_KEY_FILE = {path}"
    if os.environ.get("VLLM_API_KEY"):
        raise ConfigError(f"{origin} and environment VLLM_API_KEY conflict; remove one of them.")
    return {"VLLM_API_KEY": Setting(key_in(str(path), origin), origin)}


def operator_layer(
    environ: Mapping[str, str], set_below: frozenset[str], skip: Collection[str] = ()
) -> tuple[Layer, list[str]]:
    """
    Return the variables of the process environment that belong to the plan, and every problem of those.

    They are those that change the engine. One that vLLM does not read is passed on where it is skipped by its name.
    """
    named = {
        name: value
        for name, value in environ.items()
        if (name.startswith(_OF_THE_PLAN) and name not in _CHANGES_NOTHING) or name in set_below
    }
    unknown = {name for name in named if is_unknown(name)}
    checked, problems = flatten.all_variables({n: v for n, v in named.items() if n not in unknown}, "environment")
    for name in unknown & set(skip):
        checked[name] = named[name]
    for name in sorted(unknown - set(skip)):
        _, wrong = flatten.all_variables({name: named[name]}, "environment")
        problems += [f"{problem} To override this, use --skip {name}." for problem in wrong]
    return Layer(env={name: Setting(value, f"environment {name}") for name, value in checked.items()}), problems


def is_unknown(name: str) -> bool:
    """Tell whether a name is a variable of vLLM's that the pinned version does not read; `--skip` takes such a name."""
    return name.startswith("VLLM_") and name not in schema.facts()["env"]
