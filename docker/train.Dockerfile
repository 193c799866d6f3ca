# Training on NVIDIA GPUs (CUDA 13). Build from the repository's root:
#   docker build -f docker/train.Dockerfile -t playbill-train .
# Run:  docker run --gpus all --shm-size=8g -v playbill-var:/var/lib/playbill playbill-train playbill train model=two_tower
FROM python:3.11.13-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/playbill

# torch's own nvidia-* wheels carry the CUDA libraries: no CUDA base image is needed, only the host's driver
COPY docker/lock-cuda-train.txt docker/
RUN pip install --no-deps -r docker/lock-cuda-train.txt

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
CMD ["playbill", "doctor"]
