import pytest

from dsv4_serve.demo.question import MeasuredAnswer


@pytest.mark.parametrize(("drafted", "accepted", "share"), [(105, 98, 98 / 105), (0, 0, 0.0)])
def test_acceptance_is_accepted_by_drafted(drafted, accepted, share):
    assert MeasuredAnswer("", "", 161, 0.5, drafted, accepted).acceptance == share
