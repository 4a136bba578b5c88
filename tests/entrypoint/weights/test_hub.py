"""Fetching from a Hub that speaks over real sockets: whole, interrupted, refused, out of reach."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.errors import ConfigError, UserError
from dsv4_serve.entrypoint.weights import download, hub, manifest
from dsv4_serve.entrypoint.weights.download import HubUnreachable
from dsv4_serve.entrypoint.weights.hub import Place
from tests.support.hub import COMMIT, LARGE, REPOSITORY, Hub, hub_server
from tests.support.patience import slowness


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = {
        "config.json": b'{"model_type": "deepseek_v4"}',
        "model.safetensors": LARGE,
        "inference/model.py": b"pass\n",
        "old.gguf": b"not served",
    }
    with hub_server(files) as state:
        yield state


@pytest.fixture
def place(served: Hub, tmp_path: Path) -> Place:
    return Place(served.url, tmp_path / "cache")


def test_a_repository_is_fetched_into_a_folder_with_its_list(
    served: Hub, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dsv4_serve")
    folder = hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert (folder / "model.safetensors").read_bytes() == LARGE
    assert (folder / "inference/model.py").is_file()
    assert not (folder / "old.gguf").exists()
    assert caplog.messages[0] == f"fetching {REPOSITORY}@{COMMIT[:12]}: 0.02 of 0.02 GB to download"
    kept = manifest.read(folder)
    assert kept
    assert kept == hub.listing(REPOSITORY, place)
    assert manifest.verify(folder, kept).whole


def test_a_repository_is_fetched_into_the_cache_that_vllm_reads(served: Hub, place: Place) -> None:
    assert hub.cached(REPOSITORY, place) is None
    folder = hub.fetch(REPOSITORY, place)
    assert folder == hub.cached(REPOSITORY, place)
    assert folder.name == COMMIT
    kept = manifest.read(folder)
    assert kept
    assert manifest.verify(folder, kept).whole


def test_progress_is_logged_while_bytes_come(
    served: Hub, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dsv4_serve")
    monkeypatch.setattr(manifest.TransferProgress.__init__, "__defaults__", (0.05, None))
    served.slow = 0.01
    hub.fetch(REPOSITORY, place)
    assert any(line.startswith("fetched 0.0") and line.endswith(" min left") for line in caplog.messages)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("into_folder", [True, False])
def test_an_interrupted_download_goes_on_where_it_stopped(
    served: Hub, place: Place, tmp_path: Path, into_folder: bool
) -> None:
    folder = tmp_path / "weights" if into_folder else None
    script = f"""
from pathlib import Path
from dsv4_serve.entrypoint.weights.hub import Place, fetch
fetch({REPOSITORY!r}, Place({served.url!r}, Path({str(place.cache)!r})), {f"Path({str(folder)!r})" if folder else None})
"""
    served.slow = 0.2
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60 * slowness()
        while not any(p.stat().st_size > 9_000_000 for p in tmp_path.rglob("*.part")):
            assert time.monotonic() < deadline, "nothing arrived"
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    before = hub.status(REPOSITORY, place, folder)
    assert "model.safetensors" in before.missing
    assert not before.complete
    served.slow = 0.0
    whole = hub.fetch(REPOSITORY, place, folder)
    assert (whole / "model.safetensors").read_bytes() == LARGE
    assert int(served.ranges[0].removeprefix("bytes=").removesuffix("-")) >= 9_000_000
    assert hub.status(REPOSITORY, place, folder).complete


@pytest.mark.parametrize("ignores_ranges", [True, False])
def test_a_broken_connection_is_opened_again(served: Hub, place: Place, tmp_path: Path, ignores_ranges: bool) -> None:
    served.cut, served.ignores_ranges = 5, ignores_ranges
    folder = hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert (folder / "model.safetensors").read_bytes() == LARGE
    assert len(served.ranges) == 1


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_WAIT", 0.001)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(("short", "ignores_ranges"), [(0, False), (1, False), (1 << 20, True), (1, True)])
def test_answers_that_end_short_are_asked_for_a_bounded_number_of_times(
    served: Hub, place: Place, tmp_path: Path, short: int, ignores_ranges: bool
) -> None:
    served.short, served.ignores_ranges = short, ignores_ranges
    with pytest.raises(UserError, match=r"model.safetensors stopped after [\d,]+ of .*the answer ended short"):
        hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert served.requests <= 7


@pytest.mark.usefixtures("_quick")
def test_a_connection_that_trickles_is_opened_again_a_bounded_number_of_times(
    served: Hub, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_SLOW", 0.1)
    served.trickle = 0.02
    with pytest.raises(HubUnreachable, match=r"stopped after [\d,]+ of .*less than 1 MiB in 0 s"):
        hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert len(served.ranges) == 5


@pytest.mark.usefixtures("_quick")
def test_a_busy_hub_is_asked_again_a_bounded_number_of_times(served: Hub, place: Place, tmp_path: Path) -> None:
    served.busy = 3
    folder = hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert (folder / "model.safetensors").read_bytes() == LARGE
    served.busy = 9
    with pytest.raises(HubUnreachable, match=r"model.safetensors stopped after 0 of .*\(HTTP 503\)"):
        hub.fetch(REPOSITORY, place, tmp_path / "other")


@pytest.mark.usefixtures("_quick")
def test_a_hub_that_sends_little_at_a_time_comes_to_its_end(served: Hub, place: Place, tmp_path: Path) -> None:
    served.short = 4 << 20
    assert (hub.fetch(REPOSITORY, place, tmp_path / "weights") / "model.safetensors").read_bytes() == LARGE


def test_the_wait_between_attempts_doubles(
    served: Hub, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_WAIT", 0.05)
    served.short, began = 0, time.monotonic()
    with pytest.raises(UserError, match="stopped after 0 of"):
        hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert time.monotonic() - began >= 0.05 * (1 + 2 + 4 + 8 + 16)


def test_a_pipe_in_place_of_a_partial_file_is_named(served: Hub, place: Place, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    os.mkfifo(tmp_path / "weights/model.safetensors.part")
    with pytest.raises(UserError, match="is not a regular file"):
        hub.fetch(REPOSITORY, place, tmp_path / "weights")


def test_what_comes_with_another_hash_is_not_kept(
    served: Hub, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = hub.listing(REPOSITORY, place)
    served.files["model.safetensors"] = bytes(len(LARGE))
    monkeypatch.setattr(hub, "listing", lambda *_: known)  # as if a proxy had changed the file on its way
    with pytest.raises(UserError, match=r"model\.safetensors has sha256"):
        hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert not (tmp_path / "weights/model.safetensors").exists()
    assert not (tmp_path / "weights/model.safetensors.part").stat().st_size


def test_two_fetches_into_one_place_do_not_mix(served: Hub, place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    with (folder / "model.safetensors.part").open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is fetching"):
            hub.fetch(REPOSITORY, place, folder)


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("nvfp4", "canada-quant/DeepSeek-V4-Flash-NVFP4-FP8-MTP"),
        ("flash", "deepseek-ai/DeepSeek-V4-Flash"),
        ("a/b", "a/b"),
    ],
)
def test_a_model_is_named_as_for_serving(text: str, repository: str) -> None:
    assert hub.repository_of(Catalog([]), text, "MODEL") == repository


@pytest.mark.parametrize("text", ["nvpf4", "demo", ""])
def test_a_model_without_a_repository_is_reported(text: str) -> None:
    with pytest.raises(ConfigError, match="OWNER/NAME, or one of acti, flash, flash-0731, "):
        hub.repository_of(Catalog([]), text, "MODEL")


def test_a_folder_that_cannot_be_written_is_reported(served: Hub, place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        hub.fetch(REPOSITORY, place, tmp_path / "file/weights")


def test_a_hub_that_names_files_outside_is_not_followed(served: Hub, place: Place, tmp_path: Path) -> None:
    served.files["../outside"] = b""
    with pytest.raises(UserError, match="not a valid entry"):
        hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert not (tmp_path / "outside").exists()


def test_the_token_is_sent(served: Hub, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fetch(REPOSITORY, place, tmp_path / "weights")
    assert served.tokens == {"Bearer hf_secret"}


def test_the_state_of_a_repository_is_reported_in_bytes(served: Hub, place: Place, tmp_path: Path) -> None:
    before = hub.status(REPOSITORY, place)
    assert (before.source, before.folder, before.files, len(before.missing)) == ("hub", None, 0, 3)
    assert before.missing_size == sum(map(len, served.files.values())) - len(b"not served")
    folder = hub.fetch(REPOSITORY, place, tmp_path / "weights")
    (folder / "model.safetensors").write_bytes(LARGE[:-1])
    after = hub.status(REPOSITORY, place, folder)
    assert (after.missing, after.missing_size, after.files) == (("model.safetensors",), len(LARGE), 2)
    assert json.loads(json.dumps(after.to_json()))["complete"] is False


def test_without_a_network_the_manifest_beside_the_weights_answers(served: Hub, place: Place, tmp_path: Path) -> None:
    folder = hub.fetch(REPOSITORY, place, tmp_path / "weights")
    away = Place("http://127.0.0.1:9", place.cache)
    assert (hub.status(REPOSITORY, away, folder).source, hub.status(REPOSITORY, away, folder).complete) == (
        "manifest",
        True,
    )
    (folder / manifest.NAME).unlink()
    assert hub.status(REPOSITORY, away, folder).source == "nothing"
    assert hub.status(REPOSITORY, away).folder is None
    with pytest.raises(UserError, match="cannot reach"):
        hub.fetch(REPOSITORY, away, folder)


def test_hf_hub_offline_is_named(served: Hub, place: Place) -> None:
    script = f"from dsv4_serve.entrypoint.weights import hub; hub.listing({REPOSITORY!r}, hub.Place({served.url!r}))"
    child = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "HF_HUB_OFFLINE is set, or the Hub is unreachable" in child.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ((401, "GatedRepo"), "is gated: accept its terms at http://127"),
        ((403, "GatedRepo"), "HF_TOKEN"),
        ((401, "RepoNotFound"), "or set HF_TOKEN"),
        ((404, "RepoNotFound"), f"repository {REPOSITORY} does not exist at"),
        ((403, ""), r"denied access to owner/model \(HTTP 403\); set HF_TOKEN"),
        ((500, ""), "returned HTTP 500"),
    ],
)
def test_a_refusal_is_reported_in_one_sentence(served: Hub, place: Place, error: tuple[int, str], words: str) -> None:
    served.error = error
    with pytest.raises(UserError, match=words) as raised:
        hub.fetch(REPOSITORY, place)
    assert "\n" not in str(raised.value)


def test_a_password_in_the_address_of_the_hub_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable, match=r"http://me:\*\*\*@127.0.0.1:9") as raised:
        hub.listing(REPOSITORY, Place("http://me:pa55word@127.0.0.1:9", tmp_path))
    assert "pa55word" not in str(raised.value)
    file = download.File("http://me:pa55word@127.0.0.1:9/a", tmp_path / "a", manifest.Entry("a", 1, "sha256", "0" * 64))
    for status in (401, 404):
        with pytest.raises(UserError, match=r"me:\*\*\*@") as refused:
            download._require_success(status, file)
        assert "pa55word" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("HTTP_PROXY", "socks9://me:pa55word@x"), ("HF_TOKEN", "hf_pa55word\u00f6")]
)
def test_a_proxy_or_a_token_that_cannot_be_used_is_one_sentence(
    served: Hub, place: Place, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    from huggingface_hub import close_session

    close_session()  # its client has read the proxies
    monkeypatch.setenv(name, value)
    try:
        with pytest.raises(ConfigError, match=r"cannot be used .*HF_TOKEN and HTTPS_PROXY") as raised:
            hub.listing(REPOSITORY, place)
    finally:
        close_session()
    assert "pa55word" not in str(raised.value)


@pytest.mark.parametrize("page", [b"<html>Log in</html>", b"[1]", b'{"siblings": 5}'])
def test_what_answers_in_place_of_the_hub_is_one_sentence(
    served: Hub, place: Place, monkeypatch: pytest.MonkeyPatch, page: bytes
) -> None:
    monkeypatch.setattr("tests.support.hub.json.dumps", lambda _: page.decode())
    with pytest.raises(ConfigError, match="such as a login page"):
        hub.listing(REPOSITORY, place)


def test_a_revision_that_is_not_there_is_named(served: Hub, place: Place) -> None:
    with pytest.raises(UserError, match="no revision 'v9'"):
        hub.listing(REPOSITORY, Place(served.url, revision="v9"))


@pytest.mark.parametrize("name", ["a/b/c", "", "owner/mod el", "-x"])
def test_an_invalid_repository_name_is_reported(place: Place, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a repository name"):
        hub.status(name, place)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_too_small_is_reported_before_anything_is_fetched(
    served: Hub, place: Place, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=False).returncode:
        pytest.skip("this machine does not let a tmpfs be mounted")
    try:
        sent = served.sent
        with pytest.raises(UserError, match=r"GB free, but owner/model needs 0\.0 GB more"):
            hub.fetch(REPOSITORY, place, small / "weights")
        assert served.sent - sent <= 1 << 20  # the listing alone
    finally:
        subprocess.run(["umount", small], check=True)
