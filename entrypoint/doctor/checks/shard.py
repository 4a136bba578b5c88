"""Check that a checkpoint's files are all present and complete, and agree with the index."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain

from ...checkpoint.read import INDEX, Checkpoint
from ...problem import Problem, check
from ..checkpoint_requirements import CheckpointRequirements
from .wording import FETCH, some

_LOADER = "https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/model_executor/model_loader"
_FORMAT = "https://huggingface.co/docs/safetensors/index#format"
_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


@check(
    symptom="RuntimeError: Cannot find any model weights with ...",
    link=f"{_LOADER}/default_loader.py",
    remedy=FETCH,
    failures=(51,),
    tried="for real",
)
def weights_present(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """The folder holds safetensors files."""
    if checkpoint.shards:
        return None
    others = sorted(n for n in checkpoint.files if n.endswith((".bin", ".pt", ".pth", ".gguf")))
    seen = f"no *.safetensors in {checkpoint.folder}" + (f", but {some(others)}" if others else "")
    if checkpoint.unfinished:
        seen += f", and {checkpoint.unfinished} unfinished downloads"
    return Problem(seen, "the weights as safetensors")


@check(
    symptom="Error while deserializing header: HeaderTooLarge, for a file of 130 bytes",
    link="https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md",
    remedy="run `git lfs pull` there, or `dsv4 weights fetch`",
    tried="for real",
)
def weights_are_not_pointers(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """The files are the weights themselves, not the pointers that a git clone without git-lfs leaves in their place."""
    pointers = [name for name, shard in checkpoint.shards.items() if shard.pointer]
    if not pointers:
        return None
    return Problem(
        f"git-lfs pointers in place of {some(pointers)} in {checkpoint.folder}",
        "the files that the pointers name",
    )


@check(
    symptom="FileNotFoundError: Weight files referenced in index but missing",
    link=f"{_LOADER}/weight_utils.py",
    remedy=FETCH,
    tried="for real",
)
def shards_present(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """Every shard that the index names, or that the numbers of the others imply, exists."""
    if not checkpoint.shards:
        return None  # weights-present reports it
    numbered = [match for name in checkpoint.shards if (match := _NUMBERED.fullmatch(name))]
    series = {(match[1], match[3]) for match in numbered}
    promised = {f"{stem}-{n:05}-of-{last}.safetensors" for stem, last in series for n in range(1, int(last) + 1)}
    absent = sorted((checkpoint.listed if checkpoint.weight_map else promised) - checkpoint.shards.keys())
    if not absent:
        return None
    by = f"{INDEX} names" if checkpoint.weight_map else "the file names imply"
    total = len(checkpoint.listed if checkpoint.weight_map else promised)
    return Problem(f"{some(absent)} not in {checkpoint.folder}", f"all {total} shards that {by}")


@check(
    symptom="SafetensorError: Error while deserializing header: InvalidHeaderDeserialization",
    link=_FORMAT,
    remedy=FETCH,
    tried="for real",
)
def headers_readable(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """Every shard begins with a header that describes its tensors."""
    faulty = [shard for shard in checkpoint.shards.values() if shard.fault and not shard.pointer]
    if not faulty:
        return None
    return Problem(some(f"{shard.file}: {shard.fault}" for shard in faulty), "a header as safetensors writes it")


@check(
    symptom="A truncated shard loads, and answers are nonsense",
    link=_FORMAT,
    remedy=FETCH,
    failures=(57,),
    tried="for real",
)
def shards_whole(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """No shard ends before its last tensor. safetensors refuses such a file; loaders that map it themselves may not."""
    short = [shard for shard in checkpoint.shards.values() if shard.size < shard.declared]
    if not short:
        return None
    return Problem(
        some(f"{shard.file} lacks its last {shard.declared - shard.size:,} bytes" for shard in short),
        some(f"{shard.declared:,} bytes, according to its header" for shard in short[:1]),
    )


@check(
    symptom="SafetensorError: ... MetadataIncompleteBuffer",
    link=_FORMAT,
    remedy=FETCH,
    tried="for real",
)
def shards_without_a_tail(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """No shard has data after its last tensor, as after an overwritten or doubled download."""
    long = [shard for shard in checkpoint.shards.values() if not shard.fault and shard.size > shard.declared]
    if not long:
        return None
    return Problem(
        some(f"{shard.file} has {shard.size - shard.declared:,} bytes after its last tensor" for shard in long),
        some(f"{shard.declared:,} bytes, according to its header" for shard in long[:1]),
    )


@check(
    symptom="json.decoder.JSONDecodeError, or KeyError: 'weight_map'",
    link=f"{_LOADER}/weight_utils.py",
    remedy=FETCH,
    tried="for real",
)
def index_readable(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """If there is an index, it names the file of every tensor."""
    fault = checkpoint.index.fault
    if not fault and (checkpoint.index.absent or checkpoint.weight_map):
        return None
    return Problem(f"{INDEX}: {fault or 'it has no weight_map'}", "the index that belongs to these shards")


@check(
    symptom="Weights stay uninitialized, without a message, and answers are nonsense",
    link=f"{_LOADER}/default_loader.py",
    remedy=FETCH,
    tried="for real",
)
def index_matches_headers(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """The index and the headers name the same tensors in the same files."""
    if not checkpoint.weight_map or not checkpoint.is_legible:
        return None
    within = {file: shard.tensors for file, shard in checkpoint.shards.items()}
    lost = [name for name, file in checkpoint.weight_map.items() if name not in within[file]]
    unnamed = sorted(checkpoint.tensors.keys() - checkpoint.weight_map.keys())
    if not lost and not unnamed:
        return None
    parts = [f"{some(lost)} not in the shard that {INDEX} names"] if lost else []
    parts += [f"{some(unnamed)} in a shard and not in {INDEX}"] if unnamed else []
    return Problem(" and ".join(parts), "an index and shards of one revision")


@check(
    symptom="Which of two tensors with the same name is loaded depends on file names",
    link=f"{_LOADER}/weight_utils.py",
    remedy="remove the shards of the other revision, or download into an empty folder",
    tried="for real",
)
def tensors_once(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """No tensor is in two of the shards that are loaded."""
    loaded = [checkpoint.shards[name].tensors for name in checkpoint.listed & checkpoint.shards.keys()]
    if sum(map(len, loaded)) == len(checkpoint.tensors):
        return None
    twice = sorted(name for name, times in Counter(chain.from_iterable(loaded)).items() if times > 1)
    return Problem(
        f"{some(twice)} in two shards",
        "each tensor once",
    )


@check(
    symptom="A draft head in its own file is silently not loaded",
    link=f"{_LOADER}/weight_utils.py",
    remedy=f"fetch the {INDEX} that belongs to it",
    failures=(18,),
    tried="for real",
)
def shards_listed(checkpoint: Checkpoint, _required: CheckpointRequirements) -> Problem | None:
    """The index names every file with tensors, as vLLM loads no others."""
    unlisted = sorted(checkpoint.shards.keys() - checkpoint.listed)
    new = [name for name in unlisted if not checkpoint.shards[name].tensors.keys() <= checkpoint.tensors.keys()]
    if not new:
        return None
    return Problem(
        f"{INDEX} does not name {some(new)}, with tensors that no other file has",
        "every file in the index, since others are not loaded",
        fatal=False,
    )
