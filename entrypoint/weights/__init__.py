"""Weights from the Hub: the manifest, the download, and verifying it."""
