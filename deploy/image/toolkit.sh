#!/bin/sh
# toolkit.sh FOLDER: give the CUDA toolkit of the Python packages the form of an installed one, at /usr/local/cuda.
set -eu
toolkit=$1

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
