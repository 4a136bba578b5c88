import argparse

from tools.describe_vllm import flag_facts


class EnableOrDisable(argparse.BooleanOptionalAction):
    """As vLLM 0.33 makes its switches: --disable-x beside --enable-x, and the other way around."""

    def __init__(self, option_strings, dest, **options):
        super().__init__(option_strings, dest, **options)
        words = ("enable", "disable") if option_strings[0].startswith("--enable-") else ("disable", "enable")
        self.inverse = option_strings[0].replace(*words, 1)
        self.option_strings = [option_strings[0], self.inverse, *option_strings[1:]]

    def __call__(self, parser, namespace, values, option_string=None):
        assert option_string
        setattr(namespace, self.dest, option_string != self.inverse and not option_string.startswith("--no-"))


def facts(*options, **settings):
    return flag_facts(argparse.ArgumentParser().add_argument(*options, **settings), {})


def test_a_spelling_that_switches_off_is_no_alias():
    for action in (argparse.BooleanOptionalAction, EnableOrDisable):
        for flag in ("--enable-lora", "--disable-custom-all-reduce"):
            assert facts(flag, action=action) == {"type": "bool", "negatable": True}
            assert facts(flag, "-x", action=action) == {"type": "bool", "negatable": True, "aliases": ["-x"]}


def test_a_name_that_begins_with_no_is_an_alias_where_it_takes_a_value():
    assert facts("--depth", "--no-limit", type=int) == {"type": "int", "aliases": ["no-limit"]}
    assert facts("--quiet", "--no-noise", action="store_true") == {"type": "bool"}
