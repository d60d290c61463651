# Two images of densemble: --target cpu, or --target cuda for machines with an NVIDIA driver. See docs/how-to/docker.md.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    DENSEMBLE_CACHE_DIR=/cache/densemble \
    TORCH_HOME=/cache/torch \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --create-home --uid 1000 densemble \
    && mkdir --mode 1777 /cache /work \
    && chown densemble /cache /work
COPY constraints.txt /constraints.txt

FROM base AS cpu
# Package index with builds of torch and torchvision for the CPU. The default index has builds with CUDA for x86-64.
ARG TORCH_INDEX=""
# Extras of densemble to install, such as "onnx,openvino".
ARG EXTRAS=""
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --constraint /constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
        torch torchvision \
    && pip install --no-cache-dir --constraint /constraints.txt "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}"
USER 1000
WORKDIR /work
ENTRYPOINT ["densemble"]
CMD ["--help"]

FROM base AS cuda
# The wheels of torch contain the CUDA libraries; the driver comes from the host (docker run --gpus all).
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG EXTRAS=""
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --constraint /constraints.txt "$(echo /wheels/*.whl)${EXTRAS:+[$EXTRAS]}"
USER 1000
WORKDIR /work
ENTRYPOINT ["densemble"]
CMD ["--help"]
