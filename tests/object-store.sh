#!/bin/sh
# Installs an object store that speaks S3 and has object locks (moto) for the tests of snapshots, in an environment of its
# own below target/.
set -eu
cd "$(dirname "$0")/.."
store=target/object-store
mkdir -p target
rm -rf "$store"
python3 -m venv "$store"
"$store/bin/pip" install --quiet --disable-pip-version-check --requirement tests/object-store.txt
