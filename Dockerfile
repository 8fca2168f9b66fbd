# The toolkit on the processor, with the embedded model. To see the commands:
#   docker build --tag hbi . && docker run --rm hbi
# The demo's first search:
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
RUN pip install --no-cache-dir ".[cpu]" && rm -rf /src/*
RUN useradd --create-home --uid 1000 hbi
USER 1000
WORKDIR /home/hbi
CMD ["hbi-infer", "--help"]
