"""
Write down what the installed vLLM knows: flags, environment variables, JSON keys, metric names.

Runs where vLLM is installed (the CPU build will do) and reads vLLM's own parser, config classes and
metric registry; nothing is copied from its documentation. The output is the data file beside `dsv4`,
which never imports vLLM itself.

    python -m tools.describe_vllm > entrypoint/vllm_schema/vllm-0.32.0.json
    python -m tools.describe_vllm --check entrypoint/vllm_schema/vllm-0.32.0.json    # exit 1 and a diff when stale
"""

import argparse
import ast
import difflib
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_origin
from unittest import mock

from tools.vllm_fields import (
    Facts,
    annotation,
    config_class,
    field_facts,
    literal_values,
    members,
    object_facts,
    type_name,
)

DEPTH = {"env": 1, "flags": 1, "json": 3, "metrics": 1}  # levels of the file that get a line per item
LINES_SHOWN = 40  # of a --check diff
SWITCH_WORDS = {"0": False, "1": True, "False": False, "True": True, "false": False, "true": True}


def isolate(environ: MutableMapping[str, str]) -> None:
    """Remove every setting that could change what vLLM says about itself, then ask for the CPU platform, quietly."""
    for name in [name for name in environ if name.startswith("VLLM_")]:
        del environ[name]
    environ.update({"VLLM_TARGET_DEVICE": "cpu", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_PLUGINS": ""})


def serve_parser() -> tuple[Any, dict[str, tuple[Any, str]]]:
    """Return the parser of `vllm serve` on CUDA, and for each help text that marks a config field, class and field."""
    arg_utils = import_module("vllm.engine.arg_utils")
    make_arg_parser = import_module("vllm.entrypoints.launchers.cli_args").make_arg_parser
    flexible = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    get_kwargs, origins = arg_utils.get_kwargs, {}

    def marked(cls: Any) -> Any:
        kwargs = get_kwargs(cls)
        for field, options in kwargs.items():
            options["help"] = f"{cls.__name__}.{field}"
            origins[options["help"]] = (cls, field)
        return kwargs

    with (
        mock.patch.object(arg_utils, "get_kwargs", marked),
        mock.patch.object(arg_utils.current_platform, "device_type", "cuda"),
    ):
        return make_arg_parser(flexible(prog="vllm serve")), origins


def converters(action: Any) -> list[Any]:
    """The chain of conversions that an action applies, outermost first: vLLM nests them in closures."""
    chain = [action.type]
    while getattr(chain[-1], "__name__", "") in {"_optional_type", "_parse_type"}:
        chain.append(chain[-1].__closure__[0].cell_contents)
    return chain


def flag_type(action: Any) -> str | list[str]:
    """One of bool, int, float, str, json, or the list of those that the flag takes."""
    if action.nargs == 0:
        return "bool"
    if action.type is None:
        return "str"
    last = getattr(converters(action)[-1], "__name__", "")
    named: dict[str, str | list[str]] = {
        "int": "int", "human_readable_int": "int", "human_readable_int_or_auto": "int", "float": "float",
        "loads": "json", "parse_dataclass": "json", "union_dict_and_str": ["json", "str"],
    }  # fmt: skip
    return named.get(last, "str")


def switches_off(action: Any, option: str) -> bool:
    """Say whether one spelling of a flag means the opposite: --no-x, and --disable-x of --enable-x since vLLM 0.33."""
    if isinstance(action, argparse.BooleanOptionalAction):
        found = argparse.Namespace()
        action(argparse.ArgumentParser(), found, None, option)
        return not getattr(found, action.dest)
    return option.startswith("--no-") and action.nargs == 0


def flag_facts(action: Any, origins: dict[str, tuple[Any, str]]) -> Facts:
    """What one flag accepts."""
    names = [getattr(converter, "__name__", "") for converter in converters(action)]
    options = [option for option in action.option_strings if not switches_off(action, option)]
    cls, field = origins.get(action.help, (None, ""))
    facts: Facts = field_facts(cls, field) if cls else {}
    facts |= {
        "type": flag_type(action),
        "aliases": [option.removeprefix("--") for option in options[1:]],
        "negatable": isinstance(action, argparse.BooleanOptionalAction),
        "nargs": action.nargs or None,
        "repeatable": type(action).__name__ == "_AppendAction",
        "human": any(name.startswith("human_readable_int") for name in names),
        "auto": "human_readable_int_or_auto" in names,
        "none": "_optional_type" in names,
        "ignorecase": ("<lambda>" in names and bool(action.choices)) or facts.get("ignorecase"),
        "ignoredash": "<lambda>" in names and bool(action.choices),
        "deprecated": "deprecated" in (action.help or ""),
    }
    if action.choices:
        facts["choices"] = sorted(str(choice) for choice in action.choices if choice is not None)
    return {key: value for key, value in facts.items() if value is not None and value is not False and value != []}


def flags_and_json() -> tuple[Facts, Facts]:
    """All flags of `vllm serve`, and for those that take a JSON object of known keys, the keys."""
    parser, origins = serve_parser()
    flags: Facts = {}
    keys: Facts = {}
    for action in parser._actions:
        if action.dest == "help" or not action.option_strings:
            continue
        name = action.option_strings[0].removeprefix("--")
        flags[name] = flag_facts(action, origins)
        cls, field = origins.get(action.help, (None, ""))
        if cls and (config := config_class(annotation(cls, field))):
            keys[name] = object_facts(config)
    for name, known in registered_names().items():
        flags[name]["known"] = known
    return flags, keys


def registered_names() -> dict[str, list[str]]:
    """Names that vLLM ships for flags whose value a plugin may extend."""
    loaders = import_module("vllm.model_executor.model_loader")._LOAD_FORMAT_TO_MODEL_LOADER
    return {
        "load-format": sorted(loaders),
        "quantization": sorted(import_module("vllm.model_executor.layers.quantization").QUANTIZATION_METHODS),
        "reasoning-parser": import_module("vllm.reasoning").ReasoningParserManager.list_registered(),
        "tool-call-parser": import_module("vllm.tool_parsers").ToolParserManager.list_registered(),
    }


def environment() -> Facts:
    """Every variable of vllm.envs, with the type of its declaration and the spellings that its reader takes."""
    envs: Any = import_module("vllm.envs")
    declared = {
        node.target.id: node.annotation
        for node in ast.walk(ast.parse(Path(envs.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id.isupper()
    }
    readers = envs.environment_variables
    return {name: variable_facts(declared.get(name), partial(read_as, name, readers[name])) for name in readers}


def read_as(name: str, reader: Callable[[], Any], value: str) -> Any:
    """What vLLM makes of a variable set to `value`; None when it refuses."""
    with mock.patch.dict(os.environ, {name: value}):
        try:
            return reader()
        except (OSError, ValueError):
            return None


def variable_facts(declaration: ast.expr | None, read: Callable[[str], Any]) -> Facts:
    """Type of one variable, and its allowed spellings where it is a switch or an enumeration."""
    source = ast.unparse(declaration) if declaration else "None"
    hints = list(members(eval(source, {"Literal": Literal, "Any": Any})))  # noqa: S307 - vLLM's own annotation
    if bool in hints or (not declaration and read("1") is True):
        return {"type": "bool", "choices": [word for word, meant in SWITCH_WORDS.items() if read(word) is meant]}
    if choices := literal_values(hints):
        anycase = all(read(choice.swapcase()) is not None for choice in choices)
        return {"type": "str", "choices": choices} | ({"ignorecase": True} if anycase else {})
    if not declaration:
        return {}
    comma_separated = any(get_origin(hint) in (list, set) for hint in hints)
    return {"type": "str" if comma_separated else type_name(hints)}


def metrics() -> list[str]:
    """Sample names on /metrics with speculative decoding and KV cache metrics on, by registering them for real."""
    prometheus, loggers = import_module("prometheus_client"), import_module("vllm.v1.metrics.loggers")
    configured = SimpleNamespace(
        model_config=SimpleNamespace(served_model_name="m", max_model_len=1024, is_diffusion=False),
        observability_config=SimpleNamespace(
            show_hidden_metrics=False, kv_cache_metrics=True, custom_histogram_buckets=None
        ),
        speculative_config=SimpleNamespace(num_speculative_tokens=1),
        kv_transfer_config=None, ec_transfer_config=None, watermark_config=None, lora_config=None,
    )  # fmt: skip
    logger = loggers.PrometheusStatLogger(configured)
    logger.log_metrics_info("cache_config", import_module("vllm.config").CacheConfig())
    import_module("vllm.parser.metrics").init_parser_metrics(model_name="m")
    names = {sample.name for family in prometheus.REGISTRY.collect() for sample in family.samples}
    return sorted(name for name in names if name.startswith("vllm:") and not name.endswith("_created"))


def describe() -> Facts:
    """Everything that is written down."""
    flags, keys = flags_and_json()
    version = import_module("vllm").__version__
    sections = {"env": environment(), "flags": flags, "json": keys, "metrics": metrics()}
    return {"vllm": version, "positional": ["model_tag"], **sections}


def render(value: Any, depth: int) -> str:
    """JSON with sorted keys, and a line for each item of the outer `depth` levels."""
    if depth == 0 or not isinstance(value, dict | list) or not value:
        return json.dumps(value, sort_keys=True)
    if isinstance(value, list):
        return "[\n" + ",\n".join(render(item, depth - 1) for item in value) + "\n]"
    items = (f"{json.dumps(key)}: {render(value[key], depth - 1)}" for key in sorted(value))
    return "{\n" + ",\n".join(items) + "\n}"


def document(facts: Facts) -> str:
    """The data file's text."""
    sections = (f"{json.dumps(name)}: {render(facts[name], DEPTH.get(name, 0))}" for name in sorted(facts))
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main(argv: list[str]) -> int:
    """Print the facts, or compare them with a file; return the exit status."""
    text = "Describe the installed vLLM as JSON on standard output."
    return print_or_compare(argv, text, lambda: document(describe()), "describes the installed vLLM")


def print_or_compare(argv: list[str], description: str, generate: Callable[[], str], same: str) -> int:
    """Print what vLLM was asked, or with --check what differs from a file, or that it is the `same`."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--check", metavar="FILE", type=Path, help="compare with FILE instead of printing")
    recorded = options.parse_args(argv).check
    gc.disable()  # a fifth of the time: importing vLLM makes objects that stay
    isolate(os.environ)
    logging.disable()
    found = generate()
    if recorded is None:
        sys.stdout.write(found)
        return 0
    before, after = recorded.read_text(encoding="utf-8").splitlines(), found.splitlines()
    lines = list(difflib.unified_diff(before, after, str(recorded), "installed vLLM", n=0, lineterm=""))
    print("\n".join(lines[:LINES_SHOWN]) or f"{recorded} {same}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
