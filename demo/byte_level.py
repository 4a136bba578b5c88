"""The alphabet of byte-level tokenizers."""


def byte_alphabet() -> list[str]:
    """Return the characters for bytes 0..255 in byte-level tokenizers (`bytes_to_unicode` of GPT-2)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    shifted = iter(range(256, 512))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]
