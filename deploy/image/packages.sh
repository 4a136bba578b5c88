#!/bin/sh
# packages.sh gpu|cpu: make the virtual environment /opt/dsv4 with vLLM in it, from the hashed locks.
set -eu
target=$1
python=/opt/dsv4/bin/python

python3 -m venv --without-pip /opt/dsv4
install() { # an index is asked twice at most, so that a machine with wheels of its own goes on
    /tools/bin/pip --python $python --disable-pip-version-check install --quiet --no-deps --no-compile \
        --only-binary :all: --retries 1 --timeout 20 --find-links /wheels "$@"
}
if [ "$target" = cpu ]; then
    install --extra-index-url "$TORCH_CPU_INDEX" -r /requirements/torch.txt
elif [ -n "$FLASHINFER_INDEX" ]; then # unhashed: the wheel is on FlashInfer's own index only
    install --index-url "$FLASHINFER_INDEX" flashinfer-cubin==0.7.0.post1
fi
install --require-hashes -r "/requirements/$target.txt" -r /requirements/dsv4.txt

site=$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
[ "$target" = cpu ] || sh /image/toolkit.sh "$site/nvidia/cu13"

# vLLM itself is compiled after it was patched. py312_*: a file of torch in a syntax that Python 3.11 does not know.
sh /image/bytecode.sh -x '/site-packages/vllm/|/py312_' "$site"
