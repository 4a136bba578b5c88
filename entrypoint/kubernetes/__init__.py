"""Make overlays over the shipped Kubernetes manifests."""
