"""How pytest-xdist hands out the tests of a run: by groups, as --dist loadgroup does, without counting what is done."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)  # also in a run without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Forget groups that are finished: xdist goes through all that a process ever had each time a test ends."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling  # not in a run without it

    class Groups(LoadGroupScheduling):
        def _assign_work_unit(self, node: Any) -> None:
            assigned = self.assigned_work.get(node, {})
            for name in [name for name, tests in assigned.items() if all(tests.values())]:
                del assigned[name]
            super()._assign_work_unit(node)

    return Groups(config, log)
