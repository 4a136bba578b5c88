"""Command lines one by one: those of tests/golden/commands.txt, and those that follow from the TOML files."""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.golden import ROOT, facts
from tools.golden.command import Answer, Sandbox
from tools.golden.grid import profile_files, read

COMMANDS = ROOT / "tests/golden/commands.txt"
"""One a line, as a shell takes it, variables before it; a line that begins with # is a heading."""
CHECKPOINTS = {"dspark": "checkpoints/drafter"}
"""Folders of files.toml by the drafter in them, for the rules that ask for one that the model does not have."""
MEASURED = ("rtx-pro-6000", "rtx-pro-6000-workstation", "rtx-pro-6000-max-q", "h200", "b300")
"""Hardware that stands for any GPU, in the order in which it is tried."""
PLAIN = "h200"
"""The hardware of the plan that others are compared with when they name none."""


def lines(sandbox: Sandbox) -> Iterator[str]:
    """Yield this part of the page: each command line and its answer."""
    before: list[str] = []
    for line in [*COMMANDS.read_text(encoding="utf-8").splitlines(), *_derived(sandbox)]:
        if line.startswith("#"):
            yield f"\n{line}"
        elif line:
            env, argv = parsed(line)
            answer = sandbox.run(argv, env)
            answered = list(_lines(sandbox, argv, answer))
            yield f"$ {line}"
            yield from (f"    {one}".rstrip() for one in (_against(before, answered) if answer.files else answered))
            before = answered if answer.files else before


def parsed(line: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables and the words after `dsv4` of a line."""
    argv = shlex.split(line)
    at = argv.index("dsv4")
    return dict(word.split("=", 1) for word in argv[:at]), argv[at + 1 :]


def _lines(sandbox: Sandbox, argv: Sequence[str], answer: Answer) -> Iterator[str]:
    """Yield status and stderr, stdout, and files; of a plan, what differs from the plan of its choices alone."""
    yield from (f"{answer.status}! {line}" for line in answer.err.splitlines())
    out = answer.out.splitlines()
    if argv[:1] == ["explain"] and "json" in argv and not answer.status:
        out = list(_changes(_plan(sandbox, tuple(choices(argv))), list(facts.of_plan(json.loads(answer.out)))))
    yield from (f"{answer.status}  {line}" for line in out)
    if not answer.err and not out:
        yield f"{answer.status}"
    for name, text in answer.files.items():
        yield f"out/{name}:"
        yield from (f"  {line}" for line in text.splitlines())


def choices(argv: Sequence[str]) -> Iterator[str]:
    """Yield the arguments that name shipped profile files and a size."""
    known = {
        "--profile": profile_files("."),
        "--model": profile_files("models"),
        "--hardware": profile_files("hardware"),
        "--tp": {"2", "4"},
    }
    for word, value in itertools.pairwise(argv):
        name = value.partition("=")[0]
        if name in known.get(word, ()):
            yield from (word, name)
    if "--hardware" not in argv:
        yield from ("--hardware", PLAIN)


@functools.cache
def _plan(sandbox: Sandbox, argv: tuple[str, ...]) -> list[str]:
    """Return the facts of a plan; of the plan of PLAIN where these arguments are refused."""
    answer = sandbox.run(["explain", "--format", "json", *argv])
    if answer.status:
        return _plan(sandbox, ("--hardware", PLAIN))
    return list(facts.of_plan(json.loads(answer.out)))


def _changes(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    """Yield the names of settings that were removed, and the settings that were added or changed; not their order."""
    known = set(before)
    added = [one for one in after if one not in known and "order of " not in one]
    kept = set(map(_name, after))
    yield from (f"- {name}" for name in dict.fromkeys(map(_name, before)) if name not in kept)
    yield from (line for one in added for line in f"+ {one}".splitlines())


def _name(fact: str) -> str:
    """Return the subject of a fact: a setting, a variable, a flag."""
    words = re.split("[ =]", fact)
    return " ".join(words[:2]) if words[0] in ("argv", "env", "skip") else words[0]


def _against(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    """Yield an answer, or its difference from the last one that wrote files if that is shorter."""
    changes = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    shorter = [line for line in changes if not line.startswith("@@")]
    if not before or len(shorter) > len(after):
        yield from after
    else:
        yield from ["as the last one that wrote files, but", *shorter]


def _derived(sandbox: Sandbox) -> Iterator[str]:
    """Yield command lines that follow from what the TOML files, and a plan, hold."""
    yield "# Every refusal of the profile files: what triggers it, then the same with --skip"
    for kind in (".", "models", "architectures", "hardware", "nccl"):
        for name, file in profile_files(kind).items():
            for rule in file.get("refuse", ()):
                yield from triggers(kind, name, rule)
    yield "# Every retired name"
    yield from retired()
    yield "# Every setting of the supervisor, in the environment and on the command line"
    yield from supervision(
        json.loads(sandbox.run(["explain", "--format", "json", "--hardware", PLAIN]).out)["settings"]
    )
    yield "# Manifests of every profile: on each hardware of its own, and on the first with each model"
    for profile, file in profile_files(".").items():
        kinds, models = _hardware_of(file), file.get("models", ())
        named = [
            *(f"--hardware {one}" for one in kinds),
            *(f"--hardware {kinds[0]} --model {one}" for one in models if kinds),
        ]
        yield from (f"dsv4 manifests --replicas 2 --profile {profile} {one} --out out" for one in named)


def triggers(kind: str, name: str, rule: Mapping[str, Any]) -> Iterator[str]:
    """Yield command lines that meet a `[[refuse]]` rule of a profile file: one for each value that it lists."""
    model = name if kind == "models" else _listed(rule.get("model", "w4a16"))[0]
    hardware = name if kind == "hardware" else _listed(rule.get("hardware", _other(rule, model)))[0]
    if kind == "architectures":
        hardware = next(own for own in MEASURED if f"sm-{_capability(own)}" == name)
    profile = name if kind == "." else _profile(model, hardware)
    places = [f"{model}=some/{glob.replace('*', 'x')}" for glob in _listed(rule.get("model-id", ()))]
    places += [f"{model}={CHECKPOINTS[head]}" for head in _listed(rule.get("drafter", ())) if head in CHECKPOINTS]
    flags = [[f" --{flag} {value}" for value in values] for flag, values in _flags(rule.get("flags", {}))]
    env = "".join(f"{variable}={value} " for variable, value in rule.get("env", {}).items())
    start = f"{env}dsv4 explain" + (f" --profile {profile}" if profile else "") + f" --hardware {hardware}"
    for place, chosen in itertools.product(places or [model], itertools.product(*flags)):
        line = f"{start} --model {place}{''.join(chosen)}"
        yield from (line, f"{line} --skip {rule['name']} --format json")


def _other(rule: Mapping[str, Any], model: str) -> str:
    """Return a hardware that a rule is for, preferably one that a profile serves the model on."""
    others = [one for one in ("b300", "h200") if one not in _listed(rule.get("except-hardware", ()))]
    return next((one for one in others if _profile(model, one)), others[0])


def _profile(model: str, hardware: str) -> str:
    """Return the first profile for a model on a hardware, an empty string where there is none."""
    return next((name for name, own in profile_files(".").items() if _takes(own, model, hardware)), "")


def _takes(profile: Mapping[str, Any], model: str, hardware: str) -> bool:
    return model in profile.get("models", ()) and hardware in _hardware_of(profile)


def _hardware_of(profile: Mapping[str, Any]) -> Sequence[str]:
    """Return the hardware that a profile names; the measured ones of architectures that it names."""
    named = profile.get("hardware", ())
    architectures = {one.removeprefix("sm-")[:3] for one in named if one.startswith("sm-")}
    return [one for one in MEASURED if "gpu" in named or _capability(one)[:3] in architectures] or named


def _capability(hardware: str) -> str:
    """Return the compute capability of a hardware file, or of the one that it extends."""
    file = profile_files("hardware")[hardware]
    return str(file.get("compute-capability") or _capability(file["extends"]))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _flags(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, list[Any]]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flags(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", _listed(value)


def retired() -> Iterator[str]:
    """Yield a command line for every name in retired.toml."""
    (file,) = (ROOT / "entrypoint").rglob("retired.toml")
    for kind, names in read(file).items():
        for pattern in names:
            name = pattern.replace("*", "X")
            lines = {
                "env": f"{name}=1 dsv4 explain",
                "flag": f"dsv4 explain --{name} 1",
                "json": f"dsv4 explain --{name} 1",
                "value": f"dsv4 explain --{name.removeprefix('X')}",
            }
            yield f"{lines[kind]} --hardware {PLAIN}"


def supervision(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield command lines that set everything of the supervisor to its default, and one wrong value for each."""
    ours = {name: one["value"] for name, one in settings.items() if name.startswith(("gate.", "supervise."))}
    texts = {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in ours.items()}
    variables = {name: "DSV4_" + name.upper().replace("-", "_").replace(".", "_") for name in ours}
    plain = f"dsv4 explain --hardware {PLAIN} --format json"
    yield " ".join([*(f"{variables[name]}={text}" for name, text in texts.items()), plain])
    yield " ".join([plain, *(f"--{name} {text}" for name, text in texts.items())])
    for name in ours:
        yield f"{variables[name]}=-1 dsv4 explain --hardware {PLAIN}"
