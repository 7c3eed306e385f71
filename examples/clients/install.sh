#!/bin/sh
# Install the clients that the gateway itself does not need, each in its own folder below .cache/clients.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p .cache/clients/node
for client in langchain-openai litellm; do
    python3 -m venv ".cache/clients/$client"
    ".cache/clients/$client/bin/python" -m pip install --quiet --disable-pip-version-check "$client"
done
if command -v npm >/dev/null; then
    cd .cache/clients/node
    npm install --silent --no-audit --no-fund openai
fi
