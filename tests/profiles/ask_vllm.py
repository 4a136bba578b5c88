"""
Give plans to vLLM and collect its complaints. Runs where vLLM is installed.

Standard input: {label: {"argv": ["vllm", "serve", …], "env": {…}}}. Standard output: {label: [complaint, …]}.
"""

import argparse
import contextlib
import gc
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any
from unittest import mock

from tools.describe_vllm import isolate, serve_parser
from tools.vllm_fields import accepts

Origins = dict[str, tuple[Any, str]]

NEEDS_A_MODEL = {"ModelConfig", "VllmConfig"}  # their constructors read a checkpoint's config.json


class Complaints(logging.Handler):
    """What vLLM logs at WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def command_line() -> tuple[Any, Any]:
    """The parser of the `vllm` command with its `serve` subcommand, and that subcommand."""
    serve = import_module("vllm.entrypoints.cli.serve").ServeSubcommand()
    parser = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser(prog="vllm")
    serve.subparser_init(parser.add_subparsers(dest="subparser", required=True))
    return parser, serve


def attempt(step: Callable[[], Any]) -> tuple[Any, list[str]]:
    """A step's result, and what vLLM printed, warned or raised on the way."""
    handler, errors = Complaints(), io.StringIO()
    logger = logging.getLogger("vllm")
    logger.addHandler(handler)
    result = None
    try:
        with contextlib.redirect_stderr(errors), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                result = step()
            except SystemExit:
                handler.lines.append(errors.getvalue().rpartition(" error: ")[2].strip())
            except Exception as error:  # whatever vLLM raises is a complaint
                handler.lines.append(f"{type(error).__name__}: {error}")
    finally:
        logger.removeHandler(handler)
    return result, handler.lines + [str(warning.message) for warning in warned]


def refused_fields(parser: Any, origins: Origins, args: argparse.Namespace) -> Iterator[str]:
    """Values that parse and that the config class behind the flag then refuses."""
    for action in parser._actions:
        cls, field = origins.get(action.help, (None, ""))
        value = getattr(args, action.dest, None)
        if not cls or cls.__name__ in NEEDS_A_MODEL or value is None or value == action.default:
            continue
        if not accepts(cls, field, value):
            yield f"{cls.__name__} refuses {field} = {value!r}"


def refused_draft(args: argparse.Namespace) -> Iterator[str]:
    """Keys and values of --speculative-config that SpeculativeConfig refuses; it is not asked about the model."""
    errors = import_module("pydantic").ValidationError
    try:
        import_module("vllm.config").SpeculativeConfig(**(args.speculative_config or {"num_speculative_tokens": 1}))
    except errors as error:
        yield from (f"SpeculativeConfig: {p['loc'][0]}: {p['msg']}" for p in error.errors() if p["loc"])


def names_exist(args: argparse.Namespace) -> None:
    """Resolve the names that vLLM looks up only after start: parsers and load format; raise what vLLM raises."""
    if args.tool_call_parser:
        import_module("vllm.tool_parsers").ToolParserManager.get_tool_parser(args.tool_call_parser)
    if args.reasoning_parser:
        import_module("vllm.reasoning").ReasoningParserManager.get_reasoning_parser(args.reasoning_parser)
    load = import_module("vllm.config").LoadConfig(load_format=args.load_format)
    import_module("vllm.model_executor.model_loader").get_model_loader(load)


def environment_is_known(env: dict[str, str]) -> None:
    """Let vLLM check the names as `--fail-on-environ-validation` does, and read each value."""
    readers = import_module("vllm.envs").environment_variables
    with mock.patch.dict(os.environ, env):
        import_module("vllm.platforms").current_platform.validate_environ(hard_fail=True)
        for name in env.keys() & readers.keys():
            readers[name]()


def complaints(plan: dict[str, Any], command: tuple[Any, Any], fields: tuple[Any, Origins]) -> list[str]:
    """Everything that vLLM says against one plan."""
    parser, serve = command
    args, found = attempt(lambda: parser.parse_args(plan["argv"][1:]))
    found += attempt(lambda: environment_is_known(plan["env"]))[1]
    if args is None:
        return found
    found += attempt(lambda: serve.validate(args))[1]
    found += attempt(lambda: names_exist(args))[1]
    found += attempt(lambda: import_module("vllm").AsyncEngineArgs.from_cli_args(args))[1]
    return [*found, *refused_fields(*fields, args), *refused_draft(args)]


def main() -> None:
    """Answer for every plan on standard input."""
    gc.disable()  # a fifth of the time: importing vLLM makes objects that stay
    isolate(os.environ)
    os.environ["VLLM_LOGGING_LEVEL"] = "WARNING"
    plans = json.load(sys.stdin)
    command, fields = command_line(), serve_parser()
    import_module("vllm.platforms").current_platform  # noqa: B018 - found now, so that its messages are nobody's complaint
    answers = {label: complaints(plan, command, fields) for label, plan in plans.items()}
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
