#!/bin/sh
# program.sh gpu|cpu: add our programs to /opt/dsv4, patch vLLM, verify it, and describe the result in /usr/share/dsv4.
set -eu
target=$1
facts=/usr/share/dsv4
work=/tmp/dsv4-serve # no random name: pip writes it into direct_url.json
mkdir $work $facts

cp -r /src "$work/src" # setuptools writes next to what it builds
install() {
    /tools/bin/pip --python /opt/dsv4/bin/python --disable-pip-version-check install --quiet --no-deps --no-compile \
        --no-build-isolation --no-index "$@"
}
install "$work/src"
if [ "$target" = cpu ]; then
    series=0.32.0-cpu
    install "$work/src/packaging/vllm"
    /opt/dsv4/bin/python -c "import pathlib; from dsv4_serve.demo.llama import write_checkpoint as w; w(pathlib.Path('$facts/demo'))"
else
    series=0.32.0
fi

# The build fails here if vLLM has drifted from the patches.
for step in lint apply verify; do
    /opt/dsv4/bin/dsv4 patch $step --series $series
done
/opt/dsv4/bin/dsv4 patch report --series $series --out "$work/patches.json"

site=$(/opt/dsv4/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
sh /src/deploy/image/bytecode.sh "$site/vllm" "$site/dsv4_serve"

# Kernel packs that every start looks at. A broken one fails the build; one of another key stays unused.
for pack in /kernels/*.tar.xz; do
    [ -f "$pack" ] || continue
    /opt/dsv4/bin/dsv4 kernels verify "$pack"
    mkdir -p $facts/kernels
    cp "$pack" $facts/kernels/
    chmod 644 "$facts/kernels/${pack##*/}"
done

/tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file "$work/sbom.json" /opt/dsv4/bin/python
/opt/dsv4/bin/python /src/tools/image/describe.py "$target" "$work/patches.json" "$work/sbom.json" $facts
rm -rf $work
