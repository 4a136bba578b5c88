"""Run replicas as containers through the API of Docker or podman, as docker-compose.yml does with compose."""
