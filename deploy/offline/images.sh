#!/bin/sh
# Build stand-ins for the base images from Debian's packages, under the same tags, for use without a registry.
# Needs root, docker, debootstrap and a Debian mirror. Reads the tags from the Dockerfile and compose.yaml.
set -eu
cd "$(dirname "$0")"
root=../..
suite=${SUITE:-trixie}
mirror=${MIRROR:-http://deb.debian.org/debian}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

tag() { sed -nE "s#^ *(image: |ARG PYTHON_IMAGE=)($1:[A-Za-z0-9._-]+).*#\\2#p" "$root/Dockerfile" "$root/compose.yaml" | head -n 1; }

if ! docker image inspect thinkmeter-offline/debian >/dev/null 2>&1; then
    debootstrap --variant=minbase "$suite" "$context/debian" "$mirror" >&2
    rm -rf "$context"/debian/var/cache/apt/archives/*.deb "$context"/debian/var/lib/apt/lists/*
    tar -C "$context/debian" -c . | docker import - thinkmeter-offline/debian >&2
    rm -rf "$context/debian"
fi
# A proxy in front of PyPI may have its own certificate, which this machine trusts.
cp "${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}" "$context/ca.crt"
cp Dockerfile "$context"
for image in python redis haproxy prom/prometheus; do
    name=$(tag "$image")
    [ -n "$name" ] || { echo "no $image in the Dockerfile or compose.yaml" >&2; exit 1; }
    docker build --quiet --network "${BUILD_NETWORK:-host}" --target "${image#*/}" --tag "$name" "$context" >&2
    echo "$name"
done
