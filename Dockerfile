# The command `thresher` with what `make demo` needs, at the versions of the lock:
#
#   docker build --tag thresher .
#   docker run --rm --volume "$PWD:/work" thresher prune MODEL --sparsity 0.5 --out small
#
# The registry's PyTorch for Linux is a CUDA build. Pass an index of CPU builds for a third of the
# size: --build-arg TORCH_INDEX=ADDRESS.
FROM python:3.11-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake g++ ninja-build \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
# OpenMP's runtime, which the kernels are linked with.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*
COPY requirements/demo.txt requirements/torch.txt /requirements/
RUN pip install --no-cache-dir --no-deps --require-hashes --requirement /requirements/demo.txt
ARG TORCH_INDEX
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
      --constraint /requirements/torch.txt torch
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/*.whl && rm -r /wheels
WORKDIR /work
ENTRYPOINT ["thresher"]
CMD ["--help"]
