"""Weights from the Hub: listing, downloading and verifying them."""
