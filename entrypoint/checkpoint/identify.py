"""Identify the model in a folder by config.json, and by the index where two artifacts differ only there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import plain_file
from ..catalog.catalog import ProfileFile
from ..catalog.schema import Model
from ..errors import ConfigError
from . import read, safetensors

_QUANTIZED_DRAFT = b'"mtp.0.ffn.experts.0.w1.weight_packed"'


def weights_bytes(folder: Path) -> int:
    """Return the size of the folder's safetensors files; a broken link counts as 0, and the doctor reports it."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.exists())


def draft_head(folder: Path) -> str:
    """Return how the draft head is stored: native, bf16, w4a16, dspark or none; `unknown` if unreadable."""
    try:
        return _draft_head(_config(folder, ""), folder)
    except (ConfigError, OSError):
        return "unknown"


def model_in(folder: Path, models: Iterable[ProfileFile[Model]], origin: str) -> ProfileFile[Model]:
    """
    Return the model whose architecture, scheme and draft head are those of the checkpoint in `folder`.

    Raise ConfigError for a checkpoint that cannot be read or that matches no model.
    """
    config = _config(folder, origin)
    try:
        stored = (architecture(config), scheme(config), _draft_head(config, folder))
    except OSError as error:
        raise ConfigError(
            f"{origin}: cannot read {error.filename} ({error.strerror}); fetch the checkpoint again."
        ) from None
    known = list(models)
    for model in known:
        drafts = (model.get("draft_head"), "dspark")  # a constraint rejects a DSpark drafter, with its reason
        if (model.get("architecture"), model.get("scheme")) == stored[:2] and stored[2] in drafts:
            return model
    kind, quantization, drafter = stored
    raise ConfigError(
        f"{origin}: the checkpoint in {folder} (architecture {kind}, scheme {quantization}, draft head {drafter})"
        f" matches no known model ({', '.join(model.name for model in known)});"
        f" to serve it as one of them, write NAME={folder}."
    )


def _config(folder: Path, origin: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = plain_file.parse_json(plain_file.read(path, 16))
    except FileNotFoundError:
        raise ConfigError(f"{origin}: {folder} has no config.json; use the folder of a checkpoint.") from None
    except OSError as error:
        raise ConfigError(f"{origin}: cannot read {path} ({error.strerror}).") from None
    except ValueError as error:
        raise ConfigError(f"{origin}: {path} is not valid JSON ({error}); fetch the checkpoint again.") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{origin}: {path} does not contain a JSON object; fetch the checkpoint again.")
    return config


def architecture(config: dict[str, Any]) -> str:
    """Return the architecture that config.json names, DeepSeek-V4's by its size; `unknown` where it names none."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else "unknown"
    if name != "DeepseekV4ForCausalLM":
        return name
    sizes = {4096: "deepseek-v4-flash", 7168: "deepseek-v4-pro"}
    hidden = config.get("hidden_size")
    return sizes.get(hidden, "deepseek-v4-tiny") if isinstance(hidden, int) else "unknown"


def scheme(config: dict[str, Any]) -> str:
    """Return how config.json says that the experts are quantized, by the names of `scheme` in profiles/models."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return "unquantized"
    if quantization.get("quant_method") != "compressed-tensors":
        return "modelopt-nvfp4" if quantization.get("moe_quant_algo") == "NVFP4" else "fp8-mxfp4"
    groups = quantization.get("config_groups")
    weights = [g.get("weights") for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []
    four_bit = [w.get("type") for w in weights if isinstance(w, dict) and w.get("num_bits") == 4]
    return {"int": "w4a16", "float": "nvfp4"}.get(str(four_bit[0]) if four_bit else "", "unknown compressed-tensors")


def _draft_head(config: dict[str, Any], folder: Path) -> str:
    if "dspark_block_size" in config:
        return "dspark"
    if not config.get("num_nextn_predict_layers"):
        return "none"
    stored = scheme(config)
    if stored in ("unquantized", "fp8-mxfp4", "modelopt-nvfp4"):
        return "bf16" if stored == "unquantized" else "native"
    return "w4a16" if any(_QUANTIZED_DRAFT in names for names in _tensor_names(folder)) else "bf16"


def _tensor_names(folder: Path) -> Iterator[bytes]:
    """Yield the index, or without one each file's header."""
    indexes = [*folder.glob("*.safetensors.index.json")]
    yield from (plain_file.read(index, read.INDEX_MIB) for index in indexes)
    for file in [] if indexes else sorted(folder.glob("*.safetensors")):
        yield safetensors.raw(file)[1]
