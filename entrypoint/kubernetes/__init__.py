"""`dsv4 manifests`: an overlay over the shipped manifests for Kubernetes."""
