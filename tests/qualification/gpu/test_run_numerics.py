"""The job that compares random checkpoints with the reference on GPUs."""

import json
from types import SimpleNamespace

import numpy as np

from dsv4_serve.demo.numerics import golden
from qualification.gpu import run_numerics


def test_a_job_says_layout_ranks_and_graphs():
    layout, options = run_numerics.arguments("native@2+ep+graphs")
    assert (layout, options["tensor_parallel_size"], options["enable_expert_parallel"]) == ("native", 2, True)
    assert options["enforce_eager"] is False
    assert run_numerics.arguments("pro")[1]["enforce_eager"] is True


def test_figures_are_kept_and_a_failed_engine_is_told(tmp_path, monkeypatch):
    shipped = golden.load("tiny")
    table = shipped.tables["short"]

    def engine(command, **_):
        rows = np.full((len(table.margin), 128), np.nan, np.float32)
        np.put_along_axis(rows, table.tokens.astype(int), table.logprobs.astype(np.float32), axis=1)
        np.savez(command[3], short=rows)
        return SimpleNamespace(returncode=0)

    (tmp_path / "numerics-native").mkdir()
    (tmp_path / "numerics-native" / "config.json").touch()
    monkeypatch.setattr(run_numerics.subprocess, "run", engine)
    found = run_numerics.measured("native", tmp_path, tmp_path, shipped)
    assert found["figures"]["short median"] == 0
    assert json.dumps(found)
    monkeypatch.setattr(run_numerics.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    assert run_numerics.measured("native", tmp_path, tmp_path, shipped).keys() == {"seconds", "status"}
