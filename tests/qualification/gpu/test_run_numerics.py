"""The job that compares random checkpoints with the reference on GPUs."""

import json
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from dsv4_serve.demo.numerics import golden
from qualification.gpu import run_numerics, this_host


def test_a_job_says_layout_ranks_and_graphs():
    layout, options = run_numerics.arguments("native@2+ep+graphs")
    assert (layout, options["tensor_parallel_size"], options["enable_expert_parallel"]) == ("native", 2, True)
    assert options["enforce_eager"] is False
    assert run_numerics.arguments("pro")[1]["enforce_eager"] is True
    with pytest.raises(SystemExit, match="expected LAYOUT"):
        run_numerics.arguments("natve")


def served(tmp_path, monkeypatch, jobs, *, status=0, seconds=600.0):
    """Run jobs with an engine that answers as the reference does; return lines of the record, and where each ran."""
    shipped, places = golden.load("tiny"), {}
    table = shipped.tables["short"]

    def engine(command, stdout, env, **_):
        places[command[3].stem] = env["CUDA_VISIBLE_DEVICES"]
        stdout.write("Using 'X' MoE backend\nValueError: it is broken\n")
        rows = np.full((len(table.margin), 128), np.nan, np.float32)
        np.put_along_axis(rows, table.tokens.astype(int), table.logprobs.astype(np.float32), axis=1)
        np.savez(command[3], short=rows)
        return SimpleNamespace(returncode=status)

    monkeypatch.setattr(run_numerics.subprocess, "run", engine)
    monkeypatch.setattr(this_host, "hardware", lambda: ("cpu", "no GPU"))
    monkeypatch.setattr(run_numerics.checkpoint, "write", lambda folder, *_: folder.mkdir())
    place = run_numerics.Place(tmp_path, tmp_path, shipped, "tiny", time.monotonic() + seconds, {"hardware": "x"})
    run_numerics.run(place, jobs, ["4", "7"], 2)
    return [json.loads(line) for line in (tmp_path / "numerics.jsonl").read_text().splitlines()], places


def test_figures_and_answers_are_kept_and_a_job_of_two_ranks_has_both_gpus(tmp_path, monkeypatch):
    lines, places = served(tmp_path, monkeypatch, ["native", "native@2", "acti"])
    assert {one["job"]: one["figures"]["short median"] for one in lines} == {"native": 0, "native@2": 0, "acti": 0}
    assert places["native@2"] == "4,7"
    assert [one["file"] for one in lines if one["job"] == "native@2"] == ["native-cpu-tp2-vllm.json"]
    assert {places["native"], places["acti"]} <= {"4", "7"}
    assert all(one["hardware"] == "x" for one in lines)
    with zipfile.ZipFile(tmp_path / "numerics.zip") as kept:
        assert {"native.npz", "native@2.npz", "acti.log"} <= {*kept.namelist()}


def test_a_failed_engine_is_told_with_its_error(tmp_path, monkeypatch):
    lines, _ = served(tmp_path, monkeypatch, ["native"], status=1)
    assert (lines[0]["result"], lines[0]["message"]) == ("failed", "ValueError: it is broken")


def test_no_job_begins_when_the_time_is_over(tmp_path, monkeypatch):
    lines, places = served(tmp_path, monkeypatch, ["native"], seconds=1.0)
    assert lines[0]["result"] == "skipped"
    assert not places
