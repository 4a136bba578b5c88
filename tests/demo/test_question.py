import pytest

from dsv4_serve.demo.question import ACCEPTED, DRAFTED, Answer, counter

METRICS = f"""\
# HELP {DRAFTED} Number of draft tokens.
# TYPE {DRAFTED} counter
{DRAFTED}{{engine="0",model_name="demo"}} 105.0
{DRAFTED}{{engine="1",model_name="demo"}} 1.05e+02
{DRAFTED.replace("_total", "_created")}{{engine="0",model_name="demo"}} 1.7e+09
"""


def test_a_counter_is_summed_over_its_labels():
    assert counter(METRICS, DRAFTED) == 210


def test_a_counter_that_is_absent_is_zero():
    assert counter(METRICS, ACCEPTED) == 0


@pytest.mark.parametrize(("drafted", "accepted", "share"), [(105, 98, 98 / 105), (0, 0, 0.0)])
def test_acceptance_is_accepted_by_drafted(drafted, accepted, share):
    assert Answer("", 161, 0.5, drafted, accepted).acceptance == share
