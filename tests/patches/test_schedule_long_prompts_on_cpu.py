"""How the CPU platform raises the tokens of a step: from the tree with the series for CPUs, and without."""

import textwrap
from types import SimpleNamespace

from dsv4_serve.demo.patched import installed, patched_vllm

BEGIN, END = (
    "        if (\n            model_config is not None\n            and model_config.use_mla\n",
    "    @classmethod\n",
)


def scheduled(package, *, drafts):
    """Run the end of `check_and_update_config` on a machine without AMX; return the tokens of a step, twice."""
    source = (package / "platforms/cpu.py").read_text()
    code = source[source.index(BEGIN) :]
    scheduler = SimpleNamespace(
        max_num_batched_tokens=512,
        max_num_scheduled_tokens=512 if drafts else None,
        DEFAULT_MAX_NUM_BATCHED_TOKENS=2048,
    )
    model = SimpleNamespace(use_mla=True, max_model_len=4096)
    config = SimpleNamespace(
        scheduler_config=scheduler,
        model_config=model,
        cache_config=SimpleNamespace(),
        speculative_config=object() if drafts else None,
    )
    names = {
        "vllm_config": config,
        "model_config": model,
        "amx_mla_or_dsv4_enabled": False,
        "logger": SimpleNamespace(info_once=lambda *_: None),
    }
    exec(textwrap.dedent(code[: code.index(END)]), names)
    return scheduler.max_num_batched_tokens, scheduler.max_num_scheduled_tokens


def test_a_prompt_that_fits_a_step_is_scheduled(tmp_path):
    package = patched_vllm(tmp_path) / "vllm"
    assert scheduled(package, drafts=True) == (4096, 4096)
    assert scheduled(package, drafts=False) == (4096, None)


def test_without_the_patch_the_scheduler_keeps_the_lower_limit():
    assert scheduled(installed(), drafts=True) == (4096, 512)
