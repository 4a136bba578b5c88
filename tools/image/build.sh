#!/bin/sh
# build.sh [gpu|cpu] [ARGUMENT...]: build the image reproducibly (the same commit gives the same bytes), and print its id.
#
# Docker builds it if there is a docker, else buildah. Further arguments are passed to the builder, as in
#   tools/image/build.sh gpu --build-arg BASE_GPU=… --secret id=pip,src=pip.conf --no-cache
# IMAGE names the image (default: dsv4-serve for gpu, dsv4-serve:cpu for cpu).
set -eu
cd "$(dirname "$0")/../.."

target=gpu
case ${1:-} in gpu | cpu) target=$1 && shift ;; esac
case $target in gpu) name=dsv4-serve:latest ;; cpu) name=dsv4-serve:cpu ;; esac
name=${IMAGE:-$name}

# The commit names the source; uncommitted changes add -dirty.
commit=$(git rev-parse HEAD)
[ -z "$(git --no-optional-locks status --porcelain)" ] || commit=$commit-dirty
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
set -- --target "$target" --build-arg COMMIT="$commit" --build-arg SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" --tag "$name" "$@"

id=$(mktemp)
trap 'rm -f "$id"' EXIT
if docker buildx version >/dev/null 2>&1; then
    docker buildx build --output type=docker,rewrite-timestamp=true --iidfile "$id" "$@" .
elif command -v buildah >/dev/null; then # --format docker: the OCI format has no HEALTHCHECK
    buildah build --format docker --layers --timestamp "$SOURCE_DATE_EPOCH" --iidfile "$id" "$@" .
else
    echo >&2 "error: neither \`docker buildx\` nor \`buildah\` is available; install one of them."
    exit 1
fi
echo "$name $(cat "$id")"
