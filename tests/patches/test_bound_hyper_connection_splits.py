"""How many kernels the hyper connections of DeepSeek-V4 are built as: one for each number of splits."""

FILE = "model_executor/kernels/mhc/tilelang_kernels.py"
HIDDEN = {"Flash": 4096, "Pro": 7168}
STREAMS = 4
SMS = {"H200": 132, "RTX PRO 6000": 188, "B300": 148}
STEP = 64  # tokens between which the number may change


def chosen(sms, inputs):
    """The numbers of splits for every step of up to 8,192 tokens. TileLang is not there on CPUs, so it is not imported."""
    import ast
    import types
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("vllm")
    assert spec
    assert spec.origin
    module = ast.parse((Path(spec.origin).parent / FILE).read_text())
    found = next(node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "compute_num_split")
    found.decorator_list = []
    properties = types.SimpleNamespace(multi_processor_count=sms)
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(get_device_properties=lambda _: properties))
    names = {"torch": torch, "cdiv": lambda a, b: -(-a // b)}
    exec(compile(ast.Module([found], []), FILE, "exec"), names)
    return {names["compute_num_split"](64, inputs, -(-tokens // STEP)) for tokens in range(1, 8193, STEP)}


def check_four_numbers_of_splits_are_left_on_every_gpu():
    for gpu, sms in SMS.items():
        for model, hidden in HIDDEN.items():
            for inputs in (hidden, STREAMS * hidden):
                found = chosen(sms, inputs)
                assert found <= {1, 4, 16, 64}, f"{gpu}, {model}, {inputs} inputs: {len(found)} kernels"


def check_a_split_has_at_least_one_block_of_the_inputs():
    for sms in SMS.values():
        for hidden in HIDDEN.values():
            for inputs in (hidden, STREAMS * hidden):
                assert max(chosen(sms, inputs)) <= inputs // 64


def test_four_numbers_of_splits_are_left_on_every_gpu(needs_patch):
    needs_patch("check_four_numbers_of_splits_are_left_on_every_gpu", without="H200, Flash, 4096 inputs: 15 kernels")


def test_a_split_has_at_least_one_block_of_the_inputs(holds):
    holds("check_a_split_has_at_least_one_block_of_the_inputs")
