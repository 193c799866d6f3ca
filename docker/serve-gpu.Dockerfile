# Rankers with an NVIDIA GPU (CUDA 13), for `playbill serve layout=composed ranker.gpus=1` and for the pods that
# `playbill serve emit=kuberay` asks for: no torch, no compiler. Build from the repository's root:
#   docker build -f docker/serve-gpu.Dockerfile -t playbill-serve-gpu .
FROM python:3.11.13-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/playbill

# the CUDA libraries come as packages with ONNX Runtime: no CUDA base image is needed, only the host's driver
COPY docker/lock-serve-gpu.txt docker/
RUN pip install --no-deps -r docker/lock-serve-gpu.txt

COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY conf conf
COPY training training
COPY serving serving
RUN pip install --no-deps .

RUN useradd --create-home --uid 10001 playbill && install -d -o playbill /var/lib/playbill
USER 10001
WORKDIR /var/lib/playbill
VOLUME /var/lib/playbill
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v1/health', timeout=2)"]
# As the image of the server: it needs an API key first, and speaks no TLS. A cluster's pods start Ray instead.
CMD ["playbill", "serve", "home=/var/lib/playbill", "host=0.0.0.0", "port=8000", "layout=composed", "ranker.gpus=1", "require_gpu=true"]
