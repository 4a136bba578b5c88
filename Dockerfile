# Two images from one file:
#   docker build -t dsv4-serve .                       for NVIDIA GPUs
#   docker build -t dsv4-serve:cpu --target cpu .      the demo, on any x86-64 machine
# tools/image/build.sh adds what makes builds reproducible byte for byte. Arguments and secrets: docs/how-to/image.md.

# Pinned, because a tag moves; both digests are those of an official image's index, not of one platform. Ubuntu 24.04 brings
# CPython 3.12 and gcc 13; Debian 12 brings CPython 3.11, with which the demo is tested.
# No CUDA base: vLLM's own requirements bring CUDA 13.0 with nvcc, and a devel image would bring them a second time.
ARG BASE_GPU=docker.io/library/ubuntu:24.04@sha256:4fbb8e6a8395de5a7550b33509421a2bafbc0aab6c06ba2cef9ebffbc7092d90
ARG BASE_CPU=docker.io/library/debian:bookworm-slim@sha256:7b140f374b289a7c2befc338f42ebe6441b7ea838a042bbd5acbfca6ec875818

# Not compiled with the other packages: vLLM, which is patched first, and files of torch with Python 3.12 syntax.
ARG NOT_YET="/site-packages/vllm/|/py312_"

# A folder of wheels that take precedence over the index: --build-context wheels=DIR.
FROM scratch AS wheels

# A folder of kernel packs that a start imports: --build-context kernels=DIR.
FROM scratch AS kernels

# ---- What the running container needs from the distribution.
FROM ${BASE_GPU} AS system-gpu
RUN --mount=type=bind,source=deploy/image,target=/image sh /image/system.sh

FROM ${BASE_CPU} AS system-cpu
RUN --mount=type=bind,source=deploy/image,target=/image sh /image/system.sh

# ---- What only the build needs.
FROM system-gpu AS tools-gpu
RUN --mount=type=bind,source=deploy/image,target=/image \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca \
    sh /image/tools.sh

FROM system-cpu AS tools-cpu
RUN --mount=type=bind,source=deploy/image,target=/image \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca \
    sh /image/tools.sh

# ---- The images. torch with CUDA, vLLM, and our code are separate layers, so that updates of our code are small.
FROM system-cpu AS cpu
ARG NOT_YET
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,source=deploy/image,target=/image \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,from=tools-cpu,source=/tools,target=/tools \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca \
    sh /image/packages.sh torch.txt cpu.txt dsv4.txt && sh /image/bytecode.sh -x "${NOT_YET}" /opt/dsv4/lib
ARG COMMIT=unknown
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,target=/src \
    --mount=type=bind,from=tools-cpu,source=/tools,target=/tools \
    --mount=type=bind,from=kernels,target=/kernels \
    sh /src/deploy/image/program.sh cpu
LABEL org.opencontainers.image.title="dsv4-serve (CPU demo)" \
      org.opencontainers.image.description="dsv4-serve with vLLM 0.32.0 for CPU and a tiny model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${COMMIT}"
ENV PATH=/opt/dsv4/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/cache/dsv4 \
    USER=dsv4 \
    container=oci \
    PYTHONUNBUFFERED=1 \
    PROFILE=demo \
    MODEL=/usr/share/dsv4/demo
VOLUME /var/cache/dsv4
EXPOSE 8000 8001
USER 2000:0
# Liveness, not readiness: weights may load for half an hour, and a loading engine is not unhealthy. Balancers query /readyz.
# The start period covers the start of our own health server.
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s --retries=3 CMD ["dsv4", "probe", "live"]
ENTRYPOINT ["tini", "-s", "--", "dsv4"]
CMD ["serve"]

FROM system-gpu AS gpu
RUN --mount=type=bind,source=deploy/image,target=/image \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,from=tools-gpu,source=/tools,target=/tools \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca \
    sh /image/packages.sh cuda.txt && sh /image/toolkit.sh
ARG NOT_YET
ARG FLASHINFER_INDEX=
ARG FLASHINFER_CUBIN_SHA256=
RUN --mount=type=bind,source=deploy/image,target=/image \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,from=tools-gpu,source=/tools,target=/tools \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca \
    sh /image/packages.sh gpu.txt dsv4.txt && sh /image/bytecode.sh -x "${NOT_YET}" /opt/dsv4/lib
ARG COMMIT=unknown
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,target=/src \
    --mount=type=bind,from=tools-gpu,source=/tools,target=/tools \
    --mount=type=bind,from=kernels,target=/kernels \
    sh /src/deploy/image/program.sh gpu
LABEL org.opencontainers.image.title="dsv4-serve" \
      org.opencontainers.image.description="DeepSeek-V4 with its draft head on patched vLLM 0.32.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${COMMIT}"
ENV PATH=/opt/dsv4/bin:/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin \
    CUDA_HOME=/usr/local/cuda \
    HOME=/var/cache/dsv4 \
    USER=dsv4 \
    container=oci \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /var/cache/dsv4
EXPOSE 8000 8001
USER 2000:0
# As above.
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s --retries=3 CMD ["dsv4", "probe", "live"]
ENTRYPOINT ["tini", "-s", "--", "dsv4"]
CMD ["serve"]
