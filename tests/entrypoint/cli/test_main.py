"""The command as a user meets it: exit statuses, and one sentence for every mistake."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsv4_serve.entrypoint.cli import main, version
from dsv4_serve.entrypoint.weights import manifest
from dsv4_serve.entrypoint.weights.manifest import Entry, Manifest
from tests.support.command import ARGV
from tests.support.patience import slowness

Run = Callable[..., subprocess.CompletedProcess[str]]


def explained(run: Run, *argv: str, **env: str) -> dict[str, dict[str, object]]:
    answer = run("explain", "--format", "json", *argv, **env)
    assert answer.returncode == 0, answer.stderr
    settings: dict[str, dict[str, object]] = json.loads(answer.stdout)["settings"]
    return settings


NO_GPU = "driver-answers,container-gpus,shared-memory"
"""What a machine without a GPU has against a plan for one."""

MISTAKES = [
    # words, environment, exit status, what the sentence has to say
    (["explain", "--profile", "525k", "--hardware", "h200"], {}, 78, "did you mean 524k?"),
    (["explain", "--hardware", "h2000"], {}, 78, "there is no hardware 'h2000'. Known: b200"),
    (["explain", "--hardware", "h200", "--model", "nvfp"], {}, 78, "nvfp4"),
    (["explain", "--hardware", "h200", "--max-num-seq", "3"], {}, 78, "did you mean max-num-seqs?"),
    (["explain", "--hardware", "h200", "--", "--max-num-seqs"], {}, 64, "--max-num-seqs needs a value"),
    (["explain", "--hardware", "h200", "--format", "xml"], {}, 64, "invalid choice"),
    (["explain", "--hardware", "h200", "stray"], {}, 64, "'stray' is not a vLLM flag"),
    (["explain", "--hardware", "h200", "--max-num-seqs", "0"], {}, 78, "at least 1"),
    (["explain", "--hardware", "h200", "--max-model-len", "0"], {}, 78, "at least 1, or -1 for auto"),
    (["explain", "--hardware", "h200", "--max-num-seqs", "few"], {}, 78, "a whole number"),
    (["explain", "--hardware", "h200", "--gpu-memory-utilization", "1.5"], {}, 78, "above 0 and at most 1"),
    (["explain", "--hardware", "h200", "--kv-cache-dtype", "fp9"], {}, 78, "did you mean fp8"),
    (["explain", "--hardware", "h200", "--max-model-len", "524k"], {}, 78, "probably 524288"),
    (["explain", "--hardware", "h200", "--max-model-len", "1m"], {}, 78, "probably 1048576"),
    (["explain", "--hardware", "h200", "--tp", "2", "-tp", "4"], {}, 78, "conflict"),
    (["explain", "--hardware", "h200", "--max-num-seqs", "4", "--max-num-seqs", "8"], {}, 78, "conflict"),
    (["explain", "--hardware", "h200", "--config", "x.yaml"], {}, 78, "profile"),
    (["explain", "--hardware", "h200", "--speculative-config", "{"], {}, 78, "not valid JSON"),
    (["explain", "--hardware", "h200", "--speculative-config", '{"method_": 1}'], {}, 78, "did you mean method?"),
    (["explain", "--hardware", "h200", "--skip", "nothing"], {}, 78, "'nothing'"),
    (["explain", "--hardware", "h200", "--skip", "shared-memroy"], {}, 78, "did you mean shared-memory?"),
    (["fit", "--profile", "demo", "--model", "demo=/models/demo"], {}, 78, "is not counted"),
    (["fit", "--hardware", "h200", "--profile", "525k"], {}, 78, "did you mean 524k?"),
    (["doctor", "--hardware", "h2000"], {}, 78, "there is no hardware 'h2000'. Known: b200"),
    (["doctor", "--hardware", "h200", "--skip", "memlok"], {}, 78, "did you mean memlock?"),
    (["weights", "status", "nvfp"], {}, 78, "nvfp4"),
    (["weights", "verify", "nvfp4", "--to", "/no/such/folder"], {}, 78, "fetch it"),
    (["weights", "status"], {}, 64, "MODEL"),
    (["weights", "status", "nvfp4", "stray"], {}, 64, "stray"),
    (["explain", "--hardware", "h200"], {"MAX_MODEL_LEN": "128k"}, 78, "environment MAX_MODEL_LEN"),
    (["explain", "--hardware", "h200"], {"GPU_MEM_UTIL": "0.9", "GPU_MEMORY_UTILIZATION": "0.8"}, 78, "conflict"),
    (["explain", "--hardware", "h200"], {"VLLM_USE_DEEPGEMM": "1"}, 78, "did you mean VLLM_USE_DEEP_GEMM?"),
    (
        ["explain", "--hardware", "h200"],
        {"VLLM_TRITON_MLA_SPARSE_HEAD_BLOCK_SIZE": "4"},
        78,
        "does not exist in vLLM 0.32.0",
    ),
    (["explain", "--hardware", "h200"], {"VLLM_TEST_FORCE_FP8_MARLIN": "1"}, 78, "moe-backend"),
    (["explain", "--hardware", "h200"], {"API_KEY_FILE": "/no/such/file"}, 78, "/no/such/file"),
    (["explain", "--hardware", "h200"], {"DSV4_PROFILES": "/no/such/folder"}, 78, "/no/such/folder"),
    (["explain", "--profile", "demo"], {}, 78, "--model demo=FOLDER"),
    (["profiles", "--format", "yaml"], {}, 64, "invalid choice"),
    (["profiles", "stray"], {}, 64, "stray"),
    (["servee"], {}, 64, "'servee' is not a command (did you mean serve?)"),
    (["/etc/passwd"], {}, 64, "is not a command;"),
    (["help", "servee"], {}, 64, "(did you mean serve?)"),
    (["serve", "--profil", "x"], {}, 64, "`dsv4 serve` does not take '--profil' (did you mean --profile?)"),
    (["serve", "--profil=x"], {}, 64, "(did you mean --profile?)"),
    (["serve", "--", "--hardwre", "h200"], {}, 64, "(did you mean --hardware?)"),
    (["serve", "--no-colective"], {}, 64, "(did you mean --no-collective?)"),
    (["up", "--replica", "2", "--hardware", "h200"], {}, 64, "(did you mean --replicas?)"),
    (["bench", "--baches", "1", "--without-weights"], {}, 64, "(did you mean --batch?)"),
    (["bench", "compar", "a", "b"], {}, 64, "'compar' (choose from compare; did you mean compare?)"),
    (
        ["bench", "compare", "a", "b", "--fromat", "json"],
        {},
        64,
        "`dsv4 bench compare` does not take '--fromat' (did you mean",
    ),
    (
        ["weights", "fetsh", "nvfp4"],
        {},
        64,
        "'fetsh' (choose from status, fetch, verify, prefetch; did you mean fetch?)",
    ),
    (["weights", "status", "nvfp4", "--revison", "x"], {}, 64, "(did you mean --revision?)"),
    (["profiles", "--format", "jsn"], {}, 64, "(choose from text, json; did you mean json?)"),
    (["patch", "aply"], {}, 64, "did you mean apply?"),
    (["patch", "apply", "--chek"], {}, 64, "`dsv4 patch apply` does not take '--chek' (did you mean --check?)"),
    (["patch"], {}, 64, "required: COMMAND"),
    (["completion", "zhs"], {}, 64, "did you mean zsh?"),
    (["explain", "--hardware", "h200", "--", "--format", "json"], {}, 64, "write it before `--`"),
    (["explain", "--hardware", "h200", "--", "--format=json"], {}, 64, "write it before `--`"),
    (["--verison"], {}, 64, "`dsv4 --version` prints the version"),
    (["weights", "status", "w4a61"], {}, 78, "(did you mean w4a16?)"),
    (["kernels", "list", "--cache", "x"], {}, 64, "does not take '--cache'; see"),
    (["tune", "--hardware", "h200", "--only", "drafs"], {}, 64, "(did you mean drafts?)"),
    (
        ["explain", "--hardware", "h200", "--no-enable-prefix-caching=true"],
        {},
        78,
        "it does not take a value; write --no-",
    ),
    (["--version=3"], {}, 64, "does not take '--version=3'; write --version alone"),
    (["-Vx"], {}, 64, "does not take '-Vx'; write --version alone"),
    (["--help=serve"], {}, 64, "does not take '--help=serve'; write --help alone"),
    (["-V", "--x"], {}, 64, "`dsv4 version` does not take '--x'"),
    (["--", "serve"], {}, 64, "`--` needs a command before it"),
    (["--"], {}, 64, "`--` needs a command before it"),
]


@pytest.mark.parametrize(("argv", "env", "status", "says"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_answered_in_one_line_with_its_status(
    dsv4: Run, argv: list[str], env: dict[str, str], status: int, says: str
) -> None:
    answer = dsv4(*argv, **env)
    assert answer.returncode == status, answer
    assert says in answer.stderr
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1, "one line, no traceback"


def test_without_a_driver_the_answer_says_so_and_how_to_choose_by_hand(dsv4: Run) -> None:
    answer = dsv4("explain")
    assert answer.returncode == 78
    assert "driver" in answer.stderr
    assert "--hardware" in answer.stderr


def test_a_leading_flag_means_serve(dsv4: Run) -> None:
    answer = dsv4("--max-num-seqs", "4", "--dry-run", HARDWARE="h200")
    assert answer.returncode == 0, answer.stderr
    assert "--max-num-seqs 4" in answer.stdout


@pytest.mark.parametrize(
    ("argv", "other"),
    [
        (["serv"], "--"),  # a word is never taken for an option
        (["weights", "status", "nvfp4", "format"], "--format"),
        (["weights", "--fetch", "nvfp4"], "mean fetch"),  # nor an option for a word
        (["--serve", "--hardware", "h200"], "mean serve"),
        (["weights", "serve", "nvfp4"], "mean serve"),  # nor a choice for a command
    ],
)
def test_what_is_meant_is_of_the_kind_that_was_written(dsv4: Run, argv: list[str], other: str) -> None:
    answer = dsv4(*argv)
    assert answer.returncode in (64, 78)
    assert other not in answer.stderr.partition("see `")[0]


def test_a_misspelt_flag_of_vllm_is_still_answered_with_vllms(dsv4: Run) -> None:
    answer = dsv4("explain", "--hardware", "h200", "--max-num-sequences", "3")
    assert (answer.returncode, "did you mean max-num-seqs?" in answer.stderr) == (78, True)
    retired = dsv4("explain", "--hardware", "h200", "--enable-expert-paralel")
    assert (retired.returncode, "did you mean enable-expert-parallel?" in retired.stderr) == (78, True)


def test_the_printed_command_can_be_pasted(dsv4: Run, tmp_path: Path) -> None:
    """A shell that runs the printed command gives vLLM exactly the plan's arguments and environment."""
    argv = ["--hardware", "rtx-pro-6000", "--profile", "256k", "--", "--override-generation-config", '{"top_k": 1}']
    plan = json.loads(dsv4("explain", "--format", "json", *argv).stdout)
    fake = tmp_path / "vllm"
    fake.write_text('#!/bin/sh\nfor a in vllm "$@"; do printf "%s\\n" "$a"; done; env | grep ^NCCL_ | sort\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    command = dsv4("serve", "--dry-run", *argv).stdout
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    pasted = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=True)
    nccl = [f"{k}={v}" for k, v in sorted(plan["env"].items()) if k.startswith("NCCL_")]
    assert pasted.stdout.splitlines() == [*plan["argv"], *nccl]


@pytest.mark.process
@pytest.mark.slow
def test_a_key_is_passed_on_and_never_shown(dsv4: Run, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("s3cret-key-of-this-test\n")
    fake = tmp_path / "vllm"
    fake.write_text(
        '#!/bin/sh\n[ "$VLLM_API_KEY" ] && [ "$VLLM_API_KEY" != s3cret-key-of-this-test ] && echo "child has another"\n'
    )
    fake.chmod(0o755)
    env = {"HARDWARE": "h200", "API_KEY_FILE": str(secret), "DSV4_VLLM": str(fake), "DSV4_SKIP": NO_GPU}
    env |= {"DSV4_HEALTH_PORT": "0", "DSV4_SUPERVISE_FETCH": "0"}
    for argv, status in ((["explain"], 0), (["explain", "--format", "json"], 0), (["serve"], 87)):
        answer = dsv4(*argv, **env)
        assert answer.returncode == status, answer.stderr
        assert "s3cret" not in answer.stdout + answer.stderr
    assert "child has another" in answer.stdout
    both = dsv4("explain", "--api-key", "other", **env)
    assert both.returncode == 78
    assert "s3cret" not in both.stderr


def test_a_key_that_no_request_can_carry_is_refused_before_the_start_and_not_shown(dsv4: Run) -> None:
    for argv, env in ((["--api-key", "schlüssel"], {}), ([], {"VLLM_API_KEY": "two words"})):
        answer = dsv4("explain", "--hardware", "h200", *argv, **env)
        assert (answer.returncode, answer.stdout) == (78, "")
        assert "one line of ASCII characters" in answer.stderr
        assert "schlüssel" not in answer.stderr
        assert "two words" not in answer.stderr
    assert dsv4("explain", "--hardware", "h200", VLLM_API_KEY="").returncode == 0


@pytest.mark.parametrize(
    "arguments", ["profiles", "explain --hardware h200", "--help", "--version", "probe -h", "patch lint"]
)
def test_a_reader_that_goes_and_a_full_disk_are_no_traceback(arguments: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m dsv4_serve.entrypoint {arguments}"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    full = "dsv4: cannot write to standard output (No space left on device).\n"
    for before, after, status, stderr in (
        ("", "| true; exit ${PIPESTATUS[0]}", 141, ""),
        ("", "> /dev/full", 69, full),
        ("PYTHONUNBUFFERED=1 ", "> /dev/full", 69, full),  # as in the image
    ):
        shell = ["bash", "-c", f"{before}{command} {after}"]
        found = subprocess.run(shell, env=environ, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (status, stderr)


def test_what_an_encoding_lacks_is_printed_as_an_escape() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run([*ARGV, "fit", "--hardware", "h200"], env=env, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert r", \xb1 " in found.stdout


def test_an_error_that_cannot_be_printed_keeps_its_status() -> None:
    for argv, status in ((["explain", "--profile", "525k"], 78), (["servee"], 64)):
        with Path("/dev/full").open("wb") as full:
            found = subprocess.run([*ARGV, *argv], stdout=subprocess.PIPE, stderr=full, check=False)
        assert (found.returncode, found.stdout) == (status, b"")


@pytest.mark.parametrize("name", ["DSV4_CACHE", "DSV4_PROFILES", "HF_HOME"])
@pytest.mark.parametrize("arguments", ["kernels list", "profiles", "weights status w4a16", "doctor --hardware h200"])
def test_a_folder_that_cannot_be_used_is_named_in_one_line(
    dsv4: Run, tmp_path: Path, name: str, arguments: str
) -> None:
    """Another user's folder answers as one with too long a name does; root may read the former."""
    folder = tmp_path / ("x" * 300) / "cache"
    answer = dsv4(*arguments.split(), **{name: str(folder)})
    assert "Traceback" not in answer.stderr
    if "cannot use" in answer.stderr:
        assert answer.returncode == 69
        assert answer.stderr.count("\n") == 1
        assert answer.stderr.startswith(f"dsv4: cannot use {folder}")
    if (name, arguments) in (("DSV4_CACHE", "kernels list"), ("DSV4_PROFILES", "profiles")):
        assert answer.returncode == 69


def test_the_doctor_reports_a_cache_that_cannot_be_used_with_all_others(dsv4: Run, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 300)
    answer = dsv4("doctor", "--hardware", "h200", "--format", "json", HF_HOME=str(folder), DSV4_CACHE=str(folder))
    report = json.loads(answer.stdout)
    assert "driver-answers" in {problem["name"] for problem in report["problems"]}
    assert (
        f"the checkpoint: the Hub's cache, {folder}/hub, cannot be read (File name too long)" in report["not_checked"]
    )


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (OSError(28, "No space left on device"), 69, "dsv4: cannot write a file (No space left on device).\n"),
        (PermissionError(13, "Permission denied", "/x"), 69, "dsv4: cannot use /x (Permission denied).\n"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 70, "Traceback"),
        (KeyError("x"), 70, "dsv4: internal error (KeyError); report it with `dsv4 bundle --support`.\n"),
    ],
)
def test_an_error_that_no_command_expects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, status: int, says: str
) -> None:
    def fails(*_: object) -> int:
        raise error

    monkeypatch.setattr(version, "run", fails)
    assert main.main(["version"]) == status
    printed = capsys.readouterr()
    assert (printed.out, says in printed.err) == ("", True)


def test_what_main_imports_at_once_is_loaded_before_any_code_of_ours() -> None:
    """Ctrl-C during another import would print a traceback, as nothing handles it yet."""
    tree = ast.parse(Path(main.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert names == {"__future__", "errno", "os", "sys"}


@pytest.mark.process
@pytest.mark.slow
def test_ctrl_c_ends_a_verification_at_once_and_without_a_traceback(tmp_path: Path) -> None:
    size = 1 << 36  # a hole in the disk that takes a minute to hash
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(size)
    manifest.write(Manifest("o/n", "0" * 40, (Entry("model.safetensors", size, "sha256", "0" * 64),)), tmp_path)
    argv = ["weights", "verify", "o/n", "--to", str(tmp_path)]
    with subprocess.Popen([*ARGV, *argv], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert "verified" in child.stderr.readline()  # five seconds after it began
        child.send_signal(signal.SIGINT)
        assert child.wait(5 * slowness()) == 130
        assert "Traceback" not in child.stderr.read()


def test_an_api_key_on_the_command_line_is_masked(dsv4: Run) -> None:
    for argv in (["explain"], ["explain", "--format", "json"], ["serve", "--dry-run"]):
        assert "s3cret" not in dsv4(*argv, "--hardware", "h200", "--api-key", "s3cret").stdout


def test_secrets_are_in_the_environment_of_vllm_and_in_no_process_list(tmp_path: Path) -> None:
    fake = tmp_path / "vllm"
    fake.write_text(
        '#!/bin/sh\n[ "$VLLM_API_KEY$HF_TOKEN" = s3cret-as3cret-b ] && echo "child has both"\n'
        'cat /proc/$$/cmdline /proc/$PPID/cmdline | tr "\\0" " "\n'
    )
    fake.chmod(0o755)
    env = {"HARDWARE": "h200", "DSV4_VLLM": str(fake), "DSV4_SKIP": NO_GPU, "DSV4_HEALTH_PORT": "0"}
    env |= {"DSV4_SUPERVISE_FETCH": "0", "DSV4_RUN_DIR": str(tmp_path / "run"), "PATH": os.environ["PATH"]}
    argv = [*ARGV, "serve", "--api-key", "s3cret-a", "--hf-token=s3cret-b"]
    answer = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60 * slowness(), check=False)
    assert "child has both" in answer.stdout
    assert "--api-key ******** --hf-token=********" in answer.stdout  # ours
    assert "s3cret" not in answer.stdout + answer.stderr
    assert "give the key by file (API_KEY_FILE)" in answer.stderr


@pytest.mark.process
@pytest.mark.slow
def test_a_start_without_a_key_on_every_address_is_said_loudly(dsv4: Run) -> None:
    env = {"HARDWARE": "h200", "DSV4_VLLM": "/bin/true", "DSV4_SKIP": NO_GPU, "DSV4_HEALTH_PORT": "0"}
    warning = "WARNING: NO KEY: everyone who reaches 0.0.0.0 port 8000"
    assert warning in dsv4("serve", "--host", "0.0.0.0", **env).stderr
    assert "NO KEY" not in dsv4("serve", "--host", "127.0.0.1", **env).stderr
    assert "NO KEY" not in dsv4("serve", "--host", "0.0.0.0", VLLM_API_KEY="key", **env).stderr


def test_two_keys_that_contradict_each_other_are_not_shown(dsv4: Run) -> None:
    answer = dsv4("explain", "--hardware", "h200", "--api-key", "s3cret-a", "--api-key", "s3cret-b")
    assert answer.returncode == 78
    assert "conflict" in answer.stderr
    assert "s3cret" not in answer.stderr


def test_json_output_has_the_documented_shape(dsv4: Run) -> None:
    answer = json.loads(dsv4("explain", "--format", "json", "--hardware", "h200").stdout)
    assert set(answer) == {"argv", "env", "settings"}
    assert answer["argv"][:2] == ["vllm", "serve"]
    for setting in answer["settings"].values():
        assert set(setting) == {"value", "origin", "overridden"}


def test_profiles_lists_context_requests_and_what_was_measured(dsv4: Run) -> None:
    entries = {e["name"]: e for e in json.loads(dsv4("profiles", "--format", "json").stdout)}
    assert (entries["524k"]["context"], entries["524k"]["requests"]) == (524288, 2)
    assert (entries["1m"]["context"], entries["1m"]["requests"]) == (1048576, 1)
    text = dsv4("profiles").stdout
    for entry in entries.values():
        assert f"{entry['context']} x {entry['requests']}" in text
        assert all(" ".join(m["what"].split()) in " ".join(text.split()) for m in entry["measured"])


def test_what_fits_is_listed_in_a_pipe_and_as_json_and_needs_gpus_or_a_kind_of_them(dsv4: Run) -> None:
    done = dsv4("profiles", "--hardware", "rtx-pro-6000", "--gpus", "4")
    assert "* flash-0731-nvfp4" in done.stdout
    assert "\x1b" not in done.stdout
    data = json.loads(dsv4("profiles", "--hardware", "rtx-pro-6000", "--gpus", "4", "--format", "json").stdout)
    assert data["choices"]["default"]["profile"] == "524k"
    assert "--hardware" in dsv4("profiles", "--here").stderr
    assert "need --here or --hardware" in dsv4("profiles", "--gpus", "4").stderr


def test_unmeasured_profiles_say_so(dsv4: Run, folder: Callable[..., Path]) -> None:
    mounted = folder({"mine.toml": 'extends = "128k"\n'})
    lines = dsv4("profiles", DSV4_PROFILES=str(mounted)).stdout.splitlines()
    assert lines[[line.split()[0] for line in lines].index("mine") + 2].strip() == "unmeasured"


def test_the_command_never_imports_torch_or_vllm() -> None:
    code = (
        "import sys; from dsv4_serve.entrypoint.cli.main import main; main(['explain', '--hardware', 'h200']);"
        "assert not {'torch', 'vllm'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_a_closed_pipe_is_no_traceback() -> None:
    line = f"{shlex.quote(sys.executable)} -m dsv4_serve.entrypoint explain --hardware h200 | true"
    answer = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in answer.stderr


def test_fit_answers_in_text_and_json_and_by_its_exit_status(dsv4: Run) -> None:
    argv = ["fit", "--profile", "1m", "--hardware", "rtx-pro-6000", "--model", "w4a16"]
    fits = dsv4(*argv)
    assert fits.returncode == 0, fits.stderr
    assert "maximum concurrency" in fits.stdout
    too_much = dsv4(*argv, "--max-num-batched-tokens", "16384", "--format", "json")
    assert too_much.returncode == 1
    answer = json.loads(too_much.stdout)
    assert (answer["fits"], answer["advice"][0]["flag"]) == (False, "max-num-batched-tokens")


def test_auto_takes_the_largest_profile_that_fits_and_says_why_in_the_plan(dsv4: Run) -> None:
    by_flag = explained(dsv4, "--profile", "auto", "--hardware", "rtx-pro-6000", "--model", "nvfp4")["profile"]
    by_variable = explained(dsv4, "--hardware", "rtx-pro-6000", "--model", "nvfp4", PROFILE="auto")["profile"]
    assert by_flag["value"] == by_variable["value"] == "64k"
    assert "; 128k: 8 requests need " in str(by_flag["origin"])


def test_weights_are_listed_and_verified_without_a_network(dsv4: Run, tmp_path: Path) -> None:
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    nothing = dsv4("weights", "status", "nvfp4", **env)
    assert (nothing.returncode, "not fetched" in nothing.stdout) == (1, True)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"12345")
    entry = Entry("a.safetensors", 5, "sha256", hashlib.sha256(b"12345").hexdigest())
    manifest.write(Manifest("me/mine", "0" * 40, (entry,)), folder)
    argv = ["weights", "verify", "me/mine", "--to", str(folder)]
    whole = dsv4(*argv, **env)
    assert (whole.returncode, "all bytes match" in whole.stdout) == (0, True)
    assert dsv4("weights", "status", "me/mine", "--to", str(folder), **env).returncode == 0
    (folder / "a.safetensors").write_bytes(b"12346")
    changed = dsv4(*argv, "--format", "json", **env)
    assert changed.returncode == 1
    assert json.loads(changed.stdout)["wrong"] == ["a.safetensors"]


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_change_no_status(closed: tuple[int, ...]) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    for argv, expected in ((["version"], 0), (["profiles"], 0), (["servee"], 64)):
        done = subprocess.run([*ARGV, *argv], preexec_fn=close, check=False, timeout=60 * slowness())
        assert done.returncode == expected, argv
