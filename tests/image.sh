#!/usr/bin/env bash
# Builds the image of the Dockerfile and tries it as it is meant to run: read-only, without rights, as its own user.
# Neither a container engine nor an image registry is needed: stand-ins for the two base images are made under their
# names, a minimal Debian by debootstrap and, on it, this machine's Rust toolchain; buildah then builds the Dockerfile
# itself. Needs root on Debian, some 6 GB in ${IMAGE_DIR:-target/image}, and the time of a release build.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${IMAGE_DIR:-$here/target/image}
image=localhost/mcp-gateway:test

say() { printf '== %s\n' "$*"; }
fail() { printf 'image.sh: %s\n' "$*" >&2; exit 1; }

[[ $EUID -eq 0 ]] || fail "needs root: debootstrap and chroot do"
missing=()
for tool in debootstrap buildah curl jq; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if ((${#missing[@]})); then
  command -v apt-get >/dev/null || fail "missing: ${missing[*]}"
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

mkdir -p "$work/tmp"
# In a store of its own: whatever images this machine has stay as they are.
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot TMPDIR=$work/tmp
buildah() { nice -n 10 /usr/bin/buildah --root "$work/storage" --runroot "$work/run" "$@"; }
has() { buildah inspect --type image "$1" >/dev/null 2>&1; }

mapfile -t bases < <(sed -n 's/^FROM \([^ ]*\).*/\1/p' "$here/Dockerfile")
[[ ${#bases[@]} -eq 2 && ${bases[0]} == rust:*-slim-bookworm && ${bases[1]} == debian:*-slim ]] ||
  fail "unknown base images: ${bases[*]}"
rust=docker.io/library/${bases[0]} debian=docker.io/library/${bases[1]}

# Makes an image of a container that was prepared.
commit() { buildah commit -q --rm "$1" "$2" >/dev/null; }

make_debian() {
  say "stand-in for ${bases[1]}"
  local root=$work/bookworm container
  [[ -e $root/etc/debian_version ]] || {
    rm -rf "$root.part"
    debootstrap --variant=minbase bookworm "$root.part" http://deb.debian.org/debian >"$work/debootstrap.log"
    rm -rf "$root.part"/var/cache/apt/archives/*.deb "$root.part"/var/lib/apt/lists/*
    mv "$root.part" "$root"
  }
  container=$(buildah from scratch)
  buildah copy -q "$container" "$root" / >/dev/null
  buildah config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  commit "$container" "$debian"
}

make_rust() {
  say "stand-in for ${bases[0]}: $(rustc --version)"
  local container sysroot
  [[ ${bases[0]} == "rust:$(rustc --version | cut -d' ' -f2)-"* ]] || fail "this machine has another Rust than ${bases[0]}"
  sysroot=$(rustc --print sysroot)
  container=$(buildah from --pull-never "$debian")
  # What the official image holds beside the toolchain.
  buildah run "$container" -- sh -c 'apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates gcc libc6-dev' \
    >"$work/rust.log" 2>&1 || fail "see $work/rust.log"
  for dir in bin lib; do buildah copy -q "$container" "$sysroot/$dir" "/usr/local/rust/$dir" >/dev/null; done
  # The registries as this machine knows them.
  buildah copy -q "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt >/dev/null
  local home=${CARGO_HOME:-$HOME/.cargo}
  for config in "$home/config.toml" "$home/config"; do
    [[ ! -e $config ]] || buildah copy -q "$container" "$config" /usr/local/cargo/config.toml >/dev/null
  done
  buildah config --env CARGO_HOME=/usr/local/cargo --env PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  commit "$container" "$rust"
}

has "$debian" || make_debian
has "$rust" || make_rust

say "buildah bud --pull-never"
buildah bud --pull-never --format docker -t "$image" "$here" 2>&1 | tee "$work/build.log" |
  grep --line-buffered -E '^(STEP|COMMIT|    Finished|error)|Compiling mcp-gateway' || fail "see $work/build.log"
has "$image" || fail "not built; see $work/build.log"

say "what the image says of itself"
config=$(buildah inspect --type image "$image" | jq .Docker.config)
jq -c '{User, Healthcheck, StopSignal, Volumes, Entrypoint, ExposedPorts}' <<<"$config"
user=$(jq -r .User <<<"$config")
[[ $user =~ ^[1-9][0-9]*:[1-9][0-9]*$ ]] || fail "USER $user is not a number other than root's"
jq -e '.Healthcheck.Test | index("health")' >/dev/null <<<"$config" || fail "no HEALTHCHECK"

container=$(buildah from --pull-never "$image")
root=$(buildah mount "$container")
trap 'buildah rm "$container" >/dev/null' EXIT
state=$(stat -c '%u:%g %a' "$root/var/lib/mcp-gateway")
[[ $state == "$user 700" ]] || fail "/var/lib/mcp-gateway is $state: no place for a secret"
echo "size: $(du -sm "$root" | cut -f1) MB, of it the binary $(du -sm "$root/usr/local/bin/mcp-gateway" | cut -f1) MB"

say "the image as user $user, read-only, without capabilities, in a network of its own"
ROOT=$root IMAGE_USER=$user unshare --mount --net --pid --fork --kill-child --mount-proc bash -euo pipefail "$here/tests/image_try.sh"
