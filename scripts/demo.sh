#!/bin/sh
# From a fresh clone to an answer of a real model. Every step is instant where its work is done.
set -eu
cd "$(dirname "$0")/.."

scripts/bootstrap.sh
scripts/vendor.py
model=$(scripts/model.py smollm2)
scripts/build.py -- cargo build --release
shimmy="${CARGO_TARGET_DIR:-target}/release/shimmy"

prompt="Why is the sky blue? Answer in two sentences."
printf '\n> %s\n\n' "$prompt"
"$shimmy" generate "$model" --prompt "$prompt" --max-tokens 120 --temperature 0.3 --seed 1
cat <<END

Next:
  $shimmy serve
  curl -N http://127.0.0.1:11435/api/generate -H 'Content-Type: application/json' \\
       -d '{"model":"smollm2-135m-instruct","prompt":"Name three planets.","stream":true}'
END
