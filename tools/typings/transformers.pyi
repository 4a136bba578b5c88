# pyright reads this in place of Transformers.
from typing import Any

def __getattr__(name: str) -> Any: ...
