"""Identify a checkpoint by config.json, index and headers, and find the model that has its layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import plain_file
from ..catalog.catalog import ProfileFile
from ..catalog.schema import Model
from ..errors import ConfigError
from . import described, fields, unsupported
from .described import Description, StoredTensor, number, text_config
from .identity import Drafter, Identity

_PUBLISHED = {4096: "deepseek-v4-flash", 7168: "deepseek-v4-pro"}
_NATIVE = ("fp8-mxfp4", "fp8", "modelopt-nvfp4")
_DSPARK = re.compile(r"mtp\.\d+\.(?:main_proj|markov_head|confidence_head)\.")
_SHARED = (".head.weight", ".emb.tok_emb.weight")


def weights_bytes(folder: Path) -> int:
    """Return the size of the folder's safetensors files; a broken link counts as 0, and the doctor reports it."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.exists())


def identity_of(folder: Path, origin: str) -> Identity:
    """Return what the checkpoint in a folder is; raise ConfigError if it cannot be read."""
    config = _config(folder, origin)
    try:
        return identify(described.folder(config, folder))
    except OSError as error:
        raise ConfigError(
            f"{origin}: cannot read {error.filename} ({error.strerror}); fetch the checkpoint again."
        ) from None


def identify(description: Description) -> Identity:
    """Return what a checkpoint is. Pure."""
    config = description.config
    drafter = _drafter(description)
    declared = scheme(config)
    stored = _stored(description, "layers.0")
    native = declared in _NATIVE and stored in _NATIVE
    missing = list(description.missing_files)
    if (stored == "fp8") != (declared == "fp8") and native:
        missing.append(f'expert_dtype "{"fp8" if stored == "fp8" else "fp4"}" in config.json')
    bare = declared == "unquantized" and stored not in ("", "unquantized")
    if bare:
        missing.append("quantization_config in config.json")
    kind, known = architecture(config), stored if native or bare else declared
    is_published = kind.startswith("deepseek-v4") and not kind.startswith("deepseek-v4-tiny")
    return Identity(
        architecture=kind,
        scheme=known,
        drafter=drafter,
        bytes=description.bytes,
        shared_bytes=sum(t.bytes for name, t in description.tensors.items() if name.endswith(_SHARED)),
        missing=tuple(missing),
        unsupported=unsupported.of(config, known, description.files) if is_published else None,
        expert_rows=described.number(described.text_config(config), "moe_intermediate_size"),
        expert_group_size=_group_size(config) if known == "w4a16" else 0,
    )


def match(identity: Identity, models: Iterable[ProfileFile[Model]]) -> ProfileFile[Model] | None:
    """
    Return the model that has the identity's architecture and scheme, with its drafter if there is one such.

    The drafter decides only how tokens are drafted, so a model with another one serves the target model as well. None
    where no model has the scheme, and where several do and the files do not tell which.
    """
    layout = (identity.architecture, identity.scheme)
    alike = [model for model in models if (model.get("architecture"), model.get("scheme")) == layout]
    kind, stored = identity.drafter.kind, identity.drafter.scheme
    drafting = [model for model in alike if model.get("drafter").kind == kind]
    exact = [model for model in drafting if not stored or model.get("drafter").scheme == stored]
    if kind != "none" and not stored:
        return exact[0] if len(exact) == 1 else None
    named = [model for model in alike if model.name == identity.scheme]
    return next(iter([*exact, *drafting, *named, *alike]), None)


def _config(folder: Path, origin: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        text = plain_file.read(path, 16)
    except FileNotFoundError:
        raise ConfigError(f"{origin}: {folder} has no config.json; use the folder of a checkpoint.") from None
    except OSError as error:
        raise ConfigError(f"{origin}: cannot read {path} ({error.strerror}).") from None
    return config_object(text, origin, str(path))


def config_object(text: bytes, origin: str, path: str = "config.json") -> dict[str, Any]:
    """Return the object in a config.json; raise ConfigError where there is none, or where vLLM could not use it."""
    try:
        config = plain_file.parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: {path} is not valid JSON ({error}); fetch the checkpoint again.") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{origin}: {path} does not contain a JSON object; fetch the checkpoint again.")
    if wrong := fields.wrong(config):
        raise ConfigError(f"{origin}: {path} is damaged: {', '.join(wrong)}; fetch the original config.json.")
    return config


def architecture(config: Mapping[str, Any]) -> str:
    """Return the architecture that config.json names, DeepSeek-V4's by its size; `unknown` where it names none."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else "unknown"
    hidden = number(text_config(config), "hidden_size")
    if name == "DeepseekV41ForCausalLM":
        return "deepseek-v4.1-flash" if hidden == 5120 else "deepseek-v4.1"
    if name not in ("DeepseekV4ForCausalLM", "DeepseekV4ForConditionalGeneration"):
        return name
    if not hidden:
        return "unknown"
    sees = name == "DeepseekV4ForConditionalGeneration" or number(config, "vision_n_layers")
    return _PUBLISHED.get(hidden, "deepseek-v4-tiny") + ("-vision" if sees else "")


def scheme(config: Mapping[str, Any]) -> str:
    """Return how config.json says that the experts are quantized, by the names of `scheme` in profiles/models."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return "unquantized"
    method = str(quantization.get("quant_method"))
    if method == "compressed-tensors":
        return _compressed_tensors(quantization)
    if quantization.get("moe_quant_algo") == "NVFP4":
        return "modelopt-nvfp4"
    if method not in ("fp8", "deepseek_v4_fp8"):
        return method
    return "fp8" if _expert_dtype(config) == "fp8" else "fp8-mxfp4"


def _expert_dtype(config: Mapping[str, Any]) -> Any:
    quantization = config.get("quantization_config")
    inner = quantization.get("expert_dtype") if isinstance(quantization, dict) else None
    return config.get("expert_dtype", inner)


def _compressed_tensors(quantization: Mapping[str, Any]) -> str:
    kinds = [(_bits(g, "weights"), _bits(g, "input_activations")) for g in _groups(quantization)]
    for (kind, bits), (_, activations) in kinds:
        if bits == 4 and kind == "int":
            return "w4a8" if activations == 8 else "w4a16"
        if bits == 4 and kind == "float":
            return "nvfp4"
    eight = all(bits == 8 for (_, bits), _ in kinds)
    return "w8a8" if kinds and eight else "unknown compressed-tensors"


def _groups(quantization: Any) -> list[Mapping[str, Any]]:
    groups = quantization.get("config_groups") if isinstance(quantization, dict) else None
    return [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []


def _group_size(config: Mapping[str, Any]) -> int:
    """Return how many INT4 weights share a scale; 0 where config.json does not say."""
    four = [
        group["weights"]
        for group in _groups(config.get("quantization_config"))
        if _bits(group, "weights") == ("int", 4)
    ]
    return number(four[0], "group_size") if four else 0


def _bits(group: Mapping[str, Any], key: str) -> tuple[str, Any]:
    table = group.get(key)
    return (str(table.get("type")), table.get("num_bits")) if isinstance(table, dict) else ("", None)


def _stored(description: Description, prefix: str) -> str:
    """Return how a layer's routed experts are stored; empty where the names and dtypes do not say."""
    start = f"{prefix}.ffn.experts.0.w1."
    parts = {name.removeprefix(start): t for name, t in description.tensors.items() if name.startswith(start)}
    if "weight_packed" in parts:
        return "nvfp4" if "weight_global_scale" in parts else "w4a16"
    if "weight_scale_2" in parts:
        return "modelopt-nvfp4"
    dtype = parts.get("weight", StoredTensor()).dtype
    if "scale" in parts:
        if not dtype:
            return "fp8" if _expert_dtype(description.config) == "fp8" else "fp8-mxfp4"
        return {"I8": "fp8-mxfp4", "F8_E4M3": "fp8"}.get(dtype, "")
    if "weight_scale" in parts:
        return {"I8": "w8a8", "F8_E4M3": "w8a8"}.get(dtype, "")
    return "unquantized" if "weight" in parts and dtype in ("", "BF16") else ""


def _drafter(description: Description) -> Drafter:
    """Return the drafter that the tensors make up; what config.json says counts only without their names."""
    config = text_config(description.config)
    tensors = {name: tensor for name, tensor in description.tensors.items() if name.startswith("mtp.")}
    declared = number(config, "num_nextn_predict_layers")
    if not tensors:
        if description.whole or not (declared or "dspark_block_size" in config):
            return Drafter()
        is_dspark = "dspark_block_size" in config
        layers = described.dspark_layers(description.config) if is_dspark else declared
    else:
        is_dspark = any(_DSPARK.match(name) for name in tensors)
        layers = len({name.split(".")[1] for name in tensors})
    return Drafter(
        kind="dspark" if is_dspark else "mtp",
        scheme=_stored(description, "mtp.0"),
        layers=layers,
        block_size=number(config, "dspark_block_size") if is_dspark else 0,
        bytes=sum(tensor.bytes for name, tensor in tensors.items() if not name.endswith(_SHARED)),
        wrong=tuple(_present(fields.wrong_of_dspark(description.config))) if is_dspark else (),
    )


def _present(wrong: list[str]) -> list[str]:
    """Return the fields that are there; those that lack are the doctor's, who compares them with the tensors."""
    return [field for field in wrong if not field.startswith("no ")]
