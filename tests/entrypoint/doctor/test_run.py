"""The doctor as a whole: every problem at once, what was not looked at, which all-reduce is tried."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from dsv4_serve.demo.deepseek_v4 import Dims, write
from dsv4_serve.demo.llama import write_checkpoint
from dsv4_serve.entrypoint.catalog.catalog import Catalog
from dsv4_serve.entrypoint.checkpoint import read
from dsv4_serve.entrypoint.doctor import facts, report, run
from dsv4_serve.entrypoint.doctor.all_reduce import trial
from dsv4_serve.entrypoint.doctor.all_reduce.result import AllReduceResult
from dsv4_serve.entrypoint.doctor.all_reduce.try_nccl_sets import prove
from dsv4_serve.entrypoint.doctor.options import DoctorOptions
from dsv4_serve.entrypoint.machine.gpus import HostGpus
from dsv4_serve.entrypoint.machine.host import Host
from dsv4_serve.entrypoint.machine.machine import read_machine
from dsv4_serve.entrypoint.plan import Setting
from dsv4_serve.entrypoint.problem import Problem
from dsv4_serve.entrypoint.request import Layer, Request
from dsv4_serve.entrypoint.resolve.layers import resolve
from dsv4_serve.entrypoint.resolve.select import select
from tools import record_host

RECORDED = Path(__file__).parents[1] / "machine/recorded"
TINY = """
extends = "flash"
architecture = "deepseek-v4-tiny"
scheme = "unquantized"
drafter = { kind = "mtp", scheme = "unquantized" }
[flags]
load-format = "auto"
"""
PROFILE = "[flags]\nmax-model-len = 4096\nmax-num-seqs = 2\n"


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write(folder, "bf16", Dims(experts=8))
    return folder


@pytest.fixture
def tiny(original: Path, tmp_path: Path) -> Path:
    """A DeepSeek-V4 that may be broken: its files are links."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in original.iterdir():
        (folder / file.name).hardlink_to(file)
    return folder


@pytest.fixture
def doctor(dsv4, folder):
    """`dsv4 doctor --format json` of a tiny checkpoint as a model of our own; returns exit status and answer."""
    mounted = folder({"models/tiny.toml": TINY, "mine.toml": PROFILE})

    def ask(*argv: str, **env: str):
        answer = dsv4("doctor", "--format", "json", *argv, **{"DSV4_PROFILES": str(mounted), "PROFILE": "mine", **env})
        return answer.returncode, json.loads(answer.stdout) if answer.stdout else answer.stderr

    return ask


def names(answer) -> list[str]:
    return [problem["name"] for problem in answer["problems"]]


def truncate(file: Path, by: int) -> None:
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-by])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_good_checkpoint_passes_without_a_gpu_and_the_report_says_that_the_host_was_not_checked(doctor, tiny) -> None:
    status, answer = doctor("--model", f"tiny={tiny}", "--host", "10.0.0.1", "--port", "99")
    assert (status, answer["ok"], names(answer)) == (0, True, ["api-key-set"])
    assert "NO KEY: everyone who reaches 10.0.0.1 port 99" in answer["problems"][0]["seen"]
    status, answer = doctor("--model", f"tiny={tiny}", "--host", "127.0.0.1")
    assert (status, answer["ok"], names(answer)) == (0, True, [])
    assert answer["not_checked"] == [
        "this host: it has no NVIDIA driver",
        "memory: the GPU's memory is not known: name the hardware (--hardware), or set memory-gib in its file",
    ]


def test_every_fault_of_a_checkpoint_is_reported_at_once(doctor, tiny) -> None:
    truncate(tiny / "model-00001-of-00002.safetensors", 7)
    (tiny / "tokenizer.json").unlink()
    status, answer = doctor("--model", f"tiny={tiny}")
    assert status == 78
    assert {"shards-whole", "tokenizer-present"} <= set(names(answer))


def test_a_checkpoint_of_another_quantizer_is_refused(doctor, tiny) -> None:
    """GPTQ and AutoRound call an expert's tensor `qweight`; vLLM 0.32.0's DeepSeek-V4 looks for none of them."""
    for name, shard in read.read(tiny).shards.items():
        data = (tiny / name).read_bytes()
        (tiny / name).unlink()
        (tiny / name).write_bytes(
            rename(data, {tensor: tensor.replace(".w1.weight", ".w1.qweight") for tensor in shard.tensors})
        )
    (tiny / read.INDEX).unlink(missing_ok=True)
    status, answer = doctor("--model", f"tiny={tiny}")
    assert status == 78
    assert "target-model-complete" in names(answer)


def rename(data: bytes, names: dict[str, str]) -> bytes:
    """A safetensors file with other names in its header."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header = {names.get(name, name): about for name, about in header.items()}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_a_folder_that_is_not_there_is_a_problem_and_no_traceback(doctor) -> None:
    status, answer = doctor("--model", "tiny=/no/such/folder")
    assert status == 78
    assert "folder-readable" in names(answer)
    assert not {"weights-present", "config-readable", "tokenizer-present"} & set(names(answer))


def test_without_driver_and_model_the_host_is_looked_at(doctor) -> None:
    status, answer = doctor()
    assert status == 69
    assert answer["problems"][0]["name"] == "driver-answers"
    assert "the checkpoint" in answer["not_checked"][0]


def test_a_port_in_use_is_a_problem_of_the_host_and_can_be_skipped(dsv4, tmp_path) -> None:
    model = write_checkpoint(tmp_path / "demo")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        env = {"PORT": str(held.getsockname()[1]), "DSV4_HEALTH_PORT": str(free_port())}
        argv = ["doctor", "--profile", "demo", "--model", f"demo={model}"]
        refused = dsv4(*argv, **env)
        assert refused.returncode == 69
        assert "problem port-free: port" in refused.stdout
        assert "(PORT)" in refused.stdout
        assert dsv4(*argv, "--skip", "port-free", **env).returncode == 0


def test_refusals_and_problems_come_together_under_one_list_of_names(doctor, tiny) -> None:
    (tiny / "tokenizer.json").unlink()
    argv = ["--model", f"tiny={tiny}", "--log-config-file", "mine.json", "--moe-backend", "auto"]
    status, answer = doctor(*argv)
    assert status == 78
    assert {"log-config", "tokenizer-present"} <= set(names(answer))
    assert doctor(*argv, "--skip", "log-config", "--skip", "tokenizer-present")[0] == 0


def test_what_is_fatal_comes_first_and_a_name_once() -> None:
    note = report.Diagnosis("b", Problem("", "", "", fatal=False), of_host=True)
    fatal = report.Diagnosis("a", Problem("", "", ""), of_host=True)
    made = report.report([note, fatal, dataclasses.replace(fatal, of_host=False)], [])
    assert made.diagnoses == (fatal, note)


@pytest.mark.parametrize(("hosts", "status"), [([], 0), ([True], 69), ([False], 78), ([True, False], 78)])
def test_the_exit_status_tells_the_host_from_the_request(hosts, status) -> None:
    problems = [report.Diagnosis(f"p{n}", Problem("", "", ""), of_host=host) for n, host in enumerate(hosts)]
    assert report.report(problems, []).exit_status == status


# Which all-reduce is tried


@pytest.fixture
def looked(monkeypatch, tmp_path, caplog):
    """Look at a recorded host; every all-reduce that is tried, by name, and what came of it is made up."""

    def look(recording: str, fails: tuple[str, ...] = (), *, hardware="rtx-pro-6000", nvlink=False, **how):
        machine = record_host.load((RECORDED / f"{recording}.json").read_text()).machine
        if nvlink:
            pairs = tuple(dataclasses.replace(pair, nvlink=True) for pair in machine.topology.pairs)
            machine = dataclasses.replace(machine, topology=dataclasses.replace(machine.topology, pairs=pairs))
        tried = []

        def one(ranks, backend, env, limit) -> AllReduceResult:
            tried.append(dict(env))
            name = "p2p-off" if "NCCL_P2P_DISABLE" in env else "p2p-on"
            return AllReduceResult(name not in fails, ranks, backend, 1.0, hung_at="init" if name in fails else "")

        monkeypatch.setattr(facts, "read_host", lambda machine, required: Host(machine.seen_with(required.env)))
        monkeypatch.setattr(trial, "prove", lambda sets, ranks: prove(sets, ranks, run_one=one))
        request = Request({"profile": Setting("64k", "test"), "model": Setting("acti", "test")}, operator={})
        selection = select(Catalog([]), request, lambda: HostGpus(hardware, "NVML", 2, machine.topology))
        caplog.clear()
        caplog.set_level("INFO")
        options = DoctorOptions({"HF_HOME": str(tmp_path)}, **how)
        answer = run.check_plan(selection, resolve(selection, request), machine, options)
        return answer, tried, [record.getMessage() for record in caplog.records]

    return look


def test_serve_tries_an_all_reduce_where_there_is_no_nvlink_and_says_why(looked) -> None:
    answer, tried, messages = looked("rtx-pro-6000-x2")
    assert (len(tried), answer.fatal) == (1, ())
    assert tried[0]["NCCL_P2P_DISABLE"] == "1"
    assert "no NVLink between them" in messages[0]


def test_serve_tries_no_all_reduce_over_nvlink_unless_requested(looked) -> None:
    answer, tried, _ = looked("rtx-pro-6000-x2", nvlink=True)
    assert tried == []
    assert "an all-reduce: NVLink connects the GPUs" in answer.not_checked
    assert len(looked("rtx-pro-6000-x2", nvlink=True, collective=True)[1]) == 1
    assert looked("rtx-pro-6000-x2", collective=False)[1] == []


def test_the_doctor_tries_peer_access_where_nothing_stands_against_it(looked) -> None:
    answer, tried, messages = looked("rtx-pro-6000-x2", collective=True, compare=True)
    assert ["NCCL_P2P_LEVEL" in env for env in tried] == [True]
    assert any("--nccl p2p-on" in line for line in messages)
    assert answer.fatal == ()
    _, tried, messages = looked("rtx-pro-6000-x2", ("p2p-on",), collective=True, compare=True)
    assert ["NCCL_P2P_LEVEL" in env for env in tried] == [True, False]
    assert not any("--nccl p2p-on" in line for line in messages)


def test_peer_access_is_not_tried_where_the_iommu_translates(looked) -> None:
    _, tried, _ = looked("rtx-pro-6000-x2-translated", collective=True, compare=True)
    assert ["NCCL_P2P_LEVEL" in env for env in tried] == [False]


def test_an_all_reduce_that_hangs_is_fatal_and_of_the_host(looked) -> None:
    answer, _, _ = looked("rtx-pro-6000-x2", ("p2p-off",))
    assert [one.name for one in answer.fatal] == ["collective-hang"]
    assert answer.exit_status == 69


def test_no_all_reduce_is_tried_when_it_is_skipped_by_every_name(looked) -> None:
    assert looked("rtx-pro-6000-x2", ("p2p-off",), skip=frozenset({"collective-hang"}))[0].fatal == ()


# Weights in the Hub's cache


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (
            None,
            "is not in the Hub's cache; `dsv4 serve` fetches it (about 146 GiB on the GPUs); to serve a folder instead, set --model acti=FOLDER",
        ),
        (
            {"weight_map": {"embed.weight": "model-00001-of-00002.safetensors"}},
            "is incomplete in the Hub's cache; `dsv4 serve` fetches the rest",
        ),
    ],
)
def test_weights_that_are_not_all_in_the_cache_are_left_to_vllm(tmp_path, index, says) -> None:
    if index:
        kept = tmp_path / "hub/models--LordNeel--DeepSeek-V4-Flash-Acti-MTP-W4A16-FP8"
        snapshot = kept / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (kept / "refs").mkdir()
        (kept / "refs/main").write_text("a" * 40)
        (snapshot / "config.json").write_text("{}")
        (snapshot / read.INDEX).write_text(json.dumps(index))
    request = Request(
        {"profile": Setting("64k", "test"), "model": Setting("acti", "test"), "hardware": Setting("h200", "test")},
        command_line=Layer(),
    )
    selection = select(Catalog([]), request, lambda: pytest.fail("the hardware was named"))
    plan = resolve(selection, request)
    options = DoctorOptions({"HF_HOME": str(tmp_path)}, skip=frozenset({"driver-answers"}))
    assert says in run.check_plan(selection, plan, read_machine({}), options).not_checked[0]
