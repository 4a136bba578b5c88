#!/bin/sh
# Make the CUDA toolkit from the Python packages look like an installed one, at /usr/local/cuda.
set -eu
toolkit=$(echo /opt/dsv4/lib/python3.*/site-packages/nvidia/cu13)

if [ -e /usr/local/cuda ]; then # the base image has one
    exit 0
fi
ln -s lib "$toolkit/lib64"
for library in "$toolkit"/lib/lib*.so.*; do # the name that -lNAME searches for
    plain=${library%.so.*}.so
    [ -e "$plain" ] || ln -s "${library##*/}" "$plain"
done
# -lcuda without a driver: kernels are linked against the name, under which the host's driver is mounted.
mkdir "$toolkit/lib/stubs"
gcc -shared -x c /dev/null -Wl,-soname,libcuda.so.1 -o "$toolkit/lib/stubs/libcuda.so"
ln -s "$toolkit" /usr/local/cuda

# For programs that are linked against -lcudart.
echo /usr/local/cuda/lib64 >/etc/ld.so.conf.d/dsv4-cuda.conf
ldconfig
rm -f /var/cache/ldconfig/aux-cache
