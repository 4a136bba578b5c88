#!/bin/sh
# packages.sh LOCK...: install the packages of lock files in requirements/ into the virtual environment /opt/dsv4.
set -eu

[ -e /opt/dsv4 ] || python3 -m venv --without-pip /opt/dsv4

install() { # an index is tried twice at most, so that a machine with its own wheels continues
    /tools/bin/pip --python /opt/dsv4/bin/python --disable-pip-version-check install --quiet --no-deps --no-compile \
        --require-hashes --only-binary :all: --retries 1 --timeout 20 --find-links /wheels "$@"
}
for lock in "$@"; do
    case $lock in
    torch.txt) install --extra-index-url "$TORCH_CPU_INDEX" -r /requirements/torch.txt ;;
    *) install -r "/requirements/$lock" ;;
    esac
done
if [ -n "${FLASHINFER_INDEX:-}" ]; then # the wheel is on FlashInfer's own index only, and so is its hash
    : "${FLASHINFER_CUBIN_SHA256:?names the SHA-256 of the wheel flashinfer-cubin 0.7.0.post1; pass it as a build argument}"
    echo "flashinfer-cubin==0.7.0.post1 --hash=sha256:$FLASHINFER_CUBIN_SHA256" >/tmp/cubin.txt
    install --index-url "$FLASHINFER_INDEX" -r /tmp/cubin.txt
    rm /tmp/cubin.txt
fi
