#!/bin/sh
# In its own stage: pip and the SBOM generator, in /tools. The image has neither.
set -eu

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
python3 -m venv /tools
/tools/bin/pip --disable-pip-version-check install --quiet --require-hashes --find-links /wheels -r /requirements/sbom.txt
