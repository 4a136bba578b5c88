#!/bin/sh
# In the base image: what the running container needs from the distribution, the user, and the cache folder.
set -eu

# python3-dev, gcc and g++ compile kernels while vLLM runs (Triton, TileLang, FlashInfer, torch.compile); libnuma1 is for vLLM on CPU.
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    ca-certificates g++ gcc libc6-dev libnuma1 python3 python3-dev tini >/dev/null

# A real name for uid 2000, as in vLLM's own image; gid 0, so that a container with any uid can write what ours can.
echo 'dsv4:x:2000:0:dsv4-serve:/var/cache/dsv4:/usr/sbin/nologin' >>/etc/passwd
mkdir -m 1777 /var/cache/dsv4

# What differs between two runs of apt.
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/log/* /var/lib/dpkg/*-old
