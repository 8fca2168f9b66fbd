# The service on the processor, with the embedded model.
#   docker build --tag hbi .
#   docker run --rm --publish 127.0.0.1:8000:8000 --volume "$HOME/Videos:/videos:ro" --volume hbi-index:/index hbi
# Its token is shown once. Commands run too:
#   docker run --rm --volume "$PWD/samples:/videos:ro" hbi \
#     hbi-infer retrieve --videos /videos --query "a small red circle moves left and then a blue square blinks"
FROM python:3.11-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY hbi_infer hbi_infer
COPY engines engines
COPY training training
COPY export export
# What is installed is this folder, so there is no version to pin.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[cpu,serve]" && rm -rf /src/*
RUN useradd --create-home --uid 1000 hbi && install --directory --owner=1000 --group=1000 --mode=700 /index
# Indexes and models; videos are mounted read-only at /videos.
ENV XDG_CACHE_HOME=/index XDG_DATA_HOME=/index PYTHONDONTWRITEBYTECODE=1
VOLUME ["/index"]
USER 1000
WORKDIR /home/hbi
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "from http.client import HTTPConnection as H; c = H('127.0.0.1', 8000, timeout=4); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["hbi-infer", "serve", "--videos", "/videos", "--host", "0.0.0.0"]
