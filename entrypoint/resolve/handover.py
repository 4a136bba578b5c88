"""The key and other secrets of vLLM: how they reach it, where it listens without one, and what looks like one."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping

from .. import api_key
from ..errors import ConfigError
from ..plan import API_KEY, DEFAULT, Setting
from ..secret import secrets_in
from ..vllm_schema import schema

BY_ENVIRONMENT = {"api-key": API_KEY, "hf-token": "HF_TOKEN"}
"""Flags of vLLM 0.32.0 that hold a secret, and the variables that vLLM reads in their place."""
CLIENT_ROUTES = "dsv4_serve.healthcheck.client_routes.ClientRoutes"
GUARD = "dsv4_serve.healthcheck.key_guard.KeyGuard"
"""Our middlewares; vLLM adds the last one outermost."""
_MEANT = ("APIKEY", "APIKEYS", "APIKEYFILE", "APIKEYFILES", "APIKEYPATH", "APITOKEN")
_OURS = ("DSV4", "VLLM")
_ALIKE = 0.85
_PYTHON_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def by_environment(flags: dict[str, Setting], env: dict[str, Setting]) -> None:
    """
    Move secrets from flags to the environment.

    Raise ConfigError for two places that set the key, for several keys, and for one that no HTTP header can carry.
    """
    if "api-key" in flags and API_KEY in env:
        raise ConfigError(
            f"{flags['api-key'].origin} and {env[API_KEY].origin} both set the API key; remove one of them."
        )
    for flag, variable in BY_ENVIRONMENT.items():
        if flag not in flags or flags[flag].value in (True, None):  # a bare --hf-token holds no token
            continue
        setting = flags.pop(flag)
        values = setting.value if isinstance(setting.value, list) else [setting.value]
        given = [str(value) for value in values if value]  # vLLM ignores an empty one
        if len(given) > 1:
            raise ConfigError(
                f"{setting.origin} holds {len(given)} keys; vLLM takes several only as arguments, which everyone on"
                " its host can read. Use one key."
            )
        if given:
            env[variable] = dataclasses.replace(setting, value=given[0])
    if API_KEY in env and env[API_KEY].value:
        api_key.checked(str(env[API_KEY].value), env[API_KEY].origin)


def check_arguments(flags: Mapping[str, Setting]) -> None:
    """
    Raise ConfigError for a secret in what vLLM takes only as an argument: its model, and flags given several times.

    All others that hold a secret go into a file.
    """
    for name, setting in flags.items():
        repeated = schema.shapes().get(name) == "repeated"
        if (repeated or name == "model") and secrets_in(name, setting.value):
            raise ConfigError(
                f"{setting.origin}: {name} holds a secret, and vLLM takes it only as an argument, which everyone on its"
                " host can read. Give the secret by a variable or a file that the program behind it reads."
            )
    names = flags["middleware"].value if "middleware" in flags else []
    if not all(_PYTHON_NAME.fullmatch(str(name)) for name in names):
        origin = flags["middleware"].origin
        raise ConfigError(f"{origin}: middleware is not valid; it must be a Python name, such as package.module.Class.")


def guarded(flags: dict[str, Setting], env: Mapping[str, Setting]) -> None:
    """
    With a key, add our middlewares: one asks for it on every route, since vLLM leaves `/invocations` open.

    The other answers what clients of the balancer expect, and the balancer requires a key.
    """
    if not (API_KEY in env and env[API_KEY].value):
        return
    before = flags.get("middleware")
    named = list(before.value) if before else []
    added = [one for one in (CLIENT_ROUTES, GUARD) if one not in named]
    if added:
        history = (Setting(before.value, before.origin), *before.overridden) if before else ()
        flags["middleware"] = Setting([*named, *added], f"{DEFAULT} with a key", history)


def host(env: Mapping[str, Setting], *, in_container: bool) -> Setting:
    """Return the address to listen on where nothing names one: loopback, unless a key or a container guards it."""
    if API_KEY in env and env[API_KEY].value:
        return Setting("0.0.0.0", f"{DEFAULT} with a key")  # noqa: S104
    if in_container:
        return Setting("0.0.0.0", f"{DEFAULT} in a container")  # noqa: S104
    return Setting("127.0.0.1", f"{DEFAULT} without a key, outside of containers")


def check_near_misses(environ: Mapping[str, str], env: Mapping[str, Setting]) -> None:
    """Raise ConfigError where no key is set, and a variable looks as if it should set one: the server would be open."""
    if API_KEY in env and env[API_KEY].value:
        return
    for name in sorted(environ):
        if environ[name] and _is_near(name):
            raise ConfigError(
                f"environment {name}: dsv4 does not read it, and the server would have no key;"
                " write the key to a file and set API_KEY_FILE to its path, or unset it."
            )


def _is_near(name: str) -> bool:
    if name in ("API_KEY_FILE", API_KEY):
        return False
    bare = name.upper().replace("_", "").replace("-", "")
    for prefix in _OURS:
        bare = bare.removeprefix(prefix)
    return bare.startswith("A") and bool(difflib.get_close_matches(bare, _MEANT, n=1, cutoff=_ALIKE))
