#!/bin/sh
# Give the CUDA toolkit of the Python packages the form of an installed one, at /usr/local/cuda.
set -eu
toolkit=$(echo /opt/dsv4/lib/python3.*/site-packages/nvidia/cu13)

if [ -e /usr/local/cuda ]; then # the base image has one
    exit 0
fi
ln -s lib "$toolkit/lib64"
for library in "$toolkit"/lib/lib*.so.*; do # what -lNAME asks for
    plain=${library%.so.*}.so
    [ -e "$plain" ] || ln -s "${library##*/}" "$plain"
done
# -lcuda, where no driver is: kernels are linked against the name, and the host's driver is mounted under it.
mkdir "$toolkit/lib/stubs"
gcc -shared -x c /dev/null -Wl,-soname,libcuda.so.1 -o "$toolkit/lib/stubs/libcuda.so"
ln -s "$toolkit" /usr/local/cuda

# Where programs that were linked against -lcudart look for it.
echo /usr/local/cuda/lib64 >/etc/ld.so.conf.d/dsv4-cuda.conf
ldconfig
rm -f /var/cache/ldconfig/aux-cache
