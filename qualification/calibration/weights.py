"""
What vLLM's own modules hold in weights for each published artifact, at full size, on a machine without a GPU.

    python -m qualification.calibration.weights [ARTIFACT …]

Prints JSON: {artifact: {"gib": over all GPUs, "everywhere_gib": the part that every GPU holds}}. Embedding and output
head are counted once, as the draft head shares them. Parameters and rotary tables are counted; what a kernel repacks or
pads is not. `nvfp4` needs the patch series: without it vLLM 0.32.0 builds its experts unquantized.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from dsv4_serve.demo.v4_layouts import config
from qualification.calibration import planner

GIB = 1 << 30
ARTIFACTS = {
    # artifact: layout, target model, whether its draft head is BF16
    "flash": ("native", "flash", False),
    "acti": ("acti", "flash", False),
    "w4a16": ("w4a16", "flash", True),
    "nvfp4": ("nvfp4", "flash", True),
    "pro-nvfp4": ("pro", "pro", False),
}
SHARED = ("VocabParallelEmbedding", "ParallelLMHead")
REPLICATED = ("ReplicatedLinear", "GateLinear", "DeepseekV4DecoderLayer", "DeepseekCompressor", "RMSNorm")


def own(module: Any) -> int:
    """Bytes of a module's own parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters(recurse=False))


def held(artifact: str) -> tuple[float, float]:
    """GiB over all GPUs, and GiB that every GPU holds."""
    layout, target, bf16_draft = ARTIFACTS[artifact]
    published: dict[str, Any] = config(layout, planner.TARGETS[target]) | {"vocab_size": planner.VOCABULARY}
    if bf16_draft:
        draft_layer = len(planner.TARGETS[target].ratios)
        published["quantization_config"]["ignore"].append(rf"re:(model\.)?layers\.{draft_layer}\..*")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(published))
        made = planner.cuda_model.on_cuda(
            planner.cuda_model.engine_config(Path(folder), skip_tokenizer_init=True, load_format="dummy")
        )
        target, draft = planner.build(made, mtp=True)
    modules = [*target.modules(), *(m for m in draft.modules() if type(m).__name__ not in SHARED)]
    tables = {id(b): b for m in (target, draft) for name, b in m.named_buffers() if name.endswith("cos_sin_cache")}
    rotary = sum(b.numel() * b.element_size() for b in tables.values())
    everywhere = sum(own(m) for m in modules if type(m).__name__ in REPLICATED or getattr(m, "disable_tp", False))
    return (sum(map(own, modules)) + rotary) / GIB, (everywhere + rotary) / GIB


def main() -> None:
    """Answer for the named artifacts, or for all."""
    planner.cuda_model.prepare()
    torch.set_default_dtype(torch.bfloat16)
    sizes = {artifact: held(artifact) for artifact in sys.argv[1:] or ARTIFACTS}
    json.dump(
        {name: {"gib": total, "everywhere_gib": everywhere} for name, (total, everywhere) in sizes.items()},
        sys.stdout,
        indent=1,
    )


if __name__ == "__main__":
    main()
