"""What a description of a replica says of its machine."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4_serve.entrypoint import replica_description


@pytest.mark.parametrize(
    ("machine", "named"),
    [
        ({"gpus": [{"name": "H200"}, {"name": "B300"}, {"name": "H200"}]}, ["2 x H200", "1 x B300"]),
        ({"gpus": []}, []),
        ({"gpus": None}, []),
        ({"cpu": "c"}, []),
    ],
)
def test_gpus_are_counted_by_name(machine: dict[str, Any], named: list[str]) -> None:
    assert replica_description.gpus(machine) == named
