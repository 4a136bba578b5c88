# pyright reads this in place of PyTorch.
from typing import Any

def __getattr__(name: str) -> Any: ...
