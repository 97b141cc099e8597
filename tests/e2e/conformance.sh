#!/usr/bin/env bash
# Runs the official MCP conformance suite against one server URL and leaves its per-check
# results in OUTDIR. Exits 0 when the suite ran to its end, whatever it judged: the judgement
# that counts is conformance_compare.py's, check by check against a direct run, because the
# suite exits 0 for several broken proxies.
#
#   conformance.sh URL SPEC_VERSION OUTDIR      e.g. http://127.0.0.1:8080/mcp/everything 2025-11-25 /tmp/out
set -euo pipefail

if (($# != 3)); then
  echo "usage: conformance.sh URL SPEC_VERSION OUTDIR" >&2
  exit 2
fi
url=$1 spec=$2 out=$3

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
parts=${MCP_PARTS_DIR:-$(cd "$here/../.." && pwd)/.parts}
suite=$parts/npm/node_modules/@modelcontextprotocol/conformance/dist/index.js

rm -rf "$out" # results of an earlier run would be compared as well
mkdir -p "$out"
status=0
timeout --kill-after=5 120 "$parts/bin/node" "$suite" \
  server --url "$url" --suite all --spec-version "$spec" -o "$out" >"$out/suite.log" 2>&1 || status=$?

# 1 is "some check failed"; anything else is a suite that did not run (124: out of time).
if ((status > 1)) || ! compgen -G "$out/server-*/checks.json" >/dev/null; then
  tail -n 20 "$out/suite.log" >&2
  echo "conformance.sh: the suite did not run (exit $status)" >&2
  exit 1
fi
