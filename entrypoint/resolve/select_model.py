"""Select the model: the one that was requested, or the default of the profile or the hardware."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ..catalog.catalog import Catalog, ProfileFile
from ..catalog.schema import Hardware, Model, ModelDrafter, Profile, Sibling
from ..checkpoint import identify, unsupported
from ..checkpoint.identity import Drafter, Identity
from ..errors import ConfigError, closest_release
from ..plan import TENSOR_PARALLEL_SIZE, Setting
from ..request import Request
from ..weights import hub_cache, hub_files
from . import model_reference
from .wording import described, hardware_of


@dataclass(frozen=True)
class SelectedModel:
    """
    The model, and why it was selected.

    `where` is what vLLM loads where that is not the model's repository. `identity` is what its files say, with what
    was read as its origin; without one, `note` says why not, if that was tried. A `fault` is why vLLM could not load
    what `where` names.
    """

    model: ProfileFile[Model]
    why: str
    where: Setting | None = None
    identity: Identity | None = None
    read: str = ""
    note: str = ""
    fault: str = ""


def default_model(
    catalog: Catalog, request: Request, profile: ProfileFile[Profile], hardware: ProfileFile[Hardware], size: int
) -> SelectedModel:
    """Return the model where none was requested: the profile's only one, or the hardware's default."""
    allowed = profile.get("models")
    if len(allowed) == 1:
        name, why = allowed[0], f"{profile.file}: the only model for profile {profile.name}"
        return _with_files(SelectedModel(catalog.model(name, why), why), request)
    file = hardware.file_of("default_model")
    for entry in hardware.get("default_model"):
        fits = not entry.tensor_parallel_size or size in entry.tensor_parallel_size
        if not fits or (entry.profiles and not profile.is_one_of(entry.profiles)):
            continue
        model = catalog.model(entry.model, f"{file}: default-model")
        if not allowed or model.is_one_of(allowed):
            why = f"{file}: default-model: {entry.because}"
            return _with_files(SelectedModel(model, why), request)
    if (kinds := profile.get("hardware")) and not hardware.is_one_of(kinds):
        raise ConfigError(
            f"profile {profile.name} does not support {hardware.name}; needed: {hardware_of(kinds, catalog)};"
            " choose another --profile. To override this, use --skip profile-hardware, and choose the --model."
        )
    raise ConfigError(
        f"no default model for profile {profile.name} on {hardware.name} at {TENSOR_PARALLEL_SIZE} {size};"
        f" choose one with --model (MODEL): {', '.join(allowed or catalog.names('model'))}."
    )


def requested_model(catalog: Catalog, request: Request) -> SelectedModel | None:
    """Take a model's name, a repository, a folder, or NAME=WHERE; None where no model was requested."""
    requested = request.choices.get("model")
    if requested is None:
        return None
    text, names, origin = str(requested.value).strip(), catalog.names("model"), requested.origin
    if not text:
        raise ConfigError(f"{origin} is empty; name a model, a repository or a folder.")
    if text in names:
        return _with_files(SelectedModel(catalog.model(text, origin), origin), request)
    name, given, where = text.partition("=")
    if given and name in names:
        if not where.strip():
            raise ConfigError(f"{origin}: {text!r} ends at the equals sign; add a folder or a repository.")
        placed = _placed(request, requested, where)
        return _with_table(catalog, _with_files(SelectedModel(catalog.model(name, origin), origin, placed), request))
    placed = _placed(request, requested, text)
    text = str(placed.value)
    if is_folder(text, origin):
        identity = identify.identity_of(Path(text), origin)
        model = _matching(catalog, identity, text, origin)
        return SelectedModel(model, f"{origin}: config.json in {text}", placed, identity, f"files in {text}")
    _refuse_other_forms(catalog, text, origin)
    return _repository(catalog, request, placed)


def _placed(request: Request, requested: Setting, where: str) -> Setting:
    """Return where the model is, in the words of vLLM: an address of the Hub becomes its repository."""
    text, origin = where.strip(), requested.origin
    if not is_folder(text, origin):
        revision = request.flag("revision")
        text = model_reference.place(
            text, origin, request.operator.get("HF_ENDPOINT", ""), str(revision.value) if revision else "main"
        )
    return dataclasses.replace(requested, value=text)


def _refuse_other_forms(catalog: Catalog, text: str, origin: str) -> None:
    """Raise ConfigError for what can be neither a folder here nor a repository, with the answer to its kind."""
    if Path(text).is_file():
        other = unsupported.GGUF if text.lower().endswith(".gguf") else None
        why = f"{other.name}, {other.what}: {other.loads}" if other else "a file; use the folder of the checkpoint"
        raise ConfigError(f"{origin}: {text} is {why}.")
    if model_reference.is_path(text):
        raise ConfigError(f"{origin}: there is no folder {text}; correct the path, or mount the folder there.")
    if hub_files.is_repository(text):
        return
    if model_reference.is_store(text):
        raise ConfigError(f"{origin}: the files in {text} are not read; name their model, NAME={text}.")
    name, given, _ = text.partition("=")
    what = f"there is no model {name!r}" if given else f"{text!r} is not a known model, its repository, or a folder"
    if same := _same(catalog, name):
        raise ConfigError(f"{origin}: {what}; write {same}{text[len(name) :]}.")
    near = closest_release(name, [model.name for model in catalog.every_model()], 0.7)
    hint = f" (did you mean {near}?)" if near else ""
    raise ConfigError(
        f"{origin}: {what}{hint}. Choose one of {', '.join(catalog.names('model'))},"
        " or write NAME=FOLDER to serve other weights as one of them."
    )


def _same(catalog: Catalog, name: str) -> str:
    """Return the model or repository that is spelled so but for case, dashes and owner; empty if there is none."""
    for model in catalog.every_model():
        repository = str(model.own.flags.get("model", ""))
        if _folded(name) == _folded(model.name):
            return model.name
        if repository and _folded(name) == _folded(repository.partition("/")[2]):
            return repository
    return ""


def _near(catalog: Catalog, repository: str) -> str:
    """Return a question that names the known repository of the same owner and release that is spelled almost so."""
    known = [str(model.flags().get("model", "")) for model in catalog.every_model()]
    known += [one.repository for model in catalog.every_model() for one in model.own.siblings]
    known += [other for model in catalog.every_model() for other in model.own.repositories]
    found = closest_release(repository, known, 0.9)
    return f" (did you mean {found}?)" if found else ""


def _folded(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")


def _repository(catalog: Catalog, request: Request, requested: Setting) -> SelectedModel:
    """Take a repository: by its files in the cache, by those on the Hub, or by the table of known repositories."""
    text, origin = str(requested.value), requested.origin
    known, sibling = catalog.model_of(text), catalog.sibling_of(text)
    repository = str(known.flags().get("model", "")) if known else text
    where = None if known and repository.lower() == text.lower() else requested
    identity, read, note = _files(repository if where is None else text, request)
    if identity:
        model = known if known and _is_layout(known, identity) else _matching(catalog, identity, text, origin)
        own = str(model.flags().get("model", "")).lower() == text.lower()
        return SelectedModel(model, origin, None if own else requested, identity, read)
    if known:
        return SelectedModel(known, origin, where, note=note)
    if sibling:
        return SelectedModel(sibling[0], origin, requested, _of_sibling(*sibling), _origin(*sibling))
    why = note or "its config.json is not in the local cache"
    ask = "Ask the Hub with `dsv4 explain --online`, `dsv4 doctor` or `dsv4 serve`, or write"
    raise ConfigError(
        f"{origin}: {text!r} is not known: {why}, and it is in no table here{_near(catalog, text)}."
        f" {'Write' if request.online else ask} NAME={text} to serve it as one of {', '.join(catalog.names('model'))}."
    )


def _with_files(selected: SelectedModel, request: Request) -> SelectedModel:
    """Add what the files say: of the folder, of the repository in the cache, or of the Hub."""
    text = str(selected.where.value) if selected.where else str(selected.model.flags().get("model", ""))
    if selected.where and is_folder(text, selected.where.origin):
        try:
            identity = identify.identity_of(Path(text), selected.where.origin)
        except ConfigError as error:
            fault = str(error).removeprefix(f"{selected.where.origin}: ").rstrip(".")
            return dataclasses.replace(selected, note=fault, fault=fault)
        return dataclasses.replace(selected, identity=identity, read=f"files in {text}")
    if selected.where and not hub_files.is_repository(text) and not model_reference.is_store(text):
        note = f"there is no folder {text} here"
        elsewhere = model_reference.is_path(text) and not request.here
        fault = "" if elsewhere else f"{note}; correct the path, or mount the folder there"
        return dataclasses.replace(selected, note=note, fault=fault)
    if not hub_files.is_repository(text):
        return selected
    found, read, note = _files(text, request)
    return dataclasses.replace(selected, identity=found, read=read, note=note)


def _with_table(catalog: Catalog, selected: SelectedModel) -> SelectedModel:
    """Add what the table of known repositories says of another model's repository, where its files are not at hand."""
    if not selected.where or selected.identity:
        return selected
    text = str(selected.where.value)
    if sibling := catalog.sibling_of(text):
        return dataclasses.replace(selected, identity=_of_sibling(*sibling), read=_origin(*sibling))
    known = catalog.model_of(text)
    if known is None or known.name == selected.model.name:
        return selected
    identity = Identity(known.get("architecture"), known.get("scheme"), written_drafter(known))
    return dataclasses.replace(selected, identity=identity, read=f"{known.file}: a repository of {known.name}")


def written_drafter(model: ProfileFile[Model]) -> Drafter:
    """Return the drafter that a model's profile file describes."""
    return _drafter(model.get("drafter"))


def _drafter(own: ModelDrafter) -> Drafter:
    return Drafter(own.kind, own.scheme, own.layers, own.block_size, round(own.gib * (1 << 30)))


def _of_sibling(model: ProfileFile[Model], sibling: Sibling) -> Identity:
    """Return what the table says of a repository with another drafter than the model's own."""
    size = round((sibling.weights_gib or 0) * (1 << 30))
    return Identity(model.get("architecture"), model.get("scheme"), _drafter(sibling.drafter), size)


def _origin(model: ProfileFile[Model], sibling: Sibling) -> str:
    return f"{model.file}: siblings{f'; {sibling.unknown}' if sibling.unknown else ''}"


def _files(repository: str, request: Request) -> tuple[Identity | None, str, str]:
    """Return what the files of a repository say, what was read, and a note where the Hub could not be read."""
    if not request.operator or not hub_files.is_repository(repository):
        return None, "", ""
    revision = request.flag("revision")
    name = str(revision.value) if revision else "main"
    directory = request.flag("download-dir")
    cache = Path(str(directory.value)) if directory else hub_cache.folder(request.operator)
    if folder := hub_files.cached_folder(repository, cache, name):
        try:
            return identify.identity_of(folder, repository), f"files in the Hub's cache, {folder.name[:12]}", ""
        except ConfigError:
            pass  # an unfinished download; the Hub or the table may know it
    if not request.online:
        return None, "", ""
    answer = hub_files.online(repository, request.operator, name)
    if isinstance(answer, str):
        return None, "", answer
    return answer, "config.json and index on the Hub", ""


def _matching(catalog: Catalog, identity: Identity, text: str, origin: str) -> ProfileFile[Model]:
    """Return the model of an identity; raise ConfigError that names what the checkpoint is."""
    models = list(catalog.every_model())
    model = identify.match(identity, models)
    if model and not identity.unsupported:
        return model
    if other := identity.unsupported:
        raise ConfigError(
            f"{origin}: {text} is {other.name} ({other.what}), for which there is no model here; {other.loads}."
            f" What would serve: {other.instead}."
        )
    if not identity.architecture.startswith("deepseek-v4"):
        raise ConfigError(f"{origin}: {text} is {identity.architecture}; only DeepSeek-V4 and V4.1 are served here.")
    raise ConfigError(
        f"{origin}: {text} is {described(identity)}, which is not a model here"
        f" ({', '.join(model.name for model in models)}); to serve it as one of them, write NAME={text}."
    )


def _is_layout(model: ProfileFile[Model], identity: Identity) -> bool:
    return bool((model.get("architecture"), model.get("scheme")) == (identity.architecture, identity.scheme))


def is_folder(text: str, origin: str) -> bool:
    """Return whether a text names a folder; raise ConfigError if it cannot be read."""
    try:
        return Path(text).is_dir()
    except OSError as error:  # a name too long, or a parent folder that may not be entered
        raise ConfigError(f"{origin}: cannot read {text!r} ({error.strerror}).") from None
