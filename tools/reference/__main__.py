"""Write the pages, and print those that changed."""

from __future__ import annotations

from tools.reference import write

if __name__ == "__main__":
    for path in write():
        print(path)
