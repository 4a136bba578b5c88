"""Replicas as containers, through Docker's API or podman's: what docker-compose.yml starts, without compose."""
