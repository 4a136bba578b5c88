#!/bin/sh
# packages.sh LOCK...: install the packages of lock files in requirements/ into the virtual environment /opt/dsv4.
set -eu

[ -e /opt/dsv4 ] || python3 -m venv --without-pip /opt/dsv4

install() { # an index is tried twice at most, so that a machine with its own wheels continues
    /tools/bin/pip --python /opt/dsv4/bin/python --disable-pip-version-check install --quiet --no-deps --no-compile \
        --only-binary :all: --retries 1 --timeout 20 --find-links /wheels "$@"
}
for lock in "$@"; do
    case $lock in
    torch.txt) install --extra-index-url "$TORCH_CPU_INDEX" -r /requirements/torch.txt ;; # unhashed, see there
    *) install --require-hashes -r "/requirements/$lock" ;;
    esac
done
if [ -n "${FLASHINFER_INDEX:-}" ]; then # unhashed: the wheel is on FlashInfer's own index only
    install --index-url "$FLASHINFER_INDEX" flashinfer-cubin==0.7.0.post1
fi
