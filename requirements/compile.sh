#!/bin/sh
# Rewrites the hash-locked requirement files from pyproject.toml. Needs uv (pip install uv).
set -eu
cd "$(dirname "$0")/.."
lock() { uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet "$@"; }
lock --extra worker --extra outbox -o requirements/worker.txt
lock --extra worker --extra outbox --extra dev -c requirements/worker.txt -o requirements/dev.txt
lock -o requirements/producer.txt
