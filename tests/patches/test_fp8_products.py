# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
"""What is compiled beforehand are the products of all FP8 layers that vLLM's own modules have, in every layout."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from dsv4_serve.demo.v4_layouts import LAYOUTS
from dsv4_serve.entrypoint.bench import kernel_products, without_weights
from dsv4_serve.entrypoint.parallel import Parallel

FEW = {"ratios": (0, 4, 128), "experts": 16, "hash_layers": 1, "max_positions": 16_384}


def built(layout, sizes, shape):
    """Target model and drafter on one of so many GPUs; weights take no memory but with expert parallelism."""
    import torch
    from vllm.distributed import get_tp_group

    from tests.support import cuda_model

    cuda_model.prepare()
    folder = Path(tempfile.mkdtemp())
    without_weights.write(folder, "", layout, sizes)
    config = cuda_model.on_cuda(cuda_model.engine_config(folder))
    cuda_model.groups(config)
    parallel = config.parallel_config
    parallel.tensor_parallel_size, parallel.data_parallel_size = shape.tensor, shape.data
    parallel.enable_expert_parallel = shape.expert
    get_tp_group().world_size = shape.tensor
    try:
        with torch.device("cpu" if shape.expert else "meta"):  # "meta" cannot find this GPU's experts
            return cuda_model.build(config)
    finally:
        get_tp_group().world_size = 1


def shapes(model):
    """The products of the linear layers that are FP8: `n`, `k`, and how many at once."""
    import torch
    from vllm.model_executor.layers.linear import LinearBase

    layers: list[Any] = [one for one in model.modules() if isinstance(one, LinearBase)]
    found = set()
    for layer in (one for one in layers if one.weight.dtype == torch.float8_e4m3fn):
        (n, k), groups = layer.weight.shape, layer.bmm_batch_size if getattr(layer, "is_bmm", False) else 1
        found.add((n // groups, k, groups))
    return found


def few(architecture):
    return dataclasses.replace(without_weights.SIZES[architecture], **FEW)


def compared(layout, sizes, shape):
    target, draft = built(layout, sizes, shape)
    for drafts, found in ((False, shapes(target)), (True, shapes(target) | shapes(draft))):
        products = kernel_products.gemms(sizes, LAYOUTS[layout], shape, drafts=drafts)
        linear = [(one.n, one.k, one.groups) for one in products if one.kind != kernel_products.HYPER]
        assert sorted(linear) == sorted(found), f"{layout}, {sizes}, {shape}: {sorted(linear)}, {sorted(found)}"


def check_flash():
    for layout in LAYOUTS:
        for ways in (1, 2, 4, 8):
            compared(layout, few("deepseek-v4-flash"), Parallel(ways))


def check_pro():
    for layout in ("pro", "native", "flash-0731", "flash-0731-nvfp4"):
        for ways in (4, 16):
            compared(layout, few("deepseek-v4-pro"), Parallel(ways))


def check_shared_experts_are_whole_where_replicas_share_experts():
    from tests.support import cuda_model

    for shape in (Parallel(2, expert=True), Parallel(2, data=2), Parallel(2, data=2, expert=True)):
        compared("native", cuda_model.SMALL, shape)


def test_flash(holds):
    holds("check_flash")


def test_pro(holds):
    holds("check_pro")


def test_shared_experts_are_whole_where_replicas_share_experts(holds):
    holds("check_shared_experts_are_whole_where_replicas_share_experts")
