#!/bin/sh
# with-secrets COMMAND...: runs COMMAND with each file of /run/secrets as a variable of the file's name. Compose mounts
# secrets as files, but libpq, MLflow and Ray's Redis client read variables; Kubernetes sets these without our help.
set -eu
for file in "${SECRETS_FOLDER:-/run/secrets}"/*; do
    [ -f "$file" ] || continue
    name=${file##*/}
    value=$(cat "$file")
    export "$name=$value"
done
exec "$@"
