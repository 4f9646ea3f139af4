# docker build -t d2csr .                                 for CPUs
# docker build -t d2csr:cuda --build-arg DEVICE=cuda .    for NVIDIA GPUs
# docs/release.md shows how to run it.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON}-slim-bookworm
ARG DEVICE=cpu
ARG EXTRAS=app,export,tensorboard
ARG UID=1000
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# torch on PyPI contains CUDA, 3 GB more than the build for CPUs in PyTorch's own index.
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu
# Not pinned: the wheel states the lowest versions, and a base image of tomorrow shall get the fixes of tomorrow.
# hadolint ignore=DL3013
RUN case "$DEVICE" in \
      cpu) pip install --index-url "$CPU_INDEX" torch torchvision ;; \
      cuda) pip install torch torchvision ;; \
      *) echo "DEVICE=$DEVICE: must be cpu or cuda." >&2; exit 1 ;; \
    esac
COPY --from=build /dist /dist
RUN pip install "$(echo /dist/*.whl)[$EXTRAS]"
RUN useradd --create-home --uid "$UID" d2csr && install --directory --owner=d2csr /work
USER $UID
WORKDIR /work
EXPOSE 7860
CMD ["d2csr-train", "--help"]
