# The server on CPU: no torch, no compiler. Build from the repository's root:
#   docker build -f docker/serve.Dockerfile -t playbill-serve .
# Run:  docker run --shm-size=2g -p 127.0.0.1:8000:8000 -v playbill-var:/var/lib/playbill playbill-serve
FROM python:3.11.13-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/playbill

COPY docker/lock-serve.txt docker/
RUN pip install --no-deps -r docker/lock-serve.txt

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
# Inside the container it listens on every address, so it does not start before there is an API key: run the image once with
#   playbill keys add name=shop 'scopes=[recommend,events]' home=/var/lib/playbill
# It speaks no TLS: publish the port on loopback, or behind what does.
CMD ["playbill", "serve", "home=/var/lib/playbill", "host=0.0.0.0", "port=8000"]
