"""Kernel packs: what the cache of a warmed host holds, as one archive for hosts that have nothing yet."""
