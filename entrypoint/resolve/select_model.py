"""Select the model: the one that was requested, or the default of the profile or the hardware."""

from __future__ import annotations

import dataclasses
import fnmatch
from pathlib import Path

from ..catalog.catalog import Catalog, ProfileFile
from ..catalog.schema import Hardware, Model, Profile
from ..checkpoint import identify
from ..errors import ConfigError, nearest
from ..plan import TENSOR_PARALLEL_SIZE, Setting
from ..request import Request

SelectedModel = tuple[ProfileFile[Model], str, Setting | None]
"""The model, why it was selected, and what vLLM loads where that is not the model's repository."""


def select_model(
    catalog: Catalog, request: Request, profile: ProfileFile[Profile], hardware: ProfileFile[Hardware], size: int
) -> SelectedModel:
    """Return the model for a request; raise ConfigError if none was requested and there is no default."""
    if requested := request.choices.get("model"):
        return _requested_model(catalog, requested)
    allowed = profile.get("models")
    if len(allowed) == 1:
        name, why = allowed[0], f"{profile.file}: the only model for profile {profile.name}"
        return catalog.model(name, why), why, None
    for entry in hardware.get("default_model"):
        fits = not entry.tensor_parallel_size or size in entry.tensor_parallel_size
        if (
            fits
            and (not entry.profiles or profile.is_one_of(entry.profiles))
            and (not allowed or entry.model in allowed)
        ):
            why = f"{hardware.file}: default-model: {entry.because}"
            return catalog.model(entry.model, f"{hardware.file}: default-model"), why, None
    raise ConfigError(
        f"no default model for profile {profile.name} on {hardware.name} at {TENSOR_PARALLEL_SIZE} {size};"
        f" choose one with --model (MODEL): {', '.join(allowed or catalog.names('model'))}."
    )


def _requested_model(catalog: Catalog, requested: Setting) -> SelectedModel:
    """Take a model's name, its repository, a folder, or NAME=WHERE."""
    text, names = str(requested.value), catalog.names("model")
    name, given, where = text.partition("=")
    if given and name in names:
        if not where:
            raise ConfigError(f"{requested.origin}: {text!r} ends at the equals sign; add a folder or a repository.")
        return catalog.model(name, requested.origin), requested.origin, dataclasses.replace(requested, value=where)
    if text in names:
        return catalog.model(text, requested.origin), requested.origin, None
    if is_folder(text, requested.origin):
        model = identify.model_in(Path(text), catalog.every_model(), requested.origin)
        return model, f"{requested.origin}: config.json in {text}", requested
    if named := catalog.model_of(text):
        return named, requested.origin, None
    models = list(catalog.every_model())
    for model in models:
        if any(fnmatch.fnmatchcase(text.lower(), glob.lower()) for glob in model.own.repositories):
            return model, requested.origin, requested
    hint = nearest(text, [*names, *(str(model.flags().get("model", "")) for model in models)])
    raise ConfigError(
        f"{requested.origin}: {text!r} is not a known model, its repository, or a folder{hint}."
        f" Known models: {', '.join(names)}. To serve other weights as one of them, write NAME=FOLDER."
    )


def is_folder(text: str, origin: str) -> bool:
    """Return whether a text names a folder; raise ConfigError if it cannot be read."""
    try:
        return Path(text).is_dir()
    except OSError as error:  # a name too long, or a parent folder that may not be entered
        raise ConfigError(f"{origin}: cannot read {text!r} ({error.strerror}).") from None
