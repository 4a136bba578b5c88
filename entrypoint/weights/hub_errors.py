"""What huggingface_hub raises, as one sentence with what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ConfigError, HostError, of_file
from ..secret import without_password
from . import download
from .download import HubUnreachable

if TYPE_CHECKING:
    from .hub import Place


@contextmanager
def one_sentence(repository: str, place: Place) -> Iterator[None]:
    """Turn what huggingface_hub raises, also while it is imported, into one sentence."""
    try:
        with _of_the_hub(repository, place):
            yield
    except (ValueError, TypeError, LookupError, AttributeError, ImportError) as error:
        hub = without_password(place.endpoint or os.environ.get("HF_ENDPOINT") or "the Hub")
        raise ConfigError(
            f"{hub} cannot be used ({type(error).__name__}): check HF_ENDPOINT, HF_TOKEN and HTTPS_PROXY, and whether"
            " something else answers in its place, such as a login page."
        ) from None


@contextmanager
def _of_the_hub(repository: str, place: Place) -> Iterator[None]:
    from huggingface_hub import constants, errors

    hub = without_password(place.endpoint or constants.ENDPOINT)
    try:
        yield
    except errors.HFValidationError:
        raise ConfigError(f"{repository!r} is not a repository name; use OWNER/NAME.") from None
    except errors.GatedRepoError:
        raise ConfigError(
            f"{repository} is gated: accept its terms at {hub}/{repository}, and set HF_TOKEN to that account's token."
        ) from None
    except errors.RevisionNotFoundError:
        raise ConfigError(f"{repository} has no revision {place.revision!r} at {hub}; check --revision.") from None
    except errors.RepositoryNotFoundError:
        raise ConfigError(
            f"repository {repository} does not exist at {hub}, or is private; check the name, or set HF_TOKEN."
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        raise HubUnreachable(
            f"cannot fetch {repository} from {hub}: HF_HUB_OFFLINE is set, or the Hub is unreachable;"
            " fetch it on a machine with a network, and copy the folder."
        ) from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        raise (ConfigError if code < 500 and code not in download.BUSY else HubUnreachable)(
            _refused(hub, repository, code)
        ) from None
    except errors.HTTPError as error:  # type: ignore[attr-defined]
        raise HubUnreachable(
            f"cannot reach {hub} ({error}); check the network, HF_ENDPOINT and HTTPS_PROXY,"
            " or fetch on another machine and copy the folder."
        ) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise HostError(
                f"the disk filled up while fetching {repository}; free some space, and fetch again."
            ) from None
        message = f"{repository}: {str(error).splitlines()[0]}; fetch again to resume."
        raise (of_file(error) if error.filename else None) or HostError(message) from None


def _refused(hub: str, repository: str, code: int) -> str:
    if code in (401, 403):
        return f"{hub} denied access to {repository} (HTTP {code}); set HF_TOKEN to a token that can read it."
    return f"{hub} returned HTTP {code} for {repository}; try again later."
